"""`oneiros train base`, from text to a model in one folder; as a function and as a command."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import oneiros
from oneiros.cli import output
from oneiros.cli.console import SafeConsole
from oneiros.cli.train_base import _watching
from oneiros.errors import TrainingError
from oneiros.training.base_run import (
    BaseRequest,
    BaseResult,
    Watcher,
    train_base,
)
from oneiros.training.events import Dreamed, Evaluated, Event, Stepped
from oneiros.training.machine import LONG_RUN, pays_to_compile
from oneiros.training.run_folder import RunFolder
from oneiros.training.tokenizer import TokenizerConfig, save_tokenizer, train_tokenizer
from oneiros.training.weights import load_model
from tests.training.builders import CPU, losses_of, sentences, write_jsonl

SETTINGS = {
    "width": 32,
    "heads": 2,
    "head_dim": 16,
    "context": 32,
    "batch": 8,
    "steps": 20,
    "dream_tokens": 10,
    "evaluate_every": 10,
    "dream_every": 10,
    "checkpoint_every": 5,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A JSON Lines file and a tokenizer's folder."""
    folder = tmp_path_factory.mktemp("inputs")
    texts = sentences(400)
    save_tokenizer(train_tokenizer(texts, TokenizerConfig(300)), folder / "tokenizer")
    return write_jsonl(folder / "texts.jsonl", texts), folder / "tokenizer"


@pytest.fixture
def request_(inputs: tuple[Path, Path], tmp_path: Path) -> BaseRequest:
    torch.set_num_threads(1)
    data, tokenizer = inputs
    return BaseRequest(
        output=tmp_path / "run", depth=2, data=(data,), tokenizer=tokenizer, settings=SETTINGS
    )


def watched(request: BaseRequest) -> tuple[BaseResult, list[Event]]:
    events: list[Event] = []
    return train_base(request, Watcher(happened=events.append)), events


def test_text_becomes_a_model_that_the_engine_runs(request_: BaseRequest) -> None:
    result, events = watched(request_)
    assert result.finished
    assert result.steps == 20
    assert result.model is not None
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    assert result.bits_per_byte == evaluations[-1].bits_per_byte < evaluations[0].bits_per_byte

    network = load_model(result.model)
    model = oneiros.load(result.model)
    ids = model.tokenizer.prompt_ids("the cat sees a red house")
    with torch.no_grad():
        expected = torch.log_softmax(network(torch.tensor([ids]))[0], dim=-1)
    expected = expected[range(len(ids) - 1), ids[1:]].double().numpy()
    assert model.log_probabilities(ids) == pytest.approx(expected, abs=0.03)


def test_the_run_folder_tells_the_run(request_: BaseRequest) -> None:
    _, events = watched(request_)
    run = RunFolder(request_.output)
    config = run.read_config("base")
    assert config["stage"] == "base"
    assert config["settings"]["width"] == 32
    assert config["asked"] == {"depth": 2} | SETTINGS
    assert [*run.events()] == events

    report = run.report.read_text()
    dreams = [event for event in events if isinstance(event, Dreamed)]
    assert len(dreams) == 3
    for expected in (
        "| steps | 20 of 20 |",
        "bits per byte |",
        "texts.jsonl",
        *(dream.text for dream in dreams),
    ):
        assert expected in report
    for name in ("loss.png", "bits-per-byte.png", "schedule.png", "speed.png"):
        assert f"]({name})" in report
        assert (run.path / name).read_bytes().startswith(b"\x89PNG")


def test_a_finished_run_asked_for_again_is_left_as_it_is(request_: BaseRequest) -> None:
    first, _ = watched(request_)
    weights = request_.output / "model" / "model.safetensors"
    content = weights.read_bytes()
    again, events = watched(BaseRequest(output=request_.output))
    assert not [event for event in events if isinstance(event, Stepped)]
    assert again.bits_per_byte == first.bits_per_byte
    assert weights.read_bytes() == content
    metrics = RunFolder(request_.output).events()
    assert len([event for event in metrics if isinstance(event, Stepped)]) == 20


def test_a_run_goes_on_only_as_it_was_begun(
    request_: BaseRequest, inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    watched(request_)
    with pytest.raises(TrainingError, match=r"begun with depth = 2, and cannot go on with 3"):
        train_base(replace(request_, depth=3))
    with pytest.raises(TrainingError, match=r"begun with width = 32.* with 64"):
        train_base(replace(request_, settings={"width": 64}))
    other = write_jsonl(tmp_path / "other.jsonl", sentences(300, seed=5))
    with pytest.raises(TrainingError, match="other data"):
        train_base(replace(request_, data=(other,)))
    save_tokenizer(train_tokenizer(sentences(50), TokenizerConfig(280)), tmp_path / "another")
    with pytest.raises(TrainingError, match="another tokenizer"):
        train_base(replace(request_, tokenizer=tmp_path / "another"))
    assert watched(request_)[0].finished


def test_shards_serve_several_runs(request_: BaseRequest, tmp_path: Path) -> None:
    _, first = watched(request_)
    shards = request_.output / "data"
    second = replace(request_, output=tmp_path / "second", data=(shards,))
    assert losses_of(watched(second)[1]) == losses_of(first)
    assert not (tmp_path / "second" / "data").exists()


def test_what_is_missing_is_named(request_: BaseRequest) -> None:
    for change, problem in (
        ({"tokenizer": None}, "--tokenizer"),
        ({"data": ()}, "--data"),
        ({"depth": None}, "--depth"),
        ({"device": "cuda:77"}, "no device 'cuda:77'"),
    ):
        with pytest.raises(TrainingError, match=problem):
            train_base(replace(request_, **change))
    assert not (request_.output / "config.json").exists()


def test_long_runs_are_compiled_where_there_is_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", sys.executable)  # some program
    assert pays_to_compile(CPU, LONG_RUN)
    assert not pays_to_compile(CPU, 0.99 * LONG_RUN)
    assert not pays_to_compile(replace(CPU, count=2), LONG_RUN)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not pays_to_compile(CPU, LONG_RUN)


def test_a_run_of_another_stage_is_left_alone(request_: BaseRequest) -> None:
    request_.output.mkdir()
    config = request_.output / "config.json"
    config.write_text('{"stage": "chat"}')
    with pytest.raises(TrainingError, match='no run of `train base`, but of "chat"'):
        train_base(request_)
    assert config.read_text() == '{"stage": "chat"}'


def test_a_terminal_copes_with_text_whose_length_nobody_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = SafeConsole(width=100)
    console.file = io.StringIO()
    console._force_terminal = True
    monkeypatch.setattr(output, "stderr", lambda: console)
    with _watching(quiet=True) as watcher:
        watcher.tokenizing(1_500_000)
    assert console.file.getvalue().startswith("\x1b[?25l")  # the cursor is hidden: there is a bar


def test_a_folder_of_other_files_is_left_alone(request_: BaseRequest) -> None:
    request_.output.mkdir()
    (request_.output / "letter.txt").write_text("dear")
    with pytest.raises(TrainingError, match="holds other files, and no run"):
        train_base(request_)
    assert [path.name for path in request_.output.iterdir()] == ["letter.txt"]


def command(request: BaseRequest, *more: str) -> list[str]:
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in request.settings.items()
        if name != "dream_tokens"
    ]
    return [
        *[sys.executable, "-m", "oneiros", "train", "base", "--output", str(request.output)],
        *["--data", str(request.data[0]), "--tokenizer", str(request.tokenizer)],
        *["--depth", str(request.depth), "--threads", "1", *options, *more],
    ]


def test_ctrl_c_ends_the_command_cleanly_and_resume_goes_on(request_: BaseRequest) -> None:
    request = replace(request_, settings=SETTINGS | {"steps": 150, "evaluate_every": 1000})
    refused = subprocess.run(
        [*command(request), "--resume"], capture_output=True, text=True, timeout=120
    )
    assert refused.returncode == 1
    assert "holds no run that could go on" in refused.stderr

    running = subprocess.Popen(
        command(request), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = request.output / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count('"kind": "step"') > 10):
        assert running.poll() is None, running.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "bits per byte" in output + errors
    assert "The same command goes on from there" in errors
    assert "Traceback" not in errors

    resume = [sys.executable, "-m", "oneiros", "train", "base", "--resume", "--json"]
    done = subprocess.run(
        [*resume, "--output", str(request.output), "--threads", "1"],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["finished"]
    assert result["steps"] == 150
    assert [
        event.step for event in RunFolder(request.output).events() if isinstance(event, Stepped)
    ] == [*range(150)]
