"""Budgets: nobody ends without being told, and whatever is computed is paid for."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from pathlib import Path

from oneiros.engine.requests import Usage
from oneiros.kernel import idle as idle_work
from oneiros.kernel import process as processes
from oneiros.kernel.events import Budget
from oneiros.kernel.models import OpenModels
from oneiros.kernel.spec import ProcessSpec
from tests.kernel.running import ScriptedModels, contents, ended, idle, running, until

LONG = "word " * 200


class Priced(ScriptedModels):
    """A model whose tokens cost a dollar."""

    def cost(self, name: str, usage: Usage) -> float:
        return float(usage.prompt_tokens + usage.generated_tokens)

    def affordable(self, name: str, money: float, prompt_tokens: int) -> int | None:
        return int(money) - prompt_tokens


def test_a_budget_that_ends_in_one_reply_is_told_before_the_process_ends(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(deque([LONG, LONG]), computes=True)
        async with running(tmp_path, models=models) as kernel:
            spec = ProcessSpec(owner="me", text="hi", budget=Budget(tokens=20))
            state = await ended(kernel, pid := await kernel.start(spec))
            said = contents(kernel, pid)
            assert [role for role, _ in said] == ["user", "assistant", "user", "assistant"]
            assert "used up" in said[2][1]
            # The prompt of "hi" has 6 tokens: the rest was for the reply. Then the last words.
            assert [len(said[n][1].split()) for n in (1, 3)] == [14, 64]
            assert state.end.status == "budget" and state.told == {"tokens"}
            assert await kernel.replay(pid) == state.seq

    asyncio.run(main())


def test_a_budget_of_money_bounds_a_reply(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, models=Priced(answer=lambda messages: LONG)) as kernel:
            spec = ProcessSpec(owner="me", text="hi", budget=Budget(money=16.0))
            await ended(kernel, pid := await kernel.start(spec))
            assert len(contents(kernel, pid)[1][1].split()) == 10

    asyncio.run(main())


def test_what_a_price_affords(monkeypatch) -> None:
    monkeypatch.setattr(OpenModels, "check", lambda self, name: None)
    models = OpenModels({}, "dear", {"dear": (2.0, 10.0), "fixed": (2.0, 0.0)})
    assert models.affordable("dear", 0.001, 100) == 80  # 0.0002 for the prompt
    assert models.affordable("dear", 0.0001, 100) == 0
    assert models.affordable("fixed", 1.0, 100) is None
    assert models.affordable("free", 0.0, 100) is None


def test_a_reply_that_was_stopped_is_charged_and_does_not_begin_anew(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(answer=lambda messages: LONG, computes=True)
        async with running(tmp_path, models=models) as kernel:
            spec = ProcessSpec(owner="me", text="hi", budget=Budget(tokens=60))
            pid = await kernel.start(spec)
            words = 0

            async def pause() -> None:
                nonlocal words
                words += 1
                if words == 11:
                    await kernel.stop(pid)
                await asyncio.sleep(0)

            models.pause = pause
            await until(kernel, lambda: kernel.state(pid).used.tokens > 0)
            assert kernel.state(pid).used.tokens == 6 + 10
            await kernel.cont(pid)
            await ended(kernel, pid)
            assert len(contents(kernel, pid)[1][1].split()) == 60 - 16
            assert await kernel.replay(pid) == kernel.state(pid).seq

    asyncio.run(main())


def test_a_fork_has_what_its_original_had_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(
            tmp_path, models=ScriptedModels(deque(["a b c"]), computes=True)
        ) as kernel:
            spec = ProcessSpec(owner="me", text="hi", budget=Budget(tokens=100))
            pid = await kernel.start(spec)
            await until(kernel, lambda: idle(kernel, pid))
            used = kernel.state(pid).used
            assert kernel.state(await kernel.fork(pid)).used == used and used.tokens == 9

    asyncio.run(main())


def test_a_summary_that_is_given_up_is_charged(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(processes, "QUIET", 0.0)
    monkeypatch.setattr(idle_work, "_LONGEST", 1_000)

    def answer(messages):
        return "word " * (500 if "Below are notes" in messages[-1]["content"] else 20)

    async def main() -> None:
        models = ScriptedModels(answer=answer, size=200)
        async with running(tmp_path, models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me"))
            words = 0

            async def pause() -> None:
                nonlocal words
                if "Below are notes" in models.asked[-1][1][-1]["content"]:
                    words += 1
                    if words == 10:
                        await kernel.send(pid, "go on")
                await asyncio.sleep(0)

            models.pause = pause
            while not words:
                await kernel.send(pid, "word " * 40)
                await until(kernel, lambda: idle(kernel, pid) and not kernel.state(pid).inbox)
                await asyncio.sleep(0.01)
            async with aclosing(kernel.watch(pid, after=0)) as events:
                charged = await anext(r.event async for r in events if r.event.kind == "charged")
            assert charged.used.tokens > 50  # the prompt, and the words until then

    asyncio.run(main())
