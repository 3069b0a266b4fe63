"""`oneiros train chat` and `oneiros train merge`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from oneiros.training.weights import load_model
from tests.training.chat_builders import talks, tiny_chat, write_lines


def test_adapters_are_trained_and_merged(oneiros: Callable[..., Any], tmp_path: Path) -> None:
    base = tiny_chat(tmp_path).path
    data = write_lines(tmp_path / "talks.jsonl", talks(20))
    run = tmp_path / "run"
    asked = ["--data", data, "--model", base, "--output", run, "--lora", "2", "--threads", "1"]
    done = oneiros("train", "chat", *asked, "--steps", "2", "--batch", "2", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["finished"]
    assert told["steps"] == 2
    assert told["adapter"] == str(run / "adapter")
    done = oneiros("train", "merge", run / "adapter", "--output", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    assert "14 changed" in done.stdout
    tokens = torch.arange(20)[None]
    merged, trained = load_model(tmp_path / "merged"), load_model(run / "model")
    assert torch.allclose(merged(tokens), trained(tokens), atol=1e-4)


def test_what_is_wrong_is_said_in_one_line(refused: Callable[..., str], tmp_path: Path) -> None:
    data = tmp_path / "talks.jsonl"
    data.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a"}\n')
    chat = ["train", "chat", "--data", data, "--output", tmp_path / "run"]
    assert "--model" in refused(*chat)
    assert "talks.jsonl, line 2" in refused(*chat, "--model", "smollm2-135m")
    assert "no run that could go on" in refused(*chat, "--resume")
    assert "holds no adapter" in refused("train", "merge", tmp_path, "-o", tmp_path / "merged")
