"""`oneiros tools`: which tools there are, and what those of MCP servers may do."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oneiros.cli import kernel, options, output

if TYPE_CHECKING:
    from oneiros.devices.mcp_client import McpServers, ServerTool

app = typer.Typer(
    help="List tools, and say what those of MCP servers may do.", no_args_is_help=True
)


class _Effect(StrEnum):
    LOCAL = "local"
    SEND = "send"
    SPEND = "spend"
    DELETE = "delete"
    EXECUTE = "execute"


@app.command("list", epilog="Example: oneiros tools list --json")
def list_tools(json: options.Json = False) -> None:
    """List the tools of the running kernel; where none runs, those of MCP servers."""
    from oneiros.errors import ControlError

    try:
        tools: list[dict[str, Any]] = kernel.client().call("tools")
    except ControlError:
        from oneiros.kernel.control_views import tool_view

        tools = [tool_view(tool) for tool in _servers().tools().values()]
    if json:
        output.write_json(tools)
        return
    if not tools:
        output.say("No kernel runs, and no tools of MCP servers are known: see `oneiros mcp list`.")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("name", "may", "what", box=None, pad_edge=False, header_style="dim")
    for tool in tools:
        table.add_row(
            Text(output.one_line(str(tool["name"])), no_wrap=True),
            Text(_effects(tool["effects"])),
            Text(output.one_line(str(tool["description"]))),
        )
    output.stdout().print(table)


@app.command("contract", epilog="Example: oneiros tools contract time_convert_time --read-only")
def contract(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A tool of an MCP server, as listed.", show_default=False
        ),
    ],
    read_only: Annotated[
        bool, typer.Option("--read-only", help="It changes nothing, and is called unasked.")
    ] = False,
    effect: Annotated[
        list[_Effect] | None,
        typer.Option(help="What it may do; may be given several times.", show_default=False),
    ] = None,
    critical: Annotated[
        list[str] | None,
        typer.Option(metavar="ARGUMENT", help="Decides whom or what an effect hits; '*': each."),
    ] = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(metavar="READER", help="Who reads its arguments: public, web:{url}, ..."),
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Where its results come from: web:{url}, ..."),
    ] = None,
    trusted: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD", help="Of its results that no outsider writes: ids, amounts; '*': each."
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name", metavar="FIELD", help="A trusted one by which you name a record: a title."
        ),
    ] = None,
    records: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="What a record is: file, payment.", show_default=False),
    ] = None,
    takes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARGUMENT=KIND.FIELD",
            help="What an argument may take of a record that you name: file_id=file.id.",
        ),
    ] = None,
    requested_by: Annotated[
        list[str] | None,
        typer.Option(metavar="WORDS", help="Of yours that ask for it, such as 'pay'."),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--shared", help="Whether only its caller's owner reads results."),
    ] = None,
    idempotent: Annotated[
        bool | None,
        typer.Option(
            "--idempotent/--not-idempotent", help="Whether a call may be made twice for once."
        ),
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For a call.", show_default=False)
    ] = None,
    output_limit: Annotated[
        int | None,
        typer.Option(
            metavar="CHARACTERS", help="Of a result that a model sees.", show_default=False
        ),
    ] = None,
    capability: Annotated[
        str | None, typer.Option(help="What a process needs to call it.", show_default="its name")
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="The contract is for the tool as it is now.")
    ] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget what was said: each call is asked about.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show what a tool of an MCP server may do, or say so.

    A server's own words count for nothing: without a contract every call is asked about. A contract
    is for the tool as it is now: when its description or its arguments change, it does not count
    until it is confirmed."""
    from oneiros.devices.contracts import Entry, conservative, read_contracts, write_contracts
    from oneiros.devices.mcp_client import applied
    from oneiros.errors import OneirosError
    from oneiros.kernel.contract import Effect
    from oneiros.model.folders import data_folder

    known = _servers().known.get(name)
    if known is None:
        raise OneirosError(
            f"There is no tool {name} of an MCP server: `oneiros mcp list --check` asks the "
            "servers, and `oneiros tools list` lists all tools."
        )
    said: dict[str, object] = {
        "effects": [str(Effect[one.name]) for one in effect] if effect else None,
        "critical": critical or None,
        "sinks": sink or None,
        "origins": origin or None,
        "trusted_fields": trusted or None,
        "names": names or None,
        "records": records,
        "takes": [_pair(text) for text in takes] if takes else None,
        "requested_by": requested_by or None,
        "private": private,
        "idempotent": idempotent,
        "deadline": deadline,
        "output_limit": output_limit,
        "capability": capability,
    }
    said = {field: value for field, value in said.items() if value is not None}
    if read_only:
        if "effects" in said:
            raise typer.BadParameter("--read-only and --effect contradict each other")
        said["effects"] = []
    if reset and (said or confirm):
        raise typer.BadParameter("--reset forgets everything: use it alone")
    if said or confirm or reset:
        folder = data_folder()
        entries = read_contracts(folder)
        before = entries.pop(name, Entry({}))
        if not reset:
            now = known.adopted.definition.sha256
            if before.definition not in (None, now) and not confirm:
                raise OneirosError(f"{known.problem} Nothing was changed.")
            entries[name] = Entry({**before.fields, **said}, now)
            applied(entries[name], name, conservative(known.server), known.adopted)
        write_contracts(folder, entries)
        known = _servers().known[name]
    _show(known, json)


def _pair(text: str) -> list[str]:
    argument, sign, field = text.partition("=")
    if not (argument and sign and "." in field):
        raise typer.BadParameter(f"--takes {text}: write ARGUMENT=KIND.FIELD.")
    return [argument, field]


def _show(known: ServerTool, json: bool) -> None:
    from oneiros.devices.contracts import as_fields

    fields = as_fields(known.contract)
    definition = known.adopted.definition
    if json:
        output.write_json(
            {
                "name": known.name,
                "server": known.server,
                "tool": definition.name,
                "description": known.adopted.description,
                "parameters": dict(known.adopted.parameters),
                "not_enforced": list(known.adopted.notes),
                "server_says": list(definition.hints),
                "problem": known.problem or None,
                "contract": fields,
            }
        )
        return
    output.say(f"{known.name}: {known.adopted.description}")
    facts = {field: _shown(value) for field, value in fields.items()}
    facts["effects"] = _effects(fields["effects"])
    if definition.hints:
        facts["the server says"] = ", ".join(definition.hints)
    if known.adopted.notes:
        facts["not enforced"] = "; ".join(known.adopted.notes)
    if known.problem:
        facts["problem"] = known.problem
    output.print_facts(facts)


def _shown(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value)) or "-"
        case float():
            return f"{value:g}"
    return str(value) or "-"


def _effects(effects: object) -> str:
    return ", ".join(map(str, effects)) if isinstance(effects, list) and effects else "read only"


def _servers() -> McpServers:
    from oneiros.devices.mcp_client import McpServers
    from oneiros.model.folders import data_folder

    return McpServers(data_folder())
