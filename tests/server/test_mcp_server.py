"""Our tools through the official MCP client, over both transports."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from oneiros.apps.one_call import NAME, OneCall
from oneiros.devices.mcp_client import McpServers
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.control import ControlServer
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.label import PUBLIC
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult
from oneiros.server.app import create_app
from oneiros.server.keys import KeyRing, create_key, read_keys
from oneiros.server.mcp_endpoint import McpEndpoint
from oneiros.server.model_pool import ModelPool
from oneiros.server.settings import Settings
from oneiros.server.tool_calls import KernelCalls, call_methods
from tests.kernel.running import running, until

pytestmark = pytest.mark.anyio

MODES = ("2026-07-28", "legacy")


async def add(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
    return ToolResult(
        str(arguments["a"] + arguments["b"]), {"sum": arguments["a"] + arguments["b"]}
    )


async def whose(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
    return ToolResult(f"{context.owner} {sorted(context.label.origins)}")


async def fail(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
    raise ToolError("The paper is empty: refill it.")


async def hang(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
    await asyncio.sleep(60)
    raise AssertionError


async def mail(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
    return ToolResult("sent")


def tool(name: str, run: Any, *effects: Effect, **properties: object) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    contract = Contract(effects=frozenset(effects))
    return Tool(
        name=name, description=f"{name}!", parameters=parameters, contract=contract, run=run
    )


NUMBER = {"type": "number"}
TOOLS = (
    tool("add", add, a=NUMBER, b=NUMBER),
    tool("whose", whose),
    tool("fail", fail),
    tool("hang", hang),
    tool("mail", mail, Effect.SEND),
    tool("receive", hang),
)


@asynccontextmanager
async def kernel_in(folder: Path) -> AsyncIterator[Kernel]:
    async with running(folder, *TOOLS, programs={NAME: OneCall()}) as kernel:
        yield kernel


@asynccontextmanager
async def over_http(kernel: Kernel, settings: Settings | None = None) -> AsyncIterator[str]:
    """The server on a port of this machine; gives its address."""
    endpoint = McpEndpoint(KernelCalls(kernel))
    app = create_app(ModelPool([]), settings or Settings(), endpoint)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([listener]))
        try:
            await until(kernel, lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        finally:
            server.should_exit = True
            await endpoint.close()
            await serving


@asynccontextmanager
async def over_stdio(kernel: Kernel, folder: Path) -> AsyncIterator[StdioServerParameters]:
    """`oneiros mcp serve`, which finds the kernel by its control socket."""
    control = await ControlServer.open(folder, call_methods(KernelCalls(kernel), "local"))
    environment = {**os.environ, "ONEIROS_HOME": str(folder)}
    try:
        yield StdioServerParameters(
            command=sys.executable, args=["-m", "oneiros", "mcp", "serve"], env=environment
        )
    finally:
        await control.close()


async def test_tools_over_http(tmp_path: Path) -> None:
    failures: list[tuple[str, dict[str, object], str]] = [
        ("fail", {}, "refill it"),
        ("add", {"a": 2}, "'b' is a required property"),
        ("nothing", {}, 'no tool "nothing"'),
        ("receive", {}, "may not use receive"),
    ]
    async with kernel_in(tmp_path) as kernel, over_http(kernel) as address:
        for mode in MODES:
            async with Client(address, mode=mode) as client:
                tools = {tool.name: tool for tool in (await client.list_tools()).tools}
                assert set(tools) == {"add", "whose", "fail", "hang", "mail"}
                assert tools["add"].input_schema["properties"]["a"] == NUMBER
                assert tools["add"].annotations.read_only_hint is True
                assert tools["mail"].annotations.read_only_hint is False
                result = await client.call_tool("add", {"a": 2, "b": 3})
                assert (result.content[0].text, result.is_error) == ("5", False)
                assert result.structured_content == {"sum": 5}
                # What a client asks for is not the user's word, and who needs no key is not the
                # user.
                whose = await client.call_tool("whose", {})
                assert whose.content[0].text == "http ['principal:http']"
                for tool, arguments, said in failures:
                    failed = await client.call_tool(tool, arguments)
                    assert failed.is_error and said in failed.content[0].text


@pytest.mark.parametrize("mode", [MODES[0], pytest.param(MODES[1], marks=pytest.mark.long)])
async def test_tools_over_stdio(tmp_path: Path, mode: str) -> None:
    async with kernel_in(tmp_path) as kernel, over_stdio(kernel, tmp_path) as program:
        async with Client(program, mode=mode) as client:
            assert len((await client.list_tools()).tools) == 5
            assert (await client.call_tool("add", {"a": 2, "b": 3})).content[0].text == "5"
            failed = await client.call_tool("fail", {})
            assert failed.is_error and "refill it" in failed.content[0].text
            hanging = asyncio.create_task(client.call_tool("hang", {}))
            await until(kernel, lambda: any(state.calls for state in kernel.processes()))
            hanging.cancel()
        # A client that goes away leaves no call behind.
        await until(kernel, lambda: not kernel.processes())


async def test_a_call_with_an_effect_waits_for_a_person(tmp_path: Path) -> None:
    heard: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with kernel_in(tmp_path) as kernel, over_http(kernel) as address:
        for mode, allow in zip(MODES, (True, False), strict=True):
            heard.clear()
            async with Client(address, mode=mode) as client:
                call = asyncio.create_task(client.call_tool("mail", {}, progress_callback=hear))
                await until(kernel, lambda: bool(heard and kernel.questions()))
                assert "Allow it?" in str(heard[0])
                await kernel.answer(kernel.questions()[0].call_id, allow=allow)
                result = await call
                assert result.is_error is not allow
                assert ("sent" if allow else "said no") in result.content[0].text


async def test_a_cancelled_call_is_over_in_the_kernel_too(tmp_path: Path) -> None:
    async with kernel_in(tmp_path) as kernel, over_http(kernel) as address:
        for mode in MODES:
            async with Client(address, mode=mode) as client:
                call = asyncio.create_task(client.call_tool("hang", {}))
                await until(kernel, lambda: any(state.calls for state in kernel.processes()))
                call.cancel()
                await until(kernel, lambda: not kernel.processes())
        ends = [state.end for state in kernel.processes(ended=True)]
        assert [end.status for end in ends if end] == ["killed", "killed"]


async def test_keys_hosts_and_origins_are_checked_as_for_the_rest(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    secret = create_key(keys, "ann")
    folder = tmp_path / "kernel"
    folder.mkdir()
    async with (
        kernel_in(folder) as kernel,
        over_http(kernel, Settings(keys=KeyRing(keys))) as address,
        httpx2.AsyncClient() as http,
    ):
        assert (await http.post(address, json={})).status_code == 401
        key = {"Authorization": f"Bearer {secret}"}
        evil = {**key, "Host": "evil.example"}
        assert (await http.post(address, json={}, headers=evil)).status_code == 403
        page = {**key, "Origin": "https://evil.example"}
        assert (await http.post(address, json={}, headers=page)).status_code == 403
        assert (await http.get(address, headers=key)).status_code == 405
        async with (
            httpx2.AsyncClient(headers=key) as own,
            Client(streamable_http_client(address, http_client=own)) as client,
        ):
            said = (await client.call_tool("whose", {})).content[0].text
        owner = f"key-{read_keys(keys)[0].id}"
        assert said == f"{owner} ['principal:{owner}']"


async def test_a_session_is_its_principals_only(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    secrets = [create_key(keys, name) for name in ("ann", "bob")]
    folder = tmp_path / "kernel"
    folder.mkdir()
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "x", "version": "1"},
        },
    }
    accept = {"Accept": "application/json, text/event-stream"}
    async with (
        kernel_in(folder) as kernel,
        over_http(kernel, Settings(keys=KeyRing(keys))) as address,
        httpx2.AsyncClient(headers=accept) as http,
    ):
        ann, bob = ({"Authorization": f"Bearer {secret}"} for secret in secrets)
        opened = await http.post(address, json=hello, headers=ann)
        session = {"mcp-session-id": opened.headers["mcp-session-id"]}
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        assert (await http.post(address, json=ping, headers=ann | session)).status_code == 200
        assert (await http.post(address, json=ping, headers=bob | session)).status_code == 404


async def test_our_own_client_speaks_to_our_own_server(tmp_path: Path) -> None:
    folder = tmp_path / "kernel"
    folder.mkdir()
    async with kernel_in(folder) as kernel, over_http(kernel) as address:
        (tmp_path / "mcp.json").write_text(f'{{"mcpServers": {{"own": {{"url": "{address}"}}}}}}')
        servers = McpServers(tmp_path)
        await servers.discover()
        context = CallContext(1, "1.1", "me", "assistant", PUBLIC)
        result = await servers.tools()["own_add"].run({"a": 2, "b": 3}, context)
        await servers.close()
    assert isinstance(result, ToolResult)
    assert (result.text, result.data) == ("5", {"sum": 5})
