import json

import httpx
import pytest

from oneiros.engine.requests import ConstraintSpec
from tests.server.conftest import NAME, FakeServer

pytestmark = pytest.mark.anyio

URL = "/v1/responses"
TOOL = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


async def respond(client: httpx.AsyncClient, **fields: object) -> dict:
    response = await client.post(URL, json={"model": NAME, "input": "Hi!", **fields})
    assert response.status_code == 200, response.text
    return response.json()


async def events(client: httpx.AsyncClient, **fields: object) -> list[dict]:
    body = {"model": NAME, "input": "Hi!", "stream": True, **fields}
    response = await client.post(URL, json=body)
    frames = response.text.removesuffix("\n\n").split("\n\n")
    found = []
    for frame in frames:
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


async def test_a_text_is_answered_by_a_message(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    body = await respond(client, instructions="Be brief.")
    assert body["status"] == "completed"
    (item,) = body["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    (part,) = item["content"]
    assert part == {"type": "output_text", "text": "Hello there, friend.", "annotations": []}
    assert body["usage"]["output_tokens"] == 5
    assert "system\nBe brief." in server.tokenizer.decode(server.service.requests[0].prompt)


async def test_the_events_of_a_message_come_in_order(client: httpx.AsyncClient) -> None:
    found = await events(client)
    kinds = [event["type"].removeprefix("response.") for event in found]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 5,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert found[0]["response"]["status"] == "in_progress"
    assert found[0]["response"]["output"] == []
    assert found[2]["item"]["content"] == []
    text = "".join(event["delta"] for event in found if event["type"].endswith("text.delta"))
    assert text == found[9]["text"] == "Hello there, friend."
    assert found[-1]["response"]["output"] == [found[-2]["item"]]


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_are_items_beside_the_message(
    server: FakeServer, client: httpx.AsyncClient, stream: bool
) -> None:
    server.says("Let me see.\n" + CALL + "\n" + CALL)
    if stream:
        found = await events(client, tools=[TOOL])
        body = found[-1]["response"]
        done = [e for e in found if e["type"] == "response.function_call_arguments.done"]
        assert [json.loads(event["arguments"]) for event in done] == [{"a": 1}] * 2
    else:
        body = await respond(client, tools=[TOOL])
    message, one, other = body["output"]
    assert message["content"][0]["text"].strip() == "Let me see."
    for call in (one, other):
        assert (call["type"], call["name"]) == ("function_call", "add")
        assert json.loads(call["arguments"]) == {"a": 1}
    assert one["call_id"] != other["call_id"]
    constraint = server.service.requests[0].constraint
    assert constraint is not None
    assert constraint.kind == "lark"


async def test_a_reply_that_is_cut_is_incomplete_and_calls_nothing(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    body = await respond(client, max_output_tokens=2)
    assert body["status"] == "incomplete"
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    server.says(CALL)
    tokens = len(server.service.ids) - 4
    body = await respond(client, tools=[TOOL], max_output_tokens=tokens)
    assert body["status"] == "incomplete"
    assert not [item for item in body["output"] if item["type"] == "function_call"]


async def test_a_conversation_is_read_as_chats_read_it(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    call = {"call_id": "c1", "name": "add", "arguments": '{"a": 1}'}
    await respond(
        client,
        instructions="Add.",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "1?"}]},
            {"type": "message", "role": "assistant", "content": "Hm."},
            {"type": "function_call", **call},
            {"type": "function_call_output", "call_id": "c1", "output": "2"},
        ],
    )
    messages = [
        {"role": "system", "content": "Add."},
        {"role": "user", "content": "1?"},
        {
            "role": "assistant",
            "content": "Hm.",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a": 1}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]
    chat = await client.post("/v1/chat/completions", json={"model": NAME, "messages": messages})
    assert chat.status_code == 200
    one, other = server.service.requests
    assert one.prompt == other.prompt
    text = server.tokenizer.decode(one.prompt)
    assert '{"name": "add", "arguments": {"a": 1}}' in text


async def test_a_format_becomes_a_constraint(server: FakeServer, client: httpx.AsyncClient) -> None:
    wanted = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    body = await respond(client, text={"format": wanted})
    assert body["text"]["format"] == wanted
    expected = ConstraintSpec("json_schema", '{"type": "object"}')
    assert server.service.requests[0].constraint == expected


async def test_log_probabilities_come_if_they_are_included(client: httpx.AsyncClient) -> None:
    fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    body = await respond(client, **fields)
    entries = body["output"][0]["content"][0]["logprobs"]
    assert [entry["token"] for entry in entries] == ["Hello", " there", ",", " friend", "."]
    found = await events(client, **fields)
    streamed = [e["logprobs"] for e in found if e["type"] == "response.output_text.delta"]
    assert [entry for entries in streamed for entry in entries] == entries


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "text": ""}]}]},
            "input[0].content[0].type",
        ),
        ({"tools": [TOOL], "text": {"format": {"type": "json_object"}}}, "tools"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(
    client: httpx.AsyncClient, fields: dict, param: str
) -> None:
    response = await client.post(URL, json={"model": NAME, "input": "x", **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
