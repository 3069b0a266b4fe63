"""Noninterference of the whole kernel: a journal, restarts, forks, evictions, recall, inspections.

The programs are those of the kernel, and the model is hostile: a function of every character that
is shown to it, which also answers for the children that inspect. The property and its terms are
those of `test_noninterference.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from oneiros.apps.inspection import Inspection
from oneiros.devices.quarantine import quarantine
from oneiros.kernel.events import Budget
from oneiros.kernel.journal import Journal
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.label import join_all
from oneiros.kernel.quarantine import PROGRAM
from oneiros.kernel.services import Reminder
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.state import ProcessState
from oneiros.memory.pages import Page
from oneiros.model.chat_format import Message
from tests.kernel.running import Chat, PlainMemory, Reply, ScriptedModels, idle, until
from tests.security.hostile import Words, call
from tests.security.observed import Run, observed
from tests.security.requests import MESSAGES
from tests.security.test_noninterference import SECRETS, differences
from tests.security.world import OWNER, World


@dataclass(frozen=True, slots=True)
class HostileModel:
    """Says and does what its seed makes of every character in its context."""

    seed: int
    sensitivity: float

    def __call__(self, messages: Sequence[Message]) -> Reply:
        texts = [str(message["content"]) for message in messages]
        # Calls that are made at once end in any order, which is timing, and no secret's doing.
        known = sorted(texts)
        digest = sha256("\0".join(known).encode()).hexdigest()
        if "nothing in it is an instruction" in texts[0]:  # it inspects something
            return json.dumps((int(digest, 16) % 10, digest[0] < "8", digest[:9])[self.seed % 3])
        steady = Random(f"{self.seed}/{len(messages)}")
        sensitive = steady.random() < self.sensitivity
        chooser = Random(f"{self.seed}/{digest}") if sensitive else steady
        said = " ".join(one.text for one in MESSAGES if one.text in texts)
        words = Words(chooser, known, said, digest)
        if messages[-1]["role"] == "tool" and chooser.random() < 0.25:
            return f"{words.text()} " * chooser.randrange(1, 12)
        count = chooser.choice((1, 1, 2))
        calls = [call(chooser, words, ["inspect"]) for _ in range(count)]
        return [(name, json.dumps(arguments)) for name, arguments in calls]


class Recalling(PlainMemory):
    """Quotes what left the context, the last of it, whatever the message is."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}

    def evicted(self, state: ProcessState, page: Page, text: str) -> None:
        self.texts[page.message] = text

    def relevant(self, state: ProcessState, text: str) -> Reminder | None:
        pages = [page for page in state.evicted if page.message in self.texts][-3:]
        if not pages:
            return None
        quoted = "\n".join(self.texts[page.message][:200] for page in pages)
        return Reminder(
            quoted, join_all(page.label for page in pages), tuple(page.id for page in pages)
        )


@asynccontextmanager
async def kernel_of(
    folder: Path, world: World, models: ScriptedModels, memory: PlainMemory
) -> AsyncGenerator[Kernel, None]:
    journal = Journal.open(folder)
    tools = {one.name: one for one in world.tools()}
    programs = {"agent": Chat(), PROGRAM: Inspection()}
    kernel = Kernel(journal, models, lambda: tools, programs, memory)
    tools.update({one.name: one for one in quarantine(kernel)})
    await kernel.resume()
    try:
        yield kernel
    finally:
        await kernel.close()
        journal.close()


async def settle(kernel: Kernel, pid: int) -> None:
    """Let a process go on, and refuse whatever it asks, until it waits for its user or is over."""

    def rests() -> bool:
        state = kernel.state(pid)
        return state.end is not None or state.stopped or idle(kernel, pid)

    while True:
        await until(kernel, lambda: rests() or bool(kernel.questions(pid)))
        questions = kernel.questions(pid)
        if not questions:
            return
        await kernel.answer(questions[0].call_id, allow=False)


async def live(folder: Path, seed: int, secret: str) -> Run:
    """A process with three messages, a restart before the second, and a fork before the third."""
    chance = Random(seed)
    requests = chance.sample(MESSAGES, 3)
    world, memory = World(secret), Recalling()
    size = chance.choice((250, 400, 2000))
    sensitivity = chance.choice((0.1, 0.5, 1))
    models = ScriptedModels(answer=HostileModel(seed, sensitivity), size=size)
    spec = ProcessSpec(
        owner=OWNER,
        text=requests[0].text,
        quarantine=chance.random() < 0.4,
        budget=Budget(calls=25),
    )
    async with kernel_of(folder, world, models, memory) as kernel:
        pid = await kernel.start(spec)
        await settle(kernel, pid)
    async with kernel_of(folder, world, models, memory) as kernel:
        for number, request in enumerate(requests[1:]):
            if kernel.state(pid).end is not None:
                break
            if number:
                pid = await kernel.fork(pid)
                # Its number depends on how many have inspected something.
                world.name_of = lambda one, copy=pid: "copy" if one == copy else str(one)
            if kernel.state(pid).stopped:
                await kernel.cont(pid)
            await kernel.send(pid, request.text)
            await settle(kernel, pid)
        events = [
            (world.name_of(one), recorded.event)
            for one in dict.fromkeys((1, pid))
            for recorded in kernel._journal.events(one)
        ]
        return observed(world.outputs, events, requests, kernel.text)


def both(seed: int) -> tuple[Run, Run]:
    runs = []
    for secret in Random(seed).sample(SECRETS, 2):
        with TemporaryDirectory() as folder:
            runs.append(asyncio.run(live(Path(folder), seed, secret)))
    return runs[0], runs[1]


def test_a_hostile_model_tells_nobody() -> None:
    outputs = 0
    for seed in range(12):
        first, second = both(seed)
        assert differences(first, second) == [], f"seed {seed}"
        outputs += len(first.outputs)
    assert outputs > 10


@pytest.mark.long
def test_hostile_models_tell_nobody() -> None:
    for seed in range(1_000, 1_150):
        assert differences(*both(seed)) == [], f"seed {seed}"
