"""A process's calls: journalled before and after, carried out all at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Literal

from oneiros.kernel import events as e
from oneiros.kernel.label import PUBLIC, SYSTEM, USER, Label
from oneiros.kernel.policy import Allow, Ask, Decision, Deny
from oneiros.kernel.program import ToolRequest
from oneiros.kernel.state import CallState, ProcessState
from oneiros.kernel.syscalls import (
    OutcomeUnknownError,
    Toolbox,
    decision,
    result_label,
    run,
    shortened,
)
from oneiros.kernel.tools import CallContext, Outcome, Tool, ToolError, ToolResult, Wake
from oneiros.memory.pages import Page, PageKind
from oneiros.model.chat_format import Message

if TYPE_CHECKING:
    from oneiros.kernel.process import Process

CallOutcome = Literal["done", "failed", "denied", "unknown", "cancelled"]

_UNKNOWN = (
    "The machine was interrupted during this call. Whether it took effect is not known: find out "
    "before you make it again."
)
_DENIED = "A person said no to this call. Do not make it again; go on without it, or explain."


def begin_calls(process: Process, requests: Sequence[ToolRequest]) -> None:
    """Decide about calls, and journal them with the decisions, all in one."""
    services = process.services
    events = intended(
        process.state, requests, services.toolbox, services.texts.message, process.put
    )
    effects = (
        services.toolbox.get(event.tool).contract.effects
        for event in events
        if event.decision == "allow"
    )
    process.append(*events, durable=any(effects))
    process.running_calls.update(event.call_id for event in events)


def intended(
    state: ProcessState,
    requests: Sequence[ToolRequest],
    toolbox: Toolbox,
    message: Callable[[Page], Message],
    put: Callable[[str], str],
) -> list[e.CallIntended]:
    """Calls with the decisions about them, as they are journalled.

    Args:
        state: of the process that wants to make them.
        requests: the calls.
        toolbox: the tools.
        message: reads a page.
        put: keeps a text, and gives its hash.
    """
    events = []
    for number, request in enumerate(requests):
        try:
            tool = toolbox.get(request.tool)
            arguments = toolbox.arguments(tool, request.arguments)
        except ToolError as error:
            decided: Decision = Deny(str(error))
        else:
            decided = decision(tool, arguments, state, message, number)
        why = meaning = None
        match decided:
            case Ask():
                why, meaning = put(decided.question), decided.meaning
            case Deny():
                why = put(decided.reason)
        events.append(
            e.CallIntended(
                call_id=f"{state.pid}.{state.next_call + number}",
                tool=request.tool,
                arguments=put(request.arguments),
                decision=_NAMES[type(decided)],
                why=why,
                meaning=meaning or "",
                label=state.label,
                model_call=request.model_call,
            )
        )
    return events


_NAMES: dict[type[Decision], Literal["allow", "ask", "deny"]] = {
    Allow: "allow",
    Ask: "ask",
    Deny: "deny",
}


async def finish_calls(process: Process) -> None:
    """Carry out all calls that are not over."""
    async with asyncio.TaskGroup() as group:
        for call in process.state.calls:
            group.create_task(_finish(process, call.call_id))


async def _finish(process: Process, call_id: str) -> None:
    while (call := _find(process, call_id)) is not None:
        match call.phase:
            case "denied":
                asked = process.services.texts.text(call.why) if call.why else ""
                _end(process, call, "denied", _DENIED if call.meaning else asked)
            case "asked":
                await process.until(lambda: _find(process, call_id) != call)
            case "suspended":
                await _woken(process, call)
            case "intended":
                await _perform(process, call)


def _find(process: Process, call_id: str) -> CallState | None:
    return next((call for call in process.state.calls if call.call_id == call_id), None)


async def _perform(process: Process, call: CallState) -> None:
    state, toolbox = process.state, process.services.toolbox
    context = CallContext(state.pid, call.call_id, state.owner, state.app, call.label)
    began = time.monotonic()
    try:
        tool = toolbox.get(call.tool)
        arguments = toolbox.arguments(tool, process.services.texts.text(call.arguments))
        outcome = None
        if call.call_id not in process.running_calls:
            # It was under way when the kernel stopped.
            outcome = await _reconciled(tool, arguments, context)
            process.running_calls.add(call.call_id)
        if outcome is None:
            seconds = tool.contract.deadline
            if state.budget.seconds is not None:
                seconds = max(0.0, min(seconds, state.budget.seconds - state.used.seconds))
            outcome = await _interruptible(process, run(tool, arguments, context, seconds))
    except OutcomeUnknownError as error:
        _end(process, call, "unknown", str(error), began)
    except ToolError as error:
        _end(process, call, "failed", str(error), began)
    else:
        if isinstance(outcome, Wake):
            if outcome.question is not None:
                question = process.put(outcome.question)
                outcome = Wake(question=question, at=outcome.at)
            process.append(e.CallSuspended(call_id=call.call_id, wake=outcome))
        else:
            label = result_label(tool, arguments, context, outcome)
            limit = tool.contract.output_limit
            _end(process, call, "done", outcome.text, began, outcome, label, limit)


async def _interruptible(process: Process, call: Coroutine[object, object, Outcome]) -> Outcome:
    outcome: list[Outcome] = []

    async def make() -> None:
        outcome.append(await call)

    if not await process.attend(make()):
        raise OutcomeUnknownError("A person interrupted this call; it may have had an effect.")
    return outcome[0]


async def _reconciled(
    tool: Tool, arguments: dict[str, object], context: CallContext
) -> ToolResult | None:
    """The result of a call that was under way; None: make it (again)."""
    if tool.reconcile is not None:
        return await tool.reconcile(arguments, context)
    if tool.contract.idempotent or not tool.contract.effects:
        return None
    raise OutcomeUnknownError(_UNKNOWN)


async def _woken(process: Process, call: CallState) -> None:
    """Wait for what a suspended call waits for, and end it with that."""
    wake = call.wake
    assert wake is not None  # every suspended call has one

    def child_ended() -> bool:
        if wake.child is None:
            return False
        child = process.services.lookup(wake.child)
        return child is None or child.end is not None  # none: a crash came before its start

    def ready() -> bool:
        gone = _find(process, call.call_id) is None  # answered, or the process has ended
        return gone or child_ended() or (wake.message and bool(process.state.inbox))

    def seconds() -> float | None:
        # Asked again at least once a minute: clocks are set, and machines sleep.
        return None if wake.at is None else min(60.0, wake.at - time.time())

    while not ready() and (wake.at is None or wake.at > time.time()):
        await process.until(ready, seconds)
    if _find(process, call.call_id) is None:
        return
    texts = process.services.texts
    if wake.child is not None and child_ended():
        child = process.services.lookup(wake.child)
        text, label = f"Process {wake.child} was never started.", PUBLIC
        if child is not None and child.end is not None:
            said = texts.text(child.end.result) if child.end.result else ""
            text, label = (
                f"Process {wake.child} ended ({child.end.status}): {said}",
                child.end.label,
            )
        result = ToolResult(text, label=label)
        _end(process, call, "done", text, None, result, call.label.join(result.label))
    elif wake.message and process.state.inbox:
        mail = process.state.inbox[0]
        text = f"From {mail.sender}: {texts.text(mail.text)}"
        label = call.label.join(mail.label)
        _end(process, call, "done", text, None, ToolResult(text), label, received=1)
    else:
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime())
        _end(process, call, "done", f"The time has come: it is {now}.")


def answer_question(process: Process, call: CallState, text: str) -> None:
    """End a call that asked a person with what the person said."""
    label = call.label.join(Label.of(USER, readers=[process.state.owner]))
    _end(process, call, "done", text, None, ToolResult(text), label)


def _end(
    process: Process,
    call: CallState,
    outcome: CallOutcome,
    text: str,
    began: float | None = None,
    result: ToolResult | None = None,
    label: Label | None = None,
    limit: int = 8_000,
    received: int = 0,
) -> None:
    """Journal a call's end with its result as a page."""
    if label is None:
        label = call.label.join(Label.of(SYSTEM))
    document = None
    if len(text) > limit:
        name = f"output-{call.call_id}.txt"
        kept = process.services.memory.keep(process.state, name, text, label)
        document = kept.path
        text = (
            f"{shortened(text, limit)}\n[{len(text):,} characters; all of them are in {document}]"
        )
    files = [path for path in (result.files if result else ()) if path not in text]
    if files:
        text = f"{text}\n[files: {', '.join(files)}]".lstrip()
    if outcome in ("failed", "unknown"):
        text = f"Error: {text}"
    message: Message = {"role": "tool", "content": text, "name": call.tool}
    kind = PageKind.VALUE
    if call.model_call is not None:
        message["tool_call_id"] = call.model_call
        kind = PageKind.TOOL
    data = None
    if result is not None and result.data is not None:
        data = process.put(json.dumps(result.data, ensure_ascii=False, default=str))
    seconds = 0.0 if began is None else time.monotonic() - began
    process.append(
        e.CallEnded(
            call_id=call.call_id,
            outcome=outcome,
            page=process.page(kind, message, label, call_id=call.call_id),
            used=e.Used(calls=1, seconds=seconds, money=result.cost if result else 0.0),
            data=data,
            document=document,
            received=received,
        )
    )
    process.running_calls.discard(call.call_id)


def cancel_waiting(process: Process) -> None:
    """End the calls that wait for something."""
    for call in process.state.calls:
        if call.phase in ("asked", "suspended"):
            _end(process, call, "cancelled", "A person interrupted this call; it was not made.")


def cancelled_in_fork(process: Process) -> None:
    """End the calls of a forked process that its original is making, and its questions."""
    for call in process.state.calls:
        asks = call.phase == "suspended" and call.wake is not None and call.wake.question
        if call.phase in ("intended", "asked", "denied") or asks:
            text = "This process was forked during the call. Its result went to the other one."
            _end(process, call, "cancelled", text)
