"""Messages with tools, for chat templates that know of tools and for those that do not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from oneiros.model.chat_format import Message
from oneiros.model.tool_call_parser import CLOSING, OPENING
from oneiros.model.tool_calls import ToolCallFormat

Tools = Sequence[Mapping[str, object]]


def with_tools(
    tool_calls: ToolCallFormat, messages: Sequence[Message], tools: Tools
) -> tuple[list[Message], Tools | None]:
    """What a chat template gets to see: messages, and the tools that it is to print.

    Where the template ignores tools, they are described in the system message, which comes first
    and is added if there is none, and calls are written into the messages that hold them.
    """
    if not tool_calls.described:
        return [*messages], tools or None
    said = [_with_written_calls(message) for message in messages]
    described = tool_calls.describe(tools) if tools else None
    if described is None:
        return said, None
    if said and said[0]["role"] == "system":
        described = f"{said[0]['content']}\n\n{described}"
        said = said[1:]
    return [{"role": "system", "content": described}, *said], None


def _with_written_calls(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    written = [message["content"]] if message["content"] else []
    for call in calls:
        function = call.get("function")
        function = function if isinstance(function, Mapping) else {}
        name = json.dumps(function.get("name"), ensure_ascii=False)
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        written.append(
            f'{OPENING["hermes"]}\n{{"name": {name}, "arguments": {arguments}}}\n{CLOSING}'
        )
    return {"role": message["role"], "content": "\n".join(written)}
