import asyncio
from dataclasses import replace

import httpx
import pytest

from oneiros.engine.local_model import LocalModel
from oneiros.errors import EngineFailedError, ModelFileError, NotEnoughMemoryError
from oneiros.server import model_pool
from oneiros.server.app import create_app
from oneiros.server.errors import ApiError
from oneiros.server.model_pool import ModelPool, ModelSource
from oneiros.server.settings import Settings
from tests.server.asgi import until
from tests.server.fakes import FakeService

pytestmark = pytest.mark.anyio


class Models:
    """Sources of a given size each, and what was loaded in which order."""

    def __init__(self, parts: LocalModel) -> None:
        self.loads: list[str] = []
        self.services: dict[str, FakeService] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing = False
        self._parts = parts

    def source(self, name: str, size: int = 1) -> ModelSource:
        async def load() -> LocalModel:
            self.loads.append(name)
            await self.gate.wait()
            if self.failing:
                raise ModelFileError(f"{name} is damaged.")
            self.services[name] = FakeService([100])
            return replace(self._parts, name=name, service=self.services[name])

        return ModelSource(name, "language", load, size)


@pytest.fixture
def models(model_parts: LocalModel) -> Models:
    return Models(model_parts)


async def use(pool: ModelPool, name: str) -> None:
    (await pool.lease(name, "language")).release()


async def test_a_model_is_loaded_when_it_is_first_used_and_once(models: Models) -> None:
    pool = ModelPool([models.source("a"), models.source("b")])
    assert models.loads == []
    models.gate.clear()
    asked = [asyncio.create_task(pool.lease("a", "language")) for _ in range(5)]
    await until(lambda: models.loads)
    models.gate.set()
    leases = await asyncio.gather(*asked)
    assert models.loads == ["a"]
    assert len({id(lease.language_model) for lease in leases}) == 1
    assert [model.name for model in pool.language_models] == ["a"]


async def test_the_model_that_was_idle_longest_makes_room(models: Models) -> None:
    pool = ModelPool([models.source(name) for name in "abc"], budget=2)
    await use(pool, "a")
    await use(pool, "b")
    await use(pool, "a")
    await use(pool, "c")
    assert models.services["b"].closed
    assert {model.name for model in pool.language_models} == {"a", "c"}
    await use(pool, "b")
    assert models.loads == ["a", "b", "c", "b"]


async def test_a_model_in_use_is_not_unloaded(models: Models) -> None:
    pool = ModelPool([models.source("a"), models.source("b")], budget=1)
    lease = await pool.lease("a", "language")
    with pytest.raises(ApiError) as refused:
        await pool.lease("b", "language")
    assert refused.value.status_code == 503
    assert not models.services["a"].closed
    lease.release()
    lease.release()  # again: nothing happens
    await use(pool, "b")
    assert models.services["a"].closed


async def test_models_that_load_at_the_same_time_share_the_budget(models: Models) -> None:
    pool = ModelPool([models.source("a"), models.source("b")], budget=1)
    models.gate.clear()
    first = asyncio.create_task(pool.lease("a", "language"))
    await until(lambda: models.loads == ["a"])
    with pytest.raises(ApiError, match="does not fit"):
        await pool.lease("b", "language")
    models.gate.set()
    assert (await first).language_model.name == "a"


async def test_loading_goes_on_when_the_first_to_ask_goes_away(models: Models) -> None:
    pool = ModelPool([models.source("a")])
    models.gate.clear()
    first = asyncio.create_task(pool.lease("a", "language"))
    await until(lambda: models.loads)
    second = asyncio.create_task(pool.lease("a", "language"))
    await asyncio.sleep(0)
    first.cancel()
    models.gate.set()
    assert (await second).language_model.name == "a"
    assert models.loads == ["a"]


async def test_a_failure_is_told_to_all_and_can_be_tried_again(models: Models) -> None:
    pool = ModelPool([models.source("a")], budget=1)
    models.failing = True
    for _ in range(2):
        with pytest.raises(ModelFileError, match="damaged"):
            await pool.lease("a", "language")
    models.failing = False
    await use(pool, "a")
    assert models.loads == ["a", "a", "a"]


async def test_a_model_larger_than_the_budget_says_so(models: Models) -> None:
    pool = ModelPool([models.source("a", size=2 << 30)], budget=1 << 30)
    with pytest.raises(NotEnoughMemoryError, match=r"2\.0 GiB.*1\.0"):
        await pool.lease("a", "language")


async def test_only_models_of_the_right_kind_are_given_out(models: Models) -> None:
    pool = ModelPool([models.source("a")])
    with pytest.raises(ApiError) as wrong:
        await pool.lease("a", "embedding")
    assert wrong.value.status_code == 400
    with pytest.raises(ApiError) as missing:
        await pool.lease("z", "language")
    assert missing.value.status_code == 404


async def test_a_model_whose_engine_has_given_up_is_loaded_anew(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_pool, "_RESTART_SECONDS", 0.0)
    pool = ModelPool([models.source("a")], budget=1)
    app = create_app(pool, Settings())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    body = {"model": "a", "prompt": "x"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for found_by in ("/v1/completions", "/health"):
            await use(pool, "a")
            service = models.services["a"]
            assert (await client.post("/v1/completions", json=body)).status_code == 200
            service.failure = EngineFailedError("It ended five times.")
            if found_by == "/health":
                assert (await client.get(found_by)).status_code == 503
            else:
                assert (await client.post(found_by, json=body)).status_code == 500
            assert (await client.post("/v1/completions", json=body)).status_code == 200
            assert service.closed
            assert models.services["a"] is not service
            assert (await client.get("/health")).status_code == 200
    assert models.loads == ["a", "a", "a"]


async def test_an_engine_that_recovers_is_kept(models: Models) -> None:
    pool = ModelPool([models.source("a")])
    lease = await pool.lease("a", "language")
    service = models.services["a"]
    service.failure = EngineFailedError("It is being started again.")
    pool.suspect(lease.language_model)
    waiting = asyncio.create_task(pool.lease("a", "language"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    service.failure = None
    assert (await waiting).language_model is lease.language_model
    assert models.loads == ["a"]


async def test_an_engine_in_use_is_not_given_up(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_pool, "_RESTART_SECONDS", 0.0)
    pool = ModelPool([models.source("a")])
    lease = await pool.lease("a", "language")
    models.services["a"].failure = EngineFailedError("It is being started again.")
    pool.suspect(lease.language_model)
    waiting = asyncio.create_task(pool.lease("a", "language"))
    await asyncio.sleep(0.05)
    assert not models.services["a"].closed
    lease.release()
    await waiting
    assert models.loads == ["a", "a"]


async def test_closing_unloads_all(models: Models) -> None:
    pool = ModelPool([models.source("a"), models.source("b")])
    await use(pool, "a")
    await use(pool, "b")
    await pool.close()
    assert all(service.closed for service in models.services.values())
    assert pool.language_models == []
