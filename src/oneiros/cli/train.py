"""`oneiros train`: from text to a model, one command for each stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from oneiros.cli import train_base, train_chat, train_data, train_merge, train_tokenizer

if TYPE_CHECKING:
    from oneiros.cli.app import Command

app = typer.Typer(help="Make a model: data, tokenizer, base, assistant.", no_args_is_help=True)

COMMANDS: dict[str, Command] = {
    "data": train_data,
    "tokenizer": train_tokenizer,
    "base": train_base,
    "chat": train_chat,
    "merge": train_merge,
}
for _name, _module in COMMANDS.items():
    app.command(_name, epilog=f"Example: {_module.EXAMPLE}")(_module.command)
