"""`oneiros train merge`: a model with its adapters in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oneiros.cli import inputs, options, output
from oneiros.cli.train_extra import train_extra

EXAMPLE = "oneiros train merge tuned/adapter --output merged"


def command(
    adapter: Annotated[
        Path,
        typer.Argument(
            metavar="ADAPTER",
            help="A folder with adapter_config.json: ours, or PEFT's.",
            show_default=False,
        ),
    ],
    folder: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="The folder to write.", show_default=False
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The model that the adapters belong to: a name or a path.",
            show_default="as the adapter says",
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="TYPE", help="Of the weights: float32, float16 or bfloat16.")
    ] = "float32",
    json: options.Json = False,
) -> None:
    """Add LoRA adapters to the weights that they were trained beside.

    DIR becomes a model in Hugging Face's layout, which runs, converts and trains like any other.
    """
    from oneiros.model.replacement import refuse_existing

    with train_extra():
        from oneiros.training.lora import base_of, merge_folder
    refuse_existing(folder)
    base = inputs.model_path(model or base_of(adapter))
    changed = merge_folder(base, adapter, folder, dtype=dtype)
    if json:
        output.write_json({"path": str(folder), "base": str(base), "matrices": changed})
        return
    output.print_facts(
        {"model": str(folder), "base": str(base), "matrices": f"{changed:,} changed"}
    )
