"""`mcp.json` in the data folder: which MCP servers there are, and how they are reached.

The file has the shape that other programs use too: {"mcpServers": {NAME: {"command", "args", "env",
"cwd"} or {"url", "headers"}}}. What is not known in it is kept as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from oneiros.errors import OneirosError

FILE = "mcp.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,39}")
_SECTION = "mcpServers"


class McpConfigError(OneirosError):
    """mcp.json is malformed, or speaks of a server that cannot be."""


@dataclass(frozen=True, slots=True)
class StdioServer:
    """A program that speaks MCP over its standard input and output."""

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)  # beside the few it gets anyway
    cwd: str | None = None


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A server that is reached over streamable HTTP."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


Server = StdioServer | HttpServer


def fingerprint(server: Server) -> str:
    """A hash of everything that decides which server this is."""
    return hashlib.sha256(json.dumps(asdict(server), sort_keys=True).encode()).hexdigest()


def read_servers(folder: Path) -> list[Server]:
    """The servers of a data folder, less those that say `"disabled": true`; none without a file.

    Raises:
        McpConfigError: the file is malformed; the message names the place.
    """
    entries = _section(_read(folder / FILE), folder / FILE)
    return [
        _server(name, entry, folder / FILE)
        for name, entry in entries.items()
        if not (isinstance(entry, dict) and entry.get("disabled") is True)
    ]


def add_server(folder: Path, server: Server) -> None:
    """Write one more server into the file.

    Raises:
        McpConfigError: there is one of this name, the server cannot be, or the file is malformed.
    """
    path = folder / FILE
    entry = {key: value for key, value in asdict(server).items() if value and key != "name"}
    entry = json.loads(json.dumps(entry))
    _server(server.name, entry, path)
    with _changing(path) as document:
        entries = document.setdefault(_SECTION, {})
        if server.name in _section(document, path):
            raise McpConfigError(
                f'{path} has a server "{server.name}": `oneiros mcp remove` removes it.'
            )
        entries[server.name] = entry


def remove_server(folder: Path, name: str) -> None:
    """Take a server out of the file. Raises McpConfigError: there is none, or it is malformed."""
    path = folder / FILE
    with _changing(path) as document:
        if name not in _section(document, path):
            raise McpConfigError(f'{path} has no server "{name}": see `oneiros mcp list`.')
        del document[_SECTION][name]


def _read(path: Path) -> dict[str, dict[str, object]]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise McpConfigError(f"{path} is not JSON: {error}. Correct it, or delete it.") from error
    if not isinstance(document, dict):
        raise McpConfigError(f'{path} is no JSON object: it should hold {{"{_SECTION}": {{...}}}}.')
    return document


def _section(document: Mapping[str, object], path: Path) -> dict[str, object]:
    entries = document.get(_SECTION, {})
    if not isinstance(entries, dict):
        raise McpConfigError(f"{path}: {_SECTION} is no object of servers by their names.")
    return entries


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[dict[str, dict[str, object]]]:
    """The file's content, written back when the block ends well. Only its owner may read it:
    environments and headers hold secrets."""
    document = _read(path)
    yield document
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _server(name: str, entry: object, path: Path) -> Server:
    place = f'{path}: server "{name}"'
    if not _NAME.fullmatch(name):
        raise McpConfigError(
            f"{path}: {name[:60]!r} is no name for a server: letters, digits, spaces and _ . -, "
            "up to 40 characters, the first a letter or digit."
        )
    if not isinstance(entry, dict):
        raise McpConfigError(f"{place} is no object.")
    if ("command" in entry) == ("url" in entry):
        raise McpConfigError(f'{place} needs either "command" (a program) or "url" (an address).')
    if "url" in entry:
        return HttpServer(name, _url(entry["url"], place), _texts(entry, "headers", place))
    command, args, cwd = entry["command"], entry.get("args", []), entry.get("cwd")
    if not isinstance(command, str) or not command:
        raise McpConfigError(f"{place}: command is no text.")
    if not isinstance(args, list) or not all(isinstance(one, str) for one in args):
        raise McpConfigError(f"{place}: args is no list of texts.")
    if cwd is not None and not isinstance(cwd, str):
        raise McpConfigError(f"{place}: cwd is no text.")
    env = _texts(entry, "env", place)
    if any("\0" in text for text in (command, *args, *env, *env.values(), cwd or "")):
        raise McpConfigError(f"{place} holds a NUL character, which no program can be given.")
    return StdioServer(name, command, tuple(args), env, cwd)


def _texts(entry: Mapping[str, object], key: str, place: str) -> dict[str, str]:
    value = entry.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise McpConfigError(f"{place}: {key} is no object of texts.")
    return value


def _url(value: object, place: str) -> str:
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise McpConfigError(f"{place}: url is no address such as https://example.org/mcp.")
    return str(value)
