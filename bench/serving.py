"""Claim: our server answers many at once, and at once, where llama.cpp's makes them wait.

    python bench/serving.py [--quick] [--json] [--case NAME ...]

The peer is llama.cpp's own server built for this machine (`make peers`), with the settings that
were quickest here and its prompt cache on. Both servers run as child processes, get the same
requests from the same load generator, and take turns, so that whatever else the machine does hits
both; the one that waits takes no processor time, which is measured. Each of N clients sends one
request after the other: a system prompt of 500 tokens that the server has seen before, 50 tokens of
its own, a reply of 100.

Where a case compares ours with ours, the column `peer` has the other one: resume-4000 against
reading an equally long conversation for the first time, repeat-edit and no-repeat against no
speculation. Where a bound is promised it has the bound: 1 ms a fork, 1 % of the sequence's memory
for all 32, 95 % for engine-busy.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.load.alone import EDIT, measure_forks, measure_speculation, passage_of
from bench.load.client import Load, Reply, ServerError, closed_loop, interrupted, longest_gap
from bench.load.prompts import passage
from bench.load.servers import ServerStartError, machine_seconds
from bench.load.sides import CHAT, PEER_PROGRAM, Side, start_ours, start_peer
from bench.report import Row, report
from oneiros.engine.library import kernels
from oneiros.engine.machine import usable_cores
from oneiros.errors import OneirosError
from oneiros.model import catalog
from oneiros.model.convert import convert
from oneiros.model.folders import cache_folder
from oneiros.model.parameters import open_parameters
from oneiros.model.tensor_types import TensorType
from oneiros.model.tokenizer import Tokenizer, load_tokenizer

SMOLLM, QWEN = "smollm2-135m", "qwen2.5-coder-0.5b"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    system: int  # tokens that all requests begin with
    own: int  # of each request
    out: int
    requests: dict[int, int]  # of each client, by the number of clients
    long: int  # of the long prompt and of the conversation that is resumed
    forks: tuple[int, int]  # tokens of the sequence, and forks of it
    decoded: int  # with and without speculation


FULL = Size(3, 500, 50, 100, {1: 8, 4: 4, 16: 2}, 4000, (2000, 32), 200)
QUICK = Size(1, 64, 16, 8, {1: 1, 4: 1, 16: 1}, 256, (100, 4), 16)


@dataclass(frozen=True)
class LoadCase:
    """A closed loop of clients; targets are ratios."""

    name: str
    model: str
    clients: int
    throughput: float | None = None
    first_token: float | None = None
    peer_type: TensorType | None = None  # the peer gets a conversion to this


def _load_cases() -> Iterator[LoadCase]:
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


@dataclass
class Bench:
    """What all cases need."""

    size: Size
    with_peer: bool
    home: Path  # where our server keeps keys and values
    threads: int = field(default_factory=usable_cores)
    seeds: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    def text(self, tokenizer: Tokenizer, tokens: int) -> str:
        """A text that no server has seen."""
        return passage(tokenizer, tokens, next(self.seeds))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def model_file(model: str, tensor_type: TensorType | None = None) -> Path:
    """The catalog's file, or a conversion of it that is made once."""
    path = catalog.resolve(model)
    if tensor_type is None:
        return path
    converted = cache_folder() / "bench" / f"{model}-{tensor_type.name.lower()}.gguf"
    if not converted.exists():
        converted.parent.mkdir(parents=True, exist_ok=True)
        convert(path, converted, tensor_type=tensor_type)
    return converted


@contextmanager
def undisturbed(busy: Side, idle: Side | None) -> Iterator[None]:
    """Say so if anything but the side under load took processor time."""
    time.sleep(0.2)  # llama.cpp's threads spin for a while after they have finished
    idle_before = idle.server.processor_seconds() if idle else 0.0
    used = busy.server.processor_seconds() + time.process_time()
    machine, begun = machine_seconds(), time.perf_counter()
    yield
    seconds = time.perf_counter() - begun
    used = busy.server.processor_seconds() + time.process_time() - used
    others = (machine_seconds() - machine - used) / seconds
    if idle and (share := (idle.server.processor_seconds() - idle_before) / seconds) > 0.02:
        say(f"  {idle.server.name} took {share:.0%} of a core while it had nothing to do")
    if others > 0.1:
        say(f"  disturbed: other programs took {others:.0%} of a core from {busy.server.name}")


def run_load(case: LoadCase, bench: Bench) -> list[Row]:
    loads: dict[str, list[Load]] = {"ours": [], "llama.cpp": []}
    size = bench.size
    tokenizer = load_tokenizer(open_parameters(model_file(case.model)))
    system = bench.text(tokenizer, size.system)

    def conversation() -> list[dict[str, str]]:
        user = bench.text(tokenizer, size.own)
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]

    with ExitStack() as stack:
        ours = start_ours(model_file(case.model), bench.home, bench.threads)
        sides = [ours]
        stack.enter_context(ours.server)
        if bench.with_peer:
            context = size.system + size.own + size.out + 64
            peer_file = model_file(case.model, case.peer_type)
            sides.append(start_peer(peer_file, case.clients, context, bench.threads))
            stack.enter_context(sides[1].server)
        for side in sides:  # each of the peer's slots has a prompt cache of its own
            warm = [[side.chat(conversation(), 2, tokenizer.end_ids)]] * case.clients
            closed_loop(side.server.port, CHAT, warm[:1])
            closed_loop(side.server.port, CHAT, warm)
        for number in range(size.rounds):
            talks = [
                [conversation() for _ in range(size.requests[case.clients])]
                for _ in range(case.clients)
            ]
            for side in sides if number % 2 == 0 else sides[::-1]:
                idle = next((other for other in sides if other is not side), None)
                bodies = [
                    [side.chat(talk, size.out, tokenizer.end_ids) for talk in of_client]
                    for of_client in talks
                ]
                with undisturbed(side, idle):
                    load = closed_loop(side.server.port, CHAT, bodies)
                _check(load, side, size)
                loads[side.server.name].append(load)
    return _load_rows(case, loads)


def _check(load: Load, side: Side, size: Size) -> None:
    short = next((reply for reply in load.replies if reply.tokens != size.out), None)
    if short is not None:
        raise ServerError(f"{side.server.name} sent {short.tokens} tokens, not {size.out}.")


def _load_rows(case: LoadCase, loads: dict[str, list[Load]]) -> list[Row]:
    def both(measure: Callable[[list[Load]], float]) -> tuple[float | None, float | None]:
        ours, peer = (measure(found) if found else None for found in loads.values())
        return ours, peer

    def throughput(found: list[Load]) -> float:
        return statistics.median(load.tokens_per_second for load in found)

    def first_token(found: list[Load], percent: int) -> float:
        waits = [r.first_token_seconds for load in found for r in load.replies]
        return 1000 * sorted(waits)[min(len(waits) - 1, len(waits) * percent // 100)]

    for name, found in loads.items():
        if found:
            replies = [reply for load in found for reply in load.replies]
            cached = sum(reply.cached_tokens for reply in replies)
            prompts = sum(reply.prompt_tokens for reply in replies)
            client = sum(load.client_seconds for load in found)
            seconds = sum(load.seconds for load in found)
            say(
                f"  {name}: {cached / prompts:.0%} of the prompts' tokens were in its cache; "
                f"the load generator took {client / seconds:.1%} of a core"
            )
    return [
        Row(case.name, "throughput", *both(throughput), "tok/s", "higher", case.throughput),
        Row(
            case.name,
            "ttft-median",
            *both(lambda found: first_token(found, 50)),
            "ms",
            "lower",
            case.first_token,
        ),
        Row(case.name, "ttft-p95", *both(lambda found: first_token(found, 95)), "ms", "lower"),
    ]


def run_long_prompt(bench: Bench) -> list[Row]:
    """Four replies are running when a long prompt arrives: how long do they stand still?"""
    size, path = bench.size, model_file(SMOLLM)
    tokenizer = load_tokenizer(open_parameters(path))
    gaps: dict[str, list[float]] = {"ours": [], "llama.cpp": []}
    running = 6 * size.out + size.long // 4  # more than are sent until the prompt is read
    with ExitStack() as stack:
        sides = [start_ours(path, bench.home, bench.threads)]
        stack.enter_context(sides[0].server)
        if bench.with_peer:
            sides.append(start_peer(path, 5, size.long + running, bench.threads))
            stack.enter_context(sides[1].server)
        for _ in range(size.rounds):
            texts = [bench.text(tokenizer, size.own) for _ in range(4)]
            long_text = bench.text(tokenizer, size.long)
            for side in sides:
                bodies = [
                    side.chat([{"role": "user", "content": text}], running, tokenizer.end_ids)
                    for text in texts
                ]
                long = side.chat([{"role": "user", "content": long_text}], 2, tokenizer.end_ids)
                with undisturbed(side, None):
                    replies, answer = interrupted(side.server.port, CHAT, bodies, long, 4)
                gap = longest_gap(replies, answer.sent, answer.times[0])
                gaps[side.server.name].append(1000 * gap)
                say(
                    f"  {side.server.name}: longest gap {1000 * gap:,.0f} ms, and the long prompt "
                    f"is answered after {answer.first_token_seconds:.2f} s"
                )
    ours, peer = (statistics.median(found) if found else None for found in gaps.values())
    return [Row("long-prompt-arrives", "longest-gap", ours, peer, "ms", "lower", 4)]


def run_resume(bench: Bench) -> list[Row]:
    """A conversation goes on after a restart, against reading as long a one that is new."""
    size, path = bench.size, model_file(SMOLLM)
    tokenizer = load_tokenizer(open_parameters(path))
    resumed, read = [], []
    for _ in range(size.rounds):
        first = [{"role": "user", "content": bench.text(tokenizer, size.long)}]
        with (side := start_ours(path, bench.home, bench.threads)).server:
            said = _one(side, first, size.out, tokenizer)
        more = [
            {"role": "assistant", "content": said.text},
            {"role": "user", "content": bench.text(tokenizer, size.own)},
        ]
        with (side := start_ours(path, bench.home, bench.threads)).server:
            _one(side, [{"role": "user", "content": "Hello!"}], 2, tokenizer)
            with undisturbed(side, None):
                again = _one(side, [*first, *more], 2, tokenizer)
                other = [{"role": "user", "content": bench.text(tokenizer, size.long)}]
                new = _one(side, [*other, *more], 2, tokenizer)
        say(f"  {again.cached_tokens:,} of {again.prompt_tokens:,} tokens were on disk")
        resumed.append(1000 * again.first_token_seconds)
        read.append(1000 * new.first_token_seconds)
    row = Row(
        "resume-4000",
        "ttft",
        statistics.median(resumed),
        statistics.median(read),
        "ms",
        "lower",
        20,
    )
    return [row]


def _one(side: Side, messages: list[dict[str, str]], tokens: int, tokenizer: Tokenizer) -> Reply:
    body = side.chat(messages, tokens, tokenizer.end_ids)
    return closed_loop(side.server.port, CHAT, [[body]]).replies[0]


def run_forks(bench: Bench) -> list[Row]:
    forks = measure_forks(model_file(SMOLLM), *bench.size.forks, rounds=5)
    case = "fork-2000x32"
    return [
        Row(case, "ms-per-fork", 1000 * forks.seconds, 1.0, "ms", "lower", 1),
        Row(case, "extra-memory", forks.memory, 0.01, "of the sequence", "lower", 1),
    ]


def run_repeat(bench: Bench) -> list[Row]:
    """A greedy reply that repeats most of its prompt."""
    found = measure_speculation(
        model_file(SMOLLM), EDIT, bench.size.decoded, 2 * bench.size.rounds, temperature=0.0
    )
    return [Row("repeat-edit", "decode", found.drafted, found.plain, "tok/s", "higher", 1.8)]


def run_no_repeat(bench: Bench) -> list[Row]:
    """Sampled text, in which drafts are mostly wrong."""
    path = model_file(SMOLLM)
    found = measure_speculation(
        path, passage_of(path, 200), bench.size.decoded, 4 * bench.size.rounds, temperature=1.0
    )
    return [Row("no-repeat", "decode", found.drafted, found.plain, "tok/s", "higher", 0.97)]


def run_overhead(bench: Bench) -> list[Row]:
    """How much of the time the engine's process computes while 16 clients want replies."""
    size, path = bench.size, model_file(SMOLLM)
    tokenizer = load_tokenizer(open_parameters(path))
    system = bench.text(tokenizer, size.system)
    busy = []
    with (side := start_ours(path, bench.home, bench.threads)).server as server:
        for _ in range(size.rounds + 1):
            bodies = [
                [
                    side.chat(
                        [
                            {"role": "system", "content": system},
                            {"role": "user", "content": bench.text(tokenizer, size.own)},
                        ],
                        size.out,
                        tokenizer.end_ids,
                    )
                    for _ in range(size.requests[16])
                ]
                for _ in range(16)
            ]
            before = _busy_seconds(server.get("/metrics"))
            with undisturbed(side, None):
                load = closed_loop(server.port, CHAT, bodies)
            busy.append((_busy_seconds(server.get("/metrics")) - before) / load.seconds)
    share = statistics.median(busy[1:])  # the first round warms up
    return [Row("server-overhead", "engine-busy", share, 0.95, "of the time", "higher", 1)]


def _busy_seconds(metrics: str) -> float:
    found = re.search(r"^oneiros_busy_seconds_total\{[^}]*\} (\S+)$", metrics, re.MULTILINE)
    if found is None:
        raise ServerError("/metrics does not say how long the engine was busy.")
    return float(found[1])


def cases() -> dict[str, Callable[[Bench], list[Row]]]:
    """All cases by name, in the order of the table."""
    return {case.name: partial(run_load, case) for case in _load_cases()} | {
        "long-prompt-arrives": run_long_prompt,
        "resume-4000": run_resume,
        "fork-2000x32": run_forks,
        "repeat-edit": run_repeat,
        "no-repeat": run_no_repeat,
        "server-overhead": run_overhead,
    }


QUICK_CASES = (
    f"{SMOLLM} clients-4 same-file",
    "long-prompt-arrives",
    "resume-4000",
    "fork-2000x32",
    "repeat-edit",
    "server-overhead",
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: few cases and tokens")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--case", action="append", metavar="NAME", help="only these cases")
    arguments = parser.parse_args()
    known = cases()
    wanted = arguments.case or (QUICK_CASES if arguments.quick else known)
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"no case {', '.join(unknown)}; there are: " + ", ".join(known))
    with_peer = PEER_PROGRAM.exists()
    if not with_peer:
        if not arguments.quick:
            parser.error("the peer is not built: run `make peers` first (about 15 minutes)")
        say("The peer is not built (`make peers`): ours alone.")
    kernels()
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory(prefix="oneiros-bench-") as folder:
            bench = Bench(QUICK if arguments.quick else FULL, with_peer, _home(Path(folder)))
            for name in wanted:
                say(name)
                rows += known[name](bench)
    except (OneirosError, ServerStartError, ServerError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report("serving", rows, arguments.json)
    return 0


def _home(folder: Path) -> Path:
    """A folder of our server's own, with no keys and values yet, and with the packed weights."""
    packed = cache_folder() / "packed"
    packed.mkdir(parents=True, exist_ok=True)
    (folder / "cache").mkdir()
    (folder / "cache" / "packed").symlink_to(packed)
    return folder


if __name__ == "__main__":
    sys.exit(main())
