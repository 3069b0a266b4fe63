"""`oneiros train data`: clean documents and token shards from whatever was collected."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oneiros.cli import options, output
from oneiros.cli.train_extra import train_extra

if TYPE_CHECKING:
    from oneiros.training.data.prepare import DataResult

EXAMPLE = "oneiros train data crawl.warc.gz pages/ --tokenizer tokenizer --output corpus"

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_FILTERS = "Filters"


def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            help="Text, JSON Lines, Parquet, HTML or WARC files, or folders of them.",
            show_default=False,
        ),
    ],
    folder: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="The folder to fill.", show_default=False
        ),
    ],
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A tokenizer's folder, or a model whose tokenizer is used; without one there "
            "are documents and no shards.",
            show_default=False,
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="A language to keep, such as en.",
            show_default="en",
            rich_help_panel=_FILTERS,
        ),
    ] = None,
    language_score: Annotated[
        float, typer.Option(help="Its least probability.", rich_help_panel=_FILTERS)
    ] = 0.65,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILTER",
            help="A filter to leave out: url, language, repetition, gopher, c4, fineweb, "
            "contamination, pii, duplicates.",
            show_default=False,
            rich_help_panel=_FILTERS,
        ),
    ] = None,
    benchmarks: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Benchmarks that the text may not contain: .jsonl files or folders.",
            show_default="benchmarks in ONEIROS_DATA",
            rich_help_panel=_FILTERS,
        ),
    ] = None,
    ngram: Annotated[
        int,
        typer.Option(help="Words in a row that are too many.", rich_help_panel=_FILTERS),
    ] = 13,
    keep_removed: Annotated[
        bool,
        typer.Option(
            "--keep-removed",
            help="Keep what the filters removed, in DIR/removed.",
            rich_help_panel=_FILTERS,
        ),
    ] = False,
    field: Annotated[
        str, typer.Option(help="Where JSON Lines and Parquet files have their text.")
    ] = "text",
    validation: Annotated[
        float,
        typer.Option(
            min=0, max=0.5, help="The fraction of the text that is set aside to evaluate on."
        ),
    ] = 0.05,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that filter.", show_default="one for each core"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Filter raw text into clean documents and token shards.

    DIR gets documents/, shards/ (for `train base --data DIR/shards`) and report.md, which says
    what each filter removed, with examples. Interrupted, the same command goes on.
    """
    with train_extra():
        from oneiros.training.data.prepare import DataRequest, DataWatcher, prepare_data
        from oneiros.training.data.settings import DataSettings
    settings = DataSettings(
        skip=tuple(sorted(set(skip or ()))),
        languages=tuple(language or ("en",)),
        language_score=language_score,
        ngram=ngram,
        field=field,
    )
    request = DataRequest(
        inputs=tuple(inputs),
        output=folder,
        tokenizer=tokenizer,
        settings=settings,
        benchmarks=tuple(benchmarks or _default_benchmarks()),
        validation=validation,
        workers=workers or _useful_workers(inputs, settings.part_bytes),
        keep_removed=keep_removed,
    )
    try:
        with _bar() as moved:
            result = prepare_data(request, DataWatcher(moved))
    except KeyboardInterrupt:
        output.stderr().print("Stopped. The same command goes on from here.")
        raise typer.Exit(_INTERRUPTED) from None
    if json:
        output.write_json(_json(result))
    else:
        output.print_facts(_facts(result))


def _default_benchmarks() -> list[Path]:
    data = os.environ.get("ONEIROS_DATA")
    return [Path(data) / "benchmarks"] if data else []


def _useful_workers(inputs: list[Path], part: int) -> int:
    """A process for each core, but none that would have nothing to do: starting takes seconds."""
    files = [file for path in inputs for file in (path.rglob("*") if path.is_dir() else [path])]
    size = sum(file.stat().st_size for file in files if file.is_file())
    return max(1, min(len(os.sched_getaffinity(0)), size // part))


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error for the stage under way."""
    with output.byte_progress("Data") as advance:
        yield lambda stage, done, of: advance(done, of, stage)


def _json(result: DataResult) -> dict[str, Any]:
    return {
        "documents_folder": str(result.documents),
        "shards_folder": None if result.shards is None else str(result.shards),
        "report": str(result.report),
        **result.values,
    }


def _facts(result: DataResult) -> dict[str, str]:
    values = result.values
    documents = values["documents"]
    facts = {
        "documents": f"{documents['kept']:,} of {documents['read']:,} kept, "
        f"{output.bytes_text(documents['kept_bytes'])}, in {result.documents}",
        "removed": ", ".join(
            f"{row['name']} {row['removed']:,}" for row in values["filters"] if row["removed"]
        )
        or "nothing",
    }
    if values["masked"]:
        facts["masked"] = ", ".join(f"{kind} {count:,}" for kind, count in values["masked"].items())
    if result.shards is not None:
        tokens = values["shards"]["splits"]["train"]["tokens"]
        facts["shards"] = f"{tokens:,} tokens to train on, in {result.shards}"
    return facts | {"report": str(result.report)}
