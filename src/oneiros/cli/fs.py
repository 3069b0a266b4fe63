"""`oneiros fs`: the user's files as processes see them, with their versions."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from oneiros.cli import kernel, options, output

app = typer.Typer(help="The files that processes work with: list, read, search, undo.")

_File = Annotated[
    str,
    typer.Argument(
        metavar="PATH", help='Within the folder of files, with "/".', show_default=False
    ),
]


@app.command("ls", epilog="Example: oneiros fs ls notes")
def list_files(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A folder.", show_default="all there is")
    ] = "",
    json: options.Json = False,
) -> None:
    """List a folder."""
    entries = kernel.client().call("fs.list", path=path)
    if json:
        output.write_json(entries)
        return
    print_entries(entries)


@app.command("cat", epilog="Example: oneiros fs cat notes/rounds.csv")
def read(path: _File, json: options.Json = False) -> None:
    """Write a file to standard output. In JSON, bytes that are no UTF-8 are in Base64."""
    from base64 import b64decode

    pieces = kernel.client().stream("fs.read", path=path)
    if json:
        output.write_json(_content(path, b"".join(b64decode(piece["data"]) for piece in pieces)))
        return
    if not sys.stdout.isatty():
        for piece in pieces:
            sys.stdout.buffer.write(b64decode(piece["data"]))
        sys.stdout.buffer.flush()
        return
    data = b"".join(b64decode(piece["data"]) for piece in pieces)
    output.write(data.decode(errors="replace"))


@app.command("search", epilog='Example: oneiros fs search "funding rounds of 2024"')
def search(
    query: Annotated[str, typer.Argument(metavar="TEXT", show_default=False)],
    count: Annotated[int, typer.Option(min=1, max=100, help="Passages at most.")] = 10,
    json: options.Json = False,
) -> None:
    """Find passages by their words and their meaning."""
    hits = kernel.client().call("fs.search", query=query, limit=count)
    if json:
        output.write_json(hits)
        return
    from rich.text import Text

    console = output.stdout()
    for hit in hits:
        place = f"{output.one_line(hit['path'])} {hit['start']}-{hit['end']}"
        console.print(Text(f"{place}  {hit['score']:.3f}", style="bold"), soft_wrap=True)
        console.print(Text(f"  {_passage(hit['text'])}"), soft_wrap=True)
    if not hits:
        output.say("Nothing was found.")


@app.command("history", epilog="Example: oneiros fs history notes/rounds.csv")
def history(path: _File, json: options.Json = False) -> None:
    """List the changes of a file, and which call made them."""
    changes = kernel.client().call("fs.history", path=path)
    if json:
        output.write_json(changes)
        return
    if not changes:
        output.say("No change of this file is known.")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("change", "time", "what", "size", "by"):
        table.add_column(name, no_wrap=True, justify="right" if name == "size" else "left")
    for change in changes:
        after = change["after"]
        table.add_row(
            str(change["id"]),
            datetime.fromtimestamp(change["time"]).strftime("%Y-%m-%d %H:%M:%S"),
            Text(output.one_line(change_text(change))),
            "-" if after is None else output.bytes_text(after["size"]),
            Text(output.one_line(_author(change))),
        )
    output.stdout().print(table)


@app.command("undo", epilog="Example: oneiros fs undo 17")
def undo(
    change: Annotated[
        int,
        typer.Argument(
            metavar="CHANGE", help="Its number in `oneiros fs history`.", show_default=False
        ),
    ],
    json: options.Json = False,
) -> None:
    """Take a change back. That is a change as well, and can be undone."""
    done = kernel.client().call("fs.undo", change=change)
    if json:
        output.write_json(done)
        return
    output.say(f"Change {done['id']}: {output.one_line(change_text(done))}")


def print_entries(entries: Sequence[Mapping[str, Any]]) -> None:
    """A folder's content, a line each."""
    for entry in entries:
        name = output.one_line(entry["path"])
        when = datetime.fromtimestamp(entry["modified"]).strftime("%Y-%m-%d %H:%M")
        size = output.bytes_text(entry["size"]) if entry["kind"] == "file" else entry["kind"]
        output.say(f"{size:>12}  {when}  {name}{'/' if entry['kind'] == 'folder' else ''}")
    if not entries:
        output.say("There are no files here.")


def change_text(change: Mapping[str, Any]) -> str:
    """What a change did: "write notes/a.txt", "delete notes/a.txt (takes back 16)"."""
    text = f"{change['kind']} {change['path']}"
    if change["target"]:
        text += f" to {change['target']}"
    return text if change["undoes"] is None else f"{text} (takes back {change['undoes']})"


def _content(path: str, data: bytes) -> dict[str, Any]:
    from base64 import b64encode

    try:
        return {"path": path, "size": len(data), "text": data.decode()}
    except UnicodeDecodeError:
        return {"path": path, "size": len(data), "base64": b64encode(data).decode()}


def _author(change: Mapping[str, Any]) -> str:
    if change["kind"] == "outside":
        return "somebody else"
    call = f" (call {change['call_id']})" if change["pid"] is not None else ""
    return f"{change['tool'] or 'you'}{call}"


def _passage(text: str, longest: int = 200) -> str:
    line = " ".join(output.printable(text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
