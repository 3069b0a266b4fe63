"""Calls of tools outside of a kernel."""

import asyncio

from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext, Outcome, Tool, ToolResult

CONTEXT = CallContext(
    pid=1, call_id="1.1", owner="ann", app="assistant", label=Label.of("user", readers=["ann"])
)


def call(tool: Tool, **arguments: object) -> Outcome:
    """What a call brings."""
    return asyncio.run(tool.run(arguments, CONTEXT))


def text_of(tool: Tool, **arguments: object) -> str:
    """What a call that does not wait says."""
    outcome = call(tool, **arguments)
    assert isinstance(outcome, ToolResult)
    return outcome.text
