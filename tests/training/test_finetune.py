"""Fine-tuning: it learns, resumes, refuses what does not fit, and ends in files that run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

import oneiros
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import TrainingError
from oneiros.training.chat_run import ChatRequest, ChatResult, ChatWatcher, train_chat
from oneiros.training.events import Evaluated, Event, Stepped
from oneiros.training.finetune import finetune_config
from oneiros.training.network import NetworkConfig
from oneiros.training.run_folder import RunFolder
from tests.training.builders import losses_of
from tests.training.chat_builders import CONTEXT, TinyChat, talks, tiny_chat, write_lines

SETTINGS = {
    "steps": 12,
    "batch": 2,
    "rate": 3e-3,
    "evaluate_every": 4,
    "checkpoint_every": 4,
    "precision": "float32",
}


class Killed(BaseException):
    """Nothing in the run may catch this."""


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> TinyChat:
    return tiny_chat(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("data") / "talks.jsonl", talks(40))


def request(chat: TinyChat, data: Path, output: Path, **settings: object) -> ChatRequest:
    return ChatRequest(
        output=output,
        model=chat.path,
        data=(data,),
        validation=0.2,
        device="cpu",
        threads=1,
        settings=SETTINGS | settings,
    )


@pytest.fixture(scope="module")
def finished(chat: TinyChat, data: Path, tmp_path_factory: pytest.TempPathFactory) -> ChatResult:
    """The uninterrupted run."""
    return train_chat(request(chat, data, tmp_path_factory.mktemp("runs") / "whole"))


def test_a_run_learns_and_leaves_files_that_run(finished: ChatResult) -> None:
    assert finished.finished
    assert finished.adapter is None
    assert finished.model is not None
    run = RunFolder(finished.model.parent)
    evaluations = [event for event in run.events() if isinstance(event, Evaluated)]
    assert [event.step for event in evaluations] == [0, 4, 8, 12]
    assert evaluations[-1].loss < 0.9 * evaluations[0].loss
    config = json.loads(run.config.read_text())
    assert config["stage"] == "chat"
    assert {path.name for path in run.path.glob("*.gguf")} == {
        "model-f16.gguf",
        "model-q8_0.gguf",
        "model-q4_1.gguf",
    }
    for path in (finished.model, run.path / "model-q8_0.gguf"):
        reply = oneiros.load(path, threads=1).stream("a cat", SamplingOptions(max_tokens=4))
        assert "".join(reply) == reply.text
        assert reply.finish_reason in ("stop", "length")
    AutoModelForCausalLM.from_pretrained(finished.model)


def test_the_report_shows_answers_before_and_after(finished: ChatResult) -> None:
    report = finished.report.read_text()
    samples = json.loads((finished.report.parent / "samples.json").read_text())["samples"]
    assert len(samples) == 4
    for sample in samples:
        assert sample["wanted"] == sample["question"].upper()
        assert sample["before"]["text"] != sample["after"]["text"]
    assert report.count("| before | after | wanted |") == 4
    assert "loss.png" in report
    assert (finished.report.parent / "loss.png").exists()


def test_a_report_says_when_nothing_was_set_aside(
    chat: TinyChat, data: Path, tmp_path: Path
) -> None:
    wanted = request(chat, data, tmp_path / "run", steps=1)
    result = train_chat(replace(wanted, validation=0.0))
    report = result.report.read_text()
    assert "that were learnt from (none was set aside)" in report
    assert "not learnt from" not in report


@pytest.mark.long  # half a minute of compiling
def test_a_compiled_network_learns_the_same(
    chat: TinyChat, data: Path, finished: ChatResult, tmp_path: Path
) -> None:
    train_chat(request(chat, data, tmp_path / "compiled", compile=True))
    assert finished.model is not None
    plain = losses_of(RunFolder(finished.model.parent).events())
    assert losses_of(RunFolder(tmp_path / "compiled").events()) == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("rank", [None, 4])
def test_killed_and_resumed_gives_the_same_losses_to_the_bit(
    chat: TinyChat, data: Path, tmp_path: Path, rank: int | None
) -> None:
    asked = request(chat, data, tmp_path / "whole", rank=rank)
    whole = train_chat(asked)

    def kill(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 6:
            raise Killed

    broken = replace(asked, output=tmp_path / "broken")
    with pytest.raises(Killed):
        train_chat(broken, ChatWatcher(happened=kill))
    seen: list[Event] = []
    resumed = train_chat(
        ChatRequest(output=broken.output, threads=1, device="cpu"),
        ChatWatcher(happened=seen.append),
    )
    assert resumed.finished
    assert len(losses_of(seen)) == 8  # from the checkpoint before step 4
    expected = losses_of(RunFolder(asked.output).events())
    assert losses_of(RunFolder(broken.output).events()) == expected
    assert whole.model is not None
    assert resumed.model is not None
    weights = "model.safetensors"
    assert (resumed.model / weights).read_bytes() == (whole.model / weights).read_bytes()
    assert (resumed.adapter is not None) == (rank is not None)


def test_a_finished_run_is_left_as_it_is(finished: ChatResult) -> None:
    again = train_chat(ChatRequest(output=finished.report.parent, threads=1, device="cpu"))
    assert again == replace(finished, seconds=again.seconds)


def test_conversations_longer_than_the_context_are_counted_and_said(
    chat: TinyChat, data: Path, tmp_path: Path
) -> None:
    long = [{"prompt": "a cat", "response": "and then " * CONTEXT}] * 3
    path = tmp_path / "talks.jsonl"
    path.write_text(data.read_text() + "".join(json.dumps(line) + "\n" for line in long))
    result = train_chat(request(chat, path, tmp_path / "run", steps=1))
    assert result.too_long == 3
    assert f"3 longer than the context of {CONTEXT}" in result.report.read_text()
    only = write_lines(tmp_path / "only.jsonl", long)
    with pytest.raises(TrainingError, match=r"None of the 3 conversations fits into 128 tokens"):
        train_chat(request(chat, only, tmp_path / "none"))


def test_a_run_does_not_go_on_with_other_settings_or_data(
    chat: TinyChat, data: Path, tmp_path: Path, finished: ChatResult
) -> None:
    run = finished.report.parent
    with pytest.raises(TrainingError, match=r"was begun with rate = 0.003.* cannot go on with 1"):
        train_chat(request(chat, data, run, rate=1))
    other = write_lines(tmp_path / "other.jsonl", talks(41))
    with pytest.raises(TrainingError, match="other conversations"):
        train_chat(request(chat, other, run))


def test_what_cannot_begin_is_refused_clearly(
    chat: TinyChat, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = write_lines(tmp_path / "empty.jsonl", [])
    with pytest.raises(TrainingError, match="no conversation to learn from"):
        train_chat(request(chat, empty, tmp_path / "run"))
    with pytest.raises(TrainingError, match="--model"):
        train_chat(ChatRequest(output=tmp_path / "run", data=(data,)))
    with pytest.raises(TrainingError, match="--data"):
        train_chat(ChatRequest(output=tmp_path / "run", model=chat.path))
    with pytest.raises(TrainingError, match="no such file"):
        train_chat(request(chat, tmp_path / "nowhere.jsonl", tmp_path / "run"))
    with pytest.raises(TrainingError, match="no setting called speed"):
        train_chat(request(chat, data, tmp_path / "run", speed=3))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="one process"):
        train_chat(request(chat, data, tmp_path / "run"))


SHAPE = NetworkConfig(
    vocabulary=320, layers=1, width=32, heads=2, kv_heads=1, head_dim=16, ffn_width=64,
    context=128,
)  # fmt: skip


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"rate": 0}, "rate is 0, and must be above 0"),
        ({"batch": 0}, "batch is 0, and must be above 0"),
        ({"batch": -1}, "batch is -1, and must be above 0"),
        ({"clip": float("nan")}, "clip is nan"),
        ({"warmup": -1}, "warmup is -1, and must not be negative"),
        ({"context": 4096}, "made for 128 tokens, not 4,096"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"steps": 3, "warmup": 2, "decay": 2}, "do not fit into 3 steps"),
        ({"epochs": 0}, "epochs is 0, and must be above 0"),
        ({"epochs": -1}, "epochs is -1"),
        ({"epochs": float("nan")}, "epochs is nan"),
        ({"alpha": 4.0}, "--lora"),
        ({"rank": 300}, "at most 256"),
    ],
)
def test_settings_out_of_range_are_refused(chosen: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        finetune_config(SHAPE, [100] * 50, **chosen)


@pytest.mark.parametrize(
    ("rows", "rank", "rate"),
    [
        (64, 0, 0.2 / 32),
        (1024, 0, 0.2 / 32),
        (16, 0, 0.1 / 32),
        (4, 0, 0.05 / 32),
        (4, 8, 0.8 / 32),
    ],
)
def test_small_batches_make_small_steps_unless_adapters_learn(
    rows: int, rank: int, rate: float
) -> None:
    assert finetune_config(SHAPE, [100] * 50, batch=rows, rank=rank).rate == pytest.approx(rate)
