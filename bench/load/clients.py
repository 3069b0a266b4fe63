"""The main load: clients that send one request after the other to ours and to the peer."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from bench.load.client import Load, ServerError, closed_loop
from bench.load.setting import QWEN, SMOLLM, Bench, model_file, one_reply, say, undisturbed
from bench.load.sides import CHAT, start_ours, start_peer
from bench.report import Row
from oneiros.model.parameters import open_parameters
from oneiros.model.tensor_types import TensorType
from oneiros.model.tokenizer import load_tokenizer

Better = Literal["higher", "lower"]
Measure = Callable[[list[Load]], float]


@dataclass(frozen=True)
class LoadCase:
    """A closed loop of clients; targets are ratios."""

    name: str
    model: str
    clients: int
    throughput: float | None = None
    first_token: float | None = None
    peer_type: TensorType | None = None  # the peer gets a conversion to this


def load_cases() -> Iterator[LoadCase]:
    targets = {1: (2.0, 3.0), 4: (2.5, 3.0), 16: (4.0, 10.0)}
    for clients, (throughput, first) in targets.items():
        name = f"{SMOLLM} clients-{clients}"
        yield LoadCase(f"{name} same-file", SMOLLM, clients, throughput, first)
    for clients in targets:
        name = f"{SMOLLM} clients-{clients} vs-q4_0"
        target = 1.8 if clients == 16 else None
        yield LoadCase(name, SMOLLM, clients, target, peer_type=TensorType.Q4_0)
    for clients, (throughput, first) in targets.items():
        yield LoadCase(
            f"qwen2.5-0.5b clients-{clients} same-file", QWEN, clients, throughput, first
        )


def run_load(case: LoadCase, bench: Bench) -> list[Row]:
    """Rounds of a closed loop of clients, first on one side and then on the other."""
    loads: dict[str, list[Load]] = {"ours": [], "llama.cpp": []}
    size = bench.size
    tokenizer = load_tokenizer(open_parameters(model_file(case.model)))
    system = bench.text(tokenizer, size.system)

    def conversation() -> list[dict[str, str]]:
        user = bench.text(tokenizer, size.own)
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]

    with ExitStack() as stack:
        sides = [start_ours(model_file(case.model), bench.home, bench.threads)]
        stack.enter_context(sides[0].server)
        if bench.with_peer:
            context = size.system + size.own + size.out + 64
            peer_file = model_file(case.model, case.peer_type)
            sides.append(start_peer(peer_file, case.clients, context, bench.threads))
            stack.enter_context(sides[1].server)
        for side in sides:
            one_reply(side, conversation(), 2, tokenizer)
        for number in range(size.rounds + 1):
            # In the first round one sequence has seen the system prompt; later each of the peer's
            # slots has, for they have caches of their own.
            count = size.requests[case.clients] if number else 1
            talks = [[conversation() for _ in range(count)] for _ in range(case.clients)]
            for side in sides if number % 2 else sides[::-1]:
                bodies = [
                    [side.chat(talk, size.out, tokenizer.end_ids) for talk in of_client]
                    for of_client in talks
                ]
                idle = next((other for other in sides if other is not side), None)
                with undisturbed(side, idle):
                    load = closed_loop(side.server.port, CHAT, bodies)
                short = next((r for r in load.replies if r.tokens != size.out), None)
                if short is not None:
                    raise ServerError(f"{side.server.name} sent {short.tokens} tokens.")
                loads[side.server.name].append(load)
    for name, found in loads.items():
        if found:
            _explain(name, found[1:])
    return _load_rows(case, *loads.values())


def _explain(name: str, loads: list[Load]) -> None:
    replies = [reply for load in loads for reply in load.replies]
    cached = sum(reply.cached_tokens for reply in replies)
    prompts = sum(reply.prompt_tokens for reply in replies)
    speeds = ", ".join(f"{load.tokens_per_second:,.0f}" for load in loads)
    client = sum(load.client_seconds for load in loads) / sum(load.seconds for load in loads)
    say(
        f"  {name}: {speeds} tok/s; {cached / prompts:.0%} of the prompts were in its cache; the "
        f"load generator took {client:.1%} of a core"
    )


def _load_rows(case: LoadCase, ours: list[Load], peer: list[Load]) -> list[Row]:
    def row(
        metric: str, unit: str, better: Better, measure: Measure, target: float | None = None
    ) -> Row:
        theirs = measure(peer) if peer else None
        return Row(case.name, metric, measure(ours), theirs, unit, better, target)

    def throughput(loads: list[Load]) -> float:
        return statistics.median(load.tokens_per_second for load in loads[1:])

    def first_tokens(loads: list[Load]) -> list[float]:
        return sorted(1000 * r.first_token_seconds for load in loads for r in load.replies)

    def median(loads: list[Load]) -> float:
        return statistics.median(first_tokens(loads[:1]))

    def slow(loads: list[Load]) -> float:
        waits = first_tokens(loads[:1])
        return waits[min(len(waits) - 1, len(waits) * 95 // 100)]

    def warm(loads: list[Load]) -> float:
        return statistics.median(first_tokens(loads[1:]))

    return [
        row("throughput", "tok/s", "higher", throughput, case.throughput),
        row("ttft-median", "ms", "lower", median, case.first_token),
        row("ttft-p95", "ms", "lower", slow),
        row("ttft-warm-slots", "ms", "lower", warm),
    ]
