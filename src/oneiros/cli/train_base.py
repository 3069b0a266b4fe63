"""`oneiros train base`: a network learns to continue texts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oneiros.cli import inputs, options, output
from oneiros.cli.train_extra import train_extra
from oneiros.errors import OneirosError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from oneiros.training.base_run import Watcher
    from oneiros.training.config import PretrainConfig
    from oneiros.training.events import Event
    from oneiros.training.shards import Corpus

EXAMPLE = "oneiros train base --depth 4 --data book.txt --tokenizer tokenizer --output base"

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_NETWORK = "The network (follows from the depth)"
_COURSE = "The course of training (follows from the size)"
_MACHINE = "Machine"


def _network(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel=_NETWORK, show_default=False)


def _course(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel=_COURSE, show_default=False)


def _machine(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel=_MACHINE, show_default=False)


def command(
    call: typer.Context,
    folder: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="The run folder.", show_default=False),
    ],
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="Layers; everything else follows from it.", show_default=False),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help='Text, JSON Lines with "text", folders of them, or a folder of token shards.',
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A tokenizer's folder, or the path or name of a model whose tokenizer is used.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in DIR; refuse to begin one.")
    ] = False,
    tokens: Annotated[
        float | None,
        typer.Option(
            help="Tokens to train on, such as 2e6.",
            show_default="20 for each parameter",
            rich_help_panel=_COURSE,
        ),
    ] = None,
    validation: Annotated[
        float,
        typer.Option(
            min=0, max=0.5, help="The fraction of the text that is set aside to evaluate on."
        ),
    ] = 0.05,
    width: Annotated[int | None, _network("Features of the residual stream.")] = None,
    heads: Annotated[int | None, _network("Query heads.")] = None,
    kv_heads: Annotated[int | None, _network("Key/value heads.")] = None,
    head_dim: Annotated[int | None, _network("Features per head.")] = None,
    ffn_width: Annotated[int | None, _network("Features inside the feed-forward network.")] = None,
    qk_norm: Annotated[bool | None, _network("Normalise queries and keys.")] = None,
    context: Annotated[int | None, _network("Tokens of a row.")] = None,
    steps: Annotated[int | None, _course("Updates.")] = None,
    batch: Annotated[int | None, _course("Rows per update.")] = None,
    warmup: Annotated[int | None, _course("Steps in which the learning rate rises.")] = None,
    decay: Annotated[int | None, _course("Last steps, in which it falls.")] = None,
    matrix_rate: Annotated[float | None, _course("Learning rate of Muon.")] = None,
    embedding_rate: Annotated[float | None, _course("Learning rate of the embedding.")] = None,
    vector_rate: Annotated[float | None, _course("Learning rate of the norms.")] = None,
    matrix_decay: Annotated[float | None, _course("Weight decay of matrices.")] = None,
    clip: Annotated[float | None, _course("Largest norm of the gradient.")] = None,
    seed: Annotated[int | None, _course("Of weights, batches and dreams.")] = None,
    evaluate_every: Annotated[int | None, _course("Steps between evaluations.")] = None,
    dream_every: Annotated[int | None, _course("Steps between dreams.")] = None,
    checkpoint_every: Annotated[int | None, _course("Steps between checkpoints.")] = None,
    micro_batch: Annotated[int | None, _machine("Rows computed at once, at most.")] = None,
    precision: Annotated[str | None, _machine("bfloat16 or float32.")] = None,
    compile: Annotated[bool | None, _machine("Compile the network.")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:1 ...", show_default="a GPU", rich_help_panel=_MACHINE),
    ] = None,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Train a base model on text, or go on with its training.

    DIR becomes a run folder: settings, metrics, curves, checkpoints, a report, and in the end the
    model in Hugging Face's layout. A run that was stopped, or killed, goes on when the same
    command is given again. Over several GPUs: torchrun --nproc-per-node 8 -m oneiros train base ...
    """
    with train_extra():
        from oneiros.training.base_run import BaseRequest, train_base
        from oneiros.training.config import PretrainConfig
        from oneiros.training.processes import use_threads
        from oneiros.training.run_folder import RunFolder
    if resume and not RunFolder(folder).begun:
        raise OneirosError(f"{folder}: holds no run that could go on.")
    use_threads(threads)
    settings = {
        name: call.params[name]
        for name in PretrainConfig.__dataclass_fields__
        if name != "depth" and call.params.get(name) is not None
    }
    tokenizer_path = tokenizer
    if tokenizer is not None and not tokenizer.exists():
        tokenizer_path = inputs.model_path(str(tokenizer))
    request = BaseRequest(
        output=folder,
        depth=depth,
        data=tuple(data or ()),
        tokenizer=tokenizer_path,
        tokens=tokens,
        validation=validation,
        device=device,
        settings=settings,
    )
    with _watching(quiet=json) as watcher:
        result = train_base(request, watcher)
    if int(os.environ.get("RANK", "0")):  # the first of torchrun's processes speaks for all
        raise typer.Exit(0 if result.finished else _INTERRUPTED)
    if json:
        output.write_json(
            {
                "run": str(folder),
                "finished": result.finished,
                "steps": result.steps,
                "bits_per_byte": result.bits_per_byte,
                "parameters": result.config.parameters,
                "tokens": result.steps * result.config.batch_tokens,
                "seconds": round(result.seconds, 1),
                "model": None if result.model is None else str(result.model),
                "report": str(result.report),
            }
        )
    elif result.finished:
        output.print_facts(
            {
                "model": str(result.model),
                "report": str(result.report),
                "time": f"{result.seconds / 60:,.1f} minutes",
            }
        )
    if not result.finished:
        output.stderr().print(
            f"Stopped after {result.steps:,} of {result.config.steps:,} steps. The same command "
            "goes on from there."
        )
        raise typer.Exit(_INTERRUPTED)


@contextmanager
def _watching(quiet: bool) -> Iterator[Watcher]:
    """A bar on standard error, and what happens on standard output."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from oneiros.training.base_run import Watcher

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),  # the total is not known while text is read
        TextColumn("{task.fields[remark]}", markup=False),
        TimeRemainingColumn(),
    )
    with output.progress(*columns) as bar:
        task = bar.add_task("Tokenising", total=None, remark="", visible=False)
        screen = _Screen(bar, task, quiet)
        yield Watcher(screen.tokenizing, screen.begins, screen.happened)


class _Screen:
    """Shows a run."""

    def __init__(self, bar: Progress, task: TaskID, quiet: bool) -> None:
        self._bar, self._task, self._quiet = bar, task, quiet

    def tokenizing(self, done: int) -> None:
        remark = output.bytes_text(done)
        self._bar.update(self._task, completed=done, remark=remark, visible=True)

    def begins(self, config: PretrainConfig, corpus: Corpus) -> None:
        self._bar.reset(
            self._task, description="Training", total=config.steps, remark="", visible=True
        )
        train = corpus.train
        self._print(
            f"{config.parameters:,} parameters: {config.depth} layers of width {config.width:,}, "
            f"context {config.context:,}\n"
            f"{train.tokens:,} tokens in {train.documents:,} documents; "
            f"{config.steps:,} steps of {config.batch_tokens:,} tokens, "
            f"{config.tokens / train.tokens:.1f} epochs"
        )

    def happened(self, event: Event) -> None:
        from oneiros.training.events import Dreamed, Evaluated, Noted, Stepped

        match event:
            case Stepped():
                speed = f"{event.tokens_per_second:,.0f} tokens/s, MFU {event.mfu:.0%}"
                refused = "" if event.applied else ", refused: not finite"
                remark = f"loss {event.loss:.3f}{refused}, {speed}"
                self._bar.update(self._task, completed=event.step + 1, remark=remark)
            case Evaluated():
                self._print(
                    f"step {event.step:,}: {event.bits_per_byte:.4f} bits per byte "
                    f"(loss {event.loss:.4f})"
                )
            case Dreamed():
                self._print(f"step {event.step:,} dreams: {output.one_line(event.text)}")
            case Noted():
                self._print(f"step {event.step:,}: {event.text}")

    def _print(self, text: str) -> None:
        if not self._quiet:
            self._bar.console.print(output.printable(text), markup=False, soft_wrap=True)
