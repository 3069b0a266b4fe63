"""What a chat completion is asked with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from oneiros.model.chat_format import Message
from oneiros.server.chat_prompts import JsonObject, Question
from oneiros.server.errors import ApiError
from oneiros.server.requests import (
    ITEMS,
    MOST_TOOLS,
    MOST_TOP_LOGPROBS,
    SOME_ITEMS,
    SamplingFields,
    Strict,
)

JSON_OBJECT = {"type": "object"}

FunctionName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class TextPart(Strict):
    type: Literal["text"]
    text: str


class CalledFunction(Strict):
    name: FunctionName
    arguments: str


class ToolCallMessage(Strict):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None  # some clients send back what they put together from a stream


class ChatMessage(Strict):
    """One message of the conversation so far."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], ITEMS] | None = None
    reasoning_content: str | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCallMessage], ITEMS] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = Field(None, max_length=0)
    audio: None = None
    function_call: None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or self.refusal or ""


class Function(Strict):
    name: FunctionName
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(Strict):
    type: Literal["function"]
    function: Function


Tools = Annotated[list[Tool], Field(max_length=MOST_TOOLS, fail_fast=True)]


class NamedFunction(Strict):
    name: FunctionName


class NamedTool(Strict):
    type: Literal["function"]
    function: NamedFunction


class TextFormat(Strict):
    type: Literal["text"]


class JsonObjectFormat(Strict):
    type: Literal["json_object"]


class NamedSchema(Strict):
    name: FunctionName
    description: str | None = None
    schema_: JsonObject | None = Field(None, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Strict):
    type: Literal["json_schema"]
    json_schema: NamedSchema


class ChatRequest(SamplingFields):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], SOME_ITEMS]
    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    tools: Tools | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    modalities: Annotated[list[Literal["text"]], ITEMS] | None = None
    reasoning_effort: None = None
    verbosity: Literal["medium"] | None = None
    audio: None = None
    functions: None = None
    function_call: None = None
    web_search_options: None = None

    @property
    def token_limit(self) -> int | None:
        """Raises ApiError where the two names for it contradict each other."""
        old, new = self.max_tokens, self.max_completion_tokens
        if old is not None and new is not None and old != new:
            message = "max_tokens and max_completion_tokens differ: give one of them."
            raise ApiError(400, message, param="max_tokens", code="invalid_value")
        return new if new is not None else old

    @property
    def offered_tools(self) -> list[JsonObject]:
        """The tools that the model may call now, as JSON schemas in OpenAI's wrapping."""
        if self.tool_choice == "none":
            return []
        return [
            described_function(
                tool.function.name, tool.function.description, tool.function.parameters
            )
            for tool in self.tools or ()
        ]

    @property
    def choice(self) -> str:
        """ "auto", "required", or the name of the one tool to call."""
        if isinstance(self.tool_choice, NamedTool):
            return self.tool_choice.function.name
        return self.tool_choice or "auto"

    def check(self) -> None:
        """Raise ApiError where fields do not go together."""
        if self.top_logprobs is not None and not self.logprobs:
            message = "top_logprobs needs logprobs: true."
            raise ApiError(400, message, param="top_logprobs", code="invalid_value")
        names = [tool.function.name for tool in self.tools or ()]
        check_tool_choice(names, self.choice)

    @property
    def schema_of_reply(self) -> JsonObject | None:
        """What `response_format` demands."""
        match self.response_format:
            case JsonObjectFormat():
                return JSON_OBJECT
            case JsonSchemaFormat(json_schema=named):
                return {} if named.schema_ is None else named.schema_
        return None

    def question(self) -> Question:
        """The conversation as chat formats take it, and what may be answered.

        Raises:
            ApiError: 400; a message lacks what its role has to have.
        """
        return Question(
            messages=[plain_message(message, index) for index, message in enumerate(self.messages)],
            tools=self.offered_tools,
            choice=self.choice,
            parallel=self.parallel_tool_calls is not False,
            schema=self.schema_of_reply,
        )


def described_function(
    name: str, description: str | None, parameters: JsonObject | None
) -> JsonObject:
    """A function as chat templates and grammars take it."""
    function: JsonObject = {"name": name}
    if description is not None:
        function["description"] = description
    function["parameters"] = parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def check_tool_choice(names: Sequence[str], choice: str) -> None:
    """Raise ApiError where tools have one name, or a choice cannot be made among them."""
    if len(set(names)) < len(names):
        raise ApiError(400, "Two tools have the same name.", param="tools", code="invalid_value")
    if choice in ("none", "auto"):
        return
    if not names:
        message = "tool_choice asks for a call, and there are no tools."
        raise ApiError(400, message, param="tool_choice", code="invalid_value")
    if choice != "required" and choice not in names:
        message = f"tool_choice names {choice}, which is not among the tools."
        raise ApiError(400, message, param="tool_choice", code="invalid_value")


def plain_message(message: ChatMessage, index: int) -> Message:
    role = "system" if message.role == "developer" else message.role
    if message.content is None and not (
        role == "assistant" and (message.tool_calls or message.refusal)
    ):
        place = f"messages[{index}].content"
        raise ApiError(400, f"{place} is missing.", param=place, code="missing_field")
    plain: Message = {"role": role, "content": message.text}
    if message.name is not None:
        plain["name"] = message.name
    if role == "tool":
        if message.tool_call_id is None:
            place = f"messages[{index}].tool_call_id"
            raise ApiError(400, f"{place} is missing.", param=place, code="missing_field")
        plain["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        if role != "assistant":
            place = f"messages[{index}].tool_calls"
            raise ApiError(400, f"{place}: only an assistant calls.", param=place)
        plain["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls
        ]
    if message.reasoning_content is not None and role == "assistant":
        plain["reasoning_content"] = message.reasoning_content
    return plain
