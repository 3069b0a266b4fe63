"""Tools in front of templates that know of them, and of those that do not."""

from __future__ import annotations

from oneiros.model.chat_format import Message
from oneiros.model.tool_calls import ToolCallFormat
from oneiros.model.tool_prompts import with_tools

TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
CALL = {"id": "1", "type": "function", "function": {"name": "now", "arguments": {"zone": "ü"}}}
PRINTING = ToolCallFormat("hermes")
IGNORING = ToolCallFormat("hermes", described=True)
HELLO: Message = {"role": "user", "content": "Hello"}
RULES: Message = {"role": "system", "content": "Be brief."}
CALLING: Message = {"role": "assistant", "content": "", "tool_calls": [CALL]}


def test_a_template_that_prints_tools_gets_everything_as_it_is() -> None:
    assert with_tools(PRINTING, [HELLO, CALLING], [TOOL]) == ([HELLO, CALLING], [TOOL])
    assert with_tools(PRINTING, [HELLO], []) == ([HELLO], None)


def test_a_template_that_ignores_tools_gets_them_in_the_system_message() -> None:
    (system, *rest), printed = with_tools(IGNORING, [HELLO], [TOOL])
    assert (system["role"], rest, printed) == ("system", [HELLO], None)
    assert '"name":"now"' in system["content"]
    (merged, *rest), _ = with_tools(IGNORING, [RULES, HELLO], [TOOL])
    assert merged["content"] == f"Be brief.\n\n{system['content']}"
    assert rest == [HELLO]
    assert with_tools(IGNORING, [RULES, HELLO], []) == ([RULES, HELLO], None)


def test_a_template_that_ignores_tools_gets_calls_as_the_model_would_write_them() -> None:
    (said,), _ = with_tools(IGNORING, [CALLING], [])
    assert said == {
        "role": "assistant",
        "content": '<tool_call>\n{"name": "now", "arguments": {"zone": "ü"}}\n</tool_call>',
    }
    (piece,) = IGNORING.parser().push(said["content"])[:1]
    assert getattr(piece, "name", None) == "now"
