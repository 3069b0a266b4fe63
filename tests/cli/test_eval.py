"""`oneiros eval` in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_a_suite_is_evaluated_and_its_answers_kept(
    oneiros: Callable[..., Any], tmp_path: Path, data_folder: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    suites = ("-s", "winograd", "-s", "spelling", "--limit", "1", "-o", answers)
    done = oneiros("eval", "smollm2-135m", *suites, "--data", data_folder, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    winograd, spelling = found["suites"]
    assert (winograd["suite"], winograd["items"], winograd["baseline"]) == ("winograd", 1, 0.5)
    assert (spelling["suite"], spelling["shots"], spelling["metric"]) == ("spelling", 3, "accuracy")
    head, *items = [json.loads(line) for line in answers.read_text().splitlines()]
    assert head["model"] == "smollm2-135m"
    assert [item["suite"] for item in items] == ["winograd", "spelling"]
    assert all(len(item["prompt_sha256"]) == 64 and item["score"] in (0, 1) for item in items)


def test_what_cannot_be_asked_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    no_data = refused("eval", "smollm2-135m", "-s", "piqa", "--data", tmp_path)
    assert "piqa.jsonl: no such file" in no_data


@pytest.mark.long
def test_ctrl_c_ends_a_run_that_goes_on_later(
    terminal: Callable[..., Any], tmp_path: Path, data_folder: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    arguments = ("eval", "smollm2-135m", "-s", "copa", "-o", str(answers))
    arguments += ("--data", str(data_folder))
    first = terminal(*arguments)
    first.expect("/100")
    first.type("\x03")
    first.expect("the same command goes on from")
    assert first.wait() == 130
    kept = answers.read_text().splitlines()
    assert 1 < len(kept) < 101
    second = terminal(*arguments)
    second.expect("centred")
    assert second.wait() == 0
    lines = answers.read_text().splitlines()
    assert lines[: len(kept)] == kept and len(lines) == 1 + 100
