"""`oneiros next`: what a model thinks comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import inputs, options, output

if TYPE_CHECKING:
    from oneiros.engine.language_model import NextToken

EXAMPLE = 'oneiros next smollm2-135m "The cat sat on the"'

_BAR_WIDTH = 32


def command(
    model: options.Model,
    text: Annotated[
        str | None, typer.Argument(help="What comes before.", show_default="standard input")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Tokens to list.")] = 10,
    json: options.Json = False,
    threads: options.Threads = None,
    context: options.Context = None,
) -> None:
    """List the most probable next tokens of a text."""
    beginning = inputs.prompt_or_stdin(text, "text")
    language_model = inputs.load_model(model, threads=threads, context=context)
    tokens = language_model.next_tokens(beginning, count)
    if json:
        output.write_json(
            [
                {
                    "id": token.id,
                    "text": token.text,
                    "probability": float(token.probability),
                    "logprob": float(token.logprob),
                }
                for token in tokens
            ]
        )
    else:
        _print_table(tokens)


def _print_table(tokens: list[NextToken]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("token")
    table.add_column("id", justify="right", style="dim")
    table.add_column("probability", justify="right")
    table.add_column("")
    largest = max(token.probability for token in tokens)
    for token in tokens:
        table.add_row(
            Text(output.one_line(token.text), style="bold"),
            str(token.id),
            f"{token.probability:.2%}",
            Text(bar(token.probability / largest, _BAR_WIDTH), style="cyan"),
        )
    output.stdout().print(table)


def bar(share: float, width: int) -> str:
    """A bar of `width` characters at share 1, to an eighth of a character."""
    eighths = round(share * width * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[rest].strip()
