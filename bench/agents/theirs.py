"""Tasks done by smolagents' ToolCallingAgent, with the model behind our own server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bench.agents.result import REPLY_TOKENS, SECONDS, STEPS, Attempt
from bench.agents.task import Done, Task
from bench.agents.workplace import ToolServer, workplace
from bench.load.servers import Server
from oneiros.engine.remote_model import RemoteModel

PEER_PYTHON = Path(__file__).resolve().parent.parent.parent / ".peers" / "bin" / "python"
_PROGRAM = Path(__file__).resolve().parent / "smolagent.py"


async def attempts(
    name: str, tasks: Sequence[Task], site: str, *, steps: int = STEPS, context: int = 8192
) -> AsyncIterator[Attempt]:
    """Try tasks, one after the other."""
    command = [sys.executable, "-m", "oneiros", "serve", "--model", name, "--port", "{port}"]
    with Server("ours", [*command, "--context", str(context)]) as server:
        endpoint = f"http://127.0.0.1:{server.port}/v1"
        model = RemoteModel(endpoint, name)
        try:
            for task in tasks:
                yield await _attempt(model, endpoint, task, site, steps)
        finally:
            await model.close()


async def _attempt(model: RemoteModel, endpoint: str, task: Task, site: str, steps: int) -> Attempt:
    async with workplace(model, task, site) as (system, files):
        began = time.monotonic()
        tools = ToolServer(system, asyncio.get_running_loop())
        asked = {
            "model": model.name,
            "endpoint": endpoint,
            "request": task.request.replace("SITE", site),
            "tool_server": tools.address,
            "tools": [tool.openai()["function"] for tool in tools.tools],
            "steps": steps,
            "reply_tokens": REPLY_TOKENS,
        }
        try:
            run = await asyncio.to_thread(_run, json.dumps(asked))
        finally:
            tools.close()
        answer = str(run["answer"])
        return Attempt(
            task.name,
            answer,
            task.check(Done(answer, files)),
            int(run["calls"]),
            int(run["malformed"]),
            int(run["tokens"]),
            None,
            time.monotonic() - began,
        )


def _run(asked: str) -> dict[str, int | str]:
    try:
        done = subprocess.run(
            [PEER_PYTHON, _PROGRAM],
            input=asked,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return {"answer": "", "calls": 0, "malformed": 0, "tokens": 0}
    result: dict[str, int | str] = json.loads(done.stdout.splitlines()[-1])
    return result
