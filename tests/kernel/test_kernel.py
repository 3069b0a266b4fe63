"""Processes as their users see them."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from pathlib import Path

import pytest

from oneiros.errors import JournalError, ProcessError
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.events import Budget
from oneiros.kernel.journal import Journal
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.tools import ToolResult, Wake
from tests.kernel.running import (
    Calls,
    PlainMemory,
    ScriptedModels,
    contents,
    ended,
    idle,
    running,
    tool,
    until,
)


async def add(arguments, context):
    return ToolResult(str(arguments["a"] + arguments["b"]))


def test_a_chat_that_calls_a_tool(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(deque([[("add", '{"a": 2, "b": 3}')], "It is 5."]))
        async with running(tmp_path, tool("add", add), models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="2 + 3?", system="Be brief."))
            await until(kernel, lambda: idle(kernel, pid))
            assert contents(kernel, pid) == [
                ("system", "Be brief."),
                ("user", "2 + 3?"),
                ("assistant", ""),
                ("tool", "5"),
                ("assistant", "It is 5."),
            ]
            assert await kernel.replay(pid) == kernel.state(pid).seq

    asyncio.run(main())


def test_calls_are_made_at_once_and_failures_go_to_the_model(tmp_path: Path) -> None:
    started: list[str] = []
    both = asyncio.Event()

    async def meet(arguments, context):
        started.append(context.call_id)
        if len(started) == 2:
            both.set()
        await both.wait()
        return ToolResult("met")

    async def crash(arguments, context):
        return 1 // 0

    async def main() -> None:
        calls = [("meet", "{}"), ("meet", "{}"), ("crash", "{}"), ("nothing", "{}"), ("meet", "[")]
        models = ScriptedModels(deque([calls, "done"]))
        async with running(tmp_path, tool("meet", meet), tool("crash", crash), models=models) as k:
            pid = await k.start(ProcessSpec(owner="me", text="go"))
            await until(k, lambda: idle(k, pid))
            results = sorted(text for role, text in contents(k, pid) if role == "tool")
            assert results[2:] == ["met", "met"] or results.count("met") == 2
            assert any("ZeroDivisionError" in text for text in results)
            assert any('no tool "nothing"' in text for text in results)
            assert any("not JSON" in text for text in results)
            assert k.state(pid).used.calls == 5
            assert await k.replay(pid) == k.state(pid).seq

    asyncio.run(main())


def test_a_hanging_tool_is_stopped_at_its_deadline(tmp_path: Path) -> None:
    async def hang(arguments, context):
        await asyncio.Event().wait()

    async def main() -> None:
        quick = Contract(deadline=0.05)
        program = {"calls": Calls([("hang", "{}")])}
        async with running(tmp_path, tool("hang", hang, quick), programs=program) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", program="calls"))
            state = await ended(kernel, pid)
            assert "longer than 0.05 seconds" in kernel.message(state.pages[-1])["content"]

    asyncio.run(main())


def asks(kernel: Kernel, pid: int, results: int) -> bool:
    """Whether a process asks something, after so many results."""
    return bool(kernel.questions(pid)) and len(kernel.state(pid).pages) == results


def test_effects_ask_a_person(tmp_path: Path) -> None:
    sent: list[str] = []

    async def send(arguments, context):
        sent.append(arguments["to"])
        return ToolResult("sent")

    mail = Contract(effects=frozenset({Effect.SEND}), critical=("to",))

    async def main() -> None:
        to = {name: ("send", f'{{"to": "{name}"}}') for name in "ab"}
        program = {
            "same": Calls([to["a"], to["a"], to["a"]]),
            "other": Calls([to["a"], to["b"]]),
        }
        async with running(tmp_path, tool("send", send, mail), programs=program) as kernel:
            # To do the same once more is another question, and always is for good.
            for name, allow, outcome in (
                ("same", True, ["a", "a", "a"]),
                ("other", True, ["a", "b"]),
                ("other", False, []),
            ):
                sent.clear()
                pid = await kernel.start(ProcessSpec(owner="me", program=name))
                for asked in range(2):
                    await until(kernel, lambda pid=pid, n=asked: asks(kernel, pid, n))
                    question = kernel.questions(pid)[0]
                    assert question.kind == "permission" and "send(to='" in question.text
                    assert len(sent) == (asked if allow else 0)
                    await kernel.answer(question.call_id, allow=allow, always=allow)
                state = await ended(kernel, pid)
                assert sent == outcome
                assert await kernel.replay(pid) == state.seq
            pid = await kernel.start(
                ProcessSpec(owner="me", program="same", capabilities=frozenset({"other"}))
            )
            state = await ended(kernel, pid)
            assert sent == [] and "may not use" in kernel.message(state.pages[0])["content"]

    asyncio.run(main())


def test_waiting_for_time_message_child_and_person(tmp_path: Path) -> None:
    async def wait(arguments, context):
        return Wake(**arguments)

    async def main() -> None:
        requests = [
            ("wait", '{"at": 1}'),
            ("wait", '{"message": true}'),
            ("wait", '{"question": "Which colour?"}'),
            ("wait", '{"child": 2}'),
        ]
        programs = {"calls": Calls(requests), "none": Calls([])}
        async with running(tmp_path, tool("wait", wait), programs=programs) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", program="calls"))
            assert await kernel.start(ProcessSpec(owner="me", program="none", parent=pid)) == 2
            await until(kernel, lambda: len(kernel.state(pid).pages) == 1)
            await kernel.send(pid, "hello")
            await until(kernel, lambda: bool(kernel.questions(pid)))
            assert kernel.questions(pid)[0].text == "Which colour?"
            await kernel.answer(kernel.questions(pid)[0].call_id, text="blue")
            state = await ended(kernel, pid)
            texts = [kernel.message(page)["content"] for page in state.pages]
            assert texts[0].startswith("The time has come")
            assert texts[1:] == ["From user: hello", "blue", "Process 2 ended (done): 0 calls"]
            assert await kernel.replay(pid) == state.seq

    asyncio.run(main())


def test_stop_continue_kill_with_children(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(answer=lambda messages: "a b c d", gate=asyncio.Event())
        async with running(tmp_path, models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="hi"))
            child = await kernel.spawn(pid, "task")
            await until(kernel, lambda: len(models.asked) == 2)
            await kernel.stop(pid)
            assert kernel.state(pid).status == "stopped"
            models.gate.set()
            await ended(kernel, child)
            assert contents(kernel, pid) == [("user", "hi")]
            await kernel.cont(pid)
            await until(kernel, lambda: idle(kernel, pid))
            assert contents(kernel, pid)[-1] == ("assistant", "a b c d")
            models.gate.clear()
            child = await kernel.spawn(pid, "another")
            await kernel.kill(pid)
            for dead in (pid, child):
                assert kernel.state(dead).end.status == "killed"
                assert await kernel.replay(dead) == kernel.state(dead).seq
            assert kernel.processes() == []

    asyncio.run(main())


def test_an_interrupted_reply_stays_as_far_as_it_was_said(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(answer=lambda messages: "one two three four five")
        async with running(tmp_path, models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="count"))
            words = 0

            async def pause() -> None:
                nonlocal words
                words += 1
                if words == 3:
                    await kernel.interrupt(pid)
                await asyncio.sleep(0)

            models.pause = pause
            await until(kernel, lambda: idle(kernel, pid))
            assert contents(kernel, pid)[-1] == ("assistant", "one two")
            assert kernel.state(pid).last_reason == "interrupted"
            await kernel.send(pid, "go on")
            await until(kernel, lambda: idle(kernel, pid) and len(contents(kernel, pid)) == 4)
            assert contents(kernel, pid)[-1] == ("assistant", "one two three four five")

    asyncio.run(main())


def test_a_fork_goes_on_from_the_same_context(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(answer=lambda messages: f"{len(messages)} messages")
        async with running(tmp_path, models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="hi"))
            await until(kernel, lambda: idle(kernel, pid))
            fork = await kernel.fork(pid)
            await kernel.send(fork, "and you?")
            await until(kernel, lambda: idle(kernel, fork) and len(contents(kernel, fork)) == 4)
            assert contents(kernel, fork)[:2] == contents(kernel, pid)
            assert contents(kernel, fork)[-1] == ("assistant", "3 messages")
            for each in (pid, fork):
                assert await kernel.replay(each) == kernel.state(each).seq

    asyncio.run(main())


def test_budgets_are_told_and_then_end_the_process(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(answer=lambda messages: "word " * 105 + "word", computes=True)
        async with running(tmp_path, models=models) as kernel:
            budget = Budget(tokens=140)
            pid = await kernel.start(ProcessSpec(owner="me", text="hi", budget=budget))
            state = await ended(kernel, pid)
            assert "Left: 28 tokens" in contents(kernel, pid)[-2][1]
            assert contents(kernel, pid)[-1] == ("assistant", "word word word word word")
            assert state.end.status == "budget"
            assert state.used.tokens == 140  # the second reply was cut at what was left
            assert await kernel.replay(pid) == state.seq

    asyncio.run(main())


def test_a_context_that_is_full_moves_pages_out_and_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(answer=lambda messages: "word " * 20, size=300)
        memory = PlainMemory()
        async with running(tmp_path, models=models, memory=memory) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", system="Be brief."))
            for n in range(12):
                await kernel.send(pid, f"message {n} " + "word " * 20)
                await until(kernel, lambda: idle(kernel, pid) and not kernel.state(pid).inbox)
            prompts = [
                sum(len(m["content"].split()) + 5 for m in asked[1]) for asked in models.asked
            ]
            assert max(prompts) <= 300
            state = kernel.state(pid)
            assert {page.id for page in state.evicted} >= {page for _, page, _ in memory.gone}
            assert "left this context" in contents(kernel, pid)[1][1]
            assert await kernel.replay(pid) == state.seq
            await kernel.send(pid, "long " * 200)
            await until(kernel, lambda: idle(kernel, pid) and not kernel.state(pid).inbox)
            assert list(memory.documents.values()) == ["long " * 200]

    asyncio.run(main())


def test_a_process_goes_on_with_another_model_where_its_own_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, models=ScriptedModels(deque(["first"]))) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="hi"))
            await until(kernel, lambda: idle(kernel, pid))
        other = ScriptedModels(deque(["second"]), default="other")
        async with running(tmp_path, models=other) as kernel:
            await asyncio.sleep(0.01)
            assert kernel.state(pid).model == "scripted"  # it waits for its user's word
            await kernel.send(pid, "and now?")
            assert kernel.state(pid).model == "other"
            await until(kernel, lambda: len(contents(kernel, pid)) == 4 and idle(kernel, pid))
            assert [text for role, text in contents(kernel, pid) if role == "assistant"] == [
                "first",
                "second",
            ]
            assert await kernel.replay(pid) == kernel.state(pid).seq

    asyncio.run(main())


def test_a_full_disk_pauses_processes_and_loses_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("oneiros.kernel.kernel._JOURNAL_PAUSE", 0.05)
    full = False
    appended = Journal.append

    def append(self, pid, events, *, durable=False):
        if full:
            raise JournalError("The disk is full.")
        return appended(self, pid, events, durable=durable)

    monkeypatch.setattr(Journal, "append", append)

    async def fill(arguments, context):
        nonlocal full
        full = True
        return ToolResult("made")

    async def main() -> None:
        nonlocal full
        once = Contract(effects=frozenset({Effect.LOCAL}), undo=True)
        program = {"calls": Calls([("fill", "{}"), ("add", '{"a": 1, "b": 1}')])}
        tools = [tool("fill", fill, once), tool("add", add)]
        async with running(tmp_path, *tools, programs=program) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", program="calls"))
            await until(kernel, lambda: full)
            await asyncio.sleep(0.1)
            assert kernel.state(pid).end is None
            full = False
            state = await ended(kernel, pid)
            texts = [kernel.message(page)["content"] for page in state.pages]
            assert "not known" in texts[0]  # its result could not be written
            assert texts[1] == "2"

    asyncio.run(main())


def test_a_fork_leaves_calls_and_questions_to_its_original(tmp_path: Path) -> None:
    sent: list[str] = []

    async def send(arguments, context):
        sent.append(context.call_id)
        return ToolResult("sent")

    async def ask(arguments, context):
        return Wake(question="Which?")

    mail = Contract(effects=frozenset({Effect.SEND}))

    async def main() -> None:
        program = {"calls": Calls([("send", "{}"), ("ask", "{}")])}
        tools = [tool("send", send, mail), tool("ask", ask)]
        async with running(tmp_path, *tools, programs=program) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", program="calls"))
            await until(kernel, lambda: bool(kernel.questions(pid)))
            first = await kernel.fork(pid)
            assert [question.pid for question in kernel.questions()] == [pid]
            await kernel.answer(kernel.questions(pid)[0].call_id, allow=True)
            await until(kernel, lambda: any(q.kind == "question" for q in kernel.questions(pid)))
            second = await kernel.fork(pid)
            await kernel.answer(kernel.questions(pid)[0].call_id, text="this one")
            state = await ended(kernel, pid)
            assert kernel.message(state.pages[-1])["content"] == "this one"
            assert sent == [f"{pid}.1"]
            state = await ended(kernel, second)
            assert "forked" in kernel.message(state.pages[-1])["content"]
            assert await kernel.replay(second) == state.seq
            assert "forked" in kernel.message(kernel.state(first).pages[0])["content"]

    asyncio.run(main())


def test_a_killed_process_does_not_act_on_the_end_of_its_children(tmp_path: Path) -> None:
    acted = False

    async def wait(arguments, context):
        return Wake(child=2)

    async def act(arguments, context):
        nonlocal acted
        acted = True
        return ToolResult("acted")

    async def main() -> None:
        programs = {"calls": Calls([("wait", "{}"), ("act", "{}")])}
        tools = [tool("wait", wait), tool("act", act)]
        models = ScriptedModels(answer=lambda messages: "a b", gate=asyncio.Event())
        async with running(tmp_path, *tools, programs=programs, models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", program="calls"))
            child = await kernel.spawn(pid, "task")
            await until(kernel, lambda: kernel.state(pid).status == "waiting")
            await kernel.kill(pid)
            assert not acted and kernel.processes() == []
            assert kernel.state(child).end.status == "killed"

    asyncio.run(main())


def test_what_cannot_be_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("oneiros.kernel.kernel.MOST_CHILDREN", 2)

    async def main() -> None:
        models = ScriptedModels(answer=lambda messages: "a", gate=asyncio.Event())
        async with running(tmp_path, models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="hi", budget=Budget(tokens=100)))
            for _ in range(2):
                await kernel.spawn(pid, "task", budget=Budget(tokens=10))
            assert kernel.state(pid).used.tokens == 20  # what its children have, it has not
            for wrong in (
                kernel.spawn(pid, "one too many"),
                kernel.renice(pid, 10_000),
                kernel.renice(pid, -1),
                kernel.start(ProcessSpec(owner="me", priority=20)),
                kernel.start(ProcessSpec(owner="me", program="none")),
                kernel.send(99, "hello"),
            ):
                with pytest.raises(ProcessError):
                    await wrong
            assert len(kernel.processes()) == 3

    asyncio.run(main())


def test_an_interruption_counts_while_a_reply_waits_for_its_turn(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(answer=lambda messages: "a b", gate=asyncio.Event())
        async with running(tmp_path, models=models, slots=1) as kernel:
            await kernel.start(ProcessSpec(owner="me", text="one", priority=5))
            await until(kernel, lambda: len(models.asked) == 1)
            second = await kernel.start(ProcessSpec(owner="me", text="two", priority=5))
            await until(kernel, lambda: kernel.state(second).generation is not None)
            await kernel.interrupt(second)
            models.gate.set()
            async with asyncio.timeout(20), aclosing(kernel.watch(second, 0)) as events:
                async for recorded in events:
                    if recorded.event.kind == "generation-ended":
                        break
            assert recorded.event.reason == "interrupted" and recorded.event.page is None

    asyncio.run(main())
