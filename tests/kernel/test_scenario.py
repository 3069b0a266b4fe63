"""A whole task: pages read over several links, a table, missing values imputed, a figure."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneiros.apps.agent import Agent
from oneiros.apps.prompts import SYSTEM
from oneiros.devices.calculator import calculator
from oneiros.devices.egress import Egress
from oneiros.devices.python import python
from oneiros.devices.sandbox.workspaces import Workspaces
from oneiros.devices.web import Browser, web
from oneiros.engine.local_model import start_local_model
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.worker import EngineSettings
from oneiros.kernel.events import Budget
from oneiros.kernel.journal import Journal
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.models import Models, OpenModels
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.state import ProcessState
from oneiros.memory.disk import Disk
from oneiros.memory.pages import PageKind
from oneiros.model import catalog
from tests.devices.web_server import Answer, serving, site_page
from tests.kernel.funding import PAGES, RATIO, ROUNDS, STEPS, TASK, analyst
from tests.kernel.running import PlainMemory, ScriptedModels, contents, idle, until

OWNER = "ann"


@asynccontextmanager
async def desk(
    folder: Path, models: Models, port: int
) -> AsyncGenerator[tuple[Kernel, Disk], None]:
    """A kernel with the tools that the task takes, and its owner's disk."""
    disk = Disk(folder / "files", folder / "versions", OWNER)
    workspaces = Workspaces(lambda owner: disk)
    egress = Egress(lambda app: [f"127.0.0.1:{port}"])
    tools = {tool.name: tool for tool in (calculator(), python(workspaces), web(Browser(egress)))}
    journal = Journal.open(folder / "journal")
    kernel = Kernel(
        journal, models, lambda: tools, {"agent": Agent()}, PlainMemory(), {"assistant": SYSTEM}
    )
    try:
        await kernel.resume()
        yield kernel, disk
    finally:
        await kernel.close()
        await workspaces.close()
        journal.close()
        disk.close()


def results(state: ProcessState) -> int:
    return sum(page.kind is PageKind.TOOL for page in state.pages)


def test_rounds_become_a_table_with_sources_and_a_figure(tmp_path: Path) -> None:
    served: Counter[str] = Counter()

    def handle(path: str, headers: dict[str, str]) -> Answer:
        served[path] += 1
        return site_page(path, headers)

    async def main(port: int) -> list[tuple[str, str]]:
        here = f"http://127.0.0.1:{port}"
        models = ScriptedModels(answer=analyst, size=100_000)
        async with desk(tmp_path, models, port) as (kernel, _):
            pid = await kernel.start(
                ProcessSpec(owner=OWNER, text=TASK.format(start=f"{here}/index.html"))
            )
            await until(kernel, lambda: results(kernel.state(pid)) >= 8)
        # Everything stops, and another kernel goes on.
        async with desk(tmp_path, models, port) as (kernel, disk):
            await until(kernel, lambda: idle(kernel, pid) and results(kernel.state(pid)) > 8)
            state = kernel.state(pid)
            assert await kernel.replay(pid) == state.seq
            assert "web:127.0.0.1" in state.label.untrusted_origins
            check_files(disk, here)
            return contents(kernel, pid)

    with serving(handle) as port:
        said = asyncio.run(main(port))
        assert served == Counter({f"/{name}.html": 1 for name in ("index", "funding", *PAGES)})
    answer = said[-1][1]
    assert f"| Series D | 2021-05 | 150 | 862.5 | http://127.0.0.1:{port}/press.html |" in answer
    assert f"The trend gives {expected_trend():,.0f} million dollars for 2030" in answer
    facts = json.loads(
        next(re.findall(r"\{.*\}", text)[0] for _, text in said if '"scale"' in text)
    )
    assert facts == {
        "scale": "log",
        "grid": True,
        "until": 2030.0,
        "trend": pytest.approx(expected_trend()),
    }


def expected_trend() -> float:
    """What a line through the logarithms gives for 2030."""
    years = [int(date[:4]) + (int(date[5:]) - 0.5) / 12 for _, date, _, _ in ROUNDS]
    values = [valuation or amount * RATIO for *_, amount, valuation in ROUNDS]
    slope, start = np.polyfit(years, np.log(values), 1)
    return math.exp(start + slope * 2030)


def check_files(disk: Disk, here: str) -> None:
    """The table has the values and sources that it should, and the figure is one."""
    rows = list(csv.DictReader(io.StringIO(disk.read("valuations.csv").decode())))
    found = [
        (row["round"], row["date"], float(row["amount"]), float(row["valuation"]), row["imputed"])
        for row in rows
    ]
    assert found == [
        (name, date, amount, valuation or amount * RATIO, "no" if valuation else "yes")
        for name, date, amount, valuation in ROUNDS
    ]
    assert [row["source"] for row in rows] == [f"{here}/{name}.html" for name in PAGES]
    # What was made of pages of the web is marked as that.
    assert "web:127.0.0.1" in disk.label("valuations.csv").origins
    figure = Image.open(io.BytesIO(disk.read("valuations.png")))
    figure.load()
    assert figure.size == (900, 500)
    colours = np.asarray(figure.convert("RGB")).reshape(-1, 3).astype(int)
    for red, green, blue in ((1, 0, 0), (0, 0, 1), (0, 0.5, 0)):  # trend, disclosed, imputed
        near = np.abs(colours - np.array([red, green, blue]) * 255).sum(axis=1) < 60
        assert near.sum() > 100


@pytest.mark.long
def test_how_far_a_small_model_gets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reports what Qwen2.5-Coder-1.5B makes of the same task; it has to begin it."""

    async def main(port: int) -> dict[str, object]:
        here = f"http://127.0.0.1:{port}"
        settings = EngineSettings(str(catalog.resolve("qwen2.5-coder-1.5b")), context=16_384)
        model = await start_local_model(settings)
        try:
            models = OpenModels({model.name: model}, model.name)
            async with desk(tmp_path, models, port) as (kernel, disk):
                pid = await kernel.start(
                    ProcessSpec(
                        owner=OWNER,
                        budget=Budget(tokens=60_000, calls=60),
                        sampling=SamplingOptions(temperature=0.0, max_tokens=1_500),
                    )
                )
                try:
                    for step in STEPS:
                        if kernel.state(pid).end is None:
                            await kernel.send(pid, step.format(start=f"{here}/index.html"))
                            await until(kernel, lambda: at_rest(kernel, pid), seconds=600)
                except TimeoutError:
                    pass  # that is how far it gets
                return how_far(kernel, pid, disk)
        finally:
            await model.service.close()

    served: set[str] = set()

    def handle(path: str, headers: dict[str, str]) -> Answer:
        served.add(path)
        return site_page(path, headers)

    with serving(handle) as port:
        report = asyncio.run(main(port))
    wanted = {f"/{name}.html" for name in ("index", "funding", *PAGES)}
    report = {"pages read": f"{len(wanted & served)} of {len(wanted)}"} | report
    with capsys.disabled():
        print(f"\n{json.dumps(report, indent=2, ensure_ascii=False)}")
    assert "/index.html" in served


def at_rest(kernel: Kernel, pid: int) -> bool:
    """Whether a process has ended, or has answered all messages."""
    state = kernel.state(pid)
    return state.end is not None or (idle(kernel, pid) and not state.inbox)


def how_far(kernel: Kernel, pid: int, disk: Disk) -> dict[str, object]:
    """What came of the task."""
    state = kernel.state(pid)
    messages = [kernel.message(page) for page in state.context]
    calls = Counter(
        f"{message['name']}: {'failed' if message['content'].startswith('Error') else 'done'}"
        for message in messages
        if message["role"] == "tool"
    )
    files = [entry.path for entry in disk.list()]
    text = disk.read("valuations.csv").decode() if "valuations.csv" in files else ""
    numbers = {float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)}
    wanted = [valuation or amount * RATIO for *_, amount, valuation in ROUNDS]
    return {
        "calls": dict(calls),
        "tokens": state.used.tokens,
        "files": files,
        "valuations in the table": f"{sum(n in numbers for n in wanted)} of {len(ROUNDS)}",
        "answers": [
            message["content"][:1_000]
            for message in messages
            if message["role"] == "assistant" and not message.get("tool_calls")
        ],
    }
