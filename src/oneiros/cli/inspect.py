"""`oneiros inspect`: what is in a model file, and what it needs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oneiros.cli import inputs, options, output

if TYPE_CHECKING:
    from oneiros.engine.memory import Memory
    from oneiros.model.architecture import Architecture
    from oneiros.model.inspect import Inspection

EXAMPLE = "oneiros inspect smollm2-135m --context 4096"


def command(
    model: options.Model,
    context: Annotated[
        int | None,
        typer.Option(
            min=1, show_default="the model's", help="Tokens of context to plan memory for."
        ),
    ] = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    json: options.Json = False,
) -> None:
    """Show a model's architecture, tensors and need of memory."""
    from oneiros.engine.memory import memory_needed
    from oneiros.model.inspect import inspect_parameters
    from oneiros.model.parameters import open_parameters

    parameters = open_parameters(inputs.model_path(model))
    found = inspect_parameters(parameters)
    memory = memory_needed(parameters, context)
    if json:
        output.write_json(_as_json(found, memory, tensors))
    else:
        _print(found, memory, tensors)


def _as_json(found: Inspection, memory: Memory, tensors: bool) -> dict[str, Any]:
    result = {
        "path": str(found.path),
        "format": found.format,
        "name": found.name,
        "architecture": asdict(found.architecture),
        "parameters": found.elements,
        "file_bytes": found.file_bytes,
        "types": [asdict(total) | {"type": total.type.name} for total in found.totals],
        "memory": asdict(memory) | {"total": memory.total},
    }
    if tensors:
        result["tensors"] = [
            {
                "name": tensor.name,
                "type": tensor.type.name,
                "shape": list(tensor.shape),
                "bytes": tensor.data.nbytes,
            }
            for tensor in found.tensors
        ]
    return result


def _print(found: Inspection, memory: Memory, tensors: bool) -> None:
    size = output.bytes_text
    output.print_facts(
        {
            "file": f"{found.path} ({found.format}, {size(found.file_bytes)})",
            "name": found.name or "-",
            "parameters": f"{_millions(found.elements)}, "
            f"{8 * found.file_bytes / found.elements:.1f} bits each",
        }
        | _architecture_facts(found.architecture)
        | {
            "memory": f"{size(memory.total)} at {memory.context:,} tokens: "
            f"weights {size(memory.weights)}, KV cache {size(memory.kv_cache)}, "
            f"workspace {size(memory.workspace)}",
        }
    )
    output.stdout().print()
    _print_types(found)
    if tensors:
        output.stdout().print()
        _print_tensors(found)


def _architecture_facts(architecture: Architecture) -> dict[str, str]:
    rope = f"base {architecture.rope_base:,.0f}"
    scaling = architecture.rope_scaling
    if scaling is not None:
        rope += f", {scaling.kind} scaling by {scaling.factor:g}"
    facts = {
        "architecture": f"{architecture.name}, {architecture.layers} layers of width "
        f"{architecture.width:,}",
        "attention": f"{architecture.heads} heads of {architecture.head_dim}, "
        f"{architecture.kv_heads} for keys and values",
        "feed-forward": f"{architecture.ffn_width:,}",
        "vocabulary": f"{architecture.vocabulary:,}"
        + (", input and output share their matrix" if architecture.tied else ""),
        "context": f"{architecture.context:,} tokens",
        "positions": f"rotary, {rope}",
    }
    if architecture.sliding_window is not None:
        facts["context"] += ", capped to the sliding window"
    return facts


def _print_types(found: Inspection) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("type")
    for heading in ("tensors", "parameters", "size"):
        table.add_column(heading, justify="right")
    for total in found.totals:
        table.add_row(
            total.type.name,
            str(total.tensors),
            _millions(total.elements),
            output.bytes_text(total.bytes),
        )
    output.stdout().print(table)


def _print_tensors(found: Inspection) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("tensor", no_wrap=True)
    table.add_column("type")
    for heading in ("shape", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    for tensor in found.tensors:
        table.add_row(
            Text(output.one_line(tensor.name)),
            tensor.type.name,
            " x ".join(f"{length:,}" for length in tensor.shape),
            output.bytes_text(tensor.data.nbytes),
        )
    output.stdout().print(table)


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1_000_000 else f"{count:,}"
