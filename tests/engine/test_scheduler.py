"""Many replies from one engine: each as if it were alone, and shares as they were promised."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.engine.engine import Engine
from oneiros.engine.language_model import LanguageModel
from oneiros.engine.library import PAGE_TOKENS
from oneiros.engine.requests import (
    BACKGROUND,
    ConstraintSpec,
    Finished,
    GenerationRequest,
    Tokens,
)
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.scheduler import Answers, Scheduler, SchedulerSettings
from oneiros.errors import (
    ConstraintError,
    ContextLengthError,
    EngineFailedError,
    InvalidSamplingError,
    NotEnoughMemoryError,
    OneirosError,
    OverloadedError,
    TokenizationError,
)
from oneiros.model.tensor_types import TensorType
from tests.engine.conftest import MakeEngine
from tests.engine.serving import Reply, alone, collect, run, serving
from tests.model.builders import wide_architecture

CONTEXT = 512
COMMON = [int(t) for t in np.random.default_rng(0).integers(0, 288, CONTEXT)]


@pytest.fixture(scope="module")
def engine(tiny_engine: MakeEngine) -> Engine:
    return tiny_engine(wide_architecture("llama", context=CONTEXT), TensorType.Q8_0, threads=1)


def request(
    own: int = 0,
    common: int = 0,
    *,
    seed: int = 1,
    temperature: float = 1.0,
    max_tokens: int = 20,
    **changes: object,
) -> GenerationRequest:
    """A prompt of `common` shared tokens and `own` others that depend on the seed."""
    others = np.random.default_rng(seed).integers(0, 288, own)
    sampling = SamplingOptions(temperature=temperature, seed=seed, max_tokens=max_tokens)
    prompt = (*COMMON[:common], *map(int, others))
    return GenerationRequest(prompt, sampling, **changes)  # type: ignore[arg-type]


requests = st.builds(
    request,
    own=st.integers(1, 90),
    common=st.integers(0, 200),
    seed=st.integers(0, 5),
    temperature=st.sampled_from([0.0, 1.0]),
    max_tokens=st.integers(1, 60),
    principal=st.sampled_from(["anna", "ben"]),
    priority=st.sampled_from([0, BACKGROUND]),
    end_ids=st.sampled_from([frozenset(), frozenset(range(0, 288, 40))]),
    public_prefix=st.sampled_from([0, 40, 100]),
    speculate=st.booleans(),
)


@given(
    asked=st.lists(requests, min_size=1, max_size=12),
    pages=st.integers(18, 60),
    max_batch=st.integers(1, 8),
)
@settings(max_examples=25, deadline=None)
def test_a_reply_does_not_depend_on_what_else_runs_nor_on_the_memory(
    engine: Engine,
    tmp_path_factory: pytest.TempPathFactory,
    asked: list[GenerationRequest],
    pages: int,
    max_batch: int,
) -> None:
    spool = tmp_path_factory.mktemp("spool")

    async def program() -> list[Reply]:
        async with serving(engine, spool, pages=pages, max_batch=max_batch) as service:
            replies = await asyncio.gather(*(collect(service, r) for r in asked))
            state = await service.statistics()
            assert (state.waiting, state.running, state.parked, state.pages_used) == (0, 0, 0, 0)
            assert engine.pool.used == state.pages_cached <= pages
            assert not list(spool.iterdir())
            return replies

    replies = run(program)
    assert engine.pool.used == 0
    for r, reply in zip(asked, replies, strict=True):
        assert reply.ids == alone(engine, r)


def test_what_has_to_make_room_is_not_computed_again(engine: Engine, tmp_path: Path) -> None:
    asked = [request(100, seed=s, max_tokens=300, speculate=False) for s in range(4)]

    async def program() -> tuple[list[Reply], int, int]:
        async with serving(engine, tmp_path / "spool", pages=20) as service:
            replies = await asyncio.gather(*(collect(service, r) for r in asked))
            state = await service.statistics()
            return replies, state.preemptions, state.rows

    replies, preemptions, rows = run(program)
    assert preemptions > 0
    assert [r.ids for r in replies] == [alone(engine, r) for r in asked]
    # Every token once, but the last one of each reply, which nothing follows.
    assert rows == sum(100 + 300 - 1 for _ in asked)


def test_a_prompt_is_read_once_for_all_who_begin_with_it_at_the_same_time(
    engine: Engine, tmp_path: Path
) -> None:
    asked = [request(10, 320, seed=s) for s in range(6)]

    async def program() -> list[Reply]:
        async with serving(engine, tmp_path) as service:
            return list(await asyncio.gather(*(collect(service, r) for r in asked)))

    replies = run(program)
    cached = sorted(r.end.usage.cached_tokens for r in replies)
    assert cached == [0, 320, 320, 320, 320, 320]


def test_nobody_gets_pages_of_another_principal(engine: Engine, tmp_path: Path) -> None:
    async def program() -> list[int]:
        async with serving(engine, tmp_path) as service:
            asked = [
                request(10, 320, principal="anna"),
                request(10, 320, principal="ben"),
                request(10, 320, principal="anna"),
                request(10, 320, principal="carl", public_prefix=320),
                request(10, 320, principal="dora", public_prefix=320),
                request(10, 320, principal="emil"),  # did not declare it
            ]
            return [(await collect(service, r)).end.usage.cached_tokens for r in asked]

    assert run(program) == [0, 0, 329, 0, 320, 0]


@given(length=st.integers(1, 200), same=st.integers(0, 200), more=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_of_a_prompt_all_is_cached_that_was_read_before(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, length: int, same: int, more: int
) -> None:
    same = min(same, length)
    first = request(0, length, max_tokens=1)
    second = GenerationRequest(
        (*first.prompt[:same], *(288 - 1 - t for t in COMMON[same : same + more])),
        SamplingOptions(max_tokens=1),
    )

    async def program() -> int:
        async with serving(engine, tmp_path_factory.mktemp("spool")) as service:
            await collect(service, first)
            return (await collect(service, second)).end.usage.cached_tokens

    assert run(program) == min(same, len(second.prompt) - 1)


def test_a_cancelled_request_frees_what_it_held(engine: Engine, tmp_path: Path) -> None:
    async def program() -> None:
        async with serving(engine, tmp_path, max_batch=2) as service:
            tasks = [
                asyncio.create_task(collect(service, request(60, seed=s, max_tokens=400)))
                for s in range(6)
            ]
            while (await service.statistics()).generated_tokens < 10:
                await asyncio.sleep(0.001)
            for task in tasks[:5]:
                task.cancel()
            assert len((await tasks[5]).ids) == 400
            state = await service.statistics()
            assert (state.waiting, state.running, state.pages_used) == (0, 0, 0)

    run(program)


def test_too_many_requests_are_refused_and_the_others_served(
    engine: Engine, tmp_path: Path
) -> None:
    async def program() -> None:
        async with serving(engine, tmp_path, max_waiting=4) as service:
            # All of these are submitted before the engine looks for the first time.
            answers = await asyncio.gather(
                *(collect(service, request(300, seed=s, max_tokens=5)) for s in range(200)),
                return_exceptions=True,
            )
            refused = [a for a in answers if isinstance(a, OverloadedError)]
            served = [a for a in answers if isinstance(a, Reply)]
            assert refused and served
            assert len(refused) + len(served) == 200
            assert all(len(r.ids) == 5 for r in served)

    run(program)


def progress_at_end_of(
    engine: Engine,
    spool: Path,
    first: list[GenerationRequest],
    others: list[GenerationRequest],
    before: tuple[GenerationRequest, ...] = (),
    **limits: int,
) -> tuple[int, int]:
    """Tokens that two groups of requests have when the first group is done.

    The first group comes when the others have begun, and these when those of `before` have ended,
    one after the other. All of it happens in the engine's own thread, between its steps: nothing
    depends on how soon another thread is heard.
    """
    settings = SchedulerSettings(400 * engine.pool.page_bytes, spool, **limits)
    asked = [*before, *others, *first]
    groups = ["before"] * len(before) + ["others"] * len(others) + ["first"] * len(first)
    waiting = list(range(len(asked)))
    tokens, ended = Counter[str](), Counter[str]()
    result: list[int] = []

    def submit(count: int) -> None:
        for number in waiting[:count]:
            scheduler.submit(number, asked[number])
        del waiting[:count]

    def note(answers: Answers) -> None:
        for number, output in answers:
            match output:
                case Tokens():
                    tokens[groups[number]] += len(output.ids)
                case Finished():
                    ended[groups[number]] += 1
                    if groups[number] == "before":
                        submit(1 if ended["before"] < len(before) else len(others))
                case OneirosError():
                    raise output
        if tokens["others"] and len(waiting) == len(first):
            tokens["others"] = 0
            submit(len(first))
        if ended["first"] == len(first) and not result:
            result.extend((tokens["first"], tokens["others"]))
            scheduler.close()

    scheduler = Scheduler(engine, None, None, settings, note)  # type: ignore[arg-type]
    submit(1 if before else len(others))
    scheduler.run()
    return result[0], result[1]


def test_who_waits_comes_first_and_the_background_does_not_starve(
    engine: Engine, tmp_path: Path
) -> None:
    urgent = request(20, max_tokens=100, speculate=False)
    slow = [
        request(20, seed=s, max_tokens=400, priority=BACKGROUND, speculate=False)
        for s in range(2, 6)
    ]
    urgently, background = progress_at_end_of(engine, tmp_path, [urgent], slow)
    assert urgently == 100
    assert 4 * 15 <= background <= 4 * 40  # one step in four, or about that


def test_a_principal_with_many_requests_does_not_crowd_out_one_with_few(
    engine: Engine, tmp_path: Path
) -> None:
    few = request(20, max_tokens=100, principal="few", speculate=False)
    many = [
        request(20, seed=s, max_tokens=400, principal="many", speculate=False) for s in range(2, 12)
    ]
    of_few, of_many = progress_at_end_of(engine, tmp_path, [few], many, max_batch=2)
    assert of_few == 100
    # Two replies run in a step, and one of them is always that of the principal with few.
    assert of_many <= 180


def test_the_background_goes_on_beside_a_full_batch(engine: Engine, tmp_path: Path) -> None:
    urgent = [request(20, seed=s, max_tokens=100, speculate=False) for s in (1, 2)]
    slow = request(20, seed=3, max_tokens=400, priority=BACKGROUND, speculate=False)
    urgently, background = progress_at_end_of(engine, tmp_path, urgent, [slow], max_batch=2)
    assert urgently == 200
    assert 15 <= background <= 60


def test_what_somebody_had_before_is_forgotten_when_nobody_waits(
    engine: Engine, tmp_path: Path
) -> None:
    before = tuple(request(300, seed=seed, principal="nightly") for seed in range(5))
    old = request(10, max_tokens=50, principal="nightly", speculate=False)
    new = request(10, seed=9, max_tokens=400, principal="new", speculate=False)
    of_old, of_new = progress_at_end_of(engine, tmp_path, [old], [new], before, max_batch=1)
    assert of_old == 50
    assert of_new <= 80  # shares are equal from the moment that both are there


def test_urgent_requests_do_not_wait_for_the_end_of_background_ones(
    engine: Engine, tmp_path: Path
) -> None:
    slow = [
        request(20, seed=s, max_tokens=400, priority=BACKGROUND, speculate=False) for s in range(3)
    ]
    urgent = [request(20, max_tokens=30)]
    urgently, background = progress_at_end_of(engine, tmp_path, urgent, slow, max_active=2)
    assert urgently == 30
    assert background < 100


def test_requests_that_wait_for_memory_do_not_drive_each_other_out(
    engine: Engine, tmp_path: Path
) -> None:
    async def program() -> int:
        async with serving(engine, tmp_path / "spool", pages=20) as service:
            slow = asyncio.create_task(
                collect(service, request(100, max_tokens=50, priority=BACKGROUND))
            )
            await asyncio.gather(
                *(collect(service, request(400, seed=s, max_tokens=10)) for s in range(10))
            )
            await slow
            return (await service.statistics()).preemptions

    assert run(program) <= 1  # the background makes room once


def test_what_was_accepted_is_not_refused_when_the_engine_begins_anew(
    engine: Engine, tmp_path: Path
) -> None:
    answers: list[tuple[int, object]] = []
    settings = SchedulerSettings(400 * engine.pool.page_bytes, tmp_path / "spool", max_waiting=4)
    scheduler = Scheduler(engine, None, None, settings, answers.extend)  # type: ignore[arg-type]
    for number in range(10):
        scheduler.submit(number, request(20, seed=number, max_tokens=9), resumed=[1, 2, 3])
    scheduler.submit(99, request(20, seed=99, max_tokens=9))
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    while sum(isinstance(answer, Finished) for _, answer in answers) < 10:
        time.sleep(0.001)
    scheduler.close()
    thread.join()
    assert [n for n, answer in answers if isinstance(answer, OverloadedError)] == [99]


def test_prompts_that_cannot_be_served_are_refused(engine: Engine, tmp_path: Path) -> None:
    async def program() -> None:
        async with serving(engine, tmp_path) as service:
            with pytest.raises(ContextLengthError, match="1 too many"):
                await collect(service, request(CONTEXT))
            with pytest.raises(TokenizationError):
                await collect(service, GenerationRequest(()))
            with pytest.raises(TokenizationError):
                await collect(service, GenerationRequest((1, 288)))
            with pytest.raises(InvalidSamplingError):
                sampling = SamplingOptions(logit_bias={999: 1.0}, max_tokens=2)
                await collect(service, GenerationRequest((1,), sampling))
            assert len((await collect(service, request(5))).ids) == 20
        with pytest.raises(EngineFailedError, match="closed"):
            await collect(service, request(5))

    run(program)


def test_memory_for_less_than_one_context_is_refused(engine: Engine, tmp_path: Path) -> None:
    async def program() -> None:
        async with serving(engine, tmp_path, pages=CONTEXT // PAGE_TOKENS):
            pass

    with pytest.raises(NotEnoughMemoryError, match="--kv-memory"):
        run(program)


def test_a_reply_ends_where_the_context_is_full(engine: Engine, tmp_path: Path) -> None:
    async def program() -> Reply:
        async with serving(engine, tmp_path) as service:
            return await collect(service, request(CONTEXT - 7, max_tokens=50))

    reply = run(program)
    assert (len(reply.ids), reply.end.reason) == (7, "length")


def test_log_probabilities_are_the_models(engine: Engine, tmp_path: Path) -> None:
    asked = request(150, temperature=0.0, top_logprobs=3, prompt_logprobs=2)

    async def program() -> Reply:
        async with serving(engine, tmp_path) as service:
            await collect(service, request(150))  # the prompt is in the cache, and read anyway
            return await collect(service, asked)

    reply = run(program)
    ids = [*asked.prompt, *reply.ids]
    expected = engine.log_probabilities(engine.sequence(), ids)
    found = [*reply.prompt_logprobs, *reply.logprobs]
    assert [p.token for p in found] == ids[1:]
    np.testing.assert_allclose([p.logprob for p in found], expected, atol=1e-6)
    for p in reply.logprobs:
        assert p.top[0] == (p.token, pytest.approx(p.logprob))  # greedy
        assert [v for _, v in p.top] == sorted((v for _, v in p.top), reverse=True)
        assert len(p.top) == 3
    assert all(len(p.top) == 2 for p in reply.prompt_logprobs)


@pytest.mark.parametrize("first", [1, 70, 149, 500])
def test_log_probabilities_of_a_prompts_end_take_the_rest_from_the_cache(
    engine: Engine, tmp_path: Path, first: int
) -> None:
    asked = request(150, max_tokens=1, prompt_logprobs=0, prompt_logprobs_from=first)

    async def program() -> Reply:
        async with serving(engine, tmp_path) as service:
            await collect(service, request(150))
            return await collect(service, asked)

    reply = run(program)
    expected = engine.log_probabilities(engine.sequence(), asked.prompt)
    assert [p.token for p in reply.prompt_logprobs] == list(asked.prompt[first:])
    found = [p.logprob for p in reply.prompt_logprobs]
    np.testing.assert_allclose(found, expected[first - 1 :], atol=1e-6)
    assert reply.cached_tokens == min(first - 1, 149)


@given(
    seed=st.integers(0, 50),
    temperature=st.sampled_from([0.0, 0.3, 1.0]),
    repeated=st.integers(3, 30),
)
@settings(max_examples=30, deadline=None)
def test_drafts_change_nothing(
    engine: Engine,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    temperature: float,
    repeated: int,
) -> None:
    prompt = tuple(COMMON[:repeated]) * 4
    # A tiny random model repeats nothing by itself: the bias makes it.
    sampling = SamplingOptions(
        temperature=temperature,
        seed=seed,
        max_tokens=80,
        logit_bias=dict.fromkeys(COMMON[: min(4, repeated)], 6.0),
    )

    async def program() -> list[Reply]:
        async with serving(engine, tmp_path_factory.mktemp("spool")) as service:
            return [
                await collect(service, GenerationRequest(prompt, sampling, speculate=speculate))
                for speculate in (True, False)
            ]

    on, off = run(program)
    assert on.ids == off.ids
    assert off.end.usage.drafted_tokens == 0


def test_drafts_are_accepted_where_a_model_repeats_itself(
    model: LanguageModel, tmp_path: Path
) -> None:
    text = " ".join(["one two three four five six seven eight nine ten"] * 6)
    prompt = tuple(model.tokenizer.prompt_ids(text))
    sampling = SamplingOptions(temperature=0.0, max_tokens=40)

    async def program() -> Reply:
        async with serving(model.engine, tmp_path) as service:
            return await collect(service, GenerationRequest(prompt, sampling))

    reply = run(program)
    assert "one two three four" in model.tokenizer.decode(reply.ids)
    assert reply.end.usage.accepted_tokens > 20


def test_constraints_hold_beside_others(model: LanguageModel, tmp_path: Path) -> None:
    assert model.chat_format is not None
    prompt = tuple(model.chat_format.render([{"role": "user", "content": "Is water wet?"}]))
    schema = '{"type": "object", "properties": {"wet": {"type": "boolean"}}, "required": ["wet"]}'
    sampling = SamplingOptions(seed=5, max_tokens=30)

    def asked(constraint: ConstraintSpec | None, **more: object) -> GenerationRequest:
        ends = model.tokenizer.end_ids
        return GenerationRequest(prompt, sampling, ends, constraint=constraint, **more)  # type: ignore[arg-type]

    specs = [
        ConstraintSpec("choice", '["certainly", "not at all"]'),
        ConstraintSpec("regex", "[0-9]{3}-[0-9]{2}"),
        ConstraintSpec("json_schema", schema),
        None,
    ]

    async def program() -> list[str]:
        async with serving(model.engine, tmp_path, model=model) as service:
            with pytest.raises(ConstraintError):
                await collect(service, asked(ConstraintSpec("regex", "(((")))
            replies = await asyncio.gather(*(collect(service, asked(s)) for s in specs))
            one_by_one = await collect(service, asked(specs[2], top_logprobs=0))
            assert len(one_by_one.logprobs) == len(one_by_one.ids)
            assert [r.end.reason for r in replies[:3]] == ["stop"] * 3
            return [model.tokenizer.decode(r.ids) for r in replies]

    choice, number, json_text, _ = run(program)
    assert choice in ("certainly", "not at all")
    assert len(number) == 6 and number[3] == "-"
    assert json_text.replace(" ", "") in ('{"wet":true}', '{"wet":false}')


def test_what_was_cached_is_said_before_the_first_token(engine: Engine, tmp_path: Path) -> None:
    async def program() -> list[Reply]:
        async with serving(engine, tmp_path) as service:
            return [await collect(service, request(10, 100)) for _ in range(2)]

    assert [r.cached_tokens for r in run(program)] == [0, 109]
