"""Answers written like calls, for models that call tools well when they have to.

Small models that may choose between words and a call choose badly: they go on calling when all is
done, or describe a call in words. Where a reply has to be a call and one of the tools is `ANSWER`,
they choose well, because answering is one more thing to call. What comes out is the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from oneiros.model.tool_call_parser import CallArguments, CallStart, Piece, Text, ToolCallParser

ANSWER_NAME = "answer"
ANSWER: Mapping[str, object] = {
    "type": "function",
    "function": {
        "name": ANSWER_NAME,
        "description": "Give the user the final answer, once the request is done.",
        "parameters": {
            "type": "object",
            "properties": {"text": {"type": "string", "minLength": 1}},
            "required": ["text"],
        },
    },
}

_OPENING = re.compile(r'\{\s*"text"\s*:\s*"')
_CONTENT = re.compile(r'(?:[^"\\]|\\[^u]|\\u[0-9a-fA-F]{4})*')
_HALF = re.compile(r"(?:\\u[dD][89abAB][0-9a-fA-F]{2})$")  # of a character in two parts


class AnswerParser(ToolCallParser):
    """A parser whose calls of `ANSWER` come out as the text that they hold."""

    _answer: int | None = None  # the call that is an answer
    _arguments = ""  # of it
    _said = 0  # characters of its text that were given out

    def push(self, text: str) -> list[Piece]:
        return self._spoken(super().push(text))

    def finish(self) -> list[Piece]:
        return self._spoken(super().finish())

    def _spoken(self, pieces: list[Piece]) -> list[Piece]:
        spoken: list[Piece] = []
        for piece in pieces:
            match piece:
                case CallStart(index, _, name) if name == ANSWER_NAME:
                    self._answer, self._arguments, self._said = index, "", 0
                case CallArguments(index, more) if index == self._answer:
                    self._arguments += more
                    spoken.append(Text(self._more()))
                case _:
                    spoken.append(piece)
        return [piece for piece in spoken if piece != Text("")]

    def _more(self) -> str:
        """What the text has that was not given out yet; characters are whole."""
        opening = _OPENING.match(self._arguments)
        if opening is None:
            return ""
        content = _CONTENT.match(self._arguments, opening.end())
        assert content is not None  # it matches the empty text
        written = content[0]
        if not self._arguments.startswith('"', content.end()):
            written = _HALF.sub("", written)
        decoded: str = json.loads(f'"{written}"', strict=False)
        text = decoded.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        more = text[self._said :]
        self._said = len(text)
        return more
