"""Events of a process as lines for people: what `strace` and `logs` print."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from oneiros.cli import output
from oneiros.rendering import visible

View = Mapping[str, Any]  # of an event, as the control socket sends it

LONGEST = 400  # characters of a text that are fetched
_SHOWN = 60  # characters of an argument or a result in a line
_TEXTS = ("text", "arguments", "why", "error", "result")  # fields that are hashes of texts
# Fields with hashes that say nothing to people, and those that have a place of their own.
_HIDDEN = ("kind", "state", "options", "tools", "sampling", "data", "held", "label", "own", *_TEXTS)


@dataclass(frozen=True, slots=True)
class SystemCall:
    """One thing that a process did, from beginning to end."""

    time: float  # when it began, in seconds since the epoch
    pid: int
    name: str
    arguments: str
    decision: str  # "allow", "ask", "deny"; "" where nothing is decided
    outcome: str  # "done", "failed", ...; "unfinished" for what goes on
    result: str
    seconds: float | None  # None where it did not end

    def line(self, with_pid: bool = False) -> str:
        """In the manner of strace."""
        clock = datetime.fromtimestamp(self.time).strftime("%H:%M:%S.%f")[:-3]
        who = f"[pid {self.pid}] " if with_pid else ""
        decision = "" if self.decision in ("", "allow") else f" {self.decision.upper()}"
        outcome = "" if self.outcome == "done" else f" {self.outcome.upper()}"
        took = "" if self.seconds is None else f" <{self.seconds:.3f}>"
        call = f"{self.name}({self.arguments})"
        return f"{clock} {who}{call}{decision} ={outcome} {self.result}{took}"


@dataclass(slots=True)
class _Begun:
    time: float
    arguments: str
    decision: str


@dataclass(slots=True)
class SystemCalls:
    """Puts the system calls of processes together from their events."""

    _calls: dict[tuple[int, str], tuple[str, _Begun]] = field(default_factory=dict)
    _generations: dict[int, _Begun] = field(default_factory=dict)

    def take(self, view: View) -> Iterator[SystemCall]:
        """The calls that an event ends, or says something new about."""
        event, pid, time = view["event"], view["pid"], view["time"]
        match event["kind"]:
            case (
                "received"
                | "delivered"
                | "child-started"
                | "noticed"
                | "evicted"
                | "ended"
                | "signalled"
            ):
                yield SystemCall(time, pid, *_at_once(view), seconds=None)
            case "generation-started":
                self._generations[pid] = _Begun(time, "", "")
            case "generation-ended":
                begun = self._generations.pop(pid, _Begun(time, "", ""))
                yield _generated(view, begun.time)
            case "call-intended":
                arguments = call_arguments(_text(view, "arguments"))
                begun = _Begun(time, arguments, event["decision"])
                self._calls[pid, event["call_id"]] = (event["tool"], begun)
                if event["decision"] == "ask":
                    yield _unfinished(view, event["tool"], begun, _text(view, "why"))
            case "call-answered":
                tool, begun = self._call(view)
                begun.decision = "allowed" if event["allowed"] else "refused"
            case "call-suspended":
                tool, begun = self._call(view)
                yield _unfinished(view, tool, begun, f"waits for {wake_text(event['wake'])}")
            case "call-ended":
                tool, begun = self._call(view)
                self._calls.pop((pid, event["call_id"]), None)
                result = quoted(content(view, event["page"]))
                yield SystemCall(
                    begun.time,
                    pid,
                    tool,
                    begun.arguments,
                    begun.decision,
                    event["outcome"],
                    result,
                    time - begun.time,
                )

    def _call(self, view: View) -> tuple[str, _Begun]:
        """A call that was begun; of one that began before we looked, what is known."""
        unknown = ("…", _Begun(view["time"], "…", ""))
        return self._calls.get((view["pid"], view["event"]["call_id"]), unknown)


def event_line(view: View, with_pid: bool = False) -> str:
    """An event in a line: its number, time, kind and what it holds."""
    event = view["event"]
    clock = datetime.fromtimestamp(view["time"]).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    parts = [
        f"{name}={_plain(value)}"
        for name, value in event.items()
        if name not in _HIDDEN and name not in ("page", "pages", "mark") and value not in _NOTHING
    ]
    parts += [quoted(_text(view, name)) for name in _TEXTS if isinstance(event.get(name), str)]
    parts += [quoted(message["content"]) for message in view.get("messages", {}).values()]
    who = f"[pid {view['pid']}] " if with_pid else ""
    return f"{view['seq']:>6} {clock} {who}{event['kind']:<18} {' '.join(parts)}".rstrip()


def call_arguments(text: str) -> str:
    """Arguments, JSON, as `a=1, b="x"`."""
    try:
        arguments = json.loads(text or "{}")
    except ValueError:
        return output.one_line(cut(text))
    if not isinstance(arguments, dict):
        return output.one_line(cut(text))
    return ", ".join(
        f"{output.one_line(name)}={output.one_line(cut(json.dumps(value, ensure_ascii=False)))}"
        for name, value in arguments.items()
    )


def content(view: View, page: Mapping[str, Any] | None) -> str:
    """The text of a page that came with an event."""
    if page is None:
        return ""
    message = view.get("messages", {}).get(str(page["id"]), {})
    return str(message.get("content", ""))


def wake_text(wake: Mapping[str, Any]) -> str:
    """What a call waits for."""
    waits = []
    if wake["question"] is not None:
        waits.append("an answer")
    if wake["child"] is not None:
        waits.append(f"process {wake['child']}")
    if wake["message"]:
        waits.append("a message")
    if wake["at"] is not None:
        waits.append(datetime.fromtimestamp(wake["at"]).strftime("%H:%M:%S"))
    return " or ".join(waits)


def quoted(text: str) -> str:
    """The beginning of a text in quotes, on one line."""
    shown = visible(cut(text)).replace("\n", "\\n").replace("\t", "\\t")
    return f'"{shown}"'


def cut(text: str, longest: int = _SHOWN) -> str:
    """A text, or its beginning with a sign that there is more."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


_NOTHING: tuple[object, ...] = (None, "", False, [], {})


def _at_once(view: View) -> tuple[str, str, str, str, str]:
    """Name, arguments, decision, outcome and result of what takes no time."""
    event = view["event"]
    match event["kind"]:
        case "delivered":
            return "deliver", f"from={event['sender']}", "", "done", quoted(_text(view, "text"))
        case "received":
            texts = [quoted(content(view, page)) for page in event["pages"]]
            return "receive", "", "", "done", ", ".join(texts)
        case "signalled":
            return event["signal"], "", "", "done", quoted(_text(view, "why"))
        case "child-started":
            return "start_child", "", "", "done", f"process {event['child']}"
        case "noticed":
            text = quoted(content(view, event["page"]))
            return "note", event["page"]["kind"], "", "done", text
        case "evicted":
            return (
                "evict",
                f"{len(event['pages'])} pages",
                "",
                "done",
                f"page {event['mark']['id']}",
            )
    return "exit", event["status"], "", "done", quoted(_text(view, "result"))


def _generated(view: View, begun: float) -> SystemCall:
    event = view["event"]
    fresh = event["prompt_tokens"] - event["cached_tokens"]
    count = event["used"]["tokens"] - fresh
    text = quoted(content(view, event["page"]))
    if event["page"] is not None and event["page"]["calls"]:
        text += f" and {event['page']['calls']} calls"
    failed = event["reason"] == "failed"
    return SystemCall(
        begun,
        view["pid"],
        "generate",
        f"prompt={event['prompt_tokens']:,}, cached={event['cached_tokens']:,}",
        "",
        "failed" if failed else "done",
        quoted(_text(view, "error")) if failed else f"{count:,} tokens, {event['reason']}: {text}",
        view["time"] - begun,
    )


def _unfinished(view: View, tool: str, begun: _Begun, why: str) -> SystemCall:
    return SystemCall(
        view["time"],
        view["pid"],
        tool,
        begun.arguments,
        begun.decision,
        "unfinished",
        output.one_line(cut(why, LONGEST)),
        None,
    )


def _text(view: View, name: str) -> str:
    blob = view["event"].get(name)
    return str(view.get("texts", {}).get(blob, "")) if blob else ""


def _plain(value: object) -> str:
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if inner not in _NOTHING}
        return output.one_line(json.dumps(kept, ensure_ascii=False))
    return output.one_line(str(value))
