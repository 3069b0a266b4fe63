"""What POST /v1/responses is asked with."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from oneiros.engine.requests import INTERACTIVE
from oneiros.engine.sampling import SamplingOptions
from oneiros.model.chat_format import Message
from oneiros.server.chat_prompts import JsonObject, Question
from oneiros.server.chat_requests import (
    JSON_OBJECT,
    FunctionName,
    check_tool_choice,
    described_function,
)
from oneiros.server.errors import ApiError
from oneiros.server.requests import (
    FIRST_MISTAKE,
    ITEMS,
    MOST_TOOLS,
    MOST_TOP_LOGPROBS,
    SOME_ITEMS,
    Ignored,
    Strict,
)

Status = Literal["in_progress", "completed", "incomplete"]


class InputText(Strict):
    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: Ignored = None
    logprobs: Ignored = None


class InputMessage(Strict):
    """A message of the conversation so far; also one that an earlier answer held."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[InputText], ITEMS]
    id: Ignored = None
    status: Status | None = None
    phase: Ignored = None


class InputCall(Strict):
    """A call that an earlier answer held."""

    type: Literal["function_call"]
    call_id: str
    name: FunctionName
    arguments: str
    id: Ignored = None
    status: Status | None = None


class InputResult(Strict):
    """What a called function gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | Annotated[list[InputText], ITEMS]
    id: Ignored = None
    status: Status | None = None


class ReasoningText(Strict):
    type: Literal["reasoning_text"]
    text: str


class InputReasoning(Strict):
    """What the model thought before an earlier answer."""

    type: Literal["reasoning"]
    content: Annotated[list[ReasoningText], ITEMS] | None = None
    summary: Ignored = None
    id: Ignored = None
    encrypted_content: None = None
    status: Status | None = None


InputItem = InputMessage | InputCall | InputResult | InputReasoning


class FunctionTool(Strict):
    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class NamedTool(Strict):
    type: Literal["function"]
    name: FunctionName


class PlainFormat(Strict):
    type: Literal["text"]


class ObjectFormat(Strict):
    type: Literal["json_object"]


class SchemaFormat(Strict):
    type: Literal["json_schema"]
    name: FunctionName
    schema_: JsonObject = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextSettings(Strict):
    format: PlainFormat | ObjectFormat | SchemaFormat | None = None
    verbosity: Literal["medium"] | None = None


class ResponsesRequest(Strict):
    """The body of POST /v1/responses. Nothing is stored: the whole conversation is in `input`."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    input: str | Annotated[list[InputItem], SOME_ITEMS]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    stream: bool | None = None
    text: TextSettings | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    priority: int | None = Field(None, ge=INTERACTIVE, le=100)
    include: Annotated[list[Literal["message.output_text.logprobs"]], ITEMS] | None = None
    metadata: Annotated[dict[str, str], FIRST_MISTAKE] | None = None
    user: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    service_tier: Literal["auto", "default"] | None = None
    truncation: Literal["disabled"] | None = None
    store: Literal[False] | None = None
    background: Literal[False] | None = None
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    reasoning: None = None
    max_tool_calls: None = None

    @property
    def with_logprobs(self) -> bool:
        return bool(self.include) or self.top_logprobs is not None

    @property
    def choice(self) -> str:
        """ "none", "auto", "required", or the name of the one tool to call."""
        if isinstance(self.tool_choice, NamedTool):
            return self.tool_choice.name
        return self.tool_choice or "auto"

    def sampling(self) -> SamplingOptions:
        given = {"temperature": self.temperature, "top_p": self.top_p}
        chosen: dict[str, Any] = {k: value for k, value in given.items() if value is not None}
        return SamplingOptions(**chosen, max_tokens=self.max_output_tokens)

    def question(self) -> Question:
        """The conversation as chat formats take it, and what may be answered.

        Raises:
            ApiError: 400; the tools and the choice among them do not go together.
        """
        tools = self.tools or []
        check_tool_choice([tool.name for tool in tools], self.choice)
        offered = [] if self.choice == "none" else tools
        return Question(
            messages=self._messages(),
            tools=[described_function(t.name, t.description, t.parameters) for t in offered],
            choice=self.choice,
            parallel=self.parallel_tool_calls is not False,
            schema=self._schema(),
        )

    def _messages(self) -> list[Message]:
        messages: list[Message] = []
        if self.instructions is not None:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return [*messages, {"role": "user", "content": self.input}]
        thought = ""
        for item in self.input:
            match item:
                case InputReasoning():
                    thought += "".join(part.text for part in item.content or ())
                    continue
                case InputMessage():
                    role = "system" if item.role == "developer" else item.role
                    messages.append({"role": role, "content": _text(item.content)})
                case InputCall():
                    _add_call(messages, item)
                case InputResult(call_id=call_id, output=output):
                    result: Message = {"role": "tool", "content": _text(output)}
                    messages.append({**result, "tool_call_id": call_id})
            if thought and messages[-1]["role"] == "assistant":
                messages[-1]["reasoning_content"] = thought
            thought = ""
        if not messages:
            raise ApiError(400, "input holds no message.", param="input", code="invalid_value")
        return messages

    def _schema(self) -> JsonObject | None:
        match self.text and self.text.format:
            case ObjectFormat():
                return JSON_OBJECT
            case SchemaFormat(schema_=schema):
                return schema
        return None


def _text(content: str | list[InputText]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


def _add_call(messages: list[Message], item: InputCall) -> None:
    """Calls are items of their own here, and part of the assistant's message elsewhere."""
    call = {
        "id": item.call_id,
        "type": "function",
        "function": {"name": item.name, "arguments": item.arguments},
    }
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    messages[-1]["tool_calls"] = [*messages[-1].get("tool_calls", ()), call]
