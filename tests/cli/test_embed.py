"""`oneiros embed`: vectors for programs, similarities for people."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oneiros.engine.embedding import load_embedder

TEXTS = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


def test_each_text_gives_a_line_with_its_vector(
    oneiros: Callable[..., Any], embedding_model_path: Path
) -> None:
    lines = [json.loads(line) for line in oneiros("embed", *TEXTS).stdout.splitlines()]
    assert [len(line) for line in lines] == [384] * 3
    assert all(math.isclose(math.hypot(*line), 1, abs_tol=1e-6) for line in lines)
    expected = load_embedder(embedding_model_path).embed(TEXTS)
    np.testing.assert_array_equal(np.array(lines, np.float32), expected)


def test_lines_of_standard_input_are_texts_empty_ones_too(oneiros: Callable[..., Any]) -> None:
    done = oneiros("embed", "--json", stdin="one\r\n\nthree\n")
    found = json.loads(done.stdout)
    assert [entry["text"] for entry in found] == ["one", "", "three"]
    assert [entry["tokens"] for entry in found] == [3, 2, 3]
    assert len(found[1]["embedding"]) == 384
    assert oneiros("embed", stdin="").stdout == ""


def test_similarities_are_shown_as_a_table_and_as_json(oneiros: Callable[..., Any]) -> None:
    lines = oneiros("embed", "--similarity", *TEXTS).stdout.splitlines()
    assert lines[1] == "  1.000  0.666  0.105  1 The weather is lovely today."
    assert lines[2] == "  0.666  1.000  0.141  2 It's so sunny outside!"
    found = json.loads(oneiros("embed", "--similarity", "--json", *TEXTS).stdout)
    assert found["texts"] == TEXTS
    assert found["similarity"][0][1] == pytest.approx(0.6660, abs=1e-4)


def test_a_text_that_is_too_long_is_refused_or_cut_as_the_user_says(
    oneiros: Callable[..., Any], refused: Callable[..., str]
) -> None:
    text = "word " * 300
    assert "Text 2 of 2 has 302 tokens and the model reads 256" in refused("embed", "short", text)
    (entry,) = json.loads(oneiros("embed", "--truncate", "--json", text).stdout)
    assert entry["tokens"] == 256


def test_what_is_no_embedding_model_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "no embedding model" in refused("embed", "hi", "--model", "smollm2-135m")
    missing = refused("embed", "hi", env={"ONEIROS_HOME": str(tmp_path)})
    assert "oneiros pull all-minilm-l6-v2" in missing


def test_a_text_that_would_control_the_terminal_is_shown_only(oneiros: Callable[..., Any]) -> None:
    shown = oneiros("embed", "--similarity", "a\x1b[2Jb").stdout
    assert "\x1b" not in shown
    assert "a␛[2Jb" in shown


def test_an_argument_that_is_no_text_is_refused(refused: Callable[..., str]) -> None:
    assert "no text in this locale" in refused("embed", os.fsdecode(b"caf\xe9"))
