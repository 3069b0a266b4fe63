"""The MCP client against servers that do what no server should."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from oneiros.devices import mcp_transport
from oneiros.devices.mcp_client import McpServers
from oneiros.devices.mcp_config import StdioServer
from oneiros.devices.mcp_connection import McpConnection
from oneiros.kernel.contract import Effect
from oneiros.kernel.label import PUBLIC, Label
from oneiros.kernel.syscalls import OutcomeUnknownError, run
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult

pytestmark = pytest.mark.anyio

PROGRAM = Path(__file__).with_name("mcp_misbehaving.py")
CONTEXT = CallContext(pid=1, call_id="1-1", owner="user", app="assistant", label=PUBLIC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def configure(folder: Path, mode: str, **more: object) -> Path:
    """mcp.json with one server, "odd", that misbehaves so; gives the trace of what it received."""
    trace = folder / "trace"
    entry = {"command": sys.executable, "args": ["-S", str(PROGRAM), mode, str(trace)], **more}
    (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"odd": entry}}))
    return trace


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[McpServers]:
    servers = McpServers(folder)
    try:
        yield servers
    finally:
        await servers.close()


async def call(tool: Tool, seconds: float = 20, **arguments: object) -> ToolResult:
    outcome = await run(tool, arguments, CONTEXT, seconds)
    assert isinstance(outcome, ToolResult)
    return outcome


async def test_a_tool_is_found_called_and_labelled(tmp_path: Path) -> None:
    configure(tmp_path, "good")
    async with opened(tmp_path) as servers:
        assert servers.tools() == {}
        await servers.discover()
        tool = servers.tools()["odd_echo"]
        assert tool.description == "Say it again."
        assert tool.parameters == {"type": "object", "properties": {"text": {"type": "string"}}}
        assert tool.contract.effects == frozenset(Effect)
        assert tool.contract.origins == ("mcp:odd",)
        result = await call(tool, text="hello")
        assert result.text == "hello"
        assert result.label == Label.of("mcp:odd")


async def test_tools_of_an_earlier_run_are_known_before_the_server_starts(tmp_path: Path) -> None:
    trace = configure(tmp_path, "good")
    async with opened(tmp_path) as servers:
        await servers.discover()
    trace.unlink()
    async with opened(tmp_path) as servers:
        await servers.discover()
        tool = servers.tools()["odd_echo"]
        assert not trace.exists()
        assert (await call(tool, text="hello")).text == "hello"
        assert trace.exists()


async def test_a_server_that_dies_mid_call_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    configure(tmp_path, "dies")
    async with opened(tmp_path) as servers:
        await servers.discover()
        with pytest.raises(OutcomeUnknownError, match="ended with status 3: out of cheese"):
            await call(servers.tools()["odd_echo"])


async def test_a_call_without_effects_that_was_cut_off_can_be_repeated(tmp_path: Path) -> None:
    configure(tmp_path, "dies-once")
    (tmp_path / "contracts.json").write_text('{"contracts": {"odd_echo": {"effects": []}}}')
    async with opened(tmp_path) as servers:
        await servers.discover()
        tool = servers.tools()["odd_echo"]
        with pytest.raises(ToolError, match="Try again") as caught:
            await call(tool, text="hello")
        assert not isinstance(caught.value, OutcomeUnknownError)
        assert (await call(tool, text="hello")).text == "hello"


async def test_a_server_that_keeps_dying_is_started_after_longer_and_longer_pauses() -> None:
    now = 0.0
    server = StdioServer("odd", sys.executable, ("-S", str(PROGRAM), "dies"))

    async def listed(*_: object) -> None: ...

    connection = McpConnection(server, listed, clock=lambda: now)
    pauses = []
    for _ in range(4):
        with pytest.raises(OutcomeUnknownError):
            await connection.call("echo", {}, effects=True)
        for pause in (0, 1, 2, 4, 8):
            now += pause
            try:
                await connection.connect()
            except ToolError as error:
                assert "is not started again" in str(error)
            else:
                pauses.append(pause)
                break
    await connection.close()
    assert pauses == [0, 1, 2, 4]


async def test_a_server_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    configure(tmp_path, "does-not-start")
    async with opened(tmp_path) as servers:
        await servers.discover()
        assert servers.tools() == {}
        assert "ended with status 1: no licence" in servers.failures["odd"]


async def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    entry = {"command": "no-such-program-of-oneiros"}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"odd": entry}}))
    async with opened(tmp_path) as servers:
        await servers.discover()
        assert "no-such-program-of-oneiros" in servers.failures["odd"]


async def test_a_server_that_says_nothing_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mcp_transport, "STOP_SECONDS", 0.1)
    server = StdioServer("odd", sys.executable, ("-S", str(PROGRAM), "silent"))

    async def listed(*_: object) -> None: ...

    connection = McpConnection(server, listed, start_seconds=0.2)
    with pytest.raises(ToolError, match="did not answer within"):
        await connection.connect()
    await connection.close()


async def test_a_call_that_hangs_ends_at_its_deadline_and_is_cancelled_there(
    tmp_path: Path,
) -> None:
    trace = configure(tmp_path, "hangs")
    async with opened(tmp_path) as servers:
        await servers.discover()
        with pytest.raises(OutcomeUnknownError, match="longer than"):
            await call(servers.tools()["odd_echo"], seconds=0.3)
        async with asyncio.timeout(10):
            while "notifications/cancelled" not in trace.read_text():
                await asyncio.sleep(0.01)
    messages = [json.loads(line) for line in trace.read_text().splitlines()]
    called = next(m["id"] for m in messages if m["method"] == "tools/call")
    cancelled = next(m for m in messages if m["method"] == "notifications/cancelled")
    assert cancelled["params"]["requestId"] == called


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("endless-line", "a line longer than 16,777,216 bytes"),
        ("endless-noise", "more than 1,048,576 bytes that are no messages"),
        ("invalid-json", "a message that is not JSON-RPC"),
        ("wrong-result", "something that is no result"),
    ],
)
async def test_what_is_no_answer_ends_the_call_at_once(
    tmp_path: Path, mode: str, reason: str
) -> None:
    configure(tmp_path, mode)
    async with opened(tmp_path) as servers:
        await servers.discover()
        with pytest.raises(OutcomeUnknownError, match=reason):
            await call(servers.tools()["odd_echo"], text="hello")


async def test_chatter_beside_the_messages_is_no_harm(tmp_path: Path) -> None:
    configure(tmp_path, "chatter")
    async with opened(tmp_path) as servers:
        await servers.discover()
        assert (await call(servers.tools()["odd_echo"], text="hello")).text == "hello"


async def test_a_refusal_is_no_unknown_outcome(tmp_path: Path) -> None:
    configure(tmp_path, "refuses")
    async with opened(tmp_path) as servers:
        await servers.discover()
        with pytest.raises(ToolError, match="no such thing") as caught:
            await call(servers.tools()["odd_echo"])
        assert not isinstance(caught.value, OutcomeUnknownError)


async def test_of_ten_thousand_tools_a_thousand_are_offered_and_the_rest_is_told(
    tmp_path: Path,
) -> None:
    configure(tmp_path, "many-tools")
    async with opened(tmp_path) as servers:
        await servers.discover()
        assert len(servers.tools()) == 1_000
        assert [one.name for one in servers.left_out["odd"]] == ["9,000 more"]


async def test_a_list_of_tools_without_an_end_is_cut(tmp_path: Path) -> None:
    configure(tmp_path, "endless-list")
    async with opened(tmp_path) as servers:
        await servers.discover()
        assert list(servers.tools()) == ["odd_echo"]


async def test_tools_that_a_server_adds_appear(tmp_path: Path) -> None:
    configure(tmp_path, "changes")
    async with opened(tmp_path) as servers:
        await servers.discover()
        await call(servers.tools()["odd_echo"])
        async with asyncio.timeout(10):
            while "odd_shout" not in servers.tools():
                await asyncio.sleep(0.01)


async def test_a_server_sees_few_of_our_variables_and_those_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEIROS_TEST_SECRET", "sesame")
    configure(tmp_path, "environment", env={"TOKEN": "of its own"})
    async with opened(tmp_path) as servers:
        await servers.discover()
        seen = json.loads((await call(servers.tools()["odd_echo"])).text)
    assert "ONEIROS_TEST_SECRET" not in seen
    assert seen["TOKEN"] == "of its own"
    assert seen["PATH"]


async def test_arguments_that_are_no_unicode_are_refused_before_they_are_sent(
    tmp_path: Path,
) -> None:
    configure(tmp_path, "good")
    async with opened(tmp_path) as servers:
        await servers.discover()
        tool = servers.tools()["odd_echo"]
        with pytest.raises(ToolError, match="cannot be sent"):
            await call(tool, text="half \ud800")
        assert (await call(tool, text="whole")).text == "whole"


async def test_a_server_that_ended_between_calls_is_started_again(tmp_path: Path) -> None:
    trace = configure(tmp_path, "dies-once")
    async with opened(tmp_path) as servers:
        await servers.discover()
        with pytest.raises(OutcomeUnknownError):
            await call(servers.tools()["odd_echo"])
        assert (await call(servers.tools()["odd_echo"], text="again")).text == "again"
    assert trace.read_text().count('"initialize"') == 2


async def test_changes_of_the_files_count_while_it_runs(tmp_path: Path) -> None:
    now = 0.0
    configure(tmp_path, "good")
    servers = McpServers(tmp_path, clock=lambda: now)
    await servers.discover()
    assert servers.tools()["odd_echo"].contract.effects

    contract = tmp_path / "contracts.json"
    contract.write_text('{"contracts": {"odd_echo": {"effects": []}}}')
    now = 2.0
    assert not servers.tools()["odd_echo"].contract.effects

    contract.write_text("{")
    now = 4.0
    assert not servers.tools()["odd_echo"].contract.effects  # what was read before counts still

    contract.unlink()
    tool = servers.tools()["odd_echo"]
    (tmp_path / "mcp.json").write_text("{}")
    now = 6.0
    assert servers.tools() == {}
    with pytest.raises(ToolError, match="any more"):
        await tool.run({}, CONTEXT)
    await servers.close()


async def test_a_call_that_is_abandoned_while_the_server_starts_leaves_it_starting(
    tmp_path: Path,
) -> None:
    trace = configure(tmp_path, "good")
    async with opened(tmp_path) as servers:
        await servers.discover()
    trace.unlink()
    async with opened(tmp_path) as servers:
        tool = servers.tools()["odd_echo"]
        first = asyncio.create_task(call(tool, text="first"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await call(tool, text="second")).text == "second"
    assert trace.read_text().count('"initialize"') == 1


async def test_calls_at_once_start_one_server(tmp_path: Path) -> None:
    trace = configure(tmp_path, "good")
    async with opened(tmp_path) as servers:
        await servers.discover()
    trace.unlink()
    async with opened(tmp_path) as servers:
        tool = servers.tools()["odd_echo"]
        results = await asyncio.gather(*(call(tool, text=str(n)) for n in range(20)))
    assert [result.text for result in results] == [str(n) for n in range(20)]
    assert trace.read_text().count('"initialize"') == 1


async def test_a_tool_whose_name_is_taken_gets_another(tmp_path: Path) -> None:
    configure(tmp_path, "good")
    own: dict[str, object] = {}
    servers = McpServers(tmp_path, reserved=own)
    own["odd_echo"] = "ours, which came later"
    await servers.discover()
    await servers.close()
    [name] = servers.tools()
    assert name.startswith("odd_echo_")
