"""Asking other models, over a transport that plays an endpoint."""

import json
from collections.abc import Callable

import httpx
import pytest

from oneiros.devices.models import OtherModel, Price, models
from oneiros.engine.remote_model import RemoteModel, RetryPolicy
from oneiros.kernel.contract import Effect
from oneiros.kernel.tools import Tool, ToolError, ToolResult
from tests.devices.contexts import call


def tool(answer: Callable[[httpx.Request], httpx.Response], price: Price | None = None) -> Tool:
    remote = RemoteModel(
        "http://models.test/v1",
        "large",
        transport=httpx.MockTransport(answer),
        retries=RetryPolicy(attempts=1),
    )
    (ask,) = models([OtherModel(name="large-1.0", model=remote, about="knows law", price=price)])
    return ask


def stream(*chunks: object) -> httpx.Response:
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return httpx.Response(200, text=body, headers={"content-type": "text/event-stream"})


def test_a_model_replies_and_its_price_is_counted() -> None:
    asked: list[dict[str, object]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return stream(
            {"choices": [{"delta": {"content": "Forty-two"}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 200}},
        )

    ask = tool(answer, Price(prompt=2.0, reply=10.0))
    assert ask.name == "ask_large-1_0"
    assert ask.description.endswith("large-1.0: knows law")
    assert ask.contract.effects == {Effect.SEND, Effect.SPEND}
    assert ask.contract.sinks == ask.contract.origins == ("model:large-1.0",)
    result = call(ask, prompt="Why?", system="Be brief.")
    assert isinstance(result, ToolResult)
    assert result.text == "Forty-two"
    assert result.cost == pytest.approx(0.002 + 0.002)
    assert [m["role"] for m in asked[0]["messages"]] == ["system", "user"]  # type: ignore[attr-defined]


def test_a_reply_that_was_cut_says_so() -> None:
    ask = tool(
        lambda _: stream({"choices": [{"delta": {"content": "On"}, "finish_reason": "length"}]})
    )
    assert ask.contract.effects == {Effect.SEND}
    result = call(ask, prompt="Why?")
    assert isinstance(result, ToolResult)
    assert result.text == "On\n[The reply was cut here: it was too long.]"
    assert result.cost == 0


def test_failures_are_told_to_the_caller() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"error": {"message": "who are you?"}})

    with pytest.raises(ToolError, match="who are you"):
        call(tool(refuse), prompt="Why?")
    with pytest.raises(ToolError, match="empty"):
        call(tool(refuse), prompt=" ")
