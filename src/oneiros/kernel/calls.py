"""A process's calls: journalled before and after, carried out all at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from oneiros.errors import JournalError
from oneiros.kernel import events as e
from oneiros.kernel.decisions import StateTexts, decisions
from oneiros.kernel.label import PUBLIC, USER, Label
from oneiros.kernel.program import ToolRequest
from oneiros.kernel.quarantine import end_inspection
from oneiros.kernel.readings import Arguments
from oneiros.kernel.results import end_call
from oneiros.kernel.state import CallState, ProcessState
from oneiros.kernel.syscalls import (
    OutcomeUnknownError,
    Toolbox,
    as_vouched_for,
    result_label,
    run,
)
from oneiros.kernel.tools import CallContext, Outcome, Tool, ToolError, ToolResult, Wake
from oneiros.kernel.verdict import Allow, Ask, Decision, Deny

if TYPE_CHECKING:
    from oneiros.kernel.process import Process

_UNKNOWN = (
    "The machine was interrupted during this call. Whether it took effect is not known: find out "
    "before you make it again."
)
_MAYBE = "Whether it had an effect is not known."
_DENIED = "A person said no to this call. Do not make it again; go on without it, or explain."


def begin_calls(process: Process, requests: Sequence[ToolRequest]) -> None:
    """Decide about calls, and journal them with the decisions, all in one."""
    services = process.services
    events = intended(process.state, requests, services.toolbox, services.texts, process.put)
    calls = [event for event in events if isinstance(event, e.CallIntended)]
    effects = (
        services.toolbox.get(call.tool).contract.effects
        for call in calls
        if call.decision == "allow"
    )
    process.append(*events, durable=any(effects))
    process.running_calls.update(call.call_id for call in calls)


def intended(
    state: ProcessState,
    requests: Sequence[ToolRequest],
    toolbox: Toolbox,
    texts: StateTexts,
    put: Callable[[str], str],
) -> list[e.CallIntended | e.Signalled]:
    """Calls with the decisions about them, as they are journalled.

    The process is stopped after them if it asks too often.

    Args:
        state: of the process that wants to make them.
        requests: the calls.
        toolbox: the tools.
        texts: reads what the state names.
        put: keeps a text, and gives its hash.
    """
    events: list[e.CallIntended | e.Signalled] = []
    stop = None
    decided = decisions(state, requests, toolbox, texts)
    for number, (request, decision) in enumerate(zip(requests, decided, strict=True)):
        why, meaning = None, ""
        released: tuple[str, ...] = ()
        match decision:
            case Allow():
                released = decision.released
            case Ask():
                why, meaning = put(decision.question), decision.meaning
            case Deny():
                why = put(decision.reason)
                stop = decision.reason if decision.stop else stop
        events.append(
            e.CallIntended(
                call_id=f"{state.pid}.{state.next_call + number}",
                tool=request.tool.encode(errors="replace").decode(),
                arguments=put(request.arguments),
                decision=_NAMES[type(decision)],
                why=why,
                meaning=meaning,
                label=state.label,
                model_call=request.model_call,
                handle=request.handle or (state.quarantine and request.model_call is not None),
                released=released,
            )
        )
    if stop is not None:
        why = put(f"{stop} `oneiros cont {state.pid}` lets it go on.")
        events.append(e.Signalled(signal="stop", why=why))
    return events


_NAMES: dict[type[Decision], Literal["allow", "ask", "deny"]] = {
    Allow: "allow",
    Ask: "ask",
    Deny: "deny",
}


async def finish_calls(process: Process) -> None:
    """Carry out all calls that are not over.

    Raises:
        JournalError: what happened cannot be written.
    """
    async with asyncio.TaskGroup() as group:
        for call in process.state.calls:
            group.create_task(_finish(process, call.call_id))


async def _finish(process: Process, call_id: str) -> None:
    """Carry out a call. Whatever goes wrong ends this call, and none that is made with it."""
    task = asyncio.ensure_future(_carry_out(process, call_id))
    try:
        await asyncio.wait({task})
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    call = _find(process, call_id)
    if isinstance(error, JournalError):
        raise error
    if error is not None and call is not None:
        _end_crashed(process, call, error)


def _end_crashed(process: Process, call: CallState, error: BaseException) -> None:
    """End a call that failed in a way that its tool did not foresee."""
    text = f"{call.tool} crashed: {type(error).__name__}: {str(error)[:500]}"
    try:
        tool, arguments = _resolved(process, call)
    except ToolError:
        end_call(process, call, "failed", text)
        return
    own = result_label(tool, arguments, _context(process, call), ToolResult(""))
    if tool.contract.effects:
        end_call(process, call, "unknown", f"{text}. {_MAYBE}", own=own)
    else:
        end_call(process, call, "failed", text, own=own)


async def _carry_out(process: Process, call_id: str) -> None:
    while (call := _find(process, call_id)) is not None:
        match call.phase:
            case "denied":
                asked = process.services.texts.text(call.why) if call.why else ""
                end_call(process, call, "denied", _DENIED if call.meaning else asked)
            case "asked":
                await process.until(lambda: _find(process, call_id) != call)
            case "suspended":
                await _woken(process, call)
            case "intended":
                await _perform(process, call)


def _find(process: Process, call_id: str) -> CallState | None:
    return next((call for call in process.state.calls if call.call_id == call_id), None)


def _context(process: Process, call: CallState) -> CallContext:
    state = process.state
    return CallContext(state.pid, call.call_id, state.owner, state.app, call.label)


def _resolved(process: Process, call: CallState) -> tuple[Tool, Arguments]:
    """A call's tool, and its arguments. Raises ToolError: there is none, or they do not fit."""
    toolbox = process.services.toolbox
    tool = toolbox.get(call.tool)
    return tool, toolbox.arguments(tool, process.services.texts.text(call.arguments))


async def _perform(process: Process, call: CallState) -> None:
    try:
        tool, arguments = _resolved(process, call)
    except ToolError as error:
        end_call(process, call, "failed", str(error))
        return
    context = _context(process, call)
    # Errors are worded by servers and sites, as results are.
    own = result_label(tool, arguments, context, ToolResult(""))
    began = time.monotonic()
    try:
        outcome = await _outcome(process, call, tool, arguments, context)
    except OutcomeUnknownError as error:
        end_call(process, call, "unknown", str(error), began, own=own)
    except ToolError as error:
        end_call(process, call, "failed", str(error), began, own=own)
    else:
        if isinstance(outcome, Wake):
            question, schema = (
                None if text is None else process.put(text)
                for text in (outcome.question, outcome.schema)
            )
            wake = replace(outcome, question=question, schema=schema)
            process.append(e.CallSuspended(call_id=call.call_id, wake=wake))
        else:
            own = result_label(tool, arguments, context, outcome)
            result = as_vouched_for(tool, outcome)
            end_call(process, call, "done", result.text, began, result, own, tool.contract)


async def _outcome(
    process: Process, call: CallState, tool: Tool, arguments: Arguments, context: CallContext
) -> Outcome:
    """Make a call, or find what it brought before the kernel stopped."""
    if call.call_id not in process.running_calls:
        # It was under way when the kernel stopped.
        found = await _reconciled(tool, arguments, context)
        process.running_calls.add(call.call_id)
        if found is not None:
            return found
    state = process.state
    seconds = tool.contract.deadline
    if state.budget.seconds is not None:
        seconds = max(0.0, min(seconds, state.budget.seconds - state.used.seconds))
    outcome: list[Outcome] = []

    async def make() -> None:
        outcome.append(await run(tool, arguments, context, seconds))

    if await process.attend(make()):
        return outcome[0]
    text = "A person interrupted this call."
    if tool.contract.effects:
        raise OutcomeUnknownError(f"{text} {_MAYBE}")
    raise ToolError(text)


async def _reconciled(tool: Tool, arguments: Arguments, context: CallContext) -> ToolResult | None:
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
    if wake.schema is not None and wake.child is not None:
        end_inspection(process, call, process.services.lookup(wake.child))
    elif wake.child is not None and child_ended():
        child = process.services.lookup(wake.child)
        text, label = f"Process {wake.child} was never started.", PUBLIC
        if child is not None and child.end is not None:
            said = texts.text(child.end.result) if child.end.result else ""
            text, label = (
                f"Process {wake.child} ended ({child.end.status}): {said}",
                child.end.label,
            )
        result = ToolResult(text, label=label)
        end_call(process, call, "done", text, None, result, result.label)
    elif wake.message and process.state.inbox:
        mail = process.state.inbox[0]
        text = f"From {mail.sender}: {texts.text(mail.text)}"
        end_call(process, call, "done", text, own=mail.label, mail=mail)
    else:
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime())
        end_call(process, call, "done", f"The time has come: it is {now}.")


def answer_question(process: Process, call: CallState, text: str) -> None:
    """End a call that asked a person with what the person said."""
    own = Label.of(USER, readers=[process.state.owner])
    end_call(process, call, "done", text, own=own)


def cancel_waiting(process: Process) -> None:
    """End the calls that wait for something."""
    for call in process.state.calls:
        if call.phase in ("asked", "suspended"):
            end_call(process, call, "cancelled", "A person interrupted this call; it was not made.")


def cancelled_in_fork(process: Process) -> None:
    """End the calls of a forked process that its original is making, and its questions."""
    for call in process.state.calls:
        asks = call.phase == "suspended" and call.wake is not None and call.wake.question
        if call.phase in ("intended", "asked", "denied") or asks:
            text = "This process was forked during the call. Its result went to the other one."
            end_call(process, call, "cancelled", text)
