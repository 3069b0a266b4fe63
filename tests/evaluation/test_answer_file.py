"""The file of answers: what a run that ended leaves, and what the next one makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.errors import EvaluationError
from oneiros.evaluation.answer_file import AnswerFile


def opened(path: Path | None, sha256: str = "abc", context: int = 512) -> AnswerFile:
    return AnswerFile(path, "a model", sha256, context)


def test_answers_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with opened(path) as file:
        file.add("piqa", 3, "p", {"score": 1, "answer": "ü"})
    with opened(path) as file:
        assert file.find("piqa", 3, "p") == {"score": 1, "answer": "ü"}
        assert file.find("piqa", 3, "another prompt") is None
        file.add("piqa", 4, "q", {"score": 0})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("item") for line in lines] == [None, 3, 4]


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "answers.jsonl"
    with opened(path) as file:
        for item in range(4):
            file.add("copa", item, f"prompt {item}", {"score": 1})
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    with opened(path) as file:
        assert len(file) == max(0, data.count(b"\n") - 1)
        file.add("copa", 9, "p", {"score": 0})
    with opened(path) as file:
        assert file.find("copa", 9, "p") == {"score": 0}


def test_without_a_path_answers_are_kept_in_memory() -> None:
    with opened(None) as file:
        file.add("copa", 1, "p", {"score": 1})
        assert file.find("copa", 1, "p") == {"score": 1}


def test_another_models_answers_are_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    opened(path).__exit__(None, None, None)
    before = path.read_bytes()
    for sha256, context in (("other", 512), ("abc", 256)):
        with pytest.raises(EvaluationError, match="another model, a model with a context of 512"):
            opened(path, sha256, context)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ['{"a": 1}\n', "notes", "[1, 2]\nx\n"])
def test_other_files_are_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(EvaluationError, match="no file of answers"):
        opened(path)
    assert path.read_text() == content


def test_two_runs_do_not_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with opened(path), pytest.raises(EvaluationError, match="another evaluation"):
        opened(path)
