"""How models call tools: what they are told, what they write, and the grammar of it.

Hermes and Qwen: `<tool_call>` and `</tool_call>` around {"name": ..., "arguments": {...}}.
Llama 3: {"name": ..., "parameters": {...}} as the whole reply, several with semicolons between.
Mistral: `[TOOL_CALLS]` and a list of calls, or, later, `[TOOL_CALLS]name[ARGS]{...}`.

With the grammar a model of any size makes no malformed call: names are those of tools, arguments
are valid by their schemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from oneiros.errors import ConstraintError
from oneiros.model.answer_calls import ANSWER, AnswerParser
from oneiros.model.json_schema import enforceable_schema
from oneiros.model.tool_call_parser import (
    CLOSING,
    END_THINK,
    OPENING,
    THINK,
    ReasoningMarks,
    Style,
    ToolCallParser,
    new_call_id,
)

MOST_CALLS = 16
"""In one reply: a small model may go on calling for ever."""

# Tokens that a reply may hold as part of its text, though some vocabularies call them control
# tokens: constraints match them as the text that they stand for.
MARKS = frozenset({*OPENING.values(), CLOSING, THINK, END_THINK, "[ARGS]", "[CALL_ID]"})

_NO_THOUGHT = rf"~/\s*{THINK}(?s:.*)/"


@dataclass(frozen=True, slots=True)
class ToolCallFormat:
    """How one model calls tools."""

    name: Style
    described: bool = False  # the template does not tell the model about tools
    reasoning: ReasoningMarks = "none"
    named: bool = False  # Mistral's later form

    def describe(self, tools: Sequence[Mapping[str, object]]) -> str | None:
        """What a system message says about tools; None where the template prints them itself."""
        if not self.described:
            return None
        lines = "\n".join(
            json.dumps(_function(tool), ensure_ascii=False, separators=(",", ":")) for tool in tools
        )
        return (
            "You can call these tools:\n"
            f"{lines}\n"
            "To call one, reply with its name and arguments in this form:\n"
            f'{OPENING["hermes"]}\n{{"name": "...", "arguments": {{...}}}}\n{CLOSING}'
        )

    def parser(
        self,
        tools: Sequence[Mapping[str, object]] | None = None,
        *,
        constrained: bool = False,
        new_id: Callable[[], str] = new_call_id,
    ) -> ToolCallParser:
        """A parser of one reply.

        Args:
            tools: a call of another one is text, and so is what a call of `ANSWER` holds. None:
                any name is a call.
            constrained: the reply follows `grammar`, so that arguments come out as they are made.
            new_id: makes ids of calls.
        """
        kind = AnswerParser if ANSWER in (tools or ()) else ToolCallParser
        return kind(
            self.name,
            reasoning=self.reasoning,
            names=None if tools is None else {str(_function(tool)["name"]) for tool in tools},
            constrained=constrained,
            new_id=new_id,
        )

    def grammar(
        self, tools: Sequence[Mapping[str, object]], choice: str = "auto", parallel: bool = True
    ) -> str:
        """A grammar of replies in llguidance's dialect of Lark.

        Args:
            tools: as in requests: {"type": "function", "function": {...}}.
            choice: "auto": text and calls as the model likes; "required": a call; or the name of
                the tool to call.
            parallel: whether there may be several calls.

        Raises:
            ConstraintError: there is no such tool, two have one name, or a schema cannot be
                enforced; the message names the tool and the place.
        """
        functions = [_function(tool) for tool in tools]
        names = [str(function["name"]) for function in functions]
        if len(set(names)) < len(names) or not names:
            raise ConstraintError("Tools: there must be at least one, and their names must differ.")
        if choice not in ("auto", "required"):
            if choice not in names:
                raise ConstraintError(f"tool_choice: there is no tool {choice!r}.")
            functions, parallel = [functions[names.index(choice)]], False
        lines = [*_argument_rules(functions), *self._call_rules(functions)]
        most = MOST_CALLS if parallel else 1
        if self.name == "llama3":
            lines += self._bare_replies(choice == "auto", most)
        else:
            lines += self._marked_replies(choice == "auto", most)
        thought = {"none": "", "marked": "thought? ", "open": "thought "}[self.reasoning]
        lines += [f"start: {thought}reply"]
        if thought:
            opening = _text(THINK) if self.reasoning == "marked" else ""
            lines += [f"thought[lazy]: {opening} /(?s:.*)/ {_text(END_THINK)}"]
        return "\n".join(lines) + "\n"

    def _call_rules(self, functions: Sequence[Mapping[str, object]]) -> Iterator[str]:
        """The rule `call`: one call, without the marks around it."""
        key = "parameters" if self.name == "llama3" else "arguments"
        for index, function in enumerate(functions):
            name = str(function["name"])
            if not self.named:
                header = f'{{"name": {_text(name)}, "{key}": '
                yield f"call_{index}: {_text(header)} arguments_{index} {_text('}')}"
            elif re.fullmatch(r"[\w.-]+", name):
                yield f"call_{index}: {_text(name + '[ARGS]')} arguments_{index}"
            else:
                raise ConstraintError(f"{name!r}: this model's names of tools are words.")
        yield "call: " + " | ".join(f"call_{index}" for index in range(len(functions)))

    def _bare_replies(self, free: bool, most: int) -> Iterator[str]:
        """The rule `reply` where a call is the whole of it."""
        yield f"calls: call {_more(_text('; ') + ' call', most)}"
        if not free:
            yield f"reply: {self._gap()} calls"
            return
        yield f"reply: {self._gap()} calls | TEXT"
        # Text that began like a call would be read as one.
        yield rf"TEXT: /(\s*[^\s{{](?s:.*))?/ & {self._without_marks()}"

    def _marked_replies(self, free: bool, most: int) -> Iterator[str]:
        """The rule `reply` where calls have a mark before them."""
        mark, between = _text(OPENING[self.name]), ""
        if self.name == "hermes":
            between = _text("\n")
            yield f"marked: {_text(chr(10))} call {_text(chr(10) + CLOSING)}"
        elif self.named:
            yield "marked: call"
        else:
            yield f"marked: {_text('[')} call {_more(_text(', ') + ' call', most)} {_text(']')}"
            most = 1
        if not free:
            again = _more(f"{between} {mark} marked", most)
            yield f"reply: {self._gap()} {mark} marked {again}"
            return
        yield (
            f"reply: (before marked){{0,{most}}} TAIL"
            if most > 1
            else "reply: before marked | TAIL"
        )
        # A lazy rule ends as soon as it matches: from its mark on, nothing but a call is possible.
        yield f"before[lazy]: TEXT {mark}"
        yield "TEXT: /(?s:.*)/" + (f" & {_NO_THOUGHT}" if self.reasoning != "none" else "")
        yield f"TAIL: /(?s:.*)/ & {self._without_marks()}"

    def _gap(self) -> str:
        """What a model may write between its reasoning and a call."""
        return "" if self.reasoning == "none" else r"/\n{0,2}/"

    def _without_marks(self) -> str:
        mark = f"~/(?s:.*){re.escape(OPENING[self.name])}(?s:.*)/"
        return mark if self.reasoning == "none" else f"{mark} & {_NO_THOUGHT}"


def tool_call_format(template: str) -> ToolCallFormat:
    """The format that a chat template is written for; Hermes's where it says nothing of tools."""
    prompt = template[template.rfind("add_generation_prompt") :]
    reasoning: ReasoningMarks = "none"
    if THINK in template or END_THINK in template:
        opens = THINK in prompt and END_THINK not in prompt and "add_generation_prompt" in prompt
        reasoning = "open" if opens else "marked"
    if OPENING["mistral"] in template:
        return ToolCallFormat("mistral", reasoning=reasoning, named="[ARGS]" in template)
    if OPENING["llama3"] in template or '"parameters": dictionary' in template:
        return ToolCallFormat("llama3", reasoning=reasoning)
    told = "tools" in template and OPENING["hermes"] in template and "<function=" not in template
    return ToolCallFormat("hermes", described=not told, reasoning=reasoning)


def _function(tool: Mapping[str, object]) -> Mapping[str, object]:
    """The function of a tool, with a name.

    Raises:
        ConstraintError: it is malformed.
    """
    function = tool.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ConstraintError(
            'A tool is {"type": "function", "function": {"name": ..., "parameters": {...}}}.'
        )
    return function


def _argument_rules(functions: Sequence[Mapping[str, object]]) -> Iterator[str]:
    for index, function in enumerate(functions):
        path = f"{function['name']}: parameters"
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
            raise ConstraintError(f"{path}.type: arguments are an object.")
        schema = enforceable_schema({"type": "object", **parameters}, path)
        yield f"arguments_{index}: %json {json.dumps(schema, ensure_ascii=False)}"


def _more(rule: str, most: int) -> str:
    """What may come again, up to `most` times with the first."""
    return f"({rule}){{0,{most - 1}}}" if most > 1 else ""


def _text(text: str) -> str:
    """A text as Lark writes it."""
    return json.dumps(text, ensure_ascii=False)
