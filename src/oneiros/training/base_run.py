"""A base model from text, in one run folder: data, settings, training, model, report.

What `oneiros train base` does, as a function. Asked for again, a run goes on where it stopped.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from oneiros import __version__
from oneiros.errors import TrainingError
from oneiros.model.tokenizer import Tokenizer
from oneiros.training.config import PretrainConfig, pretrain_config
from oneiros.training.documents import find_files, source_of
from oneiros.training.events import Evaluated, Event
from oneiros.training.export import export_model, is_exported
from oneiros.training.machine import computes_bfloat16, pays_to_compile
from oneiros.training.optimizer import whole
from oneiros.training.pretrain import Outcome, pretrain
from oneiros.training.processes import Processes, choose_device, joined_processes
from oneiros.training.report import write_report
from oneiros.training.run_folder import RunFolder
from oneiros.training.shard_writer import write_shards
from oneiros.training.shards import MANIFEST, Corpus, open_shards
from oneiros.training.weights import open_tokenizer, save_folder

_ROWS = 64
"""The embedding has a multiple of this many rows: matrix products like that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRequest:
    """What somebody asks for; what is left out follows from the depth, or from the run so far."""

    output: Path  # the run folder
    depth: int | None = None
    data: tuple[Path, ...] = ()  # text and JSON Lines files, or one folder of shards
    tokenizer: Path | None = None  # a folder, or any model whose tokenizer is to be used
    tokens: float | None = None  # to train on
    validation: float = 0.05  # fraction of the text that is set aside
    device: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # values of PretrainConfig

    @property
    def asked(self) -> dict[str, Any]:
        """What was said about the settings."""
        said = {"depth": self.depth, "tokens": self.tokens} | dict(self.settings)
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True)
class BaseResult:
    """What came of it."""

    finished: bool  # False: interrupted; ask again to go on
    steps: int  # made, this time and before
    config: PretrainConfig
    bits_per_byte: float | None  # of validation text, the latest
    seconds: float  # of computing, this time and before
    model: Path | None  # the Hugging Face folder, once the run is finished
    report: Path


@dataclass(frozen=True, slots=True)
class Watcher:
    """Functions that are told how a run comes along; on the first process."""

    tokenizing: Callable[[int], None] = lambda done: None  # bytes of text done
    begins: Callable[[PretrainConfig, Corpus], None] = lambda config, corpus: None
    happened: Callable[[Event], None] = lambda event: None


def train_base(request: BaseRequest, watcher: Watcher | None = None) -> BaseResult:
    """Train a base model, or go on with its training.

    Under `torchrun` all processes call this and share the work.

    Raises:
        TrainingError: something does not fit: settings, data, tokenizer, an existing folder.
        OneirosError: a file cannot be read or written; see `pretrain` and `write_shards`.
    """
    watcher = watcher or Watcher()
    run = RunFolder(request.output)
    with joined_processes(choose_device(request.device)) as processes:
        tokenizer_path, data = _inputs(request, run)
        tokenizer = open_tokenizer(tokenizer_path)
        if processes.first:
            run.check_usable()
            _tokenize(request, data, tokenizer, run, watcher)
        processes.wait()
        shards = _shards(data, run)
        corpus = open_shards(shards)
        if run.begun:
            config = _settings_so_far(request, run)
        else:
            config = _new_settings(request, tokenizer, processes)
        processes.wait()
        if processes.first and not run.begun:
            run.write_config(_description(request, config, corpus, tokenizer_path, shards))
        if processes.first:
            watcher.begins(config, corpus)
        outcome = pretrain(config, corpus, tokenizer, run, processes, report=watcher.happened)
        if outcome.finished:
            _save_model(outcome, run, tokenizer_path, processes)
        if processes.first:
            write_report(run, config, corpus.manifest, _facts(outcome, processes))
        processes.wait()
        evaluations = [event for event in run.events() if isinstance(event, Evaluated)]
    return BaseResult(
        finished=outcome.finished,
        steps=outcome.step,
        config=config,
        bits_per_byte=evaluations[-1].bits_per_byte if evaluations else None,
        seconds=outcome.seconds,
        model=run.model if outcome.finished else None,
        report=run.report,
    )


def _inputs(request: BaseRequest, run: RunFolder) -> tuple[Path, tuple[Path, ...]]:
    """The tokenizer and the data: as asked for, else as the run has had them."""
    tokenizer, data = request.tokenizer, request.data
    if run.begun:
        before = run.read_config("base")
        try:
            tokenizer = tokenizer or Path(before["tokenizer"])
            data = data or (Path(before["data"]),)
        except (KeyError, TypeError) as error:
            raise TrainingError(f"{run.config}: is damaged ({error}).") from error
    if tokenizer is None:
        raise TrainingError(
            "A run needs a tokenizer: `oneiros train tokenizer` makes one; name it with "
            "--tokenizer, or name a model to use its tokenizer."
        )
    if not data:
        raise TrainingError("A run needs data: name text or .jsonl files with --data.")
    return tokenizer.absolute(), tuple(path.absolute() for path in data)


def _are_shards(data: tuple[Path, ...]) -> bool:
    return len(data) == 1 and (data[0] / MANIFEST).is_file()


def _shards(data: tuple[Path, ...], run: RunFolder) -> Path:
    return data[0] if _are_shards(data) else run.data.absolute()


def _tokenize(
    request: BaseRequest,
    data: tuple[Path, ...],
    tokenizer: Tokenizer,
    run: RunFolder,
    watcher: Watcher,
) -> None:
    """Make the run's shards, unless they are there: then the files must be the same still."""
    if _are_shards(data):
        return
    if not run.data.exists():
        write_shards(
            data,
            tokenizer,
            run.data,
            validation=request.validation,
            progress=watcher.tokenizing,
        )
        return
    sources = tuple(map(source_of, find_files(data)))
    if open_shards(run.data).manifest.sources != sources:
        raise TrainingError(
            f"{run.path}: was begun with other data, or the files have changed since. Choose "
            "another --output, or leave --data out to go on with what was tokenised."
        )


def _new_settings(
    request: BaseRequest, tokenizer: Tokenizer, processes: Processes
) -> PretrainConfig:
    if request.depth is None:
        raise TrainingError("How large the model is to be follows from --depth: name one.")
    rows = -(-tokenizer.vocabulary_size // _ROWS) * _ROWS
    chosen = {name: value for name, value in request.settings.items() if value is not None}
    precision = "bfloat16" if computes_bfloat16(processes.device) else "float32"
    config = pretrain_config(
        request.depth,
        rows,
        tokens=request.tokens,
        processes=processes.count,
        **{"precision": precision} | chosen,
    )
    if "compile" not in chosen:
        work = config.tokens * config.flops_per_token
        config = replace(config, compile=pays_to_compile(processes, work))
    return config


def _settings_so_far(request: BaseRequest, run: RunFolder) -> PretrainConfig:
    """The settings of a run that goes on; what is asked for now must not differ."""
    before = run.read_config("base")
    asked = before.get("asked")
    settings = before.get("settings")
    if not isinstance(asked, dict) or not isinstance(settings, dict):
        raise TrainingError(f"{run.config}: is damaged.")
    config = PretrainConfig.from_dict(settings)
    for name, value in request.asked.items():
        now = settings.get(name, asked.get(name))
        if now != value:
            raise TrainingError(
                f"{run.path}: was begun with {name} = {now}, and cannot go on with {value}. "
                "Choose another --output."
            )
    return config


def _description(
    request: BaseRequest, config: PretrainConfig, corpus: Corpus, tokenizer: Path, shards: Path
) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "stage": "base",
        "asked": request.asked,
        "settings": config.to_dict(),
        "parameters": config.parameters,
        "tokens": config.tokens,
        "data": str(shards),
        "data_fingerprint": corpus.manifest.fingerprint,
        "tokenizer": str(tokenizer),
        "tokenizer_sha256": corpus.manifest.tokenizer_sha256,
        "versions": {
            "oneiros": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _save_model(outcome: Outcome, run: RunFolder, tokenizer: Path, processes: Processes) -> None:
    """Write the Hugging Face folder and GGUF files, unless an earlier call has."""
    network = outcome.learner.network
    state = {name: whole(parameter.detach()) for name, parameter in network.named_parameters()}
    if processes.first and not run.model.exists():
        save_folder(network, run.model, tokenizer=tokenizer, state=state)
    if processes.first and not is_exported(run.model):
        export_model(run.model)
    processes.wait()


def _facts(outcome: Outcome, processes: Processes) -> dict[str, str]:
    device = processes.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    facts = {
        "time": f"{outcome.seconds / 60:,.1f} minutes of computing",
        "device": f"{processes.count} x {device.type} ({name})",
    }
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        facts["memory"] = f"{peak / 1e9:,.1f} GB at most, on the first device"
    return facts
