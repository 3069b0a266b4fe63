"""`oneiros convert`: a model in another file format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import inputs, options, output
from oneiros.errors import OneirosError

if TYPE_CHECKING:
    from oneiros.model.tensor_types import TensorType

EXAMPLE = "oneiros convert smollm2-135m smollm2.q8_0.gguf --type q8_0"


def command(
    model: options.Model,
    destination: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="A file that ends in .gguf, else a folder in Hugging Face's layout.",
            show_default=False,
        ),
    ],
    tensor_type: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            show_default="as they are",
            help="How weights are stored: f32, f16, bf16, q8_0, q4_1 or q4_0.",
        ),
    ] = None,
) -> None:
    """Write a model as GGUF file or Hugging Face folder, or with other weights."""
    from oneiros.model.convert import convert

    with output.byte_progress("Converting") as advance:
        convert(
            inputs.model_path(model),
            destination,
            tensor_type=None if tensor_type is None else _tensor_type(tensor_type),
            progress=lambda done, total: advance(done, total, ""),
        )
    output.say(destination)


def _tensor_type(name: str) -> TensorType:
    from oneiros.model.convert import GGUF_TYPES
    from oneiros.model.tensor_types import TensorType

    try:
        return TensorType[name.upper()]
    except KeyError:
        known = ", ".join(tensor_type.name.lower() for tensor_type in GGUF_TYPES)
        raise OneirosError(f"No weight format is called {name!r}: there are {known}.") from None
