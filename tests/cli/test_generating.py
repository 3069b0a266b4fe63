"""run, complete, next, score: what the commands that compute print."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODEL = "smollm2-135m"
GREEDY = ("--temperature", "0", "--max-tokens", "8")


def test_run_prints_the_answer_or_all_about_it(oneiros: Callable[..., Any]) -> None:
    text = oneiros("run", MODEL, "Say hello.", *GREEDY).stdout
    answer = json.loads(oneiros("run", MODEL, "Say hello.", *GREEDY, "--json").stdout)
    assert text == answer["text"] + "\n"
    assert answer["model"] == MODEL
    assert answer["finish_reason"] in ("stop", "length")
    assert answer["usage"]["prompt_tokens"] > 10
    assert 1 <= answer["usage"]["generated_tokens"] <= 8
    assert answer["speed"]["prefill_tokens_per_second"] > 0
    assert answer["speed"]["decode_tokens_per_second"] > 0


def test_run_takes_system_stop_and_standard_input(oneiros: Callable[..., Any]) -> None:
    plain = json.loads(oneiros("run", MODEL, *GREEDY, "--json", stdin="Say hello.").stdout)
    told = json.loads(
        oneiros("run", MODEL, "Say hello.", *GREEDY, "--json", "--system", "You are a cat.").stdout
    )
    assert told["usage"]["prompt_tokens"] != plain["usage"]["prompt_tokens"]
    cut = oneiros("run", MODEL, "Say hello.", *GREEDY, "--stop", plain["text"][3:6]).stdout
    assert cut == plain["text"][:3] + "\n"


def test_a_reply_that_does_not_fit_the_context_is_said_to_be_cut(
    oneiros: Callable[..., Any],
) -> None:
    endless = ("--temperature", "0", "--frequency-penalty", "-2")
    done = oneiros("run", MODEL, "Say hello.", *endless, "--context", 64)
    assert done.returncode == 0
    assert done.stderr == "oneiros: the reply was cut: the context is full (--context).\n"


def test_run_with_the_same_seed_says_the_same(oneiros: Callable[..., Any]) -> None:
    options = ("--seed", "7", "--max-tokens", "12", "--temperature", "1.5")
    first, second = (oneiros("run", MODEL, "Tell a story.", *options).stdout for _ in range(2))
    assert first == second


def test_complete_continues_the_text(oneiros: Callable[..., Any]) -> None:
    beginning = "One, two, three, four, five, six,"
    done = oneiros("complete", MODEL, beginning, *GREEDY)
    assert done.stdout.startswith(" seven, eight")
    result = json.loads(oneiros("complete", MODEL, *GREEDY, "--json", stdin=beginning).stdout)
    assert result["text"] + "\n" == done.stdout
    assert result["usage"]["generated_tokens"] == 8


def test_next_lists_the_likeliest_tokens(oneiros: Callable[..., Any]) -> None:
    text = "One, two, three, four, five, six,"
    tokens = json.loads(oneiros("next", MODEL, text, "--count", 5, "--json").stdout)
    assert len(tokens) == 5
    assert tokens[0]["text"] == " seven"
    probabilities = [token["probability"] for token in tokens]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(math.exp(t["logprob"]) == pytest.approx(t["probability"]) for t in tokens)
    table = oneiros("next", MODEL, text, "--count", 5).stdout.splitlines()
    assert len(table) == 6
    assert "␣seven" in table[1]
    assert "█" * 32 in table[1]


def test_score_measures_a_text(oneiros: Callable[..., Any], data_folder: Path) -> None:
    file = data_folder / "text" / "tinyshakespeare.txt"
    options = ("--limit", 600, "--window", 256)
    score = json.loads(oneiros("score", MODEL, file, *options, "--json").stdout)
    assert 10 < score["perplexity"] < 60
    assert score["tokens"] in (599, 600)
    assert score["bits_per_byte"] == pytest.approx(
        score["tokens"] * math.log2(score["perplexity"]) / score["bytes"]
    )
    text = oneiros("score", MODEL, file, *options).stdout
    assert f"{score['perplexity']:.3f}" in text


def test_score_refuses_what_it_cannot_read(refused: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "text"
    assert "no such file" in refused("score", MODEL, path)
    assert "is a folder" in refused("score", MODEL, tmp_path)
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refused("score", MODEL, path)
    path.write_bytes(b"")
    assert "too short" in refused("score", MODEL, path)
    path.write_text("A text that is long enough.", encoding="utf-8")
    assert "8192" in refused("score", MODEL, path, "--window", 10_000)
    assert "overlap" in refused("score", MODEL, path, "--window", 8, "--overlap", 8)


def test_a_prompt_longer_than_the_context_is_refused(refused: Callable[..., str]) -> None:
    for command in ("run", "complete", "next"):
        message = refused(command, MODEL, "--context", "64", stdin="word " * 100)
        assert "context" in message
        assert "too many" in message


def test_ctrl_c_ends_a_command_quietly() -> None:
    command = [sys.executable, "-m", "oneiros", "complete", MODEL, "One, two,"]
    options = ["--temperature", "0", "--max-tokens", "5000", "--frequency-penalty", "-2"]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )
    assert process.stdout is not None
    process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == b""
