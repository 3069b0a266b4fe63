"""`oneiros score`: how well a model predicts a text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import inputs, options, output

if TYPE_CHECKING:
    from oneiros.evaluation.perplexity import Score

EXAMPLE = "oneiros score smollm2-135m book.txt --limit 5000"


def command(
    model: options.Model,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A UTF-8 text.", show_default=False)],
    window: Annotated[int, typer.Option(min=3, help="Tokens that are evaluated together.")] = 1024,
    overlap: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="half of the window",
            help="Tokens that a window takes from the one before, as context.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=2, show_default="all", help="Score only the first so many tokens."),
    ] = None,
    adapter: options.Adapter = None,
    json: options.Json = False,
    threads: options.Threads = None,
) -> None:
    """Measure how well a model predicts a text.

    Gives the perplexity per token and the bits per byte: less is better.
    """
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn

    from oneiros.evaluation.perplexity import perplexity

    text = inputs.read_text(file)
    language_model = inputs.load_model(model, adapter=adapter, threads=threads, context=window)
    ids = language_model.tokenizer.encode(text)[:limit]

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with output.progress(*columns) as bar:
        task = bar.add_task("Scoring", total=len(ids))

        def report(so_far: Score) -> None:
            description = f"perplexity {so_far.perplexity:.3f}"
            bar.update(task, completed=so_far.tokens, description=description)

        begun = time.perf_counter()
        score = perplexity(language_model, ids, window=window, overlap=overlap, progress=report)
        seconds = time.perf_counter() - begun

    speed = score.evaluated_tokens / seconds
    if json:
        output.write_json(
            {
                "model": language_model.name,
                "file": str(file),
                "perplexity": score.perplexity,
                "bits_per_byte": score.bits_per_byte,
                "bits_per_token": score.bits_per_token,
                "tokens": score.tokens,
                "bytes": score.bytes,
                "evaluated_tokens": score.evaluated_tokens,
                "window": window,
                "overlap": window // 2 if overlap is None else overlap,
                "seconds": seconds,
                "tokens_per_second": speed,
            }
        )
        return
    output.print_facts(
        {
            "perplexity": f"{score.perplexity:.3f} per token",
            "bits per byte": f"{score.bits_per_byte:.4f}",
            "scored": f"{score.tokens:,} tokens, {score.bytes:,} bytes",
            "speed": f"{speed:,.0f} tokens/s",
        }
    )
