"""`oneiros export`: the two files that a language model is."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from oneiros.cli import inputs, options, output
from oneiros.errors import OneirosError

EXAMPLE = "oneiros export smollm2-135m two-files"


def command(
    model: options.Model,
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The folder to write into.", show_default=False),
    ],
    force: options.Force = False,
) -> None:
    """Write a model as parameters and a C program that runs them.

    The program needs nothing but a C compiler.
    """
    from oneiros.model.export import export
    from oneiros.model.parameters import open_parameters

    if directory.exists() and not directory.is_dir():
        raise OneirosError(f"{directory} is a file: name a folder to write into.")
    for path in (directory / "model.bin", directory / "run.c"):
        if path.exists() and not force:
            raise OneirosError(f"{path} exists: add --force to replace it.")
    exported = export(open_parameters(inputs.model_path(model)), directory)
    folder = shlex.quote(str(directory))
    ask = '"Why is the sky blue?"' if exported.answers else '-c "Once upon a time"'
    output.say(f"{exported.model}\n{exported.program}\n")
    output.say("Compile it and run it:")
    output.say(f"  cd {folder} && gcc -O3 -march=native -fopenmp run.c -o run -lm")
    output.say(f"  ./run model.bin {ask}")
