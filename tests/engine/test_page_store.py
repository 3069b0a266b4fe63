"""KV pages on disk: whole or not there, within the limit, and found again after a restart."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from oneiros.engine.engine import Engine
from oneiros.engine.page_store import PageStore
from oneiros.engine.prefix_cache import page_folder
from oneiros.engine.requests import GenerationRequest
from oneiros.engine.sampling import SamplingOptions
from oneiros.model.tensor_types import TensorType
from tests.engine.conftest import MakeEngine
from tests.engine.serving import Reply, collect, run, serving
from tests.model.builders import wide_architecture

BYTES = 4096


def page(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, BYTES, np.uint8)


def key(number: int) -> str:
    return f"{number:032x}"


def stored(store: PageStore, number: int) -> bool:
    into = np.zeros(BYTES, np.uint8)
    found = store.load(key(number), into)
    assert not found or (into == page(number)).all()
    return found


def test_pages_are_there_after_a_restart_and_only_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "kv"
    store = PageStore(folder, BYTES, 1 << 20)
    for number in range(5):
        store.save(key(number), page(number))
    again = PageStore(folder, BYTES, 1 << 20)
    assert len(again) == 5
    assert all(stored(again, number) for number in range(5))
    assert not stored(again, 7)
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())


@given(damage=st.sampled_from(["cut", "hole", "longer", "gone", "header"]), at=st.integers(0, 4000))
@settings(max_examples=40, deadline=None)
def test_a_damaged_page_is_a_missing_page(
    tmp_path_factory: pytest.TempPathFactory, damage: str, at: int
) -> None:
    folder = tmp_path_factory.mktemp("kv")
    store = PageStore(folder, BYTES, 1 << 20)
    store.save(key(1), page(1))
    path = folder / key(1)
    data = bytearray(path.read_bytes())
    match damage:
        case "cut":
            del data[at:]
        case "hole":
            data[16 + at // 8 * 8 : 24 + at // 8 * 8] = bytes(8)
        case "header":
            data[at % 16] ^= 1
        case "longer":
            data += b"x"  # what follows a whole page does no harm
        case "gone":
            path.unlink()
    if damage != "gone":
        path.write_bytes(data)
    assert stored(store, 1) == (damage == "longer")
    assert (key(1) in store) == (damage == "longer")


def test_the_least_recently_used_pages_make_room(tmp_path: Path) -> None:
    store = PageStore(tmp_path, BYTES, 4 * (BYTES + 16))
    for number in range(4):
        store.save(key(number), page(number))
        os.utime(tmp_path / key(number), (number, number))
    store.touch([key(0)])
    store.save(key(4), page(4))
    assert [stored(store, number) for number in range(5)] == [True, False, True, True, True]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4 * (BYTES + 16)
    smaller = PageStore(tmp_path, BYTES, 2 * (BYTES + 16))
    assert [stored(smaller, number) for number in range(5)] == [True, False, False, False, True]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "abc.123.part").write_bytes(b"half a page")
    assert len(PageStore(tmp_path, BYTES, 1 << 20)) == 0
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PageStore(tmp_path, BYTES, 1 << 20)
    monkeypatch.setattr(os, "writev", lambda descriptor, parts: 100)
    with pytest.raises(OSError, match="100 of"):
        store.save(key(1), page(1))
    assert not list(tmp_path.iterdir())
    assert key(1) not in store


@pytest.fixture(scope="module")
def engine(tiny_engine: MakeEngine) -> Engine:
    return tiny_engine(wide_architecture("llama", context=512), TensorType.Q8_0, threads=1)


PROMPT = tuple(int(t) for t in np.random.default_rng(1).integers(0, 288, 300))


def answer(
    engine: Engine,
    folder: Path,
    prompt: tuple[int, ...] = PROMPT,
    *,
    pages: int = 400,
    principal: str = "anna",
) -> Reply:
    """A reply by an engine that has just been started, and ends after it."""
    store = PageStore(page_folder(folder, engine), engine.pool.page_bytes, 1 << 30)
    request = GenerationRequest(
        prompt, SamplingOptions(seed=3, max_tokens=100), principal=principal
    )

    async def program() -> Reply:
        async with serving(engine, folder / "spool", pages=pages, store=store) as service:
            return await collect(service, request)

    return run(program)


def test_a_conversation_resumed_after_a_restart_finds_its_pages(
    engine: Engine, tmp_path: Path
) -> None:
    first, second = answer(engine, tmp_path), answer(engine, tmp_path)
    assert first.end.usage.cached_tokens == 0
    assert second.end.usage.cached_tokens == 288  # 9 whole pages
    assert second.ids == first.ids
    assert answer(engine, tmp_path, principal="ben").end.usage.cached_tokens == 0


def test_a_conversation_goes_on_after_a_restart_from_where_it_ended(
    engine: Engine, tmp_path: Path
) -> None:
    first = answer(engine, tmp_path)
    more = (*PROMPT, *first.ids, 5, 6, 7)
    # The last token of a reply was drawn, and nothing was computed from it.
    assert answer(engine, tmp_path, more).end.usage.cached_tokens == 300 + 99


def test_damaged_pages_are_computed_again(engine: Engine, tmp_path: Path) -> None:
    first = answer(engine, tmp_path)
    for path in page_folder(tmp_path, engine).iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    again = answer(engine, tmp_path)
    assert (again.end.usage.cached_tokens, again.ids) == (0, first.ids)


def test_pages_that_made_room_come_back_from_disk(engine: Engine, tmp_path: Path) -> None:
    store = PageStore(page_folder(tmp_path, engine), engine.pool.page_bytes, 1 << 30)
    asked = [
        GenerationRequest(
            tuple(int(t) for t in np.random.default_rng(seed).integers(0, 288, 300)),
            SamplingOptions(temperature=0.0, max_tokens=5),
        )
        for seed in range(5)
    ]

    async def program() -> tuple[list[Reply], list[Reply]]:
        async with serving(engine, tmp_path / "spool", pages=20, store=store) as service:
            first = [await collect(service, r) for r in asked]
            # Only two prompts fit the memory at a time.
            second = await asyncio.gather(*(collect(service, r) for r in asked))
            return first, list(second)

    first, second = run(program)
    assert [r.ids for r in first] == [r.ids for r in second]
    assert [r.end.usage.cached_tokens for r in first] == [0] * 5
    assert all(r.end.usage.cached_tokens >= 288 for r in second)
