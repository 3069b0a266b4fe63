"""A reply as the output items of /v1/responses, and as the events of its stream."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from oneiros.engine.replies import Completed, Event, ReasoningDelta, TextDelta, ToolCallDelta
from oneiros.engine.requests import TokenLogprob
from oneiros.model.tokenizer import Tokenizer
from oneiros.server.answers import new_id
from oneiros.server.logprobs import chat_logprobs
from oneiros.server.responses_requests import FunctionTool, NamedTool, ResponsesRequest

JsonObject = dict[str, Any]


class ResponseOutput:
    """Builds the response from a reply's events. Each event gives those of the stream."""

    def __init__(self, request: ResponsesRequest, model: str, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._logprobs = request.with_logprobs
        self._sequence = 0
        self._items: list[JsonObject] = []
        self._open: JsonObject | None = None  # the last item, while more of it comes
        self._call = -1  # the index of the open item, if it is a call
        self._scored: list[TokenLogprob] = []
        self._response = _blank(request, model)

    @property
    def response(self) -> JsonObject:
        """The response as it is now."""
        return self._response

    def begin(self) -> Iterator[JsonObject]:
        """The events before any of the reply."""
        for kind in ("created", "in_progress"):
            yield self._event(f"response.{kind}", response=dict(self._response))

    def push(self, event: Event, reasoning_tokens: int = 0) -> Iterator[JsonObject]:
        """The stream's events of one of the reply's; so many of its tokens were thoughts."""
        match event:
            case TextDelta(text=text, logprobs=logprobs):
                yield from self._opened("message")
                self._scored += logprobs
                part = self._part("message")
                part["text"] += text
                yield self._delta("output_text", delta=text, logprobs=self._entries(logprobs))
            case ReasoningDelta(text=text):
                yield from self._opened("reasoning")
                self._part("reasoning")["text"] += text
                yield self._delta("reasoning_text", delta=text)
            case ToolCallDelta(index=index):
                if self._call != index:
                    yield from self._closed("completed")
                    self._call = index
                    yield from self._opened("function_call", event)
                assert self._open is not None
                if event.arguments:
                    self._open["arguments"] += event.arguments
                    yield self._event(
                        "response.function_call_arguments.delta",
                        item_id=self._open["id"],
                        output_index=len(self._items) - 1,
                        delta=event.arguments,
                    )
            case Completed():
                yield from self._finish(event, reasoning_tokens)

    def _finish(self, completed: Completed, reasoning_tokens: int) -> Iterator[JsonObject]:
        whole = completed.reason != "length"
        if not self._items:
            yield from self._opened("message")
        yield from self._closed("completed" if whole else "incomplete")
        # What a token limit cut is no call: nobody is to execute it.
        items = self._items if completed.reason == "tool_calls" else _without_calls(self._items)
        usage = completed.usage
        self._response |= {
            "status": "completed" if whole else "incomplete",
            "incomplete_details": None if whole else {"reason": "max_output_tokens"},
            "output": items,
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {
                    "cached_tokens": usage.cached_tokens,
                    "cache_write_tokens": 0,
                },
                "output_tokens": usage.generated_tokens,
                "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
                "total_tokens": usage.prompt_tokens + usage.generated_tokens,
            },
        }
        kind = f"response.{self._response['status']}"
        yield self._event(kind, response=dict(self._response))

    def _opened(self, kind: str, call: ToolCallDelta | None = None) -> Iterator[JsonObject]:
        """Begin an item of that kind, unless one is open; another that is open ends."""
        if self._open is not None and self._open["type"] == kind and call is None:
            return
        yield from self._closed("completed")
        item: JsonObject = {"type": kind, "status": "in_progress"}
        if kind == "function_call":
            assert call is not None
            item |= {"id": new_id("fc"), "call_id": call.id, "name": call.name, "arguments": ""}
        elif kind == "message":
            item |= {"id": new_id("msg"), "role": "assistant", "content": []}
        else:
            item |= {"id": new_id("rs"), "summary": [], "content": []}
        self._items.append(item)
        self._open = item
        index = len(self._items) - 1
        yield self._event("response.output_item.added", output_index=index, item=_copy(item))
        if kind != "function_call":
            part = self._part(kind)
            yield self._event("response.content_part.added", **self._place(), part=dict(part))

    def _closed(self, status: str) -> Iterator[JsonObject]:
        """End the open item, if there is one."""
        item = self._open
        if item is None:
            return
        if item["type"] == "function_call":
            yield self._event(
                "response.function_call_arguments.done",
                item_id=item["id"],
                output_index=len(self._items) - 1,
                name=item["name"],
                arguments=item["arguments"],
            )
        else:
            part = self._part(item["type"])
            extra = {}
            if item["type"] == "message":
                extra = {"logprobs": self._entries(self._scored)}
                if self._logprobs:
                    part["logprobs"] = extra["logprobs"]
            kind = f"response.{part['type']}.done"
            yield self._event(kind, **self._place(), text=part["text"], **extra)
            yield self._event("response.content_part.done", **self._place(), part=dict(part))
        item["status"] = status
        index = len(self._items) - 1
        yield self._event("response.output_item.done", output_index=index, item=_copy(item))
        self._open, self._call, self._scored = None, -1, []

    def _part(self, kind: str) -> JsonObject:
        """The one part of the open item's content."""
        assert self._open is not None
        content: list[JsonObject] = self._open["content"]
        if not content:
            empty: JsonObject = {"type": "reasoning_text", "text": ""}
            if kind == "message":
                empty = {"type": "output_text", "text": "", "annotations": []}
            content.append(empty)
        return content[0]

    def _place(self) -> JsonObject:
        assert self._open is not None
        index = len(self._items) - 1
        return {"item_id": self._open["id"], "output_index": index, "content_index": 0}

    def _delta(self, kind: str, **fields: object) -> JsonObject:
        return self._event(f"response.{kind}.delta", **self._place(), **fields)

    def _event(self, kind: str, **fields: object) -> JsonObject:
        number, self._sequence = self._sequence, self._sequence + 1
        return {"type": kind, "sequence_number": number, **fields}

    def _entries(self, logprobs: tuple[TokenLogprob, ...] | list[TokenLogprob]) -> object:
        return chat_logprobs(logprobs, self._tokenizer)["content"] if self._logprobs else []


def _blank(request: ResponsesRequest, model: str) -> JsonObject:
    """A response before its reply."""
    text = request.text.model_dump(exclude_none=True, by_alias=True) if request.text else {}
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "temperature": request.temperature,
        "text": {"format": {"type": "text"}, **text},
        "tool_choice": _choice(request),
        "tools": [_tool(tool) for tool in request.tools or ()],
        "top_p": request.top_p,
        "metadata": request.metadata or {},
        "usage": None,
    }


def _choice(request: ResponsesRequest) -> object:
    choice = request.tool_choice
    return choice.model_dump() if isinstance(choice, NamedTool) else choice or "auto"


def _tool(tool: FunctionTool) -> JsonObject:
    return {"strict": None, "parameters": None, **tool.model_dump(exclude_none=True)}


def _copy(item: JsonObject) -> JsonObject:
    """An item as it is now: its content goes on changing."""
    if "content" in item:
        return {**item, "content": [dict(part) for part in item["content"]]}
    return dict(item)


def _without_calls(items: list[JsonObject]) -> list[JsonObject]:
    return [item for item in items if item["type"] != "function_call"]
