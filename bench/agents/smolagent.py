"""One task for smolagents' ToolCallingAgent; runs in the peers' environment.

Reads what is asked as JSON from standard input, and prints what came of it as one line of JSON.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

from smolagents import LogLevel, OpenAIModel, Tool, ToolCallingAgent
from smolagents.utils import AgentParsingError, AgentToolCallError, AgentToolExecutionError


class Remote(Tool):
    """A tool of ours: the peer's own classes for MCP's tools do the same."""

    skip_forward_signature_validation = True
    output_type = "string"

    def __init__(self, function: dict[str, Any], server: str) -> None:
        schema = function["parameters"]
        needed = schema.get("required", [])
        self.name = function["name"]
        self.description = function["description"]
        self.inputs = {
            name: {
                "type": one.get("type", "any"),
                "description": one.get("description", name),
                **({"items": one["items"]} if "items" in one else {}),
                **({} if name in needed else {"nullable": True}),
            }
            for name, one in schema.get("properties", {}).items()
        }
        self.server = server
        self.is_initialized = True
        super().__init__()

    def forward(self, **arguments: Any) -> str:
        given = {name: value for name, value in arguments.items() if value is not None}
        body = json.dumps({"tool": self.name, "arguments": given}).encode()
        with urllib.request.urlopen(urllib.request.Request(self.server, body)) as answer:
            result = json.load(answer)
        if not result["ok"]:
            raise ValueError(result["text"])
        return str(result["text"])


def main() -> None:
    asked = json.load(sys.stdin)
    model = OpenAIModel(
        asked["model"],
        api_base=asked["endpoint"],
        api_key="none",
        temperature=0,
        max_tokens=asked["reply_tokens"],
        # Without this the model goes on calling until the limit of tokens cuts every call.
        parallel_tool_calls=False,
    )
    tools = [Remote(function, asked["tool_server"]) for function in asked["tools"]]
    agent = ToolCallingAgent(tools, model, max_steps=asked["steps"], verbosity_level=LogLevel.OFF)
    answer = agent.run(asked["request"])
    calls = malformed = tokens = 0
    for step in agent.memory.steps:
        usage = getattr(step, "token_usage", None)
        tokens += usage.total_tokens if usage else 0
        error = getattr(step, "error", None)
        made = [call.name for call in getattr(step, "tool_calls", None) or []]
        calls += len([name for name in made if name != "final_answer"])
        unknown = isinstance(error, AgentToolExecutionError) and "Unknown tool" in str(error)
        if isinstance(error, AgentParsingError | AgentToolCallError) or unknown:
            malformed += 1
        if isinstance(error, AgentParsingError | AgentToolCallError | AgentToolExecutionError):
            calls += not made  # the step of a call that failed does not name it
    print(
        json.dumps(
            {"answer": str(answer), "calls": calls, "malformed": malformed, "tokens": tokens}
        )
    )


if __name__ == "__main__":
    main()
