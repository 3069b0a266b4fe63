"""The control socket, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.errors import ControlError, DiskError, InvalidSamplingError, ProcessError
from oneiros.kernel.control import MOST_REQUESTS, ControlServer
from oneiros.kernel.control_client import AsyncControlClient, ControlClient
from oneiros.kernel.control_messages import (
    LONGEST_REQUEST,
    SOCKET_NAME,
    Request,
    parse_request,
    request_line,
)
from oneiros.kernel.control_methods import control_methods
from oneiros.kernel.label import PUBLIC
from tests.kernel.fakes import FakeKernel, fake_system


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[FakeKernel, AsyncControlClient]]:
    kernel = FakeKernel(folder)
    server = await ControlServer.open(folder, control_methods(fake_system(folder, kernel)))
    try:
        yield kernel, AsyncControlClient(folder)
    finally:
        await server.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


async def raw(folder: Path, *lines: bytes) -> list[dict[str, Any]]:
    """What a kernel answers to these bytes before it hangs up."""
    reader, writer = await asyncio.open_unix_connection(str(folder / SOCKET_NAME))
    writer.writelines(lines)
    writer.write_eof()
    answers = [json.loads(line) async for line in reader]
    writer.close()
    return answers


async def until(ready: Callable[[], bool]) -> None:
    while not ready():
        await asyncio.sleep(0.005)


def test_a_process_is_started_watched_and_ruled(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (kernel, client):
            pid = await client.call("start", text="hi", title="first", tokens=100, priority=2)
            (process,) = await client.call("processes")
            assert process["pid"] == pid
            assert process["title"] == "first"
            assert process["status"] == "waiting"
            assert process["waiting_for"] == "a message"
            assert process["budget"]["tokens"] == 100
            assert process["used"]["tokens"] == 13

            await client.call("stop", pid=pid)
            assert (await client.call("process", pid=pid))["status"] == "stopped"
            await client.call("cont", pid=pid)
            await client.call("renice", pid=pid, priority=7)
            await client.call("budget", pid=pid, calls=3)
            assert kernel.state(pid).priority == 7
            assert kernel.state(pid).budget.calls == 3
            assert kernel.state(pid).budget.tokens is None
            child = await client.call("fork", pid=pid)
            assert (await client.call("process", pid=child))["forked_from"] == pid
            assert await client.call("replay", pid=pid) == kernel.state(pid).seq
            await client.call("kill", pid=pid)
            assert [p["pid"] for p in await client.call("processes")] == [child]
            assert len(await client.call("processes", ended=True)) == 2

    run(test)


def test_a_stream_gives_old_events_then_new_ones_with_their_texts(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (_, client):
            pid = await client.call("start", text="hi")
            said: list[str] = []
            async with aclosing(client.stream("watch", pid=pid, after=0, longest=1000)) as events:
                async for view in events:
                    event = view["event"]
                    if event["kind"] == "generated":
                        said.append(view["texts"][event["text"]])
                    if event["kind"] == "generation-ended":
                        message = view["messages"][str(event["page"]["id"])]
                        said.append(message["content"])
                        if len(said) > 3:
                            break
                        await client.call("send", pid=pid, text="ho")
            assert said == ["You said: ", "hi", "You said: hi", "You said: ", "ho", "You said: ho"]

    run(test)


def test_silence_is_told_to_who_wants_to_know(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (kernel, client):
            pid = await client.call("start")
            kinds: list[str] = []
            stream = client.stream("watch", pid=pid, after=0, quiet=0.01)
            async with aclosing(stream) as events:
                async for view in events:
                    kinds.append("quiet" if "quiet" in view else view["event"]["kind"])
                    if kinds[-2:] == ["quiet", "quiet"]:
                        await client.call("kill", pid=pid)
                    if kinds[-1] == "ended":
                        break
            assert kinds[0] == "started"
            assert kinds[1:3] == ["quiet", "quiet"]
            await until(lambda: kernel.watchers == 0)

    run(test)


def test_questions_are_answered_and_what_was_done_can_be_undone(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (kernel, client):
            pid = await client.call("start", text="write a.txt")
            assert (await client.call("process", pid=pid))["waiting_for"] == "permission for write"
            (question,) = await client.call("questions", pid=pid)
            assert "Allow it?" in question["text"]
            await client.call("answer", call_id=question["call_id"], allow=True, always=True)
            assert kernel.state(pid).granted == {"write: send"}
            with pytest.raises(ProcessError, match="waits for an answer"):
                await client.call("answer", call_id=question["call_id"], allow=True)

            assert [e["path"] for e in await client.call("fs.list")] == ["a.txt"]
            (change,) = await client.call("fs.history", path="a.txt")
            assert change["after"]["label"]["origins"] == ["user"]
            (hit,) = await client.call("fs.search", query="hell")
            assert hit["path"] == "a.txt"
            (undone,) = await client.call("fs.undo_last", pid=pid)
            assert undone["undoes"] == change["id"]
            assert await client.call("fs.list") == []

    run(test)


def test_files_of_any_size_come_in_pieces(tmp_path: Path) -> None:
    import base64

    async def test() -> None:
        async with served(tmp_path) as (kernel, client):
            data = os.urandom(1_000_000)
            kernel.disk.write("big", data, call_id="1", label=PUBLIC)
            pieces = [
                base64.b64decode(piece["data"])
                async for piece in client.stream("fs.read", path="big")
            ]
            assert b"".join(pieces) == data
            assert len(pieces) > 1
            with pytest.raises(DiskError, match="small"):
                async for _ in client.stream("fs.read", path="small"):
                    pass

    run(test)


def test_sampling_reaches_the_process_and_wrong_options_are_named(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (kernel, client):
            await client.call("start", sampling={"temperature": 0.0, "stop": ["x"]})
            sampling = kernel.specs[0].sampling
            assert sampling is not None
            assert (sampling.temperature, sampling.stop) == (0.0, ("x",))
            with pytest.raises(InvalidSamplingError, match="top_p"):
                await client.call("start", sampling={"top_p": 2.0})
            with pytest.raises(InvalidSamplingError, match="heat"):
                await client.call("start", sampling={"heat": 2.0})

    run(test)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"hello\n", "no JSON"),
        (b"\xff\xfe\n", "no JSON"),
        (b"[" * 100_000 + b"\n", "no JSON"),
        (b"[]\n", "A request is"),
        (b'{"id": true, "method": "info"}\n', "A request is"),
        (b'{"id": 1, "method": "info", "params": []}\n', "A request is"),
        (b'{"id": 1, "method": "info", "more": 1}\n', "A request is"),
        (b'{"id": 1, "method": "reboot"}\n', "There is no method 'reboot'"),
        (b'{"id": 1, "method": "kill"}\n', "kill: pid: Missing"),
        (b'{"id": 1, "method": "kill", "params": {"pid": "1"}}\n', "kill: pid: "),
        (b'{"id": 1, "method": "kill", "params": {"pid": 1, "all": true}}\n', "kill: all: "),
        (b'{"id": 1, "method": "kill", "params": {"pid": 1}}\n', "There is no process 1"),
        (b'{"id": 1, "method": "backup", "params": {"path": "x"}}\n', "absolute"),
        (b'{"id": 1, "method": "cancel"}\n', "cancel: "),
    ],
)
def test_malformed_requests_are_refused_and_the_connection_goes_on(
    tmp_path: Path, line: bytes, says: str
) -> None:
    async def test() -> None:
        async with served(tmp_path):
            refusal, answer = sorted(
                await raw(tmp_path, line, b'{"id": "next", "method": "processes"}\n'),
                key=lambda one: "result" in one,
            )
            assert says in refusal["error"]["message"]
            assert answer == {"id": "next", "result": []}

    run(test)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_a_request_or_refused(line: bytes) -> None:
    with suppress(ControlError):
        parse_request(line)


@given(st.integers() | st.text(), st.text(), st.dictionaries(st.text(), json_values))
def test_requests_arrive_as_they_were_sent(
    number: int | str, method: str, params: dict[str, Any]
) -> None:
    line = request_line(Request(number, method, params))
    assert line.count(b"\n") == 1
    assert repr(parse_request(line)) == repr(Request(number, method, params))  # NaN is no NaN


def test_a_line_without_end_is_refused_and_nothing_kept(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (_, client):
            (refusal,) = await raw_until_hung_up(tmp_path, b"x" * (LONGEST_REQUEST + 1000))
            assert "longer than" in refusal["error"]["message"]
            assert await client.call("processes") == []
            with pytest.raises(ControlError, match="send less"):
                await client.call("send", pid=1, text="x" * LONGEST_REQUEST)

    run(test)


async def raw_until_hung_up(folder: Path, data: bytes) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_unix_connection(str(folder / SOCKET_NAME))
    writer.write(data)
    answers = [json.loads(line) async for line in reader]
    writer.close()
    return answers


def test_a_line_that_is_cut_off_is_no_request(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (kernel, _):
            assert await raw(tmp_path, b'{"id": 1, "method": "start"}') == []
            assert kernel.states == {}

    run(test)


def test_requests_of_one_connection_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (kernel, client):
            pid = await client.call("start")
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME))

            async def ask(number: int, method: str, **params: object) -> None:
                request = {"id": number, "method": method, "params": params}
                writer.write(json.dumps(request).encode() + b"\n")

            async def answer() -> dict[str, Any]:
                found: dict[str, Any] = json.loads(await reader.readline())
                return found

            await ask(1, "watch", pid=pid, after=0)
            assert (await answer())["event"]["event"]["kind"] == "started"
            await ask(2, "process", pid=pid)
            assert (await answer())["result"]["pid"] == pid
            await ask(1, "processes")
            assert "under way already" in (await answer())["error"]["message"]
            await ask(3, "cancel", id=1)
            endings = [await answer(), await answer()]
            assert {"id": 3, "result": True} in endings
            assert {"id": 1, "end": "cancelled"} in endings
            assert kernel.watchers == 0
            await ask(4, "cancel", id=1)
            assert await answer() == {"id": 4, "result": False}

            for number in range(MOST_REQUESTS + 1):
                await ask(100 + number, "watch")
            assert "are under way" in (await answer())["error"]["message"]
            writer.close()
            await until(lambda: kernel.watchers == 0)

    run(test)


def test_a_hundred_watchers_see_everything_and_leave_nothing_behind(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (kernel, client):
            pid = await client.call("start")

            async def look() -> list[int]:
                seen = []
                async with aclosing(client.stream("watch", pid=pid, after=0)) as events:
                    async for view in events:
                        seen.append(view["seq"])
                        if view["event"]["kind"] == "ended":
                            break
                return seen

            looking = [asyncio.create_task(look()) for _ in range(100)]
            await until(lambda: kernel.watchers == 100)
            for _ in range(5):
                await client.call("send", pid=pid, text="hi")
            await client.call("kill", pid=pid)
            last = kernel.state(pid).seq
            assert await asyncio.gather(*looking) == [list(range(1, last + 1))] * 100
            await until(lambda: kernel.watchers == 0)

    run(test)


def test_a_client_that_does_not_read_makes_the_stream_wait_not_the_kernel(tmp_path: Path) -> None:
    async def test() -> None:
        made = 0

        async def flood() -> Any:
            nonlocal made
            while True:
                made += 1
                yield "x" * 10_000

        async def ping() -> str:
            return "pong"

        server = await ControlServer.open(tmp_path, {"flood": flood, "ping": ping})
        slow = socket.socket(socket.AF_UNIX)
        slow.connect(str(tmp_path / SOCKET_NAME))
        slow.sendall(b'{"id": 1, "method": "flood"}\n')
        client = AsyncControlClient(tmp_path)
        before = -1
        while made != before:  # until the sockets' buffers are full
            before = made
            for _ in range(20):
                assert await client.call("ping") == "pong"
        assert made < 200
        slow.close()
        await server.close()

    run(test)


def test_a_killed_client_ends_its_stream_but_not_what_it_ordered(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (kernel, _):
            program = (
                "import socket, os, signal, sys\n"
                "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
                'for n in range(20): s.sendall(b\'{"id": %d, "method": "watch"}\\n\' % n)\n'
                's.sendall(b\'{"id": 99, "method": "start"}\\n\')\n'
                "s.recv(1); os.kill(os.getpid(), signal.SIGKILL)\n"
            )
            client = await asyncio.create_subprocess_exec(
                "python3", "-c", program, str(tmp_path / SOCKET_NAME)
            )
            assert await client.wait() == -9
            await until(lambda: kernel.watchers == 0 and len(kernel.states) == 1)

    run(test)


def test_a_mistake_in_a_method_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    async def test() -> None:
        async def broken() -> None:
            raise ZeroDivisionError("by zero")

        async def ping() -> str:
            return "pong"

        logged: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
        server = await ControlServer.open(tmp_path, {"broken": broken, "ping": ping})
        client = AsyncControlClient(tmp_path)
        with pytest.raises(ControlError, match="ZeroDivisionError"):
            await client.call("broken")
        assert await client.call("ping") == "pong"
        assert [type(one["exception"]) for one in logged] == [ZeroDivisionError]
        await server.close()

    run(test)


def test_only_the_user_can_open_the_socket(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path):
            mode = (tmp_path / SOCKET_NAME).stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o600

    run(test)


def test_another_user_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who it is says the operating system; here everybody is somebody else."""

    async def test() -> None:
        async with served(tmp_path):
            monkeypatch.setattr("oneiros.kernel.control.peer_uid", lambda _: os.getuid() + 1)
            (refusal,) = await raw(tmp_path, b'{"id": 1, "method": "processes"}\n')
            assert "another user" in refusal["error"]["message"]

    run(test)


def test_a_kernel_of_somebody_else_is_not_talked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with served(tmp_path) as (_, client):
            monkeypatch.setattr("oneiros.kernel.control_client.peer_uid", lambda _: os.getuid() + 1)
            with pytest.raises(ControlError, match="another user"):
                await client.call("processes")

    run(test)


def test_what_a_dead_kernel_left_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    async def test() -> None:
        with pytest.raises(ControlError, match="No kernel runs"):
            ControlClient(tmp_path).call("info")
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(tmp_path / SOCKET_NAME))
        dead.close()
        with pytest.raises(ControlError, match="No kernel runs"):
            ControlClient(tmp_path).call("info")
        async with served(tmp_path) as (_, client):
            with pytest.raises(ControlError, match="Another kernel listens"):
                await ControlServer.open(tmp_path, {})
            assert (await client.call("info"))["pid"] == os.getpid()
        assert not [path for path in tmp_path.iterdir() if path.is_socket()]

    run(test)


def test_a_file_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    async def test() -> None:
        (tmp_path / SOCKET_NAME).write_text("mine")
        with pytest.raises(ControlError, match="no socket"):
            await ControlServer.open(tmp_path, {})
        assert (tmp_path / SOCKET_NAME).read_text() == "mine"

    run(test)


def test_folders_with_long_names_are_no_hindrance(tmp_path: Path) -> None:
    async def test() -> None:
        folder = tmp_path / ("a" * 100) / ("é" * 60)
        folder.mkdir(parents=True)
        async with served(folder) as (_, client):
            assert await client.call("processes") == []
            assert await asyncio.to_thread(ControlClient(folder).call, "processes") == []
        assert not [path for path in folder.iterdir() if path.is_socket()]

    run(test)


def test_closing_ends_streams_and_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        kernel = FakeKernel(tmp_path)
        server = await ControlServer.open(tmp_path, control_methods(fake_system(tmp_path, kernel)))

        async def look() -> int:
            stream = AsyncControlClient(tmp_path).stream("watch")
            return len([event async for event in stream])

        looking = asyncio.create_task(look())
        await until(lambda: kernel.watchers == 1)
        await server.close()
        assert await looking == 0
        assert kernel.watchers == 0

    run(test)


def test_the_client_for_commands_streams_and_leaves(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (kernel, _):
            client = ControlClient(tmp_path)

            def look() -> list[str]:
                pid = client.call("start", text="hi")
                stream = client.stream("watch", pid=pid, after=0)
                kinds = [next(stream)["event"]["kind"] for _ in range(3)]
                stream.close()
                with pytest.raises(ProcessError):
                    client.call("process", pid=99)
                return kinds

            assert await asyncio.to_thread(look) == ["started", "delivered", "received"]
            await until(lambda: kernel.watchers == 0)

    run(test)


def test_a_backup_holds_nobody_up_but_erasures(tmp_path: Path) -> None:
    copied = threading.Event()

    async def test() -> None:
        async with served(tmp_path) as (kernel, client):
            kernel.backup = lambda path: copied.wait(30)  # type: ignore[assignment, method-assign]
            backup = asyncio.ensure_future(client.call("backup", path=str(tmp_path / "copy")))
            await asyncio.sleep(0.01)
            pid = await client.call("start", text="hi")
            erasure = asyncio.ensure_future(client.call("erase", pid=pid))
            assert await client.call("processes")
            assert not (backup.done() or erasure.done() or kernel.erased)
            copied.set()
            await asyncio.gather(backup, erasure)
            assert kernel.erased == [(pid, None)]

    run(test)


def test_shutdown_erase_backup_and_tools_reach_the_system(tmp_path: Path) -> None:
    async def test() -> None:
        kernel = FakeKernel(tmp_path)
        ended = asyncio.Event()
        methods = control_methods(fake_system(tmp_path, kernel, shutdown=ended.set))
        server = await ControlServer.open(tmp_path, methods)
        client = AsyncControlClient(tmp_path)
        pid = await client.call("start", text="hi")
        await client.call("erase", pid=pid, page=2)
        assert kernel.erased == [(pid, 2)]
        await client.call("backup", path=str(tmp_path / "copy"))
        assert kernel.backups == [tmp_path / "copy"]
        assert await client.call("tools") == []
        page = (await client.call("messages", pid=pid, longest=3))[-1]
        assert (page["kind"], page["message"]["content"]) == ("assistant", "You")
        await client.call("shutdown")
        assert ended.is_set()
        await server.close()

    run(test)
