"""`oneiros train tokenizer`, as users run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oneiros.cli.train import COMMANDS
from oneiros.cli.train_extra import train_extra
from oneiros.errors import OneirosError


@pytest.mark.parametrize("name", COMMANDS)
def test_every_stage_has_help_with_an_example(oneiros: Callable[..., Any], name: str) -> None:
    done = oneiros("train", name, "--help", env={"COLUMNS": "200"})
    assert done.returncode == 0
    assert f"Example: oneiros train {name}" in done.stdout


def test_a_tokenizer_is_made_and_can_be_used(
    oneiros: Callable[..., Any], data_folder: Path, tmp_path: Path
) -> None:
    text = data_folder / "text" / "tinyshakespeare.txt"
    folder = tmp_path / "made" / "tokenizer"
    done = oneiros("train", "tokenizer", text, "--vocabulary", "512", "-o", folder, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["vocabulary"] == 512
    assert said["merges"] == 512 - 256 - len(said["special_tokens"])
    assert said["input_bytes"] == text.stat().st_size
    assert 1.5 < said["bytes_per_token"] < 3
    written = json.loads((folder / "tokenizer.json").read_text())
    assert len(written["model"]["merges"]) == said["merges"]
    again = oneiros("train", "tokenizer", text, "--vocabulary", "512", "-o", tmp_path / "again")
    assert "512: 256 bytes" in again.stdout
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("content", "vocabulary", "message"),
    [
        (b"", 300, "no text"),
        (b"abc", 4096, "ask for fewer, or add text"),
        (b"abc", 100, "too small"),
        (b"\xff\xfe", 300, "not UTF-8"),
        (None, 300, "no such file"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_and_leaves_nothing(
    refused: Callable[..., str],
    tmp_path: Path,
    content: bytes | None,
    vocabulary: int,
    message: str,
) -> None:
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    folder = tmp_path / "out"
    assert message in refused("train", "tokenizer", text, "-o", folder, "--vocabulary", vocabulary)
    assert not folder.exists()


def test_an_existing_folder_is_refused_before_any_work(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    assert "exists already" in refused("train", "tokenizer", tmp_path / "none", "-o", tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_is_not_installed_is_named_with_what_installs_it() -> None:
    with (
        pytest.raises(OneirosError, match=r"needs torch.*pip install '\.\[train\]'"),
        train_extra(),
    ):
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")
    with pytest.raises(ModuleNotFoundError), train_extra():
        raise ModuleNotFoundError("No module named 'our_own_mistake'", name="our_own_mistake")
