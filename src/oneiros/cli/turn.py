"""A process on the screen: its replies as they come, its calls, and what it asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from oneiros.cli import event_lines, generating, keyboard, output
from oneiros.errors import JournalError, ProcessError
from oneiros.kernel import events as e
from oneiros.kernel.state import STATE, apply

if TYPE_CHECKING:
    from rich.status import Status

    from oneiros.kernel.control_client import ControlClient

_LONGEST = 1 << 20  # characters of a text that are fetched
_QUIET = 0.2  # seconds without events after which a process with nothing to do is waiting for us
_SPARE = 2  # tokens of a context that a reply may leave: those that end it
_RESULT = 100  # characters of a call's result that are shown


class WatchedProcess:
    """A process, followed by its events, and shown.

    Its state is the fold over them here, as it is in the kernel.
    """

    def __init__(
        self, client: ControlClient, pid: int, context: int, *, from_start: bool = False
    ) -> None:
        """Begin with the present, or with the process's first event; `context` is the model's."""
        self.pid = pid
        self._context = context
        self._client = client
        self._console = output.stdout()
        state = client.call("state", pid=pid)
        self.state = STATE.validate_json(json.dumps(state))
        self._shown_until = 0 if from_start else self.state.seq
        self._printed = ""  # of the reply under way
        self._pieces = output.Pieces()
        self._calls: dict[str, str] = {}  # by id, as they are shown
        self._asked: set[str] = set()
        self._waits = ""
        self._status: Status | None = None
        self._turn = _Figures(self._context)

    def follow(self) -> None:
        """Show what the process does until it waits for a message, or has ended.

        Ctrl-C interrupts the reply; a second one raises KeyboardInterrupt.
        """
        self._turn = _Figures(self._context)
        stream = self._client.stream(
            "watch", pid=self.pid, after=self._shown_until, longest=_LONGEST, quiet=_QUIET
        )
        with closing(stream) as events, generating.ctrl_c(self._interrupt):
            try:
                for view in events:
                    if "quiet" not in view:
                        self._take(view)
                    elif self._rests():
                        break
                    if self.state.end is not None and self._shown_until >= self.state.seq:
                        break
            finally:
                self._end_line()
        if self._turn.replies:
            self.remark(self._turn.line() + "\n")

    def remark(self, text: str, style: str = "dim") -> None:
        """Say something that is not the model's."""
        self._console.print(output.printable(text), style=style, markup=False)

    def _interrupt(self) -> None:
        # What cannot be interrupted any more is over.
        with suppress(ProcessError):
            self._client.call("interrupt", pid=self.pid)

    def _rests(self) -> bool:
        """Whether the process does nothing until somebody writes to it; asks what it asks."""
        self._ask()
        state = self.state
        if state.stopped:
            self._end_line()
            self.remark(f"Process {self.pid} is stopped: `oneiros cont {self.pid}`.", "yellow")
            return True
        waits = [call.wake for call in state.calls if call.phase == "suspended" and call.wake]
        if waits and len(waits) == len(state.calls):
            shown = ", ".join(event_lines.wake_text(asdict(wake)) for wake in waits)
            if shown != self._waits:
                self._end_line()
                self.remark(f"waits for {shown} · Ctrl-C interrupts")
                self._waits = shown
        return not (state.generation or state.calls or state.inbox)

    def _take(self, view: Mapping[str, Any]) -> None:
        event = e.from_json(json.dumps(view["event"]))
        self._shown_until = view["seq"]
        if view["seq"] > self.state.seq:
            self.state = apply(self.state, self.pid, view["seq"], event, _no_blobs)
        self._show(event, view)

    def _show(self, event: e.Event, view: Mapping[str, Any]) -> None:
        texts = view.get("texts", {})
        match event:
            case e.Generated():
                self._write(texts.get(event.text, ""))
            case e.GenerationEnded():
                self._end_reply(event, view)
            case e.CallIntended():
                arguments = event_lines.call_arguments(texts.get(event.arguments, ""))
                self._calls[event.call_id] = f"{output.one_line(event.tool)}({arguments})"
                if event.decision == "allow":
                    self._wait_for(self._calls[event.call_id])
            case e.CallEnded():
                self._end_call(event, view)
            case e.Delivered() if event.sender != "user":
                self._line(f"from {event.sender}: {texts.get(event.text, '')}")
            case e.Received() if event.documents:
                self._line(f"kept as a document: {', '.join(event.documents)}")
            case e.Noticed():
                text = event_lines.content(view, view["event"]["page"])
                self._line(event_lines.cut(f"{event.page.kind}: {' '.join(text.split())}", 300))
            case e.Evicted():
                self._line(f"{len(event.pages)} pages left the context; they can be found again")
            case e.Signalled(why=str(why)):
                self._line(texts.get(why, ""), "yellow")
            case e.ChildStarted():
                self._line(f"process {event.child} was started")
            case e.Ended():
                result = texts.get(event.result, "")
                self._line(f"The process has ended ({event.status}). {result}".strip())

    def _end_reply(self, event: e.GenerationEnded, view: Mapping[str, Any]) -> None:
        said = event_lines.content(view, view["event"]["page"])
        begun = self._printed.strip()
        if begun and not said.strip().startswith(begun):
            self._write("\n")
            begun = ""
        self._write(said.strip()[len(begun) :] if begun else said)
        self._end_line()
        self._turn.add(event)
        if event.error is not None:
            self.remark(str(view.get("texts", {}).get(event.error, "The reply failed.")), "red")

    def _end_call(self, event: e.CallEnded, view: Mapping[str, Any]) -> None:
        result = event_lines.content(view, view["event"]["page"]).strip()
        if event.outcome != "done":
            result = result.removeprefix("Error: ")  # the outcome says so
        first, more = result.partition("\n")[0], result.count("\n")
        if not first.strip("{[ "):  # JSON over several lines
            first, more = " ".join(result.split()), 0
        first = event_lines.cut(first, _RESULT)
        what = self._calls.pop(event.call_id, "a call")
        tail = f" (and {more} more lines)" if more else ""
        style = "dim" if event.outcome == "done" else "yellow"
        outcome = "" if event.outcome == "done" else f"{event.outcome}: "
        self._line(f"• {what} → {outcome}{first}{tail}", style)

    def _ask(self) -> None:
        """Put what the process, or one below it, asks to the person."""
        questions = [
            question
            for question in self._client.call("questions")
            if question["call_id"] not in self._asked
        ]
        if not questions:
            return
        family = self._family()
        for question in questions:
            if question["pid"] in family:
                self._asked.add(question["call_id"])
                self._put_question(question)

    def _family(self) -> set[int]:
        """The pids of the process and of all below it."""
        parents = {one["pid"]: one["parent"] for one in self._client.call("processes")}
        family = {self.pid}
        for pid in sorted(parents):  # children have higher pids than their parents
            if parents[pid] in family:
                family.add(pid)
        return family

    def _put_question(self, question: Mapping[str, Any]) -> None:
        self._end_line()
        who = "" if question["pid"] == self.pid else f"[process {question['pid']}] "
        calls = len(question["calls"])
        about = f"[{calls} calls] " if calls > 1 else ""
        text = output.printable(f"{who}{about}{question['text']}")
        self._console.print(text, style="bold", markup=False)
        answer: dict[str, object]
        if question["kind"] == "permission":
            answer = _permission(keyboard.read_answer("y = once, a = always, n = no: "))
        else:
            said = keyboard.read_answer("your answer: ")
            answer = {"text": "(The person did not answer.)" if said is None else said}
        try:
            self._client.call("answer", call_id=question["call_id"], pid=question["pid"], **answer)
        except ProcessError as error:  # somebody else was quicker
            self.remark(str(error))

    def _write(self, text: str) -> None:
        if text:
            self._wait_for(None)
            self._pieces.write(text)
            self._printed += text

    def _line(self, text: str, style: str = "dim") -> None:
        self._end_line()
        self.remark(text, style)

    def _end_line(self) -> None:
        self._wait_for(None)
        self._pieces.end()
        if self._printed and not self._printed.endswith("\n"):
            output.write("\n")
        self._printed = ""

    def _wait_for(self, what: str | None) -> None:
        """A sign that something takes time; None: it is over."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if what is not None:
            from rich.text import Text

            self._end_line()
            self._status = self._console.status(Text(what, style="dim"))
            self._status.start()


class _Figures:
    """What the replies of a turn took."""

    def __init__(self, context: int) -> None:
        self.replies = 0
        self._context = context
        self._tokens = 0
        self._seconds = 0.0
        self._last: e.GenerationEnded | None = None

    def add(self, event: e.GenerationEnded) -> None:
        self.replies += 1
        self._tokens += _generated(event)
        self._seconds += event.used.seconds
        self._last = event

    def line(self) -> str:
        """In a line for people."""
        parts = [f"{self._tokens:,} tokens"]
        if self._seconds > 0:
            parts.append(f"{self._tokens / self._seconds:,.0f} tokens/s")
        last = self._last
        if last is not None and last.prompt_tokens:  # not known of a reply that was interrupted
            prompt = f"prompt {last.prompt_tokens:,} tokens"
            if last.cached_tokens:
                prompt += f", {last.cached_tokens:,} of them cached"
            parts.append(prompt)
        parts.append(f"{self._seconds:.2f} s")
        if last is not None:
            parts += self._ending(last)
        return " · ".join(parts)

    def _ending(self, last: e.GenerationEnded) -> list[str]:
        """Why the last reply ended, where it did not simply come to its end."""
        if last.reason in ("interrupted", "cancelled"):
            return ["stopped"]
        if last.reason != "length":
            return []
        length = last.prompt_tokens + _generated(last)
        if length >= self._context - _SPARE:
            return [f"the context of {self._context:,} tokens was full"]
        return ["cut at --max-tokens"]


def _generated(event: e.GenerationEnded) -> int:
    """Tokens of a reply."""
    return event.used.tokens - (event.prompt_tokens - event.cached_tokens)


def _permission(answer: str | None) -> dict[str, object]:
    """What a key means; everything but "y" and "a" is a no."""
    letter = (answer or "n")[:1].lower()
    return {"allow": letter in ("y", "a"), "always": letter == "a"}


def _no_blobs(blob: str) -> bytes:
    raise JournalError(f"The text {blob} is the kernel's: a process that is watched has begun.")
