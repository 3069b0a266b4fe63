"""`oneiros models`: what there is."""

from __future__ import annotations

from oneiros.cli import options, output

EXAMPLE = "oneiros models"


def command(json: options.Json = False) -> None:
    """List the models known by name, and which of them are here."""
    from oneiros.model.catalog import known_models

    models = known_models()
    if json:
        output.write_json(
            [
                {
                    "name": model.name,
                    "summary": model.summary,
                    "kind": model.kind,
                    "bytes": model.bytes,
                    "sha256": model.sha256,
                    "path": str(model.installed_path) if model.installed_path else None,
                }
                for model in models
            ]
        )
        return

    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("name", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("here")
    table.add_column("what")
    for model in models:
        table.add_row(
            Text(model.name, style="bold"),
            output.bytes_text(model.bytes),
            Text("yes", style="green") if model.installed_path else Text("-", style="dim"),
            Text(output.one_line(model.summary)),
        )
    console = output.stdout()
    console.print(table)
    if not all(model.installed_path for model in models):
        console.print("\nFetch one with: oneiros pull NAME", style="dim")
