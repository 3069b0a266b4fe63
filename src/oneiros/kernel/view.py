"""What a program sees of its process: the state, and the texts that it names."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from oneiros.errors import BlobErasedError
from oneiros.kernel.contract import CONSERVATIVE, Contract
from oneiros.kernel.events import LoadBlob
from oneiros.kernel.readings import Arguments, Reading
from oneiros.kernel.state import MadeCall, ProcessState, ReadingState
from oneiros.kernel.syscalls import described
from oneiros.kernel.tools import Tool
from oneiros.kernel.verdict import ToolCall
from oneiros.memory.pages import Page
from oneiros.model.chat_format import GeneratedReply, Message

ERASED = "[This text was erased.]"
_KEPT = 4096  # messages
_KEPT_READINGS = 1024


class Texts:
    """Blobs as what they are; those that were looked at last are kept."""

    def __init__(self, load: LoadBlob) -> None:
        """Read blobs with `load`, which raises BlobErasedError."""
        self._load = load
        self._messages: OrderedDict[str, Message] = OrderedDict()
        self._tools: dict[str, tuple[Tool, ...]] = {}
        self._contracts: dict[str, dict[str, Contract]] = {}
        self._readings: OrderedDict[ReadingState, Reading] = OrderedDict()
        self._made: dict[MadeCall, ToolCall] = {}

    def text(self, blob: str) -> str:
        """A text; of an erased one, a text that says so."""
        try:
            return self._load(blob).decode()
        except BlobErasedError:
            return ERASED

    def message(self, page: Page) -> Message:
        """A page's message; of an erased one, one that says so."""
        known = self._messages.get(page.message)
        if known is not None:
            self._messages.move_to_end(page.message)
            return known
        try:
            message: Message = json.loads(self._load(page.message))
        except BlobErasedError:
            return _erased(page)
        self._messages[page.message] = message
        if len(self._messages) > _KEPT:
            self._messages.popitem(last=False)
        return message

    def reply(self, page: Page) -> GeneratedReply | None:
        """What the model wrote as a page, token for token."""
        if page.reply is None:
            return None
        try:
            data = json.loads(self._load(page.reply))
        except BlobErasedError:
            return None
        return GeneratedReply(data["text"], tuple(data["ids"]))

    def forget(self) -> None:
        """Texts were erased: read them anew."""
        self._messages.clear()
        self._readings.clear()
        self._made.clear()

    def tools(self, blob: str | None) -> tuple[Tool, ...]:
        """The tools of a ToolsOffered event."""
        if blob is None:
            return ()
        if blob not in self._tools:
            self._tools[blob] = described(self._load(blob))
        return self._tools[blob]

    def reading(self, reading: ReadingState) -> Reading:
        """What a call brought, the same object each time; of an erased one, nothing."""
        known = self._readings.get(reading)
        if known is not None:
            self._readings.move_to_end(reading)
            return known
        arguments, data, whole = self._read(reading)
        known = Reading(
            tool=reading.tool,
            arguments=arguments,
            contract=self._contract(reading.tools, reading.tool),
            data=data,
            clean=reading.clean,
            private=reading.own.private and not reading.derived,
            origins=reading.own.untrusted_origins,
        )
        if whole:
            self._readings[reading] = known
            if len(self._readings) > _KEPT_READINGS:
                self._readings.popitem(last=False)
        return known

    def made(self, call: MadeCall) -> ToolCall:
        """A call that was made; of erased arguments, none."""
        if call not in self._made:
            contract = self._contract(call.tools, call.tool)
            arguments = _object(self.text(call.arguments))
            made = ToolCall(call.tool, arguments, contract, contract.capability or call.tool)
            if len(self._made) >= _KEPT_READINGS:
                self._made.clear()
            self._made[call] = made
        return self._made[call]

    def _read(self, reading: ReadingState) -> tuple[Arguments, object, bool]:
        """Arguments and data, and whether nothing of them was erased."""
        try:
            arguments = _object(self._load(reading.arguments).decode())
            data = None if reading.data is None else json.loads(self._load(reading.data))
        except BlobErasedError:  # without its arguments nobody knows who aimed a call
            return {"": ERASED}, None, False
        return arguments, data, True

    def _contract(self, tools: str | None, name: str) -> Contract:
        """The contract that a tool had when it was offered."""
        if tools is None:
            return CONSERVATIVE
        if tools not in self._contracts:
            self._contracts[tools] = {tool.name: tool.contract for tool in self.tools(tools)}
        return self._contracts[tools].get(name, CONSERVATIVE)


_ROLES = {"system": "system", "app": "system", "assistant": "assistant", "tool": "tool"}


def _object(text: str) -> Arguments:
    """Arguments of a call that may have been refused: then they need not be an object."""
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return arguments if isinstance(arguments, dict) else {}


def _erased(page: Page) -> Message:
    message: Message = {"role": _ROLES.get(page.kind, "user"), "content": ERASED}
    if page.call_id is not None:
        message["tool_call_id"] = page.call_id
    if page.calls:
        nothing = {"name": "erased", "arguments": "{}"}
        message["tool_calls"] = [
            {"id": f"erased-{page.id}-{n}", "type": "function", "function": nothing}
            for n in range(page.calls)
        ]
    return message


def without_text(message: Message) -> Message:
    """A message that says that its text was erased, and still goes with its call or results."""
    left: Message = {**message, "content": ERASED}
    if "tool_calls" in message:
        calls: Any = message["tool_calls"]
        left["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": "{}"}} for call in calls
        ]
    return left


class ProcessView:
    """A state with its texts, as `program.View`."""

    def __init__(self, state: ProcessState, texts: Texts) -> None:
        """Show a state."""
        self.state = state
        self._texts = texts

    @property
    def tools(self) -> Sequence[Tool]:
        return self._texts.tools(self.state.tools)

    def message(self, page: Page) -> Message:
        return self._texts.message(page)

    def text(self, blob: str) -> str:
        return self._texts.text(blob)
