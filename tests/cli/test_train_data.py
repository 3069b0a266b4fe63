"""`oneiros train data`, as users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.planted import Planted, handbook_texts, write_corpus


def write_texts(path: Path, times: int = 1) -> Path:
    texts = [text for language, text in handbook_texts() if language == "en"][:40]
    rows = [Planted("good", f"Number {n} of them. {text}") for n in range(times) for text in texts]
    return write_corpus(rows, path)


def test_text_becomes_documents_and_a_report(
    oneiros: Callable[..., Any], data_folder: Path, tmp_path: Path
) -> None:
    source = write_texts(tmp_path / "in.jsonl")
    asked = [source, "--output", tmp_path / "out", "--skip", "fineweb", "--json"]
    copa = data_folder / "benchmarks" / "copa.jsonl"
    done = oneiros("train", "data", *asked, "--benchmarks", copa)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["documents"]["read"] == 40
    assert told["documents"]["kept"] > 25
    assert told["shards_folder"] is None
    assert "fineweb" not in [row["name"] for row in told["filters"]]
    assert "# Data" in Path(told["report"]).read_text()


@pytest.mark.long
def test_a_malformed_line_is_named(refused: Callable[..., str], tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in.jsonl")
    with source.open("a") as file:
        file.write('{"text": 1}\n')
    asked = ["--output", tmp_path / "out", "--skip", "contamination"]
    assert "in.jsonl, line 41: is not an object" in refused("train", "data", source, *asked)


@pytest.mark.long
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(
    oneiros: Callable[..., Any], tmp_path: Path, workers: str
) -> None:
    source = write_texts(tmp_path / "in.jsonl", times=130)
    asked = ["--output", tmp_path / "out", "--skip", "contamination", "--workers", workers]
    command = [sys.executable, "-m", "oneiros", "train", "data", source, *asked]
    process = subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (tmp_path / "out" / "work" / "00000.json").exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == "Stopped. The same command goes on from here.\n"
    done = oneiros("train", "data", source, *asked)
    assert done.returncode == 0, done.stderr
    assert "5,200 kept" in done.stdout
