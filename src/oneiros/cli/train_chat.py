"""`oneiros train chat`: a model learns to answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oneiros.cli import inputs, options, output
from oneiros.cli.train_extra import train_extra
from oneiros.errors import OneirosError

if TYPE_CHECKING:
    from oneiros.training.chat_run import ChatData, ChatWatcher
    from oneiros.training.events import Event
    from oneiros.training.finetune import FinetuneConfig

EXAMPLE = "oneiros train chat --data talks.jsonl --model smollm2-135m --lora 8 --output tuned"

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_COURSE = "The course of training (follows from model and data)"
_MACHINE = "Machine"


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
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help='JSON Lines with "messages", "prompt" and "response", or "conversations".',
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="What to start from: a name that `oneiros models` lists, or a path.",
            show_default=False,
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            "--lora",
            metavar="RANK",
            min=1,
            help="Train adapters of this rank beside frozen weights.",
            show_default="all weights learn",
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            "--lora-alpha",
            metavar="ALPHA",
            help="Adapters count ALPHA / RANK times.",
            show_default="2 * RANK",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in DIR; refuse to begin one.")
    ] = False,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="How often to go through the conversations.",
            show_default="3",
            rich_help_panel=_COURSE,
        ),
    ] = None,
    validation: Annotated[
        float,
        typer.Option(min=0, max=0.5, help="The fraction of the conversations that is set aside."),
    ] = 0.05,
    context: Annotated[int | None, _course("Tokens of a row; longer ones are left out.")] = None,
    steps: Annotated[int | None, _course("Updates.")] = None,
    batch: Annotated[int | None, _course("Rows per update.")] = None,
    rate: Annotated[float | None, _course("Learning rate.")] = None,
    weight_decay: Annotated[float | None, _course("Weight decay of matrices.")] = None,
    warmup: Annotated[int | None, _course("Steps in which the learning rate rises.")] = None,
    decay: Annotated[int | None, _course("Last steps, in which it falls.")] = None,
    clip: Annotated[float | None, _course("Largest norm of the gradient.")] = None,
    seed: Annotated[int | None, _course("Of adapters, batches and samples.")] = None,
    evaluate_every: Annotated[int | None, _course("Steps between evaluations.")] = None,
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
    """Teach a model to answer as in given conversations, or go on with it.

    DIR becomes a run folder: settings, metrics, curves, checkpoints, a report with answers before
    and after, and in the end the model in Hugging Face's layout (with --lora also the adapters, as
    PEFT stores them). A run that was stopped, or killed, goes on when the same command is given
    again.
    """
    with train_extra():
        from oneiros.training.chat_run import ChatRequest, train_chat
        from oneiros.training.finetune import FinetuneConfig
        from oneiros.training.processes import use_threads
        from oneiros.training.run_folder import RunFolder
    if resume and not RunFolder(folder).begun:
        raise OneirosError(f"{folder}: holds no run that could go on.")
    use_threads(threads)
    settings = {
        name: call.params[name]
        for name in FinetuneConfig.__dataclass_fields__
        if call.params.get(name) is not None
    }
    request = ChatRequest(
        output=folder,
        model=None if model is None else inputs.model_path(model),
        data=tuple(data or ()),
        epochs=epochs,
        validation=validation,
        device=device,
        threads=threads,
        settings=settings,
    )
    with _watching(quiet=json) as watcher:
        result = train_chat(request, watcher)
    if json:
        output.write_json(
            {
                "run": str(folder),
                "finished": result.finished,
                "steps": result.steps,
                "too_long": result.too_long,
                "loss": result.loss,
                "seconds": round(result.seconds, 1),
                "model": None if result.model is None else str(result.model),
                "adapter": None if result.adapter is None else str(result.adapter),
                "report": str(result.report),
            }
        )
    elif result.finished:
        adapter = {} if result.adapter is None else {"adapter": str(result.adapter)}
        output.print_facts(
            {"model": str(result.model)}
            | adapter
            | {"report": str(result.report), "time": f"{result.seconds / 60:,.1f} minutes"}
        )
    if not result.finished:
        output.stderr().print(
            f"Stopped after {result.steps:,} of {result.config.steps:,} steps. The same command "
            "goes on from there."
        )
        raise typer.Exit(_INTERRUPTED)


@contextmanager
def _watching(quiet: bool) -> Iterator[ChatWatcher]:
    """A bar on standard error, and what happens on standard output."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from oneiros.training.chat_run import ChatWatcher
    from oneiros.training.events import Evaluated, Noted, Stepped

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[remark]}", markup=False),
        TimeRemainingColumn(),
    )
    with output.progress(*columns) as bar:
        task = bar.add_task("Training", total=None, remark="", visible=False)

        def say(text: str) -> None:
            if not quiet:
                bar.console.print(output.printable(text), markup=False, soft_wrap=True)

        def begins(config: FinetuneConfig, data: ChatData) -> None:
            bar.update(task, total=config.steps, visible=True)
            say(
                f"{data.conversations:,} conversations; {data.too_long:,} of them are longer than "
                f"{config.context:,} tokens, and left out\n"
                f"{data.train.positions:,} tokens in {len(data.train):,} rows, of which "
                f"{data.train.targets:,} carry loss; {config.steps:,} steps of {config.batch:,} "
                "rows"
            )
            if not len(data.validation):
                say("None is set aside: the report shows questions that were learnt from.")

        def happened(event: Event) -> None:
            match event:
                case Stepped():
                    refused = "" if event.applied else ", refused: not finite"
                    remark = (
                        f"loss {event.loss:.3f}{refused}, {event.tokens_per_second:,.0f} tokens/s"
                    )
                    bar.update(task, completed=event.step + 1, remark=remark)
                case Evaluated():
                    say(
                        f"step {event.step:,}: loss {event.loss:.4f} "
                        f"({event.bits_per_byte:.4f} bits per byte of replies)"
                    )
                case Noted():
                    say(f"step {event.step:,}: {event.text}")

        yield ChatWatcher(begins, happened)
