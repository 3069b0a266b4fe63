import asyncio

import pytest

from tests.server.asgi import Connection, until
from tests.server.conftest import NAME, FakeServer

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
LONG = {"model": NAME, "messages": [{"role": "user", "content": "Hi!"}], "max_tokens": 100_000}


def endless(server: FakeServer) -> FakeServer:
    server.service.endless = True
    return server


@pytest.mark.parametrize("n", [1, 3])
async def test_a_client_that_goes_away_ends_its_stream(server: FakeServer, n: int) -> None:
    connection = Connection(endless(server).app, CHAT, {**LONG, "stream": True, "n": n})
    await until(lambda: connection.body.count(b"data:") > 20)
    assert server.service.running == n
    connection.disconnect()
    await connection.task
    assert server.service.running == 0
    assert server.app.state.serving.running == 0
    assert not connection.complete


@pytest.mark.parametrize("n", [1, 3])
async def test_a_client_that_does_not_wait_for_the_answer_ends_the_reply(
    server: FakeServer, n: int
) -> None:
    connection = Connection(endless(server).app, CHAT, {**LONG, "n": n})
    await until(lambda: server.service.produced > 20)
    connection.disconnect()
    await connection.task
    assert server.service.running == 0


async def test_a_client_that_goes_before_the_first_token_ends_the_request(
    server: FakeServer,
) -> None:
    server.service.hold.clear()
    body = {**LONG, "stream": True, "prompt": ["Hi", "Ho"], "echo": True}
    del body["messages"]
    connection = Connection(endless(server).app, "/v1/completions", body)
    await until(lambda: server.service.running == 2)
    connection.disconnect()
    await connection.task
    assert server.service.running == 0


async def test_answers_are_not_pulled_for_a_client_that_does_not_read(server: FakeServer) -> None:
    connection = Connection(endless(server).app, CHAT, {**LONG, "stream": True})
    await until(lambda: connection.body.count(b"data:") > 5)
    connection.reading.clear()
    for _ in range(50):
        await asyncio.sleep(0)
    produced = server.service.produced
    for _ in range(500):
        await asyncio.sleep(0)
    assert server.service.produced == produced  # a real engine goes on: its answers wait in a queue
    connection.reading.set()
    await until(lambda: server.service.produced > produced + 10)
    connection.disconnect()
    await connection.task


async def test_a_slow_reader_does_not_hold_up_others(server: FakeServer) -> None:
    slow = Connection(endless(server).app, CHAT, {**LONG, "stream": True})
    await until(lambda: slow.body)
    slow.reading.clear()
    fast = Connection(server.app, CHAT, {**LONG, "stream": True, "max_tokens": 200})
    await until(lambda: fast.complete)
    assert fast.body.endswith(b"data: [DONE]\n\n")
    slow.disconnect()
    slow.reading.set()
    await slow.task
    await fast.task


async def test_tokens_are_sent_as_they_come(server: FakeServer) -> None:
    server.service.hold.clear()  # after the first token
    connection = Connection(server.app, CHAT, {**LONG, "stream": True})
    await until(lambda: b'"content":"Hello"' in connection.body)
    assert not connection.complete
    server.service.hold.set()
    await connection.task
    assert connection.complete


async def test_answers_that_nobody_waited_for_are_counted(server: FakeServer) -> None:
    connection = Connection(endless(server).app, CHAT, LONG)
    await until(lambda: server.service.running)
    connection.disconnect()
    await connection.task
    async with server.client() as client:
        page = (await client.get("/metrics")).text
    assert f'oneiros_requests_total{{endpoint="{CHAT}",status="499"}} 1.0' in page
