"""`oneiros pull`: fetch a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oneiros.cli import inputs, output

EXAMPLE = "oneiros pull qwen2.5-coder-0.5b"


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A name that `oneiros models` lists, or hf:OWNER/REPOSITORY/FILE.gguf.",
            show_default=False,
        ),
    ],
    sha256: Annotated[
        str | None, typer.Option(metavar="HASH", help="What a file from the hub must be.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PATH", help="Take the bytes from this file instead of the network."
        ),
    ] = None,
) -> None:
    """Fetch a model and check its SHA-256.

    An interrupted pull goes on where it was."""
    from oneiros.model import catalog

    with inputs.pull_progress() as report:
        path = catalog.pull(name, report, sha256=sha256, source=source)
    output.say(f"{name}: {path}")
