"""AgentDojo's functions as tools of the kernel, and its pipelines on the kernel."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentdojo.agent_pipeline.base_pipeline_element import BasePipelineElement
from agentdojo.functions_runtime import EmptyEnv, Function, FunctionCall, FunctionsRuntime
from agentdojo.types import (
    ChatAssistantMessage,
    ChatToolResultMessage,
    text_content_block_from_string,
)

from bench.dojo.data import as_data
from bench.dojo.machine import Run
from bench.dojo.verdict import Fact, History, facts
from oneiros.kernel.contract import Contract
from oneiros.kernel.tools import CallContext, Json, Tool, ToolError, ToolResult


class KernelRuntime(FunctionsRuntime):
    """A runtime whose functions the kernel calls, on the environment of the time."""

    def __init__(self, functions: Sequence[Function], acting: frozenset[str]) -> None:
        """Hold functions, of which some act: they change something, or tell somebody."""
        super().__init__(functions)
        self._acting = acting
        self.begin(EmptyEnv())

    def begin(self, environment: Any) -> None:
        """Let calls hit an environment from now on."""
        self.environment = environment
        self.history = History.since(self._facts())

    def _facts(self) -> Counter[Fact]:
        return facts(self.environment.model_dump(mode="json"))

    def tools(self, contracts: Mapping[str, Contract]) -> list[Tool]:
        """The functions as tools, each with its contract."""
        return [self._tool(one, contracts[one.name]) for one in self.functions.values()]

    def _tool(self, function: Function, contract: Contract) -> Tool:
        async def run(arguments: Json, context: CallContext) -> ToolResult:
            result, error = self.run_function(self.environment, function.name, dict(arguments))
            if function.name in self._acting:
                self.history.go_on(self._facts())
            if error is not None:
                raise ToolError(error)
            data = as_data(function.name, result)
            return ToolResult(json.dumps(data, ensure_ascii=False), data)

        schema = function.parameters.model_json_schema()
        return Tool(
            name=function.name,
            description=function.description,
            parameters=json.loads(json.dumps(schema)),
            contract=contract,
            run=run,
        )


class KernelPipeline(BasePipelineElement):
    """A planner on the kernel, as AgentDojo's checks take it."""

    name = "kernel"

    def __init__(self, run: Callable[[], Run], output: str) -> None:
        """Run a plan with `run`; say `output` in the end."""
        self._run = run
        self._output = output
        self.result: Run | None = None

    def query(  # type: ignore[override]
        self,
        query: str,
        runtime: FunctionsRuntime,
        env: Any = None,
        messages: Sequence[Any] = (),
        extra_args: dict[str, Any] | None = None,
    ) -> tuple[str, FunctionsRuntime, Any, Sequence[Any], dict[str, Any]]:
        """Let the kernel run the plan on an environment."""
        assert isinstance(runtime, KernelRuntime)
        runtime.begin(env)
        self.result = self._run()
        said: list[Any] = []
        for made in self.result.calls:
            if made.done:
                call = FunctionCall(function=made.planned.tool, args=dict(made.planned.arguments))
                said += [
                    ChatAssistantMessage(role="assistant", content=_text(""), tool_calls=[call]),
                    ChatToolResultMessage(
                        role="tool",
                        content=_text(""),
                        tool_call=call,
                        tool_call_id=None,
                        error=None,
                    ),
                ]
        said.append(
            ChatAssistantMessage(role="assistant", content=_text(self._output), tool_calls=None)
        )
        return query, runtime, env, [*messages, *said], extra_args or {}


def _text(text: str) -> list[Any]:
    return [text_content_block_from_string(text)]
