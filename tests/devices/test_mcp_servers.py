"""The MCP client against servers that others wrote, started as users start them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from oneiros.devices.mcp_client import McpServers
from oneiros.kernel.label import PUBLIC, Label
from oneiros.kernel.syscalls import OutcomeUnknownError, run
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult

pytestmark = pytest.mark.anyio

CONTEXT = CallContext(pid=1, call_id="1-1", owner="user", app="assistant", label=PUBLIC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def programs(project_folder: Path) -> Path:
    """Where `make dev` installs servers from PyPI."""
    return project_folder / ".mcp-servers" / "bin"


@pytest.fixture
def node_programs(project_folder: Path) -> Path:
    """Where `make test-long` installs servers from npm."""
    return project_folder / ".mcp-servers" / "node_modules" / ".bin"


class Files:
    """A disk in memory."""

    def __init__(self) -> None:
        self.written: dict[str, bytes] = {}

    def write(self, path: str, data: bytes, *, call_id: str, label: Label) -> None:
        assert label == Label.of("mcp:it") and call_id == CONTEXT.call_id
        self.written[path] = data


@asynccontextmanager
async def running(
    folder: Path,
    command: Path,
    *args: object,
    files: Files | None = None,
    env: dict[str, str] | None = None,
) -> AsyncIterator[dict[str, Tool]]:
    """The tools of a program, by the names that the server gives them."""
    entry = {"command": str(command), "args": [str(one) for one in args], "env": env or {}}
    (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"it": entry}}))
    servers = McpServers(folder, files=None if files is None else lambda owner: files)
    try:
        await servers.discover()
        assert servers.failures == {}
        yield {name.removeprefix("it_"): tool for name, tool in servers.tools().items()}
    finally:
        await servers.close()


@asynccontextmanager
async def over_http(
    folder: Path, port: int, files: Files | None = None
) -> AsyncIterator[McpServers]:
    """A server that listens on this machine."""
    headers = {"Authorization": "Bearer sesame"}
    entry = {"url": f"http://127.0.0.1:{port}/mcp", "headers": headers}
    (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"it": entry}}))
    servers = McpServers(folder, files=None if files is None else lambda owner: files)
    try:
        await servers.discover()
        assert servers.failures == {}
        yield servers
    finally:
        await servers.close()


@contextmanager
def listening(programs: Path, port: int = 0) -> Iterator[int]:
    """A server of the official library, in a process of its own; gives its port."""
    process = subprocess.Popen(
        [programs / "python", Path(__file__).with_name("mcp_over_http.py"), str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


async def call(tool: Tool, seconds: float = 30, **arguments: object) -> ToolResult:
    outcome = await run(tool, arguments, CONTEXT, seconds)
    assert isinstance(outcome, ToolResult)
    return outcome


async def test_a_server_over_http(tmp_path: Path, programs: Path) -> None:
    files = Files()
    with listening(programs) as port:
        async with over_http(tmp_path, port, files) as servers:
            tools = servers.tools()
            assert (await call(tools["it_token"])).text == "Bearer sesame"
            [path] = (await call(tools["it_picture"])).files
            assert files.written[path] == b"\x89PNG..."
            with pytest.raises(OutcomeUnknownError, match="longer than"):
                await call(tools["it_flood"])
            with pytest.raises(OutcomeUnknownError, match="was stopped"):
                await call(tools["it_sleep"], seconds=0.2)
            await call(tools["it_grow"])
            async with asyncio.timeout(10):
                while "it_sprout" not in servers.tools():
                    await asyncio.sleep(0.01)
            assert (await call(servers.tools()["it_sprout"])).text == "new"

            with pytest.raises(OutcomeUnknownError):
                await call(tools["it_die"])
            with pytest.raises(ToolError, match="could not be reached"):
                await call(tools["it_token"])
            with listening(programs, port):
                async with asyncio.timeout(20):
                    while (token := await unless_too_early(tools["it_token"])) is None:
                        await asyncio.sleep(0.05)
            assert token.text == "Bearer sesame"


async def unless_too_early(tool: Tool) -> ToolResult | None:
    """A call's result; None while a server that failed is not started again yet."""
    try:
        return await call(tool)
    except ToolError as error:
        assert "is not started again" in str(error)
        return None


async def test_mcp_server_time(tmp_path: Path, programs: Path) -> None:
    async with running(tmp_path, programs / "mcp-server-time") as tools:
        assert set(tools) == {"get_current_time", "convert_time"}
        result = await call(
            tools["convert_time"],
            source_timezone="Europe/Berlin",
            time="12:00",
            target_timezone="Asia/Tokyo",
        )
        assert json.loads(result.text)["target"]["timezone"] == "Asia/Tokyo"
        with pytest.raises(ToolError, match=r"(?i)timezone"):
            await call(tools["get_current_time"], timezone="Atlantis")


@pytest.mark.long
async def test_mcp_server_git(tmp_path: Path, programs: Path) -> None:
    repository = tmp_path / "repository"
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q", repository], check=True)
    (repository / "poem.txt").write_text("Ὄνειροι\n")
    subprocess.run(["git", "-C", repository, "add", "."], check=True)
    subprocess.run(["git", "-C", repository, *identity, "commit", "-qm", "A poem"], check=True)
    async with running(tmp_path, programs / "mcp-server-git", "-r", repository) as tools:
        log = await call(tools["git_log"], repo_path=str(repository))
        assert "A poem" in log.text
        (repository / "poem.txt").write_text("two lines\n" * 2)
        assert (
            "+two lines" in (await call(tools["git_diff_unstaged"], repo_path=str(repository))).text
        )


async def test_mcp_server_sqlite(tmp_path: Path, programs: Path) -> None:
    database = tmp_path / "rounds.db"
    older = programs.parent / "version-1"
    program = older / "bin" / "mcp-server-sqlite"
    env = {"PYTHONPATH": str(older)}
    async with running(tmp_path, program, "--db-path", database, env=env) as tools:
        await call(tools["create_table"], query="CREATE TABLE round (year INT, amount INT)")
        await call(tools["write_query"], query="INSERT INTO round VALUES (2021, 124)")
        rows = await call(tools["read_query"], query="SELECT amount FROM round")
        assert "124" in rows.text
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT * FROM round").fetchall() == [(2021, 124)]


@pytest.mark.long
async def test_server_everything(tmp_path: Path, node_programs: Path) -> None:
    files = Files()
    async with running(tmp_path, node_programs / "mcp-server-everything", files=files) as tools:
        assert (await call(tools["echo"], message="hello")).text == "Echo: hello"
        image = await call(tools["get-tiny-image"])
        [path] = image.files
        assert path.endswith(".png") and files.written[path].startswith(b"\x89PNG")
        weather = await call(tools["get-structured-content"], location="Chicago")
        assert isinstance(weather.data, dict) and "temperature" in weather.data
        links = await call(tools["get-resource-links"], count=2)
        assert links.text.count("[link to") == 2


@pytest.mark.long
async def test_server_everything_over_http(tmp_path: Path, node_programs: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [node_programs / "mcp-server-everything", "streamableHttp"],
        env={**os.environ, "PORT": str(port)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        while "listening" not in (line := process.stderr.readline()):
            assert line
        async with over_http(tmp_path, port) as servers:
            tools = servers.tools()
            assert (await call(tools["it_echo"], message="hello")).text == "Echo: hello"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.long
async def test_server_memory(tmp_path: Path, node_programs: Path) -> None:
    async with running(tmp_path, node_programs / "mcp-server-memory") as tools:
        ann = {"name": "Ann", "entityType": "person", "observations": ["likes tea"]}
        await call(tools["create_entities"], entities=[ann])
        assert "likes tea" in (await call(tools["search_nodes"], query="Ann")).text


@pytest.mark.long
async def test_server_filesystem(tmp_path: Path, node_programs: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    async with running(tmp_path, node_programs / "mcp-server-filesystem", folder) as tools:
        path = str(folder / "note.txt")
        await call(tools["write_file"], path=path, content="one\ntwo\n")
        assert Path(path).read_text() == "one\ntwo\n"
        assert (await call(tools["read_text_file"], path=path, head=1)).text.strip() == "one"
        with pytest.raises(ToolError, match="denied"):
            await call(tools["read_text_file"], path="/etc/hostname")
