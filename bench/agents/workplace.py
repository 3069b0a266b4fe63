"""Where tasks are done: a system of ours with an empty folder of files and the local site."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.agents.task import Task
from oneiros.engine.local_model import LocalModel
from oneiros.engine.remote_model import RemoteModel
from oneiros.errors import OneirosError
from oneiros.kernel.control_methods import System
from oneiros.kernel.label import PUBLIC
from oneiros.kernel.syscalls import Toolbox, run
from oneiros.kernel.tools import CallContext, Tool, ToolResult
from oneiros.memory.documents import fitted
from oneiros.server.system import SystemSettings, boot

# Of both sides: those that the tasks are about. What needs a person or other processes is left out.
TOOLS = (
    *("calculate", "python", "list_files", "read_file", "write_file", "edit_file", "move_file"),
    *("delete_file", "search_files", "fetch_page", "search_web", "time"),
)


@asynccontextmanager
async def workplace(
    model: LocalModel | RemoteModel, task: Task, site: str
) -> AsyncIterator[tuple[System, Path]]:
    """A system that knows nothing yet, and the folder with the task's files."""
    with tempfile.TemporaryDirectory(prefix="oneiros-bench-") as folder:
        data, files = Path(folder) / "data", Path(folder) / "files"
        for each in (data, files):
            each.mkdir()
        task.prepare(files)
        sites = f'[apps.assistant]\negress = ["{site.removeprefix("http://")}"]\n'
        (data / "oneiros.toml").write_text(sites, encoding="utf-8")
        settings = SystemSettings(folder=data, files=files, mcp=False)
        async with boot(settings, model, None) as system:
            yield system, files


class ToolServer:
    """The tools of a system over HTTP on this machine, for an agent that is not ours."""

    def __init__(self, system: System, loop: asyncio.AbstractEventLoop) -> None:
        """Serve until `close`."""
        tools = {tool.name: tool for tool in system.tools() if tool.name in TOOLS}
        toolbox, numbers = Toolbox(lambda: tools), iter(range(10**6))

        async def call(name: str, arguments: object) -> tuple[bool, str]:
            tool = toolbox.get(name)
            given = toolbox.arguments(tool, json.dumps(arguments))
            context = CallContext(1, f"peer.{next(numbers)}", system.owner, "assistant", PUBLIC)
            result = await run(tool, given, context, tool.contract.deadline)
            if not isinstance(result, ToolResult):
                return False, "Nothing to wait for."
            return True, fitted(result.text, tool.contract.output_limit, None, len)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                calling = call(body["tool"], body["arguments"])
                try:
                    answer = asyncio.run_coroutine_threadsafe(calling, loop).result()
                except OneirosError as error:
                    answer = False, str(error)
                data = json.dumps({"ok": answer[0], "text": answer[1]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.tools: Sequence[Tool] = list(tools.values())

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
