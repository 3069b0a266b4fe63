"""What a person says that tools of MCP servers may do, and where that is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.devices.contracts import (
    ContractError,
    Entry,
    as_fields,
    conservative,
    contract_of,
    read_contracts,
    write_contracts,
)
from oneiros.devices.mcp_client import applied
from oneiros.devices.mcp_tools import Definition, adopt
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.label import PUBLIC
from oneiros.kernel.policy import decide
from oneiros.kernel.verdict import Allow, Ask, PolicyContext, ToolCall

ARGUMENTS = {"to": {"type": "string"}, "text": {"type": "string"}}
[TOOL], _ = adopt("it", [Definition("send", "Send.", {"properties": ARGUMENTS})])


def made(fields: Mapping[str, object]) -> Contract:
    return contract_of(conservative("it"), fields, ARGUMENTS, "send")


def decision(contract: Contract) -> object:
    call = ToolCall("it_send", {"to": "a"}, contract, "it_send")
    context = PolicyContext(
        owner="me",
        app="x",
        capabilities=frozenset("*"),
        granted=frozenset(),
        request=str,
        label=PUBLIC,
    )
    return decide(call, context)


def test_of_an_unknown_tool_every_call_is_asked_about() -> None:
    assert conservative("it").origins == ("mcp:it",)
    assert isinstance(decision(conservative("it")), Ask)
    assert isinstance(decision(made({"effects": []})), Allow)


def test_an_entry_changes_what_it_says_and_nothing_else() -> None:
    contract = made({"effects": ["send"], "critical": ["to"], "deadline": 5})
    assert contract.effects == {Effect.SEND}
    assert (contract.critical, contract.deadline) == (("to",), 5.0)
    assert (contract.sinks, contract.origins) == (("mcp:it",), ("mcp:it",))


@given(
    st.builds(
        Contract,
        effects=st.frozensets(st.sampled_from(Effect)),
        critical=st.lists(st.sampled_from(["to", "text", "*"])).map(tuple),
        sinks=st.lists(st.sampled_from(["public", "web:{to}"])).map(tuple),
        origins=st.lists(st.sampled_from(["mcp:it", "web:{to}", "user"])).map(tuple),
        trusted_fields=st.sampled_from([(), ("id", "title"), ("*",)]),
        requested_by=st.lists(st.sampled_from(["send", "mail it"])).map(tuple),
        said_as=st.lists(
            st.tuples(st.just("to"), st.just("rw"), st.sampled_from(["edit", "write"]))
        ).map(tuple),
        takes=st.lists(st.just(("to", "contact.email"))).map(tuple),
        private=st.booleans(),
        idempotent=st.booleans(),
        deadline=st.floats(0.1, 3_600),
        output_limit=st.integers(1, 1_000_000),
        capability=st.sampled_from(["", "mail"]),
    )
)
def test_every_contract_comes_back_from_the_file_as_it_was(contract: Contract) -> None:
    assert made(json.loads(json.dumps(as_fields(contract)))) == contract


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"effect": []}, '"effect" is none of'),
        ({"effects": ["explode"]}, "effects"),
        ({"effects": "send"}, "effects"),
        ({"private": "yes"}, "private"),
        ({"critical": ["whom"]}, "no argument whom"),
        ({"critical": ["whom.name"]}, "no argument whom"),
        ({"trusted_fields": ["id"], "names": ["title"]}, "title"),
        ({"undo": True}, "undo"),
        ({"takes": [["whom", "file.id"]]}, "no argument whom"),
        ({"said_as": [["whom", "rw", "edit"]]}, "no argument whom"),
        ({"sinks": ["web:{whom}"]}, "no argument whom"),
        ({"origins": ["somewhere"]}, "no origin"),
        ({"origins": ["mcp:"]}, "no origin"),
        ({"deadline": 0}, "deadline"),
        ({"deadline": 1e9}, "deadline"),
        ({"output_limit": 0}, "output limit"),
        ({"capability": "a b"}, "capability"),
    ],
)
def test_what_is_no_contract_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        made(fields)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"contracts": []}', '{"contracts": {"a": 1}}'])
def test_a_malformed_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "contracts.json").write_text(text)
    with pytest.raises(ContractError, match=r"contracts\.json"):
        read_contracts(tmp_path)


def test_entries_come_back(tmp_path: Path) -> None:
    entries = {"b": Entry({"effects": []}, "hash"), "a": Entry({"deadline": 3})}
    write_contracts(tmp_path, entries)
    assert read_contracts(tmp_path) == entries


def test_a_contract_does_not_count_for_a_tool_that_has_changed() -> None:
    entry = Entry({"effects": []}, TOOL.definition.sha256)
    assert not applied(entry, "it_send", conservative("it"), TOOL).effects
    [other], _ = adopt("it", [Definition("send", "Send it to all.", {"properties": ARGUMENTS})])
    with pytest.raises(ContractError, match="has changed"):
        applied(entry, "it_send", conservative("it"), other)
