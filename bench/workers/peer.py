"""llama.cpp as a worker process: the other side of bench/engine.py. Runs in the peers' environment.

    python bench/workers/peer.py FILE THREADS SETTING      then commands on standard input

SETTING is one of: plain, repack, flash, repack+flash. Commands and answers are JSON lines, as in
bench/workers/ours.py.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path

import llama_cpp as lib
import numpy as np


@lib.llama_log_callback
def quiet(level: int, text: bytes, data: object) -> None:
    pass


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()  # ru_maxrss would include the parent's
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


class Worker:
    def __init__(self, path: Path, threads: int, setting: str) -> None:
        lib.llama_log_set(quiet, None)
        lib.llama_backend_init()
        self.baseline = peak_bytes()
        model_options = lib.llama_model_default_params()
        model_options.use_extra_bufts = "repack" in setting
        model_options.n_gpu_layers = 0
        started = time.perf_counter()
        self.model = lib.llama_model_load_from_file(str(path).encode(), model_options)
        options = lib.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = 2560, 512, 512
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn_type = (
            lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
            if "flash" in setting
            else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        self.context = lib.llama_init_from_model(self.model, options)
        self.load_seconds = time.perf_counter() - started
        self.held: list[int] = []  # the tokens whose keys and values are in memory
        self.vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))

    def feed(self, tokens: list[int]) -> None:
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        if lib.llama_decode(self.context, lib.llama_batch_get_one(array, len(tokens))) != 0:
            raise RuntimeError("llama_decode failed")

    def greedy(self) -> int:
        logits = lib.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())

    def prefill(self, tokens: list[int]) -> float:
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        self.held = []
        started = time.perf_counter()
        self.feed(tokens)
        lib.llama_synchronize(self.context)
        return time.perf_counter() - started

    def decode(self, tokens: list[int], count: int) -> float:
        """Greedy tokens after `tokens`, whose cache is kept if the last call had the same."""
        memory = lib.llama_get_memory(self.context)
        if self.held != tokens:
            lib.llama_memory_clear(memory, True)
            for first in range(0, len(tokens) - 1, 512):
                self.feed(tokens[first : min(first + 512, len(tokens) - 1)])
            self.held = tokens
        lib.llama_memory_seq_rm(memory, 0, len(tokens) - 1, -1)
        self.feed(tokens[-1:])
        token = self.greedy()
        started = time.perf_counter()
        for _ in range(count):
            self.feed([token])
            token = self.greedy()
        return time.perf_counter() - started


def main() -> None:
    worker = Worker(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    print(json.dumps({"load_seconds": worker.load_seconds}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "prefill":
            answer = {"seconds": worker.prefill(command["tokens"])}
        elif command["do"] == "decode":
            answer = {"seconds": worker.decode(command["tokens"], command["count"])}
        else:
            answer = {"peak_bytes": peak_bytes() - worker.baseline}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
