"""Questions: one for all calls about which the same is asked, and an end to asking."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from oneiros.kernel import events as e
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.tools import Tool, ToolResult
from oneiros.model.chat_format import Message
from tests.kernel.running import Reply, ScriptedModels, contents, idle, running, tool, until

MAIL = Contract(effects=frozenset({Effect.SEND}), critical=("to",), requested_by=("send",))


def mailer(sent: list[str]) -> Tool:
    async def send(arguments, context):
        sent.append(arguments["to"])
        return ToolResult("sent")

    return tool("send", send, MAIL)


def to(*names: str) -> Reply:
    return [("send", json.dumps({"to": name})) for name in names]


def intents(kernel: Kernel, pid: int) -> list[e.CallIntended]:
    events = (recorded.event for recorded in kernel._journal.events(pid))
    return [event for event in events if isinstance(event, e.CallIntended)]


def test_calls_with_the_same_problem_are_one_question_and_one_answer(tmp_path: Path) -> None:
    names = ("x@a.org", "y@a.org", "z@a.org")

    async def main(allow: bool) -> None:
        sent: list[str] = []

        def answer(messages: Sequence[Message]) -> Reply:
            return "Done." if messages[-1]["role"] == "tool" else to(*names)

        models = ScriptedModels(answer=answer)
        async with running(tmp_path / str(allow), mailer(sent), models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="Send the plan to them."))
            await until(kernel, lambda: bool(kernel.questions(pid)))
            (question,) = kernel.questions(pid)
            assert question.calls == tuple(call.call_id for call in kernel.state(pid).calls)
            assert all(name in question.text for name in names)
            await kernel.answer(question.calls[1], allow=allow)
            assert kernel.questions(pid) == []
            await until(kernel, lambda: idle(kernel, pid))
            assert sorted(sent) == ([*names] if allow else [])
            state = kernel.state(pid)
            assert len(state.asked) == 1 and len(state.refused) == (not allow)
            assert len(state.made) == (3 if allow else 0)
            assert await kernel.replay(pid) == state.seq

    for allow in (True, False):
        asyncio.run(main(allow))


def test_what_a_person_refused_is_not_asked_again_for_the_same_message(tmp_path: Path) -> None:
    sent: list[str] = []

    def answer(messages: Sequence[Message]) -> Reply:
        turn = [one["role"] for one in messages]
        return to("x@a.org") if turn[-1] == "user" or turn.count("tool") == 1 else "I could not."

    async def main() -> None:
        async with running(tmp_path, mailer(sent), models=ScriptedModels(answer=answer)) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="Send it."))
            await until(kernel, lambda: bool(kernel.questions(pid)))
            await kernel.answer(kernel.questions(pid)[0].call_id, allow=False)
            await until(kernel, lambda: idle(kernel, pid))
            told = [text for role, text in contents(kernel, pid) if role == "tool"]
            assert all("A person said no to this" in text for text in told) and len(told) == 2
            assert [one.decision for one in intents(kernel, pid)] == ["ask", "deny"]
            await kernel.send(pid, "Send it now.")
            await until(kernel, lambda: bool(kernel.questions(pid)))  # another request
            state = kernel.state(pid)
            assert len(state.asked) == 1 and not state.refused and not sent
            await kernel.answer(kernel.questions(pid)[0].call_id, allow=True)
            await until(kernel, lambda: idle(kernel, pid))
            assert sent == ["x@a.org"]
            assert await kernel.replay(pid) == kernel.state(pid).seq

    asyncio.run(main())


def test_a_process_that_goes_on_asking_is_stopped_and_stays_so(tmp_path: Path) -> None:
    sent: list[str] = []

    def answer(messages: Sequence[Message]) -> Reply:
        return to(f"x{len(messages)}@a.org")  # always somebody else

    async def main() -> None:
        models = ScriptedModels(answer=answer)
        async with running(tmp_path, mailer(sent), models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="Send it."))
            for refused in range(2):
                await until(kernel, lambda: bool(kernel.questions(pid)))
                assert len(kernel.state(pid).refused) == refused
                await kernel.answer(kernel.questions(pid)[0].call_id, allow=False)
            await until(kernel, lambda: kernel.state(pid).stopped)
            assert kernel.state(pid).status == "stopped" and not kernel.questions(pid)
            (stop,) = (
                recorded.event
                for recorded in kernel._journal.events(pid)
                if isinstance(recorded.event, e.Signalled)
            )
            assert stop.why is not None and f"oneiros cont {pid}" in kernel.text(stop.why)
            assert await kernel.replay(pid) == kernel.state(pid).seq
        async with running(tmp_path, mailer(sent), models=models) as kernel:
            assert kernel.state(pid).status == "stopped"
            assert len(models.asked) == 3
            await kernel.cont(pid)  # a person lets it go on, and may be asked again
            await until(kernel, lambda: bool(kernel.questions(pid)))
            told = [text for role, text in contents(kernel, pid) if role == "tool"]
            assert "refused 2 times" in told[2]
            assert len(kernel.state(pid).asked) == 1 and not sent
            assert await kernel.replay(pid) == kernel.state(pid).seq

    asyncio.run(main())


def test_the_users_words_and_a_manifest_need_no_question_once(tmp_path: Path) -> None:
    async def main(text: str, grants: frozenset[str]) -> list[str]:
        sent: list[str] = []

        def answer(messages: Sequence[Message]) -> Reply:
            turn = [one["role"] for one in messages]
            return "Done." if turn.count("tool") == 2 else to("bob@a.org")

        folder = tmp_path / str(len(grants))
        async with running(folder, mailer(sent), models=ScriptedModels(answer=answer)) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text=text, grants=grants))
            await until(kernel, lambda: bool(kernel.questions(pid)))
            assert sent == ["bob@a.org"]  # and to do it again is another matter
            assert [one.decision for one in intents(kernel, pid)] == ["allow", "ask"]
            assert await kernel.replay(pid) == kernel.state(pid).seq
        return sent

    asyncio.run(main("Send it to bob@a.org.", frozenset()))
    asyncio.run(main("My friend is bob@a.org.", frozenset({"send"})))


def test_after_two_refusals_the_other_questions_are_refused_too(tmp_path: Path) -> None:
    sent: list[str] = []

    def calls(tools: Sequence[str]) -> Reply:
        return [(name, json.dumps({"to": "x@a.org"})) for name in tools]

    names = [f"send{number}" for number in range(4)]

    def answer(messages: Sequence[Message]) -> Reply:
        return "I could not." if messages[-1]["role"] == "tool" else calls(names)

    async def send(arguments, context):
        sent.append(arguments["to"])
        return ToolResult("sent")

    tools = [tool(name, send, MAIL) for name in names]

    async def main() -> None:
        async with running(tmp_path, *tools, models=ScriptedModels(answer=answer)) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="Hello."))
            await until(kernel, lambda: len(kernel.questions(pid)) == 4)
            for left in (3, 0):
                await kernel.answer(kernel.questions(pid)[0].call_id, allow=False)
                assert len(kernel.questions(pid)) == left
            await until(kernel, lambda: idle(kernel, pid))
            assert sent == []
            assert await kernel.replay(pid) == kernel.state(pid).seq

    asyncio.run(main())
