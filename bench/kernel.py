"""Claim: a system call costs less than a millisecond, journal and checks included.

    python bench/kernel.py [--quick] [--json]

`syscall`: a process calls a tool that does nothing, a thousand times (`--quick`: a hundred), one
after the other, through everything that a call passes: schema, policy, journalled intent, deadline,
label, journalled result. With an effect that cannot be undone later, the intent reaches the disk
first (`fsync`).

`processes-100`: a hundred processes (`--quick`: four) talk to SmolLM2-135M without a pause, and
somebody asks another one something, ten times. `interactive-ttft` is the time until their first
token comes, beside the same with nobody else there; `shortest-share` what the process that got
least got of a fair share.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from report import Row, report

from oneiros.cli.inputs import model_path
from oneiros.engine.local_model import start_local_model
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.worker import EngineSettings
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.events import CallEnded, CallIntended, Generated, GenerationEnded
from oneiros.kernel.journal import Journal
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.label import Label
from oneiros.kernel.models import OpenModels
from oneiros.kernel.program import Action, Call, Exit, Generate, Note, Receive, ToolRequest, View
from oneiros.kernel.services import Kept, Reminder
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.state import ProcessState
from oneiros.kernel.tools import CallContext, Json, Tool, ToolResult
from oneiros.memory.pages import Page, PageKind

MODEL = "smollm2-135m"
CALLS, QUICK_CALLS = 1000, 100
CROWD, QUICK_CROWD = 100, 4
QUESTIONS, QUICK_QUESTIONS = 10, 2
CROWD_SECONDS, QUICK_CROWD_SECONDS = 60.0, 4.0
REPLY = 48  # tokens


class Caller:
    """A program that only makes calls."""

    def __init__(self, tool: str, count: int) -> None:
        self._tool = tool
        self._count = count

    def step(self, view: View) -> Action:
        if view.state.next_call > self._count:
            return Exit(result="")
        return Call(requests=(ToolRequest(tool=self._tool, arguments='{"value": 1}'),))


class Talker:
    """A program that talks to itself without end."""

    def step(self, view: View) -> Action:
        last = view.state.context[-1].kind
        if last is PageKind.ASSISTANT:
            return Note(text="Go on.", page_kind=PageKind.USER)
        return Generate(max_tokens=REPLY)


class Answerer:
    """A program that answers."""

    def step(self, view: View) -> Action:
        pages = view.state.context
        return Generate(max_tokens=8) if pages and pages[-1].kind is PageKind.USER else Receive()


@dataclass
class NoMemory:
    """These processes need none."""

    def keep(self, state: ProcessState, name: str, text: str, label: Label) -> Kept:
        raise NotImplementedError

    def evicted(self, state: ProcessState, page: Page, text: str) -> None: ...

    def erased(self, state: ProcessState, pages: tuple[Page, ...]) -> None: ...

    def relevant(self, state: ProcessState, text: str) -> Reminder | None:
        return None

    def facts(self, owner: str) -> tuple[str, Label] | None:
        return None


def nothing(name: str, effects: frozenset[Effect]) -> Tool:
    async def run(arguments: Json, context: CallContext) -> ToolResult:
        return ToolResult("done")

    parameters = {"type": "object", "properties": {"value": {"type": "integer"}}}
    return Tool(
        name=name,
        description="Does nothing.",
        parameters=parameters,
        contract=Contract(effects=effects, undo=True),
        run=run,
    )


async def calls(folder: Path, models: OpenModels, count: int) -> list[Row]:
    """Milliseconds of calls, from the journalled intent to the journalled end."""
    effects = {"syscall": frozenset[Effect](), "syscall effect": frozenset({Effect.LOCAL})}
    tools = {name: nothing(name.replace(" ", "_"), effects[name]) for name in effects}
    programs = {name: Caller(tool.name, count) for name, tool in tools.items()}
    journal = Journal.open(folder)
    kernel = Kernel(
        journal, models, lambda: {tool.name: tool for tool in tools.values()}, programs, NoMemory()
    )
    rows = []
    for name in programs:
        began = time.perf_counter()
        pid = await kernel.start(ProcessSpec(owner="me", program=name))
        while kernel.state(pid).end is None:
            await asyncio.sleep(0.01)
        whole = (time.perf_counter() - began) * 1000 / count
        times: dict[str, float] = {}
        spent = []
        for recorded in journal.events(pid):
            match recorded.event:
                case CallIntended() as event:
                    times[event.call_id] = recorded.time
                case CallEnded() as event:
                    spent.append((recorded.time - times[event.call_id]) * 1000)
        median = statistics.median(spent)
        target = 1.0 if name == "syscall" else None
        rows += [
            Row(name, "median-ms", median, None, "ms", "lower", target, absolute=True),
            Row(name, "mean-step-ms", whole, None, "ms", "lower"),
        ]
    await kernel.close()
    journal.close()
    return rows


async def first_token(kernel: Kernel, pid: int, text: str) -> float:
    """Milliseconds from a question until something of its answer is there."""
    after = kernel.state(pid).seq
    began = time.perf_counter()
    milliseconds = 0.0
    await kernel.send(pid, text)
    async with aclosing(kernel.watch(pid, after)) as events:
        async for recorded in events:
            if isinstance(recorded.event, Generated | GenerationEnded) and not milliseconds:
                milliseconds = (time.perf_counter() - began) * 1000
            if isinstance(recorded.event, GenerationEnded):
                break
    return milliseconds


async def crowd(
    folder: Path, models: OpenModels, size: int, questions: int, seconds: float
) -> list[Row]:
    """A crowd that talks, and somebody who asks."""
    journal = Journal.open(folder)
    programs = {"talker": Talker(), "answerer": Answerer()}
    kernel = Kernel(journal, models, dict, programs, NoMemory())
    greedy = SamplingOptions(temperature=0.0)
    asked = await kernel.start(ProcessSpec(owner="me", program="answerer", sampling=greedy))
    alone = [await first_token(kernel, asked, f"How much is {n} + 2?") for n in range(questions)]
    others = [
        await kernel.start(
            ProcessSpec(
                owner="me",
                program="talker",
                priority=5,
                system=f"You are number {n}. Tell a story.",
                sampling=SamplingOptions(seed=n),
            )
        )
        for n in range(size)
    ]
    await asyncio.sleep(seconds / 4)
    among = []
    for n in range(questions):
        among.append(await first_token(kernel, asked, f"How much is {n} + 3?"))
        await asyncio.sleep(seconds / 2 / questions)
    await asyncio.sleep(seconds / 4)
    tokens = Counter({pid: kernel.state(pid).used.tokens for pid in others})
    fair = statistics.mean(tokens.values())
    await kernel.close()
    journal.close()
    case = f"processes-{size}"
    return [
        Row(case, "interactive-ttft", statistics.median(among), None, "ms", "lower"),
        Row(case, "interactive-ttft-alone", statistics.median(alone), None, "ms", "lower"),
        Row(case, "shortest-share", min(tokens.values()) / fair, None, "of fair", "higher"),
        Row(case, "background", sum(tokens.values()) / seconds, None, "tokens/s", "higher"),
    ]


async def measure(quick: bool) -> list[Row]:
    settings = EngineSettings(str(model_path(MODEL)), kv_disk=0)
    model = await start_local_model(settings, MODEL)
    models = OpenModels({MODEL: model}, MODEL)
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = await calls(Path(folder) / "calls", models, QUICK_CALLS if quick else CALLS)
            return rows + await crowd(
                Path(folder) / "crowd",
                models,
                QUICK_CROWD if quick else CROWD,
                QUICK_QUESTIONS if quick else QUESTIONS,
                QUICK_CROWD_SECONDS if quick else CROWD_SECONDS,
            )
    finally:
        await model.service.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run of some seconds")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments.quick))
    report("kernel", rows, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
