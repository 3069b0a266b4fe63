"""What left a context comes back when a message is about it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from oneiros.kernel.label import Label
from oneiros.kernel.services import Reminder
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.state import ProcessState
from oneiros.memory.pages import PageKind
from tests.kernel.running import PlainMemory, ScriptedModels, contents, idle, running, until

SECRET = Label.of("user", readers=["me"])


class WordMemory(PlainMemory):
    """Finds evicted pages by the last word of a message."""

    def relevant(self, state: ProcessState, text: str) -> Reminder | None:
        word = text.split()[-1]
        quoted = {n for p in state.context if p.kind is PageKind.RECALLED for n in p.stands_for}
        for pid, number, gone in self.gone:
            if pid == state.pid and word in gone.split() and number not in quoted:
                return Reminder(f"[message {number}] {gone}", SECRET, (number,))
        return None


def test_a_page_that_leaves_as_its_question_comes_is_quoted_to_the_answer(tmp_path: Path) -> None:
    """The question itself is what there is no room for: what it is about leaves because of it."""

    async def main() -> None:
        models = ScriptedModels(answer=lambda messages: "Noted.", size=330)
        async with running(tmp_path, models=models, memory=WordMemory()) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="The code is 7319 garage"))
            await until(kernel, lambda: idle(kernel, pid))
            for text in ("rain " * 80, "snow " * 80, "wind " * 70 + "garage"):
                await kernel.send(pid, text.strip())
                await until(kernel, lambda: idle(kernel, pid) and not kernel.state(pid).inbox)
            state = kernel.state(pid)
            (recalled,) = (page for page in state.pages if page.kind is PageKind.RECALLED)
            first = next(page for page in state.evicted if page.kind is PageKind.USER)
            assert recalled.stands_for == (first.id,)
            assert recalled.label == SECRET
            said = [text for _, text in contents(kernel, pid)]
            assert said[-2:] == [f"[message {first.id}] The code is 7319 garage", "Noted."]
            asked = models.asked[-1][1]
            assert asked[-1]["content"] == said[-2]
            assert await kernel.replay(pid) == state.seq

    asyncio.run(main())
