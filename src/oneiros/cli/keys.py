"""`oneiros keys`: who may use the server."""

from __future__ import annotations

from typing import Annotated

import typer

from oneiros.cli import options, output

EXAMPLE = "oneiros keys create laptop --requests 60"

app = typer.Typer(help="Make, list and revoke the API keys of `oneiros serve`.")

_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="What the key is for.", show_default=False)
]


@app.command("create", epilog=f"Example: {EXAMPLE}")
def create(
    name: _Name,
    rate: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            min=1,
            show_default="no limit",
            help="Tokens of prompts and replies that it may use per minute.",
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(min=1, show_default="no limit", help="Requests that it may make per minute."),
    ] = None,
    priority: Annotated[
        str,
        typer.Option(
            metavar="CLASS",
            help="interactive, or background: its requests wait for interactive ones.",
        ),
    ] = "interactive",
) -> None:
    """Make a key and print it. It cannot be shown again."""
    from oneiros.server import keys

    if priority not in keys.PRIORITIES:
        raise typer.BadParameter(f"it is one of {', '.join(keys.PRIORITIES)}")
    secret = keys.create_key(
        keys.key_file(),
        name,
        priority=priority,
        requests_per_minute=requests,
        tokens_per_minute=rate,
    )
    output.say(secret)


@app.command("list", epilog="Example: oneiros keys list --json")
def list_keys(json: options.Json = False) -> None:
    """List the keys: names and limits, never the keys themselves."""
    from dataclasses import asdict
    from datetime import datetime

    from oneiros.server.keys import key_file, read_keys

    path = key_file()
    known = read_keys(path)
    if json:
        fields = [asdict(key) for key in known]
        output.write_json([{k: v for k, v in key.items() if k != "sha256"} for key in fields])
        return
    if not known:
        output.say("There are no keys: `oneiros keys create NAME` makes one.")
        if path.exists():
            output.say(f"A server asks for one still, until {path} is deleted and it is restarted.")
        return
    from rich.table import Table

    table = Table("name", "created", "class", "requests/min", "tokens/min", box=None)
    for key in known:
        table.add_row(
            output.one_line(key.name),
            datetime.fromtimestamp(key.created).strftime("%Y-%m-%d"),
            key.priority,
            *(
                "no limit" if limit is None else f"{limit:,}"
                for limit in (key.requests_per_minute, key.tokens_per_minute)
            ),
        )
    output.stdout().print(table)


@app.command("revoke", epilog="Example: oneiros keys revoke laptop")
def revoke(name: _Name) -> None:
    """Remove a key. Running servers refuse it within a second.

    Servers go on asking for keys when the last one is revoked. To need none again, delete
    keys.json in the data folder and restart them."""
    from oneiros.server.keys import key_file, read_keys, revoke_key

    path = key_file()
    revoke_key(path, name)
    output.say(f"{name} is revoked.")
    if not read_keys(path):
        output.say(
            f"It was the last: nobody is let in until there is another, or {path} is deleted"
        )
        output.say("and the server restarted.")
