"""The commands that read model files and compute nothing: models, pull, inspect, tokenize."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODEL = "smollm2-135m"


def test_models_lists_what_is_here_and_what_is_not(
    oneiros: Callable[..., Any], default_model_path: Path, tmp_path: Path
) -> None:
    models = {model["name"]: model for model in json.loads(oneiros("models", "--json").stdout)}
    assert models[MODEL]["path"] == str(default_model_path)
    assert models[MODEL]["bytes"] == 98_362_432
    line = next(line for line in oneiros("models").stdout.splitlines() if MODEL in line)
    assert "98.4 MB  yes" in line

    empty = oneiros("models", "--json", env={"ONEIROS_HOME": str(tmp_path)})
    assert all(model["path"] is None for model in json.loads(empty.stdout))


def test_pull_says_where_the_model_is(
    oneiros: Callable[..., Any], default_model_path: Path
) -> None:
    done = oneiros("pull", MODEL)
    assert done.returncode == 0
    assert str(default_model_path) in done.stdout


def test_pull_from_a_file(
    oneiros: Callable[..., Any], default_model_path: Path, tmp_path: Path
) -> None:
    home = {"ONEIROS_HOME": str(tmp_path)}
    done = oneiros("pull", MODEL, "--from", default_model_path, env=home)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout


def test_pull_refuses_unknown_names(refused: Callable[..., str]) -> None:
    assert "Did you mean" in refused("pull", "smollm2-135")


def test_inspect_tells_architecture_tensors_and_memory(
    oneiros: Callable[..., Any], default_model_path: Path
) -> None:
    found = json.loads(oneiros("inspect", MODEL, "--context", 1024, "--json", "--tensors").stdout)
    assert found["path"] == str(default_model_path)
    assert found["architecture"]["name"] == "llama"
    assert found["architecture"]["layers"] == 30
    assert found["file_bytes"] == default_model_path.stat().st_size
    assert len(found["tensors"]) == sum(total["tensors"] for total in found["types"]) == 272
    memory = found["memory"]
    assert memory["context"] == 1024
    # FP16 keys and values of 3 heads of 64 in 30 layers.
    assert memory["kv_cache"] == 1024 * 30 * 2 * 3 * 64 * 2
    assert memory["total"] == memory["weights"] + memory["kv_cache"] + memory["workspace"]

    text = oneiros("inspect", default_model_path, "--tensors").stdout
    assert "30 layers of width 576" in text
    assert "blk.29.ffn_down.weight" in text


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 100])
def test_inspect_refuses_what_is_no_model(
    refused: Callable[..., str], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert "model.gguf" in refused("inspect", path)


def test_tokenize_gives_ids_and_tokens(oneiros: Callable[..., Any]) -> None:
    done = oneiros("tokenize", MODEL, "strawberry\n")
    assert done.stdout == "302\tst\n1709\traw\n9500\tberry\n198\t\\n\n"
    tokens = json.loads(oneiros("tokenize", MODEL, "<|im_end|>", "--json").stdout)
    assert "".join(token["text"] for token in tokens) == "<|im_end|>"
    assert len(tokens) > 1  # text is never a control token


def test_tokenize_takes_a_file_or_standard_input(
    oneiros: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "text"
    path.write_text("straw", encoding="utf-8")
    for done in (
        oneiros("tokenize", MODEL, "--file", path),
        oneiros("tokenize", MODEL, stdin="straw\n"),
    ):
        assert done.stdout == "302\tst\n1709\traw\n"


def test_tokenize_refuses_what_it_cannot_express(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"caf\xe9")
    assert "offset 3" in refused("tokenize", MODEL, "--file", path)
    assert "U+0004" in refused("tokenize", MODEL, "a\x04")
    assert "not both" in refused("tokenize", MODEL, "a", "--file", path)
    assert "is a folder" in refused("tokenize", MODEL, "--file", tmp_path)
    assert "no such file" in refused("tokenize", MODEL, "--file", tmp_path / "missing")
