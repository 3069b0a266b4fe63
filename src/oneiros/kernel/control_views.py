"""What the control socket tells of processes, events and tools, as JSON data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from oneiros.errors import BlobErasedError
from oneiros.kernel import events as e
from oneiros.kernel.state import CallState, ProcessState, Status
from oneiros.kernel.tools import Tool
from oneiros.memory.pages import Page
from oneiros.model.chat_format import Message

if TYPE_CHECKING:
    from oneiros.kernel.journal import Recorded

ReadText = Callable[[str], str]
ReadMessage = Callable[[Page], Message]


def process_view(state: ProcessState) -> dict[str, Any]:
    """A process in short, as lists of processes show it."""
    return {
        "pid": state.pid,
        "parent": state.parent,
        "forked_from": state.forked_from,
        "owner": state.owner,
        "app": state.app,
        "program": state.program,
        "model": state.model,
        "title": state.title,
        "status": str(state.status),
        "waiting_for": waiting_for(state),
        "priority": state.priority,
        "budget": asdict(state.budget),
        "used": asdict(state.used),
        "context_tokens": sum(page.tokens for page in state.context),
        "evicted_pages": len(state.evicted),
        "untrusted_origins": sorted(state.label.untrusted_origins),
        "readers": None if state.label.readers is None else sorted(state.label.readers),
        "inbox": len(state.inbox),
        "children": list(state.children),
        "events": state.seq,
        "end": None if state.end is None else state.end.status,
    }


def waiting_for(state: ProcessState) -> str | None:
    """What a process waits for, in a few words; None: it does not wait."""
    if state.status is not Status.WAITING:
        return None
    if not state.calls:
        return "a message"
    return ", ".join(dict.fromkeys(map(_call_waits_for, state.calls)))


def _call_waits_for(call: CallState) -> str:
    if call.phase == "asked":
        return f"permission for {call.tool}"
    wake = call.wake
    if wake is None:
        return call.tool
    waits = []
    if wake.question is not None:
        waits.append("an answer")
    if wake.child is not None:
        waits.append(f"process {wake.child}")
    if wake.message:
        waits.append("a message")
    if wake.at is not None:
        waits.append(datetime.fromtimestamp(wake.at).strftime("%H:%M:%S"))
    return " or ".join(waits)


def event_view(
    recorded: Recorded, longest: int, text: ReadText, message: ReadMessage
) -> dict[str, Any]:
    """An event, and the texts that it names.

    Args:
        recorded: what the journal holds.
        longest: characters of each text; 0: no texts.
        text: reads a blob.
        message: reads a page.

    Returns:
        {"seq", "time", "pid", "event", "texts": by hash, "messages": by page id}. An erased text
        is not in it.
    """
    event = recorded.event
    view = {
        "seq": recorded.seq,
        "time": recorded.time,
        "pid": recorded.pid,
        "event": json.loads(e.to_json(event)),
    }
    if longest:
        view["texts"] = dict(_texts(event, longest, text))
        view["messages"] = {
            str(page.id): shortened(message(page), longest) for page in pages_of(event)
        }
    return view


def shortened(message: Message, longest: int) -> Message:
    """A message with at most so many characters of content."""
    if len(message["content"]) <= longest:
        return message
    return {**message, "content": message["content"][:longest]}


def pages_of(event: e.Event) -> tuple[Page, ...]:
    """The pages that an event adds."""
    match event:
        case e.Started() | e.Received():
            return event.pages
        case e.Noticed() | e.CallEnded():
            return (event.page,)
        case e.GenerationEnded():
            return () if event.page is None else (event.page,)
        case e.Evicted():
            return (event.mark,)
    return ()


def texts_of(event: e.Event) -> tuple[str, ...]:
    """The hashes of the texts that an event names, for people: not of programs' data."""
    match event:
        case e.Delivered() | e.Generated():
            found: tuple[str | None, ...] = (event.text,)
        case e.GenerationEnded():
            found = (event.error,)
        case e.CallIntended():
            found = (event.arguments, event.why)
        case e.CallSuspended():
            found = (event.wake.question,)
        case e.CallEnded():
            found = (event.held,)
        case e.Ended():
            found = (event.result,)
        case e.Signalled():
            found = (event.why,)
        case _:
            found = ()
    return tuple(blob for blob in found if blob is not None)


def tool_view(tool: Tool) -> dict[str, Any]:
    """A tool and its contract."""
    contract = tool.contract
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
        "capability": tool.capability,
        "effects": sorted(contract.effects),
        "critical": list(contract.critical),
        "sinks": list(contract.sinks),
        "origins": list(contract.origins),
        "private": contract.private,
        "idempotent": contract.idempotent,
        "deadline": contract.deadline,
    }


def _texts(event: e.Event, longest: int, text: ReadText) -> Iterator[tuple[str, str]]:
    for blob in texts_of(event):
        try:
            yield blob, text(blob)[:longest]
        except BlobErasedError:
            continue
