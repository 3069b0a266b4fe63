"""`oneiros embed`: texts as vectors, and how near they are to each other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import inputs, options, output
from oneiros.errors import OneirosError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXAMPLE = 'oneiros embed --similarity "a cat" "a kitten" "a car"'

DEFAULT_MODEL = "all-minilm-l6-v2"


def command(
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT...",
            help="The texts, one argument each.",
            show_default="the lines of standard input",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A name that `oneiros models` lists, or a folder.")
    ] = DEFAULT_MODEL,
    similarity: Annotated[
        bool, typer.Option("--similarity", help="Show the cosines between the texts instead.")
    ] = False,
    truncate: Annotated[
        bool,
        typer.Option(
            "--truncate", help="Read the beginning of texts that are too long; else refuse them."
        ),
    ] = False,
    json: options.Json = False,
    threads: options.Threads = None,
) -> None:
    """Turn texts into vectors of unit length, near to each other where meanings are.

    Prints one line for each text: a JSON list of numbers.
    """
    chosen = _texts(texts)

    from oneiros.engine.embedding import load_embedder

    with output.stderr().status(f"Loading {output.one_line(model)}"):
        embedder = load_embedder(model, threads=threads)
    vectors = embedder.embed(chosen, truncate=truncate)
    if similarity:
        _print_similarity(chosen, vectors @ vectors.T, json)
    elif json:
        counts = embedder.count_tokens(chosen)
        output.write_json(
            [
                {
                    "text": text,
                    "tokens": min(count, embedder.longest),
                    "embedding": _numbers(vector),
                }
                for text, count, vector in zip(chosen, counts, vectors, strict=True)
            ]
        )
    else:
        sys.stdout.writelines(f"{_numbers(vector)}\n" for vector in vectors)


def _texts(arguments: list[str] | None) -> list[str]:
    if arguments:
        return [inputs.prompt_or_stdin(text, "text") for text in arguments]
    if sys.stdin.isatty():
        raise OneirosError("No text: give texts as arguments, or pipe lines in.")
    content = inputs.as_text(sys.stdin.buffer.read(), "standard input")
    lines = content.removesuffix("\n").split("\n") if content else []
    return [line.removesuffix("\r") for line in lines]


def _numbers(vector: NDArray[np.float32]) -> list[float]:
    """The shortest decimals that are these float32 numbers."""
    return [float(str(number)) for number in vector]


def _print_similarity(texts: list[str], cosines: NDArray[np.float32], json: bool) -> None:
    from rich.text import Text

    if json:
        rows = [_numbers(row) for row in cosines.round(6)]
        output.write_json({"texts": texts, "similarity": rows})
        return
    console = output.stdout()
    numbers = range(1, len(texts) + 1)
    console.print(Text("".join(f"{n:>7}" for n in numbers), style="dim"), soft_wrap=True)
    for number, text, row in zip(numbers, texts, cosines, strict=True):
        line = Text("".join(f"{cosine:7.3f}" for cosine in row)) + Text(f"  {number} ", style="dim")
        console.print(line + Text(output.one_line(text)), soft_wrap=True)
