"""A chat model from a model and conversations, in one run folder.

What `oneiros train chat` does, as a function. Asked for again, a run goes on where it stopped. The
folder is a run folder as that of a base model, and holds as well:

samples.json    questions that were set aside, answered before and after
adapter/        with LoRA: the adapters, as PEFT stores them
model/          the result as a Hugging Face folder, with the adapters merged
model-*.gguf    the same as GGUF files
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from oneiros import __version__
from oneiros.errors import TrainingError
from oneiros.model.chat_format import load_chat_format
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import Tokenizer, load_tokenizer
from oneiros.training.chat_report import write_chat_report
from oneiros.training.conversations import (
    Conversation,
    Example,
    example_of,
    fingerprint,
    is_set_aside,
    read_conversations,
)
from oneiros.training.documents import find_files, source_of
from oneiros.training.events import Evaluated, Event
from oneiros.training.export import export_model, is_exported
from oneiros.training.finetune import (
    FinetuneConfig,
    finetune,
    finetune_config,
    flops_per_token,
)
from oneiros.training.lora import merge, save_adapter
from oneiros.training.machine import computes_bfloat16, pays_to_compile
from oneiros.training.network import NetworkConfig
from oneiros.training.packing import PackedRows
from oneiros.training.pretrain import Outcome
from oneiros.training.processes import Processes, choose_device
from oneiros.training.run_folder import RunFolder
from oneiros.training.samples import (
    Reply,
    Sample,
    answers,
    load_samples,
    save_samples,
    with_answers,
)
from oneiros.training.weights import load_model, save_folder

SAMPLES = 4
REPLY_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What somebody asks for; what is left out follows from model and data, or the run so far."""

    output: Path  # the run folder
    model: Path | None = None  # to start from: a GGUF file or a Hugging Face folder
    data: tuple[Path, ...] = ()  # JSON Lines files of conversations
    epochs: float | None = None
    validation: float = 0.05  # fraction of the conversations that is set aside
    device: str | None = None
    threads: int | None = None  # of the engine, for samples
    settings: Mapping[str, Any] = field(default_factory=dict)  # values of FinetuneConfig

    @property
    def asked(self) -> dict[str, Any]:
        """What was said about the settings."""
        said = {"epochs": self.epochs} | dict(self.settings)
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ChatResult:
    """What came of it."""

    finished: bool  # False: interrupted; ask again to go on
    steps: int  # made, this time and before
    config: FinetuneConfig
    too_long: int  # conversations that were left out
    loss: float | None  # of validation replies, nats per token, the latest
    seconds: float  # of computing, this time and before
    model: Path | None  # the Hugging Face folder, once the run is finished
    adapter: Path | None  # with LoRA, once the run is finished
    report: Path


@dataclass(frozen=True, slots=True)
class ChatData:
    """Conversations that fit, as they are learnt."""

    train: PackedRows
    validation: PackedRows
    shown: tuple[Conversation, ...]  # for samples: set aside, where some were
    conversations: int  # in the files
    too_long: int  # of them, for the context: left out
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ChatWatcher:
    """Functions that are told how a run comes along."""

    begins: Callable[[FinetuneConfig, ChatData], None] = lambda config, data: None
    happened: Callable[[Event], None] = lambda event: None


def train_chat(request: ChatRequest, watcher: ChatWatcher | None = None) -> ChatResult:
    """Fine-tune a model on conversations, or go on with it.

    Raises:
        TrainingError: something does not fit: settings, data, model, an existing folder; or a
            line of the data is no conversation (with its number).
        OneirosError: a file cannot be read or written; see `finetune`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError("Fine-tuning runs in one process, on one device: leave torchrun out.")
    watcher = watcher or ChatWatcher()
    run = RunFolder(request.output)
    run.check_usable()
    processes = Processes(choose_device(request.device))
    model, files, validation = _inputs(request, run)
    parameters = open_parameters(model)
    tokenizer = load_tokenizer(parameters)
    chat_format = load_chat_format(parameters, tokenizer)
    if chat_format is None:
        raise TrainingError(
            f"{model}: has no chat template, and its tokenizer lacks ChatML's tokens: there is no "
            "way to write a conversation for it."
        )
    pairs = [
        (conversation, example_of(conversation, chat_format))
        for conversation in read_conversations(files)
    ]
    if run.begun:
        config = _settings_so_far(request, run)
    else:
        config = _new_settings(request, pairs, NetworkConfig.of(parameters.architecture), processes)
    data = prepare(pairs, config.context, validation)
    if not run.begun:
        run.write_config(_description(request, config, data, model, files, tokenizer))
    elif run.read_config("chat").get("data_fingerprint") != data.fingerprint:
        raise TrainingError(
            f"{run.path}: was begun with other conversations, or the files have changed since. "
            "Choose another --output."
        )
    watcher.begins(config, data)
    samples_file = run.path / "samples.json"
    if not samples_file.exists():
        save_samples(samples_file, _first_samples(request, model, data, config))
    outcome = finetune(
        config,
        load_model(model),
        data.train,
        data.validation,
        tokenizer,
        run,
        processes,
        data=data.fingerprint,
        report=watcher.happened,
    )
    samples = load_samples(samples_file)
    adapter = run.path / "adapter" if config.lora is not None else None
    if outcome.finished:
        _save_model(outcome, config, run, model, adapter)
        if any(sample.after is None for sample in samples):
            replies = _answers(request, run.model, data, config)
            samples = with_answers(samples, replies)
            save_samples(samples_file, samples)
    write_chat_report(run, config, samples, _facts(model, files, data, outcome, processes))
    evaluations = [event for event in run.events() if isinstance(event, Evaluated)]
    return ChatResult(
        finished=outcome.finished,
        steps=outcome.step,
        config=config,
        too_long=data.too_long,
        loss=evaluations[-1].loss if evaluations else None,
        seconds=outcome.seconds,
        model=run.model if outcome.finished else None,
        adapter=adapter if outcome.finished else None,
        report=run.report,
    )


def prepare(
    pairs: Sequence[tuple[Conversation, Example]], context: int, validation: float
) -> ChatData:
    """Leave out what does not fit, set some aside, and pack the rest.

    Raises:
        TrainingError: nothing is left to learn from.
    """
    fitting = [pair for pair in pairs if len(pair[1].ids) - 1 <= context]
    aside = [pair for pair in fitting if is_set_aside(pair[0], validation)]
    learnt = [pair for pair in fitting if not is_set_aside(pair[0], validation)]
    if not learnt:
        raise TrainingError(
            f"No conversation is left to learn from: of {len(pairs):,}, "
            f"{len(pairs) - len(fitting):,} are longer than the context of {context:,} tokens, and "
            f"{len(aside):,} are set aside for validation."
        )
    train = [example for _, example in learnt]
    return ChatData(
        train=PackedRows(train, context),
        validation=PackedRows([example for _, example in aside], context),
        shown=tuple([talk for talk, _ in aside or learnt if talk.question][:SAMPLES]),
        conversations=len(pairs),
        too_long=len(pairs) - len(fitting),
        fingerprint=fingerprint(train),
    )


def _inputs(request: ChatRequest, run: RunFolder) -> tuple[Path, list[Path], float]:
    """Model, files and fraction set aside: as asked for, else as the run has had them."""
    model, data, validation = request.model, request.data, request.validation
    if run.begun:
        before = run.read_config("chat")
        try:
            model = model or Path(before["model"])
            data = data or tuple(map(Path, before["data"]))
            validation = float(before["validation"])
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{run.config}: is no run of `train chat` ({error}).") from error
    if model is None:
        raise TrainingError("Which model shall learn to chat? Name one with --model.")
    if not data:
        raise TrainingError("A run needs conversations: name .jsonl files with --data.")
    return model.absolute(), find_files([path.absolute() for path in data]), validation


def _new_settings(
    request: ChatRequest,
    pairs: Sequence[tuple[Conversation, Example]],
    network: NetworkConfig,
    processes: Processes,
) -> FinetuneConfig:
    precision = "bfloat16" if computes_bfloat16(processes.device) else "float32"
    chosen = {name: value for name, value in request.settings.items() if value is not None}
    lengths = [len(example.ids) for _, example in pairs]
    config = finetune_config(
        network, lengths, epochs=request.epochs, **{"precision": precision} | chosen
    )
    if "compile" not in chosen:
        work = config.steps * config.batch_tokens * flops_per_token(network, config)
        config = replace(config, compile=pays_to_compile(processes, work))
    return config


def _settings_so_far(request: ChatRequest, run: RunFolder) -> FinetuneConfig:
    """The settings of a run that goes on; what is asked for now must not differ."""
    before = run.read_config("chat")
    asked, settings = before.get("asked"), before.get("settings")
    if not isinstance(asked, dict) or not isinstance(settings, dict):
        raise TrainingError(f"{run.config}: is damaged.")
    for name, value in request.asked.items():
        now = settings.get(name, asked.get(name))
        if now != value:
            raise TrainingError(
                f"{run.path}: was begun with {name} = {now}, and cannot go on with {value}. "
                "Choose another --output."
            )
    return FinetuneConfig.from_dict(settings)


def _description(
    request: ChatRequest,
    config: FinetuneConfig,
    data: ChatData,
    model: Path,
    files: Sequence[Path],
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "stage": "chat",
        "asked": request.asked,
        "settings": config.to_dict(),
        "model": str(model),
        "data": [str(path) for path in files],
        "data_sha256": [source_of(path).sha256 for path in files],
        "data_fingerprint": data.fingerprint,
        "validation": request.validation,
        "tokenizer_sha256": tokenizer.sha256,
        "versions": {
            "oneiros": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _first_samples(
    request: ChatRequest, model: Path, data: ChatData, config: FinetuneConfig
) -> list[Sample]:
    replies = _answers(request, model, data, config)
    return [
        Sample(conversation.question[-1]["content"], conversation.answer, reply)
        for conversation, reply in zip(data.shown, replies, strict=True)
    ]


def _answers(
    request: ChatRequest, model: Path, data: ChatData, config: FinetuneConfig
) -> list[Reply]:
    return answers(
        model, data.shown, tokens=REPLY_TOKENS, seed=config.seed, threads=request.threads
    )


def _save_model(
    outcome: Outcome, config: FinetuneConfig, run: RunFolder, model: Path, adapter: Path | None
) -> None:
    """Write what an earlier call has not: adapters, then the whole model."""
    network = outcome.learner.network
    if adapter is not None and config.lora is not None:
        if not adapter.exists():
            save_adapter(network, config.lora, adapter, base=str(model))
        merge(network)
    if not run.model.exists():
        save_folder(network, run.model, tokenizer=model)
    if not is_exported(run.model):
        export_model(run.model)


def _facts(
    model: Path, files: Sequence[Path], data: ChatData, outcome: Outcome, processes: Processes
) -> dict[str, str]:
    learned = sum(p.numel() for _, p in outcome.learner.network.named_parameters())
    train = data.train
    filled = train.positions / (len(train) * train.context)
    return {
        "started from": f"`{model.name}`, {learned:,} parameters",
        "conversations": f"{data.conversations:,} in {', '.join(f'`{f.name}`' for f in files)}; "
        f"{data.too_long:,} longer than the context of {train.context:,} tokens were left out",
        "packed": f"{train.positions:,} tokens into {len(train):,} rows, {filled:.1%} full; "
        f"{train.targets:,} tokens carry loss",
        "time": f"{outcome.seconds / 60:,.1f} minutes of computing",
        "device": processes.device.type,
    }
