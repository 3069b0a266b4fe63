"""A request while it is served: what to compute next, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Sequence as Items
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from oneiros.engine.constraint import Constraint, apply_mask
from oneiros.engine.engine import Work
from oneiros.engine.library import kernels
from oneiros.engine.prefix_cache import Node
from oneiros.engine.requests import (
    Finished,
    FinishReason,
    GenerationRequest,
    Output,
    PromptRead,
    TokenLogprob,
    Tokens,
    Usage,
)
from oneiros.engine.sampling import Sampler
from oneiros.engine.sequence import Sequence
from oneiros.engine.speculation import Drafter
from oneiros.errors import ConstraintError, OneirosError

T = TypeVar("T")

_PROMPT_LOGITS_AT_ONCE = 64
_LONGEST_DECODE = 16


class ActiveRequest:
    """The state of one reply.

    Attributes:
        sequence: tokens whose keys and values are there; None while it waits or is parked.
        node: the last page of the sequence that the prefix cache has.
        pending: tokens that come after the sequence: of the prompt, then the last one generated
            and those that a constraint forces after it.
        parked: where the sequence was written when it had to make room.
        finished: whether the last output was given.
    """

    def __init__(
        self,
        number: int,
        request: GenerationRequest,
        generated: Items[int],
        constraint: Future[Constraint] | None,
    ) -> None:
        """`generated`: first tokens of the reply that are known already, after a restart."""
        self.number = number
        self.request = request
        self.sequence: Sequence | None = None
        self.node: Node | None = None
        self.pending: list[int] = [*request.prompt, *generated]
        self.parked: Path | None = None
        self.finished = False
        self.compiling = constraint
        self.constraint: Constraint | None = None
        self._known = list(generated)
        self._generated = len(generated)
        self._sampler = Sampler(request.sampling, request.prompt)
        for token in generated:
            self._sampler.record(token)
        self._drafter: Drafter | None = None
        self._draft: list[int] = []
        self._prompt_logprobs: list[TokenLogprob] = []
        self._cached = 0
        self._drafted = self._accepted = 0
        self._arrived = time.perf_counter()
        self._began = self._first = 0.0

    @property
    def ready(self) -> bool:
        """Whether it can begin: its constraint, if any, was compiled."""
        return self.compiling is None or self.compiling.done()

    @property
    def decoding(self) -> bool:
        """Whether the prompt was read, and each step gives a token."""
        return self._first > 0.0 and len(self.pending) <= _LONGEST_DECODE

    @property
    def length(self) -> int:
        """Tokens of prompt and reply so far."""
        return len(self.request.prompt) + self._generated

    def begin(self, sequence: Sequence, node: Node) -> None:
        """Start with a sequence that holds a prefix of the pending tokens already."""
        self._began = time.perf_counter()
        self.sequence, self.node = sequence, node
        self._cached = min(len(sequence), len(self.request.prompt))
        del self.pending[: len(sequence)]
        if self.compiling is not None:
            self.constraint = constraint_result(self.compiling)
            self.constraint.consume(self._known)

    @property
    def complete(self) -> bool:
        """Whether a reply that was taken up again had ended already."""
        return bool(self._known) and (
            self._room() == 0 or (self.constraint is not None and self.constraint.stopped)
        )

    def work(self, rows: int, drafts: int) -> Work:
        """What to compute in the next step: at most `rows` pending tokens, then drafts."""
        assert self.sequence is not None  # a request without one is not in a step
        self._draft = []
        if self.request.prompt_logprobs is not None and not self._first:
            unwanted = self.request.reusable - len(self.sequence)
            if unwanted > 0:
                return Work(self.sequence, self.pending[: min(rows, unwanted)], "none")
            tokens = self.pending[: min(rows, _PROMPT_LOGITS_AT_ONCE)]
            return Work(self.sequence, tokens, "all")
        tokens = self.pending[:rows]
        if len(tokens) < len(self.pending):
            return Work(self.sequence, tokens, "none")
        if self.decoding and drafts and self.request.speculate and self.constraint is None:
            self._draft = self._next_draft(drafts)
        if self._draft:
            return Work(self.sequence, [*tokens, *self._draft], "all")
        return Work(self.sequence, tokens, "last")

    def draws_after(self, work: Work) -> bool:
        """Whether a token will be drawn after this work."""
        return len(work.tokens) >= len(self.pending)

    def advance(self, work: Work, logits: NDArray[np.float32] | None) -> list[Output]:
        """Take note of work that was done; `logits` are what the step returned for it."""
        sequence = self.sequence
        outputs: list[Output] = []
        assert sequence is not None  # a request without one is not in a step
        fed = len(work.tokens) - len(self._draft)
        if self.request.prompt_logprobs is not None and not self._first and logits is not None:
            self._note_prompt(work.tokens, logits)
        del self.pending[:fed]
        if self.pending:
            return outputs
        if not self._first:
            self._first = time.perf_counter()
            outputs.append(PromptRead(self._cached, tuple(self._prompt_logprobs)))
        assert logits is not None  # all pending tokens were fed, so the last one's were asked for
        rows = logits[None] if logits.ndim == 1 else logits[fed - 1 :]
        ids, logprobs, reason = self._draw(rows)
        # Everything but the last token is in the sequence; of a draft, what was wrong is cut off.
        accepted = min(len(ids), len(self._draft))
        while accepted and list(ids[:accepted]) != self._draft[:accepted]:
            accepted -= 1
        sequence.truncate(len(sequence) - len(self._draft) + accepted)
        self._note_draft(accepted)
        self.pending = ids[accepted:]
        if self._drafter is not None:
            self._drafter.extend(ids)
        if ids:
            outputs.append(Tokens(tuple(ids), tuple(logprobs)))
        if reason is not None:
            outputs.append(self.finish(reason))
        return outputs

    def finish(self, reason: FinishReason) -> Finished:
        """End the reply."""
        self.finished = True
        now = time.perf_counter()
        began, first = self._began or now, self._first or now
        return Finished(
            reason,
            Usage(
                prompt_tokens=len(self.request.prompt),
                cached_tokens=self._cached,
                generated_tokens=self._generated,
                drafted_tokens=self._drafted,
                accepted_tokens=self._accepted,
                queue_seconds=began - self._arrived,
                prefill_seconds=first - began,
                decode_seconds=now - first,
            ),
        )

    def _draw(
        self, rows: NDArray[np.float32]
    ) -> tuple[list[int], list[TokenLogprob], FinishReason | None]:
        """Draw tokens while the draft agrees with them; and why the reply ends, if it does."""
        ids: list[int] = []
        logprobs: list[TokenLogprob] = []
        for index, row in enumerate(rows):
            top = self.request.top_logprobs
            raw = row.copy() if top is not None and self.constraint is not None else row
            if self.constraint is not None:
                apply_mask(row, self.constraint.mask)
            token = self._sampler.sample(row)
            if token in self.request.end_ids:
                return ids, logprobs, "stop"
            ids.append(token)
            self._generated += 1
            if top is not None:
                logprobs.append(_logprob(raw, token, top))
            reason = self._after(token, ids)
            agreed = index < len(self._draft) and token == self._draft[index]
            if reason is not None or not agreed:
                return ids, logprobs, reason
        return ids, logprobs, None

    def _after(self, token: int, ids: list[int]) -> FinishReason | None:
        """Follow the constraint after a token, and say whether the reply ends there."""
        if self.constraint is not None:
            self.constraint.consume([token])
            if not self.constraint.stopped and self.request.top_logprobs is None:
                forced = self.constraint.forced()[: self._room()]
                self.constraint.consume(forced)
                for other in forced:
                    self._sampler.record(other)
                ids.extend(forced)
                self._generated += len(forced)
            if self.constraint.stopped:
                return "stop"
        return "length" if self._room() == 0 else None

    def _room(self) -> int:
        """Tokens that may still be generated."""
        assert self.sequence is not None  # only asked between drawing tokens
        room = self.sequence.engine.context - self.length
        most = self.request.sampling.max_tokens
        return max(0, room if most is None else min(room, most - self._generated))

    def _next_draft(self, most: int) -> list[int]:
        assert self.sequence is not None  # as in `work`
        if self._drafter is None:
            self._drafter = Drafter([*self.sequence.tokens, *self.pending])
        return self._drafter.draft(min(most, self._room() - 1))

    def _note_draft(self, accepted: int) -> None:
        if self._drafter is not None:
            self._drafter.checked(len(self._draft), accepted)
        self._drafted += len(self._draft)
        self._accepted += accepted
        self._draft = []

    def _note_prompt(self, tokens: Items[int], logits: NDArray[np.float32]) -> None:
        """Log-probabilities of the prompt's tokens, each from the logits after the one before."""
        following = [*tokens[1:], *self.pending[len(tokens) : len(tokens) + 1]]
        top = self.request.prompt_logprobs or 0
        self._prompt_logprobs += [
            _logprob(row, token, top) for row, token in zip(logits, following, strict=False)
        ]


def constraint_result(future: Future[T]) -> T:
    """The result of work on a constraint.

    Whatever goes wrong there, in code that is not ours, is a failure of that request alone.

    Raises:
        ConstraintError: for every failure that is not an error of Oneiros already.
    """
    error = future.exception()
    if error is None or isinstance(error, OneirosError):
        return future.result()
    raise ConstraintError(f"The constraint cannot be used: {error!r:.200}.") from error


def _logprob(logits: NDArray[np.float32], token: int, top: int) -> TokenLogprob:
    """The log-probability of a token, and of the `top` likeliest."""
    out, target = np.empty(1), np.array([token], np.int32)
    kernels().oneiros_log_probabilities(
        logits.ctypes.data, logits.size, 1, logits.size, target.ctypes.data, out.ctypes.data
    )
    logprob = float(out[0])
    if not top:
        return TokenLogprob(token, logprob)
    normaliser = float(logits[token]) - logprob
    best = np.argpartition(logits, -top)[-top:]
    best = best[np.lexsort((best, -logits[best]))]
    return TokenLogprob(
        token, logprob, tuple((int(i), float(logits[i]) - normaliser) for i in best)
    )
