"""Continuous batching: one engine, many replies at once (Yu et al. 2022, Orca).

Every step computes the next token of each reply that runs, and a piece of a prompt that waits
beside them (chunked prefill, Agrawal et al. 2023), small enough that the running replies do not
notice. Who comes first is decided anew for every step:

- by priority: a class that waits gets every step but one in four, so that those below starve not;
- among equals by what their principals were given so far (the virtual token counter of Sheng et
  al. 2024), so that a principal with many requests does not crowd out one with few.

A reply that has to make room is parked: its keys and values are written to a file and read back,
never computed again.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Items
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from oneiros.engine.active_request import ActiveRequest, constraint_result
from oneiros.engine.constraint import Constraint, ConstraintCompiler
from oneiros.engine.engine import Engine, Work
from oneiros.engine.library import PAGE_TOKENS
from oneiros.engine.page_store import PageStore
from oneiros.engine.prefix_cache import PrefixCache
from oneiros.engine.requests import (
    EngineStatistics,
    Finished,
    GenerationRequest,
    Output,
    Tokens,
)
from oneiros.engine.residency import Residency
from oneiros.engine.write_behind import WriteBehind
from oneiros.errors import (
    ContextLengthError,
    NotEnoughMemoryError,
    OneirosError,
    OverloadedError,
    TokenizationError,
)

Answers = list[tuple[int, Output | OneirosError]]

_OTHERS_EVERY = 4  # steps
_LONGEST_STEP = 0.06  # seconds that a prompt may keep running replies waiting, about
_LONGEST_PROMPT_STEP = 0.2  # where only prompts are read: how soon a cancellation is heard
_SMALLEST_PIECE = 32
_LARGEST_PIECE = 512
_ROWS_WITH_DRAFTS = 16  # above, the processor has no time to spare for tokens that may be wrong
_LOOK_AGAIN = 0.001  # seconds, while something is done in other threads


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """How much is served at once."""

    kv_memory: int  # bytes for keys and values
    spool: Path  # folder for sequences that have to make room
    max_batch: int = 32  # replies extended in one step
    max_active: int = 128  # replies that have a sequence
    max_waiting: int = 512  # requests beyond these; a principal gets half of it at most


class Scheduler:
    """Serves requests with one engine. `run` and `step` belong to one thread, the rest to any.

    Answers go to `emit`, a list for each step: the request's number, and an output or the error
    that ended it.
    """

    def __init__(
        self,
        engine: Engine,
        compiler: ConstraintCompiler,
        store: PageStore | None,
        settings: SchedulerSettings,
        emit: Callable[[Answers], None],
    ) -> None:
        """Raises NotEnoughMemoryError if `kv_memory` does not hold one full context."""
        self._engine = engine
        self._compiler = compiler
        self._store = store
        self._settings = settings
        self._emit = emit
        self._cache = PrefixCache(engine, store)
        self._residency = Residency(engine, self._cache, settings.kv_memory, settings.spool)
        # Apart, because masks are waited for, and the others may take as long as they like.
        self._compilers = ThreadPoolExecutor(2, "oneiros-constraints")
        self._masks = ThreadPoolExecutor(1, "oneiros-masks")
        self._writer = ThreadPoolExecutor(1, "oneiros-pages")
        self._writing = WriteBehind(self._cache, store, self._writer)
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._waiting: list[ActiveRequest] = []
        self._active: list[ActiveRequest] = []  # with a sequence, or parked
        self._answers: Answers = []
        self._served: Counter[str] = Counter()  # tokens computed, by principal
        self._row_seconds = 0.0  # of late, in steps of many tokens
        self._totals: Counter[str] = Counter()
        self._busy = self._idle = 0.0
        self._looked = time.monotonic()

    def submit(
        self, number: int, request: GenerationRequest, resumed: Items[int] | None = None
    ) -> None:
        """Ask for a reply; one that goes on after a restart has `resumed`, its tokens so far."""
        self._commands.put(lambda: self._accept(number, request, resumed))

    def cancel(self, number: int) -> None:
        """End a request and free what it holds; nothing happens if it has ended."""
        self._commands.put(lambda: self._cancel(number))

    def close(self) -> None:
        """End `run` after the present step. Requests that run end without an answer."""
        self._commands.put(None)

    def statistics(self) -> EngineStatistics:
        """The state after the last step."""
        pool, total = self._engine.pool, self._totals
        active = list(self._active)
        sequences = [r.sequence for r in active if r.sequence is not None]
        held = {id(page) for sequence in sequences for page in list(sequence.pages)}
        return EngineStatistics(
            waiting=len(self._waiting),
            running=len(sequences),
            parked=sum(r.parked is not None for r in active),
            page_bytes=pool.page_bytes,
            pages_limit=pool.limit or 0,
            pages_used=len(held),
            pages_cached=len(self._cache),
            pages_stored=0 if self._store is None else len(self._store),
            prompt_tokens=total["prompt"],
            cached_tokens=total["cached"],
            generated_tokens=total["generated"],
            drafted_tokens=total["drafted"],
            accepted_tokens=total["accepted"],
            steps=total["steps"],
            rows=total["rows"],
            busy_seconds=self._busy,
            idle_seconds=self._idle,
            preemptions=self._residency.preemptions,
            stalled_seconds=time.monotonic() - self._looked if active else 0.0,
        )

    def run(self) -> None:
        """Serve until `close` is called."""
        while self._obey():
            self._looked = time.monotonic()
            self.step()
            self._writing.go_on(idle=not self._active)
        for request in (*self._active, *self._waiting):
            self._release(request)
        self._writing.finish()
        for threads in (self._compilers, self._masks, self._writer):
            threads.shutdown(wait=False, cancel_futures=True)
        self._residency.end()
        shutil.rmtree(self._settings.spool, ignore_errors=True)

    def step(self) -> bool:
        """Compute what is most urgent; returns whether there was anything to compute."""
        self._admit()
        chosen = self._with_memory(self._choose())
        if chosen:
            self._compute(chosen)
        if self._answers:
            answers, self._answers = self._answers, []
            self._emit(answers)
        return bool(chosen)

    def _obey(self) -> bool:
        """Do what other threads asked for, waiting for it while there is nothing else to do.

        Returns:
            whether to go on.
        """
        while True:
            ready = self._active or self._answers or any(r.ready for r in self._waiting)
            elsewhere = self._waiting or self._writing.unfinished
            began = time.perf_counter()
            try:
                command = self._commands.get(not ready, _LOOK_AGAIN if elsewhere else None)
            except Empty:
                return True
            finally:
                if not ready:
                    self._idle += time.perf_counter() - began
            if command is None:
                return False
            command()

    # Requests come and go.

    def _accept(self, number: int, request: GenerationRequest, resumed: Items[int] | None) -> None:
        own = sum(r.request.principal == request.principal for r in self._waiting)
        most = self._settings.max_waiting
        try:
            # What was accepted once is not refused when the engine had to begin anew.
            if resumed is None and (len(self._waiting) >= most or own >= max(1, most // 2)):
                raise OverloadedError(
                    f"{len(self._waiting)} requests wait already, {own} of them of this principal. "
                    "Try again later."
                )
            self._check(request)
        except OneirosError as error:
            self._answers.append((number, error))
            return
        compiling: Future[Constraint] | None = None
        if request.constraint is not None:
            # A large schema takes its time, and others' tokens do not wait for it.
            compiling = self._compilers.submit(self._compiler.compile, request.constraint)
        # Who comes back after a pause has no claim to what was not taken meanwhile.
        present = {r.request.principal for r in (*self._active, *self._waiting)}
        if not present:
            self._served.clear()  # nobody has waited for anybody
        elif request.principal not in present:
            least = min(self._served[name] for name in present)
            self._served[request.principal] = max(self._served[request.principal], least)
        self._waiting.append(ActiveRequest(number, request, resumed or (), compiling))

    def _check(self, request: GenerationRequest) -> None:
        length, context = len(request.prompt), self._engine.context
        if length >= context:
            raise ContextLengthError(
                f"The prompt has {length:,} tokens and the context {context:,}: "
                f"{length - context + 1:,} too many to leave room for a reply."
            )
        vocabulary = self._engine.vocabulary
        if not request.prompt or not 0 <= min(request.prompt) <= max(request.prompt) < vocabulary:
            raise TokenizationError(
                f"A prompt has one token at least, and their ids run from 0 to {vocabulary - 1}."
            )

    def _cancel(self, number: int) -> None:
        for request in (*self._active, *self._waiting):
            if request.number == number:
                self._answers.append((number, request.finish("cancelled")))
                self._release(request)

    def _admit(self) -> None:
        """Give sequences to those that wait, and back to those that were parked."""
        ready = sorted((r for r in self._waiting if r.ready), key=self._rank)
        for request in sorted((r for r in self._active if r.parked is not None), key=self._rank):
            if ready and ready[0].request.priority < request.request.priority:
                break  # it would only have to make room again
            if self._residency.has_room_for(request, self._active):
                try:
                    self._residency.unpark(request)
                except OneirosError as error:
                    self._fail(request, error)
        for request in ready:
            priority = request.request.priority
            running = [r for r in self._active if r.sequence is not None]
            # Those of lower classes are no reason to wait.
            if sum(r.request.priority <= priority for r in running) >= self._settings.max_active:
                return
            if any(_reads_prefix_of(r, request) for r in self._active):
                continue
            lower = [r for r in running if r.request.priority > priority]
            while not self._residency.has_room_for(request, self._active):
                if not self._park_one_of(lower):
                    break
            if self._active and not self._residency.has_room_for(request, self._active):
                return
            self._begin(request)

    def _begin(self, request: ActiveRequest) -> None:
        asked, sequence = request.request, self._engine.sequence()
        self._waiting.remove(request)
        self._active.append(request)
        node = self._cache.root
        if asked.reusable:
            known = request.pending
            if asked.prompt_logprobs is not None:
                known = known[: asked.reusable + 1]
            node = self._cache.begin(sequence, known, asked.principal, asked.public_prefix)
        self._totals["prompt"] += len(asked.prompt)
        self._totals["cached"] += min(len(sequence), len(asked.prompt))
        try:
            request.begin(sequence, node)
        except OneirosError as error:  # the constraint's
            self._fail(request, error)
            return
        if request.complete:
            self._answers.append((request.number, request.finish("stop")))
            self._release(request)

    def _release(self, request: ActiveRequest) -> None:
        """Take out a request that ended; the prefix cache keeps its pages while there is room."""
        if request in self._waiting:
            self._waiting.remove(request)
            if request.compiling is not None:
                request.compiling.cancel()
        else:
            self._active.remove(request)
            self._residency.release(request)

    def _fail(self, request: ActiveRequest, error: OneirosError) -> None:
        self._answers.append((request.number, error))
        self._release(request)

    # What a step computes.

    def _rank(self, request: ActiveRequest) -> tuple[int, int, int]:
        asked = request.request
        return asked.priority, self._served[asked.principal], request.number

    def _choose(self) -> list[tuple[ActiveRequest, Work]]:
        running = sorted((r for r in self._active if r.sequence is not None), key=self._rank)
        first = running[0].request.priority if running else 0
        runnable = [r for r in running if r.request.priority == first]
        if self._totals["steps"] % _OTHERS_EVERY == 0:
            others = [r for r in running if r.request.priority != first]
            runnable = sorted(others, key=lambda r: self._rank(r)[1:]) + runnable
        decoding = [r for r in runnable if r.decoding][: self._settings.max_batch]
        drafts = max(0, _ROWS_WITH_DRAFTS - len(decoding)) // max(1, len(decoding))
        chosen = [(r, r.work(_LARGEST_PIECE, drafts)) for r in decoding]
        rows = self._prompt_rows(bool(decoding))
        for request in runnable:
            if rows > 0 and not request.decoding:
                work = request.work(rows, 0)
                rows -= len(work.tokens)
                chosen.append((request, work))
        return chosen

    def _prompt_rows(self, decoding: bool) -> int:
        """Tokens of prompts that one step reads."""
        seconds = _LONGEST_STEP if decoding else _LONGEST_PROMPT_STEP
        rows = 4 * _SMALLEST_PIECE if not self._row_seconds else int(seconds / self._row_seconds)
        return min(max(rows, _SMALLEST_PIECE), _LARGEST_PIECE)

    def _with_memory(
        self, chosen: list[tuple[ActiveRequest, Work]]
    ) -> list[tuple[ActiveRequest, Work]]:
        """Those of the chosen for which there are pages; the least urgent make room if need be."""
        while not self._residency.has_pages_for([work for _, work in chosen]):
            first = min((r for r, _ in chosen), key=self._rank)
            if not self._park_one_of([r for r in self._active if r is not first]):
                self._fail(first, NotEnoughMemoryError("No KV page is left for this sequence."))
            chosen = [(r, w) for r, w in chosen if r in self._active and r.sequence is not None]
        return chosen

    def _park_one_of(self, candidates: list[ActiveRequest]) -> bool:
        """Make the least urgent of some requests give up its memory; False if none has any."""
        held = [r for r in candidates if r.sequence is not None]
        if not held:
            return False
        least_urgent = max(held, key=self._rank)
        try:
            self._residency.park(least_urgent)
        except OneirosError as error:
            self._fail(least_urgent, error)
        return True

    def _compute(self, chosen: list[tuple[ActiveRequest, Work]]) -> None:
        masks = {
            r.number: self._masks.submit(r.constraint.compute_mask)
            for r, work in chosen
            if r.constraint is not None and r.draws_after(work)
        }
        began = time.perf_counter()
        results = self._engine.step([work for _, work in chosen])
        rows = sum(len(work.tokens) for _, work in chosen)
        if rows >= _SMALLEST_PIECE:
            seconds = (time.perf_counter() - began) / rows
            self._row_seconds += (seconds - self._row_seconds) * (0.2 if self._row_seconds else 1.0)
        self._totals["steps"] += 1
        self._totals["rows"] += rows
        for (request, work), logits in zip(chosen, results, strict=True):
            self._served[request.request.principal] += len(work.tokens)
            try:
                if request.number in masks:
                    constraint_result(masks[request.number])
                outputs = request.advance(work, logits)
            except OneirosError as error:
                self._fail(request, error)
                continue
            self._answers += [(request.number, output) for output in outputs]
            self._count(outputs)
            if request.finished:
                self._release(request)
            else:
                self._residency.share(request)
        self._busy += time.perf_counter() - began

    def _count(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Tokens():
                    self._totals["generated"] += len(output.ids)
                case Finished():
                    self._totals["drafted"] += output.usage.drafted_tokens
                    self._totals["accepted"] += output.usage.accepted_tokens


def _reads_prefix_of(reader: ActiveRequest, waiting: ActiveRequest) -> bool:
    """Whether the next page that one computes will serve the other, which then had better wait."""
    if reader.sequence is None or reader.decoding:
        return False
    ours, theirs = reader.request, waiting.request
    end = (len(reader.sequence) // PAGE_TOKENS + 1) * PAGE_TOKENS
    if ours.principal != theirs.principal and end > min(ours.public_prefix, theirs.public_prefix):
        return False
    return end <= theirs.reusable and ours.prompt[:end] == theirs.prompt[:end]
