"""The whole path in miniature: text, tokenizer, base model, chat model, GGUF, answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from oneiros.errors import TrainingError
from oneiros.training import demo as demo_module
from oneiros.training.demo import DemoConfig, demo, fetch_fortunes, short_talks

SMALL = DemoConfig(
    vocabulary=512,
    depth=1,
    tokens=20_000,
    longest=160,
    debian=False,
    base={
        "width": 64,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "context": 256,
        "batch": 8,
        "evaluation_rows": 4,
        "precision": "float32",
    },
    chat={"steps": 10, "batch": 4, "precision": "float32"},
    reply_tokens=8,
)


def test_from_text_to_answers(data_folder: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    said: list[str] = []
    report = demo(tmp_path / "demo", data_folder, SMALL, said.append)
    assert report is not None
    text = report.read_text()
    assert "## The base model dreams" in text
    assert text.count("~~~text") == 2 + 1 + 3 + 4  # dreams (the last of which ends), dialogues
    for name in ("base/model-q8_0.gguf", "chat/model-q8_0.gguf", "base/loss.png", "chat/loss.png"):
        assert (tmp_path / "demo" / name).exists()
    assert any(line.startswith("[chat] 'Who are you?' -> ") for line in said)
    assert any(str(report) in line for line in said)

    # Once more: every stage is there already, and says the same.
    again: list[str] = []
    demo(tmp_path / "demo", data_folder, SMALL, again.append)
    assert not any("step 0" in line for line in again)
    assert [line for line in again if line.startswith("[")] == [
        line for line in said if line.startswith("[")
    ]


def test_questions_stand_without_the_instructions_around_them(data_folder: Path) -> None:
    talks = [*short_talks(data_folder / "conversations" / "dolly-hhrlhf-small.jsonl", 600)]
    assert len(talks) > 400
    assert "what is kangen water?" in [talk["prompt"] for talk in talks]
    assert not any("###" in talk["prompt"] for talk in talks)
    assert max(len(talk["prompt"]) + len(talk["response"]) for talk in talks) <= 600


def test_a_machine_without_apt_goes_without_fortunes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not fetch_fortunes(tmp_path / "fortunes.jsonl", tmp_path / "package")
    assert not (tmp_path / "fortunes.jsonl").exists()


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"tinyshakespeare\.txt: no such file.*ONEIROS_DATA"):
        demo_module.demo(tmp_path / "demo", tmp_path, SMALL, print)
