"""`contracts.json` in the data folder: what a person says that tools of MCP servers may do.

Nothing that a server says of itself is relied on. Without an entry a tool has the contract of one
of which nothing is known, and every call is asked about. An entry holds fields of `Contract`, and
those that it leaves out stay as they were; "definition" is a hash of the tool as it was when a
person looked at it: an entry does not count for a tool that has changed since.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from oneiros.errors import OneirosError
from oneiros.kernel.contract import CONSERVATIVE, Contract
from oneiros.kernel.label import SYSTEM, TRUSTED_KINDS, UNTRUSTED_KINDS, USER
from oneiros.kernel.readings import is_vouched

FILE = "contracts.json"

Fields = Mapping[str, object]

_SECTION: Final = "contracts"
_DEFINITION: Final = "definition"
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_CAPABILITY: Final = re.compile(r"[A-Za-z0-9_:.-]{0,100}")
_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Contract))
_CONTRACT: Final[TypeAdapter[Contract]] = TypeAdapter(Contract)
_LONGEST_DEADLINE: Final = 3_600.0  # seconds
_LARGEST_OUTPUT: Final = 1_000_000  # characters


class ContractError(OneirosError):
    """contracts.json is malformed, or a contract does not fit its tool."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the file says of a tool."""

    fields: Fields
    definition: str | None = None  # None: whatever the tool is


def conservative(server: str) -> Contract:
    """The contract of a server's tool of which nothing is known."""
    return dataclasses.replace(CONSERVATIVE, origins=(f"mcp:{server}",), sinks=(f"mcp:{server}",))


def read_contracts(folder: Path) -> dict[str, Entry]:
    """The entries by the names of tools; none without a file.

    Raises:
        ContractError: the file is malformed.
    """
    path = folder / FILE
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{path} is not JSON: {error}. Correct it, or delete it.") from error
    entries = document.get(_SECTION) if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise ContractError(f'{path} should hold {{"{_SECTION}": {{TOOL: {{...}}}}}}.')
    return {name: _entry(entry, f"{path}: {name}") for name, entry in entries.items()}


def write_contracts(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Replace the file."""
    document = {
        name: dict(entry.fields) | ({_DEFINITION: entry.definition} if entry.definition else {})
        for name, entry in sorted(entries.items())
    }
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{FILE}.new"
    new.write_text(json.dumps({_SECTION: document}, indent=2, ensure_ascii=False) + "\n")
    new.replace(folder / FILE)


def as_fields(contract: Contract) -> dict[str, object]:
    """A contract as the file holds it."""
    fields = _CONTRACT.dump_python(contract, mode="json")
    return {**fields, "effects": sorted(fields["effects"])}


def contract_of(base: Contract, fields: Fields, arguments: Fields, place: str) -> Contract:
    """The contract that an entry makes of a tool's own.

    Args:
        base: the contract without the entry.
        fields: what the entry says.
        arguments: the tool's properties: contracts speak of arguments by name.
        place: for messages.

    Raises:
        ContractError: a field or value is none that contracts have.
    """
    if fields.get("undo"):
        raise ContractError(f"{place}: undo: the kernel can undo nothing that a server does.")
    for name in fields:
        if name not in _FIELDS:
            raise ContractError(f'{place}: "{name}" is none of {", ".join(_FIELDS)}.')
    try:
        text = json.dumps(as_fields(base) | dict(fields))
        contract = _CONTRACT.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ContractError(f"{place}: {where}: {first['msg']}.") from error
    paths = [*contract.critical, *(one[0] for one in (*contract.takes, *contract.said_as))]
    spoken = {path.partition(".")[0] for path in paths} - {"*"}
    for template in (*contract.sinks, *contract.origins):
        spoken |= set(_PLACEHOLDER.findall(template))
    if spoken - arguments.keys():
        has = ", ".join(sorted(arguments)) or "none"
        raise ContractError(
            f"{place}: there is no argument {', '.join(sorted(spoken - arguments.keys()))}; "
            f"the tool has {has}."
        )
    for field in contract.names:
        if not is_vouched(field, contract.trusted_fields):
            raise ContractError(f'{place}: the field "{field}" names records, and is not trusted.')
    for origin in contract.origins:
        kind, _, rest = origin.partition(":")
        if origin not in (USER, SYSTEM) and not (rest and kind in TRUSTED_KINDS + UNTRUSTED_KINDS):
            raise ContractError(f'{place}: "{origin}" is no origin: write mcp:NAME, web:HOST, ….')
    if not 0 < contract.deadline <= _LONGEST_DEADLINE:
        raise ContractError(f"{place}: a deadline is above 0 and at most {_LONGEST_DEADLINE:g}.")
    if not 0 < contract.output_limit <= _LARGEST_OUTPUT:
        raise ContractError(
            f"{place}: an output limit is above 0 and at most {_LARGEST_OUTPUT:,} characters."
        )
    if not _CAPABILITY.fullmatch(contract.capability):
        raise ContractError(f"{place}: a capability is letters, digits and _ : . -, up to 100.")
    return contract


def _entry(entry: object, place: str) -> Entry:
    if not isinstance(entry, dict):
        raise ContractError(f"{place} is no object.")
    definition = entry.get(_DEFINITION)
    if definition is not None and not isinstance(definition, str):
        raise ContractError(f"{place}: {_DEFINITION} is no text.")
    return Entry({key: one for key, one in entry.items() if key != _DEFINITION}, definition)
