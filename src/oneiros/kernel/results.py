"""What a call brought, as a page that the context has room for."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Literal

from oneiros.errors import DiskError
from oneiros.kernel import events as e
from oneiros.kernel import handles
from oneiros.kernel.contract import Contract
from oneiros.kernel.generating import MARKUP, room
from oneiros.kernel.label import SYSTEM, Label
from oneiros.kernel.state import CallState, Mail
from oneiros.kernel.tools import ToolResult
from oneiros.memory.documents import fitted
from oneiros.memory.pages import PageKind
from oneiros.model.chat_format import Message

if TYPE_CHECKING:
    from oneiros.kernel.process import Process

CallOutcome = Literal["done", "failed", "denied", "unknown", "cancelled"]

_OURS = Label.of(SYSTEM)  # of what the kernel itself says
_NONE = Contract()
_SHARE = 0.75  # of the room beside what stays; the rest is for marks, notices and the next reply
_LEAST = 48  # tokens of a result, where there is no room


def end_call(
    process: Process,
    call: CallState,
    outcome: CallOutcome,
    text: str,
    began: float | None = None,
    result: ToolResult | None = None,
    own: Label = _OURS,
    contract: Contract = _NONE,
    mail: Mail | None = None,
    instead: str | None = None,
    endorsed: float = 0.0,
) -> None:
    """Journal a call's end with its result as a page.

    Of a text that has more characters than the contract says, or takes more of the context than
    there is, the beginning and the end are shown; the whole becomes a document, if there is space
    on the disk. Of a result that stays behind handles only what its tool vouches for is shown.

    Args:
        process: whose call it is.
        call: it.
        outcome: how it ended.
        text: for the model.
        began: when; `time.monotonic`.
        result: what it brought.
        own: label of that, without what influenced the call.
        contract: of its tool.
        mail: the first message of the inbox, if the result is that.
        instead: what is shown; the text then stays behind a handle.
        endorsed: bits that were endorsed, if it is the answer of an inspection.
    """
    data = None
    if result is not None and result.data is not None:
        data = json.dumps(result.data, ensure_ascii=False, default=str)
    label = call.label.join(own)
    files = [path for path in (result.files if result else ()) if path not in text]
    remark = f"\n[files: {', '.join(files)}]" if files else ""
    error = "Error: " if outcome in ("failed", "unknown") else ""
    whole = None
    if instead is not None:
        whole = process.put(text)
        text, label = instead, call.label.join(handles.outside(own, call.tool))
    elif _is_held(call, result, own):
        whole = process.put(f"{text}{remark}")
        known = None if data is None else json.loads(data)
        text, remark = handles.held(call.call_id, text, known, contract, own), ""
        label = call.label.join(handles.outside(own, call.tool))
    text, document = _shown(process, call, f"{error}{text}", remark, label, contract.output_limit)
    message: Message = {"role": "tool", "content": text, "name": call.tool}
    kind = PageKind.VALUE
    if call.model_call is not None:
        message["tool_call_id"] = call.model_call
        kind = PageKind.TOOL
    sender = "" if mail is None else mail.sender
    seconds = 0.0 if began is None else time.monotonic() - began
    process.append(
        e.CallEnded(
            call_id=call.call_id,
            outcome=outcome,
            page=process.page(kind, message, label, sender=sender, call_id=call.call_id),
            own=own,
            used=e.Used(calls=1, seconds=seconds, money=result.cost if result else 0.0),
            data=None if data is None else process.put(data),
            held=whole,
            document=document,
            received=0 if mail is None else 1,
            derived=(result is not None and result.shown) or _inspects(call),
            endorsed=endorsed,
        )
    )
    process.running_calls.discard(call.call_id)


def _inspects(call: CallState) -> bool:
    return call.wake is not None and call.wake.schema is not None


def _is_held(call: CallState, result: ToolResult | None, own: Label) -> bool:
    asked_for = result is not None and result.shown
    return call.handle and not asked_for and not own.trusted


def _shown(
    process: Process, call: CallState, text: str, remark: str, label: Label, limit: int
) -> tuple[str, str | None]:
    """What of a result is shown, with a remark behind it; the document that has the whole."""
    tokens = None if call.model_call is None else _room(process)

    def part() -> str:
        left = None if tokens is None else tokens - process.count(remark)
        return fitted(text, limit, left, process.count)

    if part() == text:
        return f"{text}{remark}".lstrip(), None
    document = None
    try:
        name = f"output-{call.call_id}.txt"
        document = process.services.memory.keep(process.state, name, text, label).path
        kept = f"all of them are in {document}"
    except DiskError as error:
        kept = f"what is not shown could not be kept: {error}"
    remark = f"\n[{len(text):,} characters; {kept}]{remark}"
    return part() + remark, document


def _room(process: Process) -> int:
    """Tokens that the result of a call may take.

    The results of a reply fit beside what never leaves the context before they are read: pinned
    pages, tools, the newest message, and the reply. What one does not need is left to the others.
    """
    state = process.state
    context = state.context
    asked = [page for page in context if page.kind is PageKind.USER][-1:]
    reply = [n for n, page in enumerate(context) if page.kind is PageKind.ASSISTANT][-1:]
    newest = context[reply[0] :] if reply else ()
    stays = {page.id: page.tokens for page in (*asked, *newest) if page.kind is not PageKind.TOOL}
    stays |= {page.id: page.tokens for page in context if page.pinned}
    limit = room(process.services.models.context(state.model)).limit
    overhead = process.talk.overhead
    limit -= limit // 4 if overhead is None else overhead  # not known after a restart
    taken = sum(page.tokens for page in newest if page.kind is PageKind.TOOL)
    calls = sum(call.model_call is not None for call in state.calls)
    return max(_LEAST, (int(_SHARE * (limit - sum(stays.values()))) - taken) // calls - MARKUP)
