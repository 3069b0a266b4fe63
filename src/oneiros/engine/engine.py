"""Sequences of tokens, and the step that extends many of them at once."""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
import weakref
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from oneiros.engine.library import (
    GROUP_ROWS,
    INSTRUCTION_PATHS,
    MAX_ROWS,
    Batch,
    arithmetic_of,
    choose_instruction_path,
    kernel_version,
    kernels,
)
from oneiros.engine.machine import usable_cores
from oneiros.engine.memory import check_memory
from oneiros.engine.network import Network, check_shapes
from oneiros.engine.packing import Progress, packed_weights
from oneiros.engine.pages import PagePool
from oneiros.engine.sequence import Sequence
from oneiros.errors import ContextLengthError, KernelError, NotEnoughMemoryError
from oneiros.model.adapter import Adapter
from oneiros.model.parameters import Parameters

Wanted = Literal["last", "all", "none"]

_OUTPUTS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Work:
    """What a step does for one sequence: append `tokens`, and give logits after them."""

    sequence: Sequence
    tokens: Items[int]
    logits: Wanted = "last"


@dataclass(frozen=True, slots=True)
class _Run:
    """A piece of one Work that goes into one call of the kernels."""

    work: Work
    first: int  # index into work.tokens
    last: int


class Engine:
    """Runs one model. Steps from several threads wait for each other; a sequence belongs to one.

    Logits are bit-identical whatever the batch, the chunking, the number of threads, and after
    fork and restore, for one kernel version and arithmetic.

    Attributes:
        instruction_path: which kernels run: "amx", "avx512", "avx2" or "portable".
        arithmetic: how they round: "fma" (all but the portable ones, with the same bits) or
            "portable". What is stored and must match later names it and `kernel_version`.
        model_sha256: of the model's files; with an adapter, of model and adapter.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        adapter: Adapter | None = None,
        threads: int | None = None,
        context: int | None = None,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Open a model.

        Args:
            parameters: the model.
            adapter: what is added to its matrices, opened for this model.
            threads: how many; default: the cores that this process may use.
            context: most positions of a sequence; default and at most what the model was made for.
            cache: folder for packed weights; None packs into memory.
            progress: told of packed bytes while a model is opened for the first time.

        Raises:
            UnsupportedModelError: shapes that the kernels do not compute.
            ContextLengthError: the model does not take such a context.
            NotEnoughMemoryError: weights and the keys and values of one full context do not fit.
            KernelError: the kernels are missing or were refused by this machine.
        """
        self.parameters = parameters
        self.architecture = parameters.architecture
        if context is not None and not 1 <= context <= self.architecture.context:
            raise ContextLengthError(
                f"A context of {context} was asked for; {parameters.path.name} takes from 1 to "
                f"{self.architecture.context} tokens."
            )
        self.context = context or self.architecture.context
        self.threads = usable_cores() if threads is None else threads
        if self.threads < 1:
            raise KernelError(f"{self.threads} threads: at least one is needed.")
        self.kernel_version = kernel_version()
        self.instruction_path = choose_instruction_path()
        self.arithmetic = arithmetic_of(self.instruction_path)
        check_shapes(self.architecture, parameters.path.name)
        check_memory(parameters, self.context, adapter)
        weights = packed_weights(parameters, cache, progress)
        self.model_sha256 = weights.sha256
        if adapter is not None:  # another model, whose keys and values serve nobody else
            both = f"{weights.sha256} with {adapter.sha256}"
            self.model_sha256 = hashlib.sha256(both.encode()).hexdigest()
        self._network = Network(parameters, weights, adapter)
        parameters.release_pages()  # all is packed, or copied
        self._model = self._network.struct
        self.pool = PagePool(kernels().oneiros_page_bytes(self._model))
        handle = kernels().oneiros_engine_new(
            self._model, self.threads, INSTRUCTION_PATHS.index(self.instruction_path), MAX_ROWS
        )
        if not handle:
            raise NotEnoughMemoryError(
                f"No memory or threads for the engine's buffers ({self.threads} threads)."
            )
        self._handle = ctypes.c_void_p(handle)
        self._process = os.getpid()
        weakref.finalize(self, _free, self._handle, self._process)
        self._lock = threading.Lock()

    @property
    def vocabulary(self) -> int:
        """Logits of one position; a few more than the tokenizer's tokens in some models."""
        return self.architecture.vocabulary

    def sequence(self) -> Sequence:
        """A new, empty sequence."""
        return Sequence(self)

    def step(self, work: Items[Work]) -> list[NDArray[np.float32] | None]:
        """Extend many sequences in one forward pass (more, if they are long).

        Returns:
            for each Work float32 logits: (vocabulary,) for "last", (tokens, vocabulary) for "all",
            None for "none". An interrupted call leaves each sequence extended by a part of its
            tokens, and consistent.

        Raises:
            ContextLengthError: a sequence would outgrow the context; nothing was done.
            ValueError: a token outside the vocabulary, no token, one sequence twice, or one of
                another engine.
            KernelError: called in a forked process.
            NotEnoughMemoryError: no memory for pages or intermediate results.
        """
        self._check(work)
        if os.getpid() != self._process:
            raise KernelError(
                "This process was forked from the one that loaded the model, and threads do not "
                "come along: load the model here, or start processes by spawning."
            )
        width = -(-self.vocabulary // GROUP_ROWS) * GROUP_ROWS
        rows = [_outputs(w) for w in work]
        results = [np.empty((n, width), np.float32) if n else None for n in rows]
        at = {id(w.sequence): i for i, w in enumerate(work)}
        with self._lock:
            for batch in _batches(work):
                outputs = self._run(batch, width)
                done = 0
                for run in batch:
                    count, offset = _run_outputs(run)
                    result = results[at[id(run.work.sequence)]]
                    if result is not None and count:
                        result[offset : offset + count] = outputs[done : done + count]
                        done += count
        return [
            None
            if r is None
            else r[0, : self.vocabulary]
            if w.logits == "last"
            else r[:, : self.vocabulary]
            for r, w in zip(results, work, strict=True)
        ]

    def log_probabilities(self, sequence: Sequence, tokens: Items[int]) -> NDArray[np.float64]:
        """Append tokens and give log p(token | all before it) in nats, from the second on.

        Returns:
            float64 (len(tokens) - 1,); logits are held for a few positions at a time only.

        Raises:
            ContextLengthError, ValueError: as `step`; the first tokens may have been appended.
        """
        result = np.empty(max(0, len(tokens) - 1), np.float64)
        for first in range(0, len(tokens), _OUTPUTS_AT_ONCE):
            piece = tokens[first : first + _OUTPUTS_AT_ONCE]
            (logits,) = self.step([Work(sequence, piece, "all")])
            targets = np.array(tokens[first + 1 : first + 1 + len(piece)], np.int32)
            if logits is not None and targets.size:
                kernels().oneiros_log_probabilities(
                    logits.ctypes.data,
                    logits.strides[0] // logits.itemsize,
                    targets.size,
                    self.vocabulary,
                    targets.ctypes.data,
                    result[first:].ctypes.data,
                )
        return result

    def _check(self, work: Items[Work]) -> None:
        if len({id(w.sequence) for w in work}) != len(work):
            raise ValueError("A sequence appears twice in one step.")
        for w in work:
            if w.sequence.engine is not self:
                raise ValueError("A sequence belongs to another engine.")
            if not w.tokens:
                raise ValueError("A sequence is to be extended by no tokens.")
            if min(w.tokens) < 0 or max(w.tokens) >= self.vocabulary:
                raise ValueError(f"Token ids run from 0 to {self.vocabulary - 1}.")
            needed = len(w.sequence.tokens) + len(w.tokens)
            if needed > self.context:
                raise ContextLengthError(
                    f"{needed} tokens do not fit the context of {self.context}: "
                    f"{needed - self.context} too many."
                )

    def _run(self, batch: list[_Run], width: int) -> NDArray[np.float32]:
        """One call of the kernels; returns (outputs, width) logits."""
        counts = [run.last - run.first for run in batch]
        start = np.zeros(len(batch) + 1, np.int32)
        np.cumsum(counts, out=start[1:])
        tokens = np.empty(start[-1], np.int32)
        positions = np.empty(start[-1], np.int32)
        tables = np.empty(len(batch), np.uint64)
        outputs: list[int] = []
        for i, run in enumerate(batch):
            first, last = int(start[i]), int(start[i + 1])
            length = len(run.work.sequence.tokens)
            tokens[first:last] = run.work.tokens[run.first : run.last]
            positions[first:last] = np.arange(length, length + last - first)
            tables[i] = run.work.sequence.reserve(last - first)
            outputs.extend(range(last - _run_outputs(run)[0], last))
        output_rows = np.array(outputs, np.int32)
        logits = np.empty((len(outputs), width), np.float32)
        failed = kernels().oneiros_step(
            self._handle,
            Batch(
                int(start[-1]),
                len(batch),
                len(outputs),
                0,
                tokens.ctypes.data,
                positions.ctypes.data,
                start.ctypes.data,
                tables.ctypes.data,
                output_rows.ctypes.data,
                logits.ctypes.data,
            ),
        )
        if failed:
            raise NotEnoughMemoryError(f"No memory for a step of {int(start[-1])} tokens.")
        for run in batch:
            run.work.sequence.append_computed(run.work.tokens[run.first : run.last])
        return logits


def _outputs(work: Work) -> int:
    return {"last": 1, "all": len(work.tokens), "none": 0}[work.logits]


def _run_outputs(run: _Run) -> tuple[int, int]:
    """How many of a run's last rows have outputs, and where these go in the work's result."""
    if run.work.logits == "all":
        return run.last - run.first, run.first
    return int(run.work.logits == "last" and run.last == len(run.work.tokens)), 0


def _batches(work: Items[Work]) -> list[list[_Run]]:
    """Cut work into batches of at most MAX_ROWS rows."""
    batches: list[list[_Run]] = []
    room = 0
    for w in work:
        first = 0
        while first < len(w.tokens):
            if room == 0:
                batches.append([])
                room = MAX_ROWS
            last = min(len(w.tokens), first + room)
            batches[-1].append(_Run(w, first, last))
            room -= last - first
            first = last
    return batches


def _free(handle: ctypes.c_void_p, process: int) -> None:
    if os.getpid() == process:  # a forked process has the memory and not the threads
        kernels().oneiros_engine_free(handle)
