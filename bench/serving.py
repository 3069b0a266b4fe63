"""Claim: our server answers many at once, and at once, where llama.cpp's makes them wait.

    python bench/serving.py [--quick] [--json] [--case NAME ...]

The peer is llama.cpp's own server built for this machine (`make peers`), with the settings that
were quickest here and its prompt cache on. Both servers run as child processes, get the same
requests from the same load generator, and take turns, so that whatever else the machine does hits
both; the one that waits takes no processor time, which is measured. Each of N clients sends one
request after the other: a system prompt of 500 tokens that the server has seen before, 50 tokens of
its own, a reply of 100. The peer's slots share no prefix. ttft-median and ttft-p95 are of the first
round, when one request has brought the system prompt; throughput and ttft-warm-slots are of the
rounds after it, when each of the peer's slots has read it for itself.

Where a case compares ours with ours, the column `peer` has the other one: resume-4000 against
reading an equally long conversation for the first time, repeat-edit and no-repeat against no
speculation. Where a bound is promised it has the bound: 1 ms a fork, 1 % of the sequence's memory
for all 32, 95 % for engine-busy.
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.load.alone import EDIT, measure_forks, measure_speculation
from bench.load.client import ServerError, closed_loop, interrupted, longest_gap
from bench.load.clients import load_cases, run_load
from bench.load.servers import ServerStartError
from bench.load.setting import (
    FULL,
    QUICK,
    SMOLLM,
    Bench,
    model_file,
    one_reply,
    say,
    undisturbed,
)
from bench.load.sides import CHAT, PEER_PROGRAM, start_ours, start_peer
from bench.report import Row, report
from oneiros.engine.library import kernels
from oneiros.errors import OneirosError
from oneiros.model.folders import cache_folder
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import load_tokenizer


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
            said = one_reply(side, first, size.out, tokenizer)
        more = [
            {"role": "assistant", "content": said.text},
            {"role": "user", "content": bench.text(tokenizer, size.own)},
        ]
        with (side := start_ours(path, bench.home, bench.threads)).server:
            one_reply(side, [{"role": "user", "content": "Hello!"}], 2, tokenizer)
            with undisturbed(side, None):
                again = one_reply(side, [*first, *more], 2, tokenizer)
                other = [{"role": "user", "content": bench.text(tokenizer, size.long)}]
                new = one_reply(side, [*other, *more], 2, tokenizer)
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
    text = bench.text(load_tokenizer(open_parameters(path)), 200)
    found = measure_speculation(
        path, text, bench.size.decoded, 4 * bench.size.rounds, temperature=1.0
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
    return {case.name: partial(run_load, case) for case in load_cases()} | {
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
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
