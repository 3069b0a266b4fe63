"""`oneiros tokenize`: text as a model sees it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import inputs, options, output
from oneiros.errors import OneirosError

if TYPE_CHECKING:
    from oneiros.model.tokenizer import Tokenizer

EXAMPLE = 'oneiros tokenize smollm2-135m "strawberry"'

_COLOURS = ("black on bright_cyan", "black on bright_yellow")


def command(
    model: options.Model,
    text: Annotated[
        str | None, typer.Argument(help="What to cut up.", show_default="standard input")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take the text from this file.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Show the tokens of a text, and their ids.

    On a terminal the tokens stand apart in alternating colours, each with its id; a pipe gets one
    per line: id, tab, token.
    """
    if text is not None and file is not None:
        raise OneirosError("Give either a text or --file, not both.")
    content = inputs.read_text(file) if file else inputs.prompt_or_stdin(text, "text")

    from oneiros.model.parameters import open_parameters
    from oneiros.model.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(open_parameters(inputs.model_path(model)))
    ids = tokenizer.encode(content)
    if json:
        output.write_json([{"id": i, "text": tokenizer.token_text(i)} for i in ids])
    elif sys.stdout.isatty():
        _print_coloured(tokenizer, ids, content)
    else:
        sys.stdout.writelines(f"{i}\t{tokenizer.token_text(i)}\n" for i in ids)


def _print_coloured(tokenizer: Tokenizer, ids: Sequence[int], content: str) -> None:
    from rich.text import Text

    shown = Text()
    for number, token_id in enumerate(ids):
        shown.append(tokenizer.token_text(token_id), style=_COLOURS[number % len(_COLOURS)])
        shown.append(f"{token_id} ", style="dim")
        if tokenizer.token_bytes(token_id).endswith(b"\n"):
            shown.append("\n")
    console = output.stdout()
    console.print(shown)
    size = len(content.encode("utf-8"))
    console.print(
        f"{len(ids):,} tokens · {size:,} bytes · {size / max(1, len(ids)):.2f} bytes a token",
        style="dim",
    )
