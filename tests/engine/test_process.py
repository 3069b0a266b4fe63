"""An engine in a process of its own that is killed, and a server that is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from oneiros.engine.local_model import LocalModel, start_local_model
from oneiros.engine.process import EngineProcess
from oneiros.engine.requests import ConstraintSpec, GenerationRequest
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.worker import EngineSettings
from oneiros.errors import EngineFailedError, OneirosError
from oneiros.model.folders import cache_folder
from tests.engine.serving import Reply, collect, run

SCHEMA = (
    '{"type": "object", "properties": {"colour": {"type": "string"}, "why": {"type": "string"}},'
    ' "required": ["colour", "why"], "additionalProperties": false}'
)


def request(model: LocalModel, **changes: object) -> GenerationRequest:
    assert model.chat_format is not None
    prompt = model.chat_format.render([{"role": "user", "content": "Why is the sky blue?"}])
    fields: dict[str, object] = {
        "sampling": SamplingOptions(seed=7, max_tokens=60),
        "end_ids": model.end_ids,
    }
    return GenerationRequest(tuple(prompt), **(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def settings(
    default_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> EngineSettings:
    # Packed weights are shared with other tests; pages and spool must be this test's own.
    monkeypatch.setattr("oneiros.engine.spool.cache_folder", lambda: tmp_path)
    return EngineSettings(str(default_model_path), context=1024, kv_disk=0)


async def kill_after_tokens(service: EngineProcess, tokens: int) -> None:
    generated = 0
    while generated < tokens:
        await asyncio.sleep(0.002)
        with suppress(EngineFailedError):  # it is being started
            generated = (await service.statistics()).generated_tokens
    assert service.process_id is not None
    os.kill(service.process_id, signal.SIGKILL)


def test_replies_go_on_where_they_were_when_the_engine_is_killed(settings: EngineSettings) -> None:
    async def program() -> None:
        model = await start_local_model(settings)
        service = model.service
        assert isinstance(service, EngineProcess)
        asked = [
            request(model),
            request(model, sampling=SamplingOptions(temperature=0, max_tokens=80)),
            request(
                model,
                sampling=SamplingOptions(seed=1, max_tokens=80, frequency_penalty=0.5),
                top_logprobs=1,
            ),
            request(model, constraint=ConstraintSpec("json_schema", SCHEMA)),
        ]
        undisturbed = [await collect(service, r) for r in asked]
        before = (await service.statistics()).generated_tokens
        tasks = [asyncio.create_task(collect(service, r)) for r in asked]
        await kill_after_tokens(service, before + 60)
        replies: list[Reply] = await asyncio.gather(*tasks)
        assert [r.ids for r in replies] == [r.ids for r in undisturbed]
        assert replies[2].logprobs == undisturbed[2].logprobs
        assert [r.end.reason for r in replies] == [r.end.reason for r in undisturbed]
        lengths = [r.end.usage.generated_tokens for r in replies]
        assert lengths == [len(r.ids) for r in undisturbed]
        state = await service.statistics()
        assert (state.restarts, state.running, state.pages_used) == (1, 0, 0)
        await service.close()
        assert service.process_id is None

    run(program)


def test_a_new_engine_takes_keys_and_values_from_the_disk(
    default_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = cache_folder() / "packed"
    monkeypatch.setenv("ONEIROS_HOME", str(tmp_path))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "packed").symlink_to(packed)

    async def program() -> None:
        model = await start_local_model(EngineSettings(str(default_model_path), context=1024))
        service = model.service
        assert isinstance(service, EngineProcess)
        sampling = SamplingOptions(seed=7, max_tokens=300)
        long = GenerationRequest(tuple(range(1000, 1400)), sampling)
        undisturbed = await collect(service, long)
        while (await service.statistics()).pages_stored < 21:  # 699 tokens; the last one not
            await asyncio.sleep(0.01)
        task = asyncio.create_task(collect(service, long))
        await kill_after_tokens(service, 350)
        reply = await task
        assert reply.ids == undisturbed.ids
        assert reply.end.usage.cached_tokens > 300
        await service.close()

    run(program)


def test_an_engine_that_cannot_be_started_again_is_tried_again_then_given_up(
    settings: EngineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oneiros.engine.process._FIRST_PAUSE", 0.001)

    async def program() -> None:
        model = await start_local_model(settings)
        service = model.service
        assert isinstance(service, EngineProcess)
        endless = request(model, sampling=SamplingOptions(max_tokens=900), end_ids=frozenset())
        attempts = 0

        async def no_memory() -> asyncio.StreamReader:
            nonlocal attempts
            attempts += 1
            raise OSError("Cannot allocate memory")

        monkeypatch.setattr(service, "_spawn", no_memory)
        task = asyncio.create_task(collect(service, endless))
        await kill_after_tokens(service, 3)
        with pytest.raises(EngineFailedError, match="Cannot allocate memory"):
            await task
        assert attempts == 5
        with pytest.raises(EngineFailedError):
            await service.statistics()
        await service.close()

    run(program)


def test_a_request_that_kills_the_engine_is_given_up_and_others_are_served(
    settings: EngineSettings,
) -> None:
    async def program() -> None:
        model = await start_local_model(settings)
        service = model.service
        assert isinstance(service, EngineProcess)
        long = request(model, sampling=SamplingOptions(seed=1, max_tokens=900), end_ids=frozenset())
        task = asyncio.create_task(collect(service, long))
        for _ in range(3):
            killed = service.process_id
            await kill_after_tokens(service, 3)
            while service.process_id == killed:
                await asyncio.sleep(0.001)
        with pytest.raises(EngineFailedError, match="not tried again"):
            await task
        assert len((await collect(service, request(model))).ids) > 0
        await service.close()
        with pytest.raises(EngineFailedError):
            await collect(service, request(model))

    run(program)


def test_the_message_of_a_failed_start_is_the_engines(
    settings: EngineSettings, tmp_path: Path
) -> None:
    async def program() -> None:
        with pytest.raises(OneirosError, match="--kv-memory"):
            await start_local_model(
                EngineSettings(settings.path, context=1024, kv_memory=1 << 20, kv_disk=0)
            )

    run(program)


PARENT = """
import asyncio, sys
from oneiros.engine.process import EngineProcess
from oneiros.engine.worker import EngineSettings
async def main():
    engine = await EngineProcess.start(EngineSettings(sys.argv[1], context=512, kv_disk=0))
    print(engine.process_id, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_no_engine_survives_its_server(default_model_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(default_model_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        engine = int(parent.stdout.readline())
        parent.kill()
    for _ in range(500):
        if not Path(f"/proc/{engine}").exists():
            return
        time.sleep(0.02)
    pytest.fail("the engine's process still runs")
