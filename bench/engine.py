"""Speed, load time and memory of the engine beside llama.cpp, in one run on one machine.

    python bench/engine.py [--quick] [--json] [--case NAME ...]

The peer is llama.cpp built for this machine (`make peers`), in the best of its settings for each
metric: with and without repacked weights, with and without flash attention; a setting that crashes
is left out, and said so. Both sides run in processes of their own and take turns, so that whatever
else the machine does hits both; the table shows medians. The lines above it say what the machine
itself can do, and what follows from that: a token cannot be decoded faster than its weights can be
read, nor a prompt faster than its products can be computed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.report import Row, report
from oneiros.engine.library import PATH_VARIABLE, kernels
from oneiros.errors import OneirosError
from oneiros.model import catalog
from oneiros.model.architecture import kv_bytes
from oneiros.model.convert import convert
from oneiros.model.folders import cache_folder
from oneiros.model.parameters import Parameters, open_parameters
from oneiros.model.tensor_types import TensorType

HERE = Path(__file__).resolve().parent
PEER_PYTHON = HERE.parent / ".peers" / "bin" / "python"
SETTINGS = ("plain", "repack", "flash", "repack+flash")
METRICS = ("prefill-512", "decode-128@0", "decode-128@2000")
Tokens = list[int]


@dataclass(frozen=True)
class Case:
    name: str
    model: str  # in the catalog
    threads: int
    targets: tuple[float, float, float]  # for METRICS
    ours: TensorType | None = None  # converted to this; None: the file itself
    peer: TensorType | None = None
    path: str | None = None  # our instruction path, if not the best
    in_cache: bool = True  # whether the weights may fit the processor's cache


CASES = (
    Case("smollm2-135m q4_1 2t same-file", "smollm2-135m", 2, (7, 2.5, 2.5)),
    Case("smollm2-135m q4_1 2t vs-q4_0", "smollm2-135m", 2, (1.8, 1.7, 1.7), peer=TensorType.Q4_0),
    Case(
        "smollm2-135m q8_0 2t same-file",
        "smollm2-135m",
        2,
        (3, 2, 2),
        ours=TensorType.Q8_0,
        peer=TensorType.Q8_0,
    ),
    Case(
        "qwen2.5-0.5b q4_k_m 2t same-file",
        "qwen2.5-coder-0.5b",
        2,
        (4, 1.5, 1.5),
        in_cache=False,
    ),
    Case(
        "qwen2.5-1.5b q4_k_m 2t same-file",
        "qwen2.5-coder-1.5b",
        2,
        (4, 1.3, 1.3),
        in_cache=False,
    ),
    Case("smollm2-135m q4_1 1t same-file", "smollm2-135m", 1, (5, 2, 2)),
    Case("smollm2-135m q4_1 2t avx2", "smollm2-135m", 2, (1.5, 1.2, 1.2), path="avx2"),
)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    prefill: int
    decode: int
    far: int  # tokens before the last metric's decoding
    loads: int


FULL = Size(rounds=5, prefill=512, decode=128, far=2000, loads=3)
QUICK = Size(rounds=1, prefill=64, decode=8, far=100, loads=1)


class Worker:
    """One side's process."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.load_seconds = float(self._answer()["load_seconds"])

    def ask(self, **command: Any) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError(f"exit status {self._process.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def close(self) -> None:
        with suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._process.wait()


@dataclass
class Samples:
    """Tokens a second of one side, by metric."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, worker: Worker, metric: str, size: Size, tokens: Tokens) -> None:
        if metric == "prefill-512":
            seconds = worker.ask(do="prefill", tokens=tokens[: size.prefill])["seconds"]
            speed = size.prefill / seconds
        else:
            before = 1 if metric.endswith("@0") else size.far
            seconds = worker.ask(do="decode", tokens=tokens[:before], count=size.decode)["seconds"]
            speed = size.decode / seconds
        self.values.setdefault(metric, []).append(speed)

    def median(self, metric: str) -> float | None:
        found = self.values.get(metric)
        return statistics.median(found) if found else None


@dataclass(frozen=True)
class Machine:
    bytes_per_second: float
    multiply_adds_per_second: float


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def model_file(model: str, tensor_type: TensorType | None) -> Path:
    """The catalog's file, or a conversion of it that is made once."""
    path = catalog.resolve(model)
    if tensor_type is None:
        return path
    converted = cache_folder() / "bench" / f"{model}-{tensor_type.name.lower()}.gguf"
    if not converted.exists():
        converted.parent.mkdir(parents=True, exist_ok=True)
        convert(path, converted, tensor_type=tensor_type)
    return converted


def start_ours(path: Path, case: Case) -> Worker:
    environment = {} if case.path is None else {PATH_VARIABLE: case.path}
    program = str(HERE / "workers" / "ours.py")
    return Worker([sys.executable, program, str(path), str(case.threads)], environment)


def start_peer(path: Path, threads: int, setting: str) -> Worker:
    program = str(HERE / "workers" / "peer.py")
    return Worker([str(PEER_PYTHON), program, str(path), str(threads), setting])


@dataclass
class Trial:
    """What the peer's settings are good for."""

    speeds: dict[str, dict[str, float]]  # metric -> setting -> tokens a second
    load_seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, float] = field(default_factory=dict)

    def best(self) -> dict[str, str]:
        """The fastest setting for each metric; empty if none works."""
        return {m: max(found, key=lambda s: found[s]) for m, found in self.speeds.items() if found}


def try_settings(path: Path, threads: int, size: Size, tokens: Tokens) -> Trial:
    """Run the peer with each setting once; those that crash are left out."""
    trial = Trial({metric: {} for metric in METRICS})
    short = replace(size, decode=min(size.decode, 24))
    for setting in SETTINGS:
        try:
            worker = start_peer(path, threads, setting)
            for metric in METRICS:
                samples = Samples()
                for _ in range(2):
                    samples.measure(worker, metric, short, tokens)
                trial.speeds[metric][setting] = max(samples.values[metric])
            trial.load_seconds[setting] = worker.load_seconds
            trial.peak_bytes[setting] = worker.ask(do="peak")["peak_bytes"]
            worker.close()
        except ChildProcessError as error:
            say(f"  llama.cpp with setting {setting} fails ({error}) and is left out")
    return trial


def loads(start: Callable[[], Worker], count: int) -> float:
    """Median seconds to load, the file and caches being warm."""
    seconds = []
    for _ in range(count):
        worker = start()
        seconds.append(worker.load_seconds)
        worker.close()
    return statistics.median(seconds)


def run_case(case: Case, size: Size, machine: Machine, with_peer: bool) -> list[Row]:
    say(case.name)
    ours_path, peer_path = model_file(case.model, case.ours), model_file(case.model, case.peer)
    parameters = open_parameters(ours_path)
    generator = np.random.default_rng(0)
    drawn = generator.integers(1000, parameters.architecture.vocabulary - 1000, size.far + 512)
    tokens = [int(token) for token in drawn]
    ours, peer = Samples(), Samples()
    with ExitStack() as stack:
        start_ours(ours_path, case).close()  # packs the weights, if they are not packed yet
        our_load = loads(lambda: start_ours(ours_path, case), size.loads)
        our_worker = start_ours(ours_path, case)
        stack.callback(our_worker.close)
        trial = Trial({})
        if with_peer:
            trial = try_settings(peer_path, case.threads, size, tokens)
        chosen = trial.best()
        workers = {s: start_peer(peer_path, case.threads, s) for s in set(chosen.values())}
        for worker in workers.values():
            stack.callback(worker.close)
        peer_load = None
        if chosen:
            setting = min(trial.load_seconds, key=lambda s: trial.load_seconds[s])
            say("  llama.cpp's best: " + ", ".join(f"{m}: {s}" for m, s in chosen.items()))
            peer_load = loads(lambda: start_peer(peer_path, case.threads, setting), size.loads)
        for metric in METRICS:
            for _ in range(size.rounds):
                ours.measure(our_worker, metric, size, tokens)
                if chosen:
                    time.sleep(0.05)  # its threads spin for a while after they have finished
                    peer.measure(workers[chosen[metric]], metric, size, tokens)
                    time.sleep(0.05)
        our_peak = our_worker.ask(do="peak")["peak_bytes"]
        peer_peak = min(trial.peak_bytes.values(), default=None)
    rows = [
        Row(case.name, metric, ours.median(metric), peer.median(metric), "tok/s", "higher", target)
        for metric, target in zip(METRICS, case.targets, strict=True)
    ]
    rows.append(Row(case.name, "load-warm", our_load, peer_load, "s", "lower"))
    rows.append(Row(case.name, "peak-memory", our_peak, peer_peak, "bytes", "lower"))
    explain(case, parameters, rows, machine, size)
    return rows


def explain(
    case: Case, parameters: Parameters, rows: list[Row], machine: Machine, size: Size
) -> None:
    """Say how far each side is from what the machine allows, and from our promises."""
    a = parameters.architecture
    stored = sum(t.data.size for n, t in parameters.tensors.items() if n != "token_embd.weight")
    if a.tied:
        stored += parameters.tensors["token_embd.weight"].data.size
    products = sum(
        int(np.prod(t.shape)) for n, t in parameters.tensors.items() if n.startswith("blk.")
    )
    decode = machine.bytes_per_second / stored
    prefill = machine.multiply_adds_per_second / products
    say(
        f"  this machine, {case.threads} threads: {machine.bytes_per_second / 1e9:.1f} GB/s from "
        f"memory, {machine.multiply_adds_per_second / 1e9:,.0f} G int8 multiply-adds/s"
    )
    say(
        f"  floors: {decode:,.0f} tok/s to read {stored / 1e6:,.0f} MB a token, "
        f"{prefill:,.0f} tok/s to compute its {products / 1e6:,.0f} M products in vector registers"
    )
    for row in rows[:2]:
        floor = prefill if row.metric.startswith("prefill") else decode
        sides = [
            f"{name} {value / floor:.0%}"
            for name, value in (("ours", row.ours), ("peer", row.peer))
            if value is not None
        ]
        say(f"  {row.metric}: {', '.join(sides)} of the floor")
    peak = rows[-1].ours or 0.0
    allowed = 1.25 * parameters.file_bytes + kv_bytes(a, size.far + size.decode + 1)
    say(
        f"  peak memory {peak / 1e6:,.0f} MB; 1.25 x file + keys and values {allowed / 1e6:,.0f} MB"
    )
    if not case.in_cache and rows[1].ours is not None:
        say(f"  decoding reaches {rows[1].ours / decode:.0%} of the bandwidth floor (claim: 85%)")


def measure_machine(threads: int, buffer_bytes: int) -> Machine:
    """Memory bandwidth and int8 multiply-adds of `threads` threads, the best of some tries."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "roofline.so"
        source = str(HERE / "workers" / "roofline.c")
        command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", source, "-o", str(library)]
        subprocess.run(command, check=True)
        roofline = ctypes.CDLL(str(library))
    roofline.read_all.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    roofline.multiply_add.argtypes = [ctypes.c_int64, ctypes.c_void_p]
    roofline.multiply_add.restype = ctypes.c_int64
    data = np.ones(buffer_bytes // 8, np.int64)
    piece = data.nbytes // threads // 64 * 64

    def read(thread: int) -> None:
        roofline.read_all(data.ctypes.data + thread * piece, piece)

    rounds, width = 2_000_000, [0] * threads
    out = np.ones(threads, np.int32)

    def multiply(thread: int) -> None:
        width[thread] = roofline.multiply_add(rounds, out[thread:].ctypes.data)

    read_seconds = min(_together(read, threads) for _ in range(9))
    multiply_seconds = min(_together(multiply, threads) for _ in range(9))
    return Machine(threads * piece / read_seconds, sum(width) * rounds / multiply_seconds)


def _together(work: Callable[[int], None], threads: int) -> float:
    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: first case, few tokens")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--case", action="append", metavar="NAME", help="only these cases")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    cases = [c for c in CASES if arguments.case is None or c.name in arguments.case]
    if arguments.quick and arguments.case is None:
        cases = cases[:1]
    if not cases:
        parser.error("no such case; there are: " + ", ".join(c.name for c in CASES))
    with_peer = PEER_PYTHON.exists()
    if not with_peer:
        if not arguments.quick:
            parser.error("the peer is not built: run `make peers` first (about 7 minutes)")
        say("The peer is not built (`make peers`): ours alone.")
    kernels()
    rows = []
    try:
        for case in cases:
            machine = measure_machine(case.threads, 64 << 20 if arguments.quick else 512 << 20)
            rows += run_case(case, size, machine, with_peer)
    except OneirosError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report("engine", rows, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
