"""Text of a reply to reasoning, text and tool calls, however the text was cut into pieces.

What is no well-formed call comes out as the text that it is.
"""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from typing import Literal, NoReturn

Style = Literal["hermes", "llama3", "mistral"]
ReasoningMarks = Literal["none", "marked", "open"]

OPENING = {"hermes": "<tool_call>", "llama3": "<|python_tag|>", "mistral": "[TOOL_CALLS]"}
CLOSING = "</tool_call>"
THINK, END_THINK = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Text:
    """More of what is said."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of what was thought before."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins; its arguments follow."""

    index: int  # which of the reply's calls, from 0
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments: a piece of JSON text."""

    index: int
    piece: str


Piece = Text | Reasoning | CallStart | CallArguments

_NO_SPACE = re.compile(r"\S")
_SIGN = re.compile(r'["\\{}\[\]]')
_HEADER = re.compile(
    r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
# Mistral's later form, and what may still become it.
_NAMED = re.compile(r"([\w.-]+)(?:\[CALL_ID\]\w*)?\[ARGS\]\s*(?=\{)")
_NAMED_SO_FAR = re.compile(r"[\w.-]*(?:\[\w*(?:\]\w*(?:\[\w*\]?)?)?)?\s*")


def new_call_id() -> str:
    """Nine letters and digits, which is what Mistral's templates insist on."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


class ToolCallParser:
    """Reads one reply. Pieces put together do not depend on how the text was split."""

    def __init__(
        self,
        style: Style,
        *,
        reasoning: ReasoningMarks = "none",
        names: Collection[str] | None = None,
        constrained: bool = False,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        """Prepare to read.

        Args:
            style: how calls are written.
            reasoning: whether a reply may begin with <think> ("marked"), or begins inside it
                because the prompt ended with it ("open").
            names: the tools; other calls are text. None: any name is a call.
            constrained: the reply follows the format's grammar, so that arguments can be given out
                while they are generated. Otherwise a call comes out when it is whole.
            new_id: makes ids of calls.
        """
        self._style = style
        self._opening = OPENING[style]
        self._names = names
        self._constrained = constrained
        self._new_id = new_id
        self._buffer = ""
        self._final = False
        self._calls = 0
        self._started = False  # the call that is being read was given out
        self._given = 0  # offset up to which its arguments were; -1: all of them
        self._pieces: list[Piece] = []
        self._steps = self._reply(reasoning)

    def push(self, text: str) -> list[Piece]:
        """What is certain after more text; the rest is held back."""
        self._buffer += text
        return self._run()

    def finish(self) -> list[Piece]:
        """What is left at the end of the reply; an incomplete call comes out as text."""
        self._final = True
        return self._run()

    def _run(self) -> list[Piece]:
        next(self._steps, None)
        pieces, self._pieces = self._pieces, []
        return _merged(pieces)

    # Replies, read from left to right. Each function yields where it needs more text to go on, and
    # returns offsets into the buffer, of which only `_say`, `_think` and `_cut` take text away.

    def _reply(self, reasoning: ReasoningMarks) -> Generator[None, None, None]:
        if reasoning == "open":
            yield from self._thoughts()
        elif reasoning == "marked":
            at = yield from self._space(0)
            if (yield from self._is_next(at, THINK)):
                self._cut(at + len(THINK))
                yield from self._thoughts()
        if self._style == "llama3":
            at = yield from self._space(0)
            if self._buffer.startswith("{", at):
                yield from self._calls_in_a_row(at, ";")
        while (space := (yield from self._text())) is not None:
            if not (yield from self._after_marker()):
                self._pieces.append(Text(space + self._opening))

    def _thoughts(self) -> Generator[None, None, None]:
        self._cut((yield from self._space(0)))
        while END_THINK not in self._buffer and not self._final:
            self._think(_certain(self._buffer, END_THINK))
            yield
        before, mark, _ = self._buffer.partition(END_THINK)
        self._think(len(before.rstrip() if mark else before))
        if mark:
            self._cut(self._buffer.index(mark) + len(mark))
            self._cut((yield from self._space(0)))

    def _text(self) -> Generator[None, None, str | None]:
        """Text up to a marker: returns the white space before it, or None at the reply's end."""
        while self._opening not in self._buffer:
            if self._final:
                if not self._calls or self._buffer.strip():
                    self._say(len(self._buffer))
                return None
            self._say(_certain(self._buffer, self._opening))
            yield
        before, mark, _ = self._buffer.partition(self._opening)
        self._say(len(before.rstrip()))
        end = self._buffer.index(mark)
        space = self._buffer[:end]
        self._cut(end + len(mark))
        return space

    def _after_marker(self) -> Generator[None, None, bool]:
        """The calls after a marker; False: there are none."""
        at = yield from self._space(0)
        if self._style == "hermes":
            return (yield from self._closed_call(at))
        if self._style == "llama3":
            return (yield from self._calls_in_a_row(at, ";"))
        if self._buffer.startswith("[", at):
            at = yield from self._space(at + 1)
            return (yield from self._calls_in_a_row(at, ","))
        return (yield from self._named_call(at))

    def _closed_call(self, at: int) -> Generator[None, None, bool]:
        end = yield from self._object(at)
        if end is None:
            return self._started
        after = yield from self._space(end)
        closed = yield from self._is_next(after, CLOSING)
        # A reply may have been cut within the last mark: what matters is there.
        if not closed and not CLOSING.startswith(self._buffer[after:]):
            return self._started
        if not self._call(at, end):
            return False
        self._cut(after + len(CLOSING))
        return True

    def _calls_in_a_row(self, at: int, separator: str) -> Generator[None, None, bool]:
        found = False
        while True:
            end = yield from self._object(at)
            if end is None or not self._call(at, end):
                return found or self._started
            found = True
            self._cut(end)
            after = yield from self._space(0)
            at = after
            if self._buffer.startswith(separator, after):
                at = yield from self._space(after + 1)
            if not self._buffer.startswith("{", at):
                break
        if self._buffer.startswith("]", after) and separator == ",":
            self._cut(after + 1)
        return True

    def _named_call(self, at: int) -> Generator[None, None, bool]:
        while (match := _NAMED.match(self._buffer, at)) is None:
            if self._final or not _NAMED_SO_FAR.fullmatch(self._buffer, at):
                return False
            yield
        name = match[1]
        if not self._is_known(name):
            return False
        if self._constrained:
            self._start(name, match.end())
        end = yield from self._object(match.end(), outer=0)
        if end is None:
            return self._started
        if not self._started:
            arguments = _arguments(_loaded(self._buffer[match.end() : end]))
            if arguments is None:
                return False
            self._start(name, end)
            self._pieces.append(CallArguments(self._calls, arguments))
        self._started = False
        self._calls += 1
        self._cut(end)
        return True

    def _object(self, at: int, outer: int = 1) -> Generator[None, None, int | None]:
        """The end of the JSON object that begins at an offset; None: there is none.

        Where the grammar guarantees a call, its arguments are given out as they come; they are
        what is nested deeper than `outer` brackets.
        """
        if not self._buffer.startswith("{", at):
            return None
        position, open_, quoted = at, [], False
        while True:
            sign = _SIGN.search(self._buffer, position)
            if sign is None:
                position = max(position, len(self._buffer))
                self._give(at, position)
                if self._final:
                    self._cut(len(self._buffer) if self._started else 0)
                    return None
                yield
                continue
            position = sign.end()
            if quoted:
                position += sign[0] == "\\"  # the next character is no sign
                quoted = sign[0] != '"'
            elif sign[0] == '"':
                quoted = True
            elif sign[0] in "{[":
                open_.append("}" if sign[0] == "{" else "]")
            elif not open_ or sign[0] != open_.pop():
                return None
            elif len(open_) == outer:
                self._give(at, position)
                self._given = -1
            if not open_ and not quoted:
                return position

    def _give(self, at: int, end: int) -> None:
        """Give out arguments as far as they have come, of a call that is certain to be one."""
        if self._constrained and not self._started and self._given == 0:
            header = _HEADER.match(self._buffer, at)
            if header and self._is_known(name := str(json.loads(header[1]))):
                self._start(name, header.end())
        end = min(end, len(self._buffer))
        if self._started and 0 <= self._given < end:
            self._pieces.append(CallArguments(self._calls, self._buffer[self._given : end]))
            self._given = end

    def _call(self, at: int, end: int) -> bool:
        """Give out the call that an object is; False: it is none."""
        started, self._started, self._given = self._started, False, 0
        if not started:
            call = _loaded(self._buffer[at:end])
            name = call.get("name") if isinstance(call, dict) else None
            if not isinstance(call, dict) or not isinstance(name, str) or not self._is_known(name):
                return False
            arguments = _arguments(call.get("arguments", call.get("parameters")))
            if arguments is None:
                return False
            self._start(name, 0)
            self._pieces.append(CallArguments(self._calls, arguments))
            self._started = False
        self._calls += 1
        return True

    def _start(self, name: str, given: int) -> None:
        self._pieces.append(CallStart(self._calls, self._new_id(), name))
        self._started, self._given = True, given

    def _is_known(self, name: str) -> bool:
        return self._names is None or name in self._names

    def _space(self, at: int) -> Generator[None, None, int]:
        """The offset after white space."""
        while True:
            more = _NO_SPACE.search(self._buffer, at)
            if more is not None or self._final:
                return more.start() if more else len(self._buffer)
            yield

    def _is_next(self, at: int, mark: str) -> Generator[None, None, bool]:
        while len(self._buffer) < at + len(mark) and not self._final:
            if not mark.startswith(self._buffer[at:]):
                return False
            yield
        return self._buffer.startswith(mark, at)

    def _say(self, end: int) -> None:
        self._pieces.append(Text(self._buffer[:end]))
        self._cut(end)

    def _think(self, end: int) -> None:
        self._pieces.append(Reasoning(self._buffer[:end]))
        self._cut(end)

    def _cut(self, end: int) -> None:
        self._buffer = self._buffer[end:]


def _certain(text: str, mark: str) -> int:
    """How much of a text is certainly neither a mark's beginning nor white space before one."""
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:length]):
            return len(text[:-length].rstrip())
    return len(text.rstrip())


def _loaded(text: str) -> object:
    """JSON; None for what is none."""
    try:
        value: object = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    return value


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _arguments(value: object) -> str | None:
    """A call's arguments as JSON text; some models write them as a text that holds JSON."""
    if isinstance(value, str):
        value = _loaded(value)
    if not isinstance(value, dict):
        return None
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError:  # a number beyond floats, or half of a surrogate pair
        return None
    return text


def _merged(pieces: list[Piece]) -> list[Piece]:
    """The same pieces, without empty ones, neighbours of one kind made one."""
    merged: list[Piece] = []
    for piece in pieces:
        match merged[-1] if merged else None, piece:
            case _, Text("") | Reasoning("") | CallArguments(_, ""):
                pass
            case Text(before), Text(text):
                merged[-1] = Text(before + text)
            case Reasoning(before), Reasoning(text):
                merged[-1] = Reasoning(before + text)
            case CallArguments(index, before), CallArguments(same, text) if index == same:
                merged[-1] = CallArguments(index, before + text)
            case _:
                merged.append(piece)
    return merged
