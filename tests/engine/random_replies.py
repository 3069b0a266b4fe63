"""Replies drawn without a model: any allowed token, as an adversary would."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
from numpy.typing import NDArray

from oneiros.engine.constraint import Constraint, ConstraintCompiler
from oneiros.engine.requests import ConstraintSpec
from oneiros.model.tokenizer import Tokenizer

ENDING = 0.3  # probability of ending a reply that could end


def allowed(constraint: Constraint) -> NDArray[np.int64]:
    """The tokens that may come next."""
    constraint.compute_mask()
    return np.flatnonzero(np.unpackbits(constraint.mask.view(np.uint8), bitorder="little"))


@cache
def single_bytes(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """For each token whether it is one byte: those close brackets and spell escapes."""
    ids = range(tokenizer.vocabulary_size)
    return np.array([len(tokenizer.token_bytes(token)) == 1 for token in ids])


def draw(
    compiler: ConstraintCompiler,
    tokenizer: Tokenizer,
    spec: ConstraintSpec,
    seed: int,
    longest: int = 200,
) -> str | None:
    """A complete reply's text, or None where it did not end within `longest` tokens."""
    choose = random.Random(seed)
    constraint = compiler.compile(spec)
    ids: list[int] = []
    while len(ids) < longest and not constraint.stopped:
        forced = constraint.forced()
        if forced:
            constraint.consume(forced)
            ids += forced
            continue
        if constraint.accepting and choose.random() < ENDING:
            break
        tokens = np.setdiff1d(allowed(constraint), list(tokenizer.end_ids), assume_unique=True)
        if not tokens.size:
            break  # nothing may follow but the end
        short = tokens[single_bytes(tokenizer)[tokens]]
        some = short if short.size and choose.random() < 0.8 else tokens
        token = int(some[choose.randrange(some.size)])
        constraint.consume([token])
        ids.append(token)
    return tokenizer.decode(ids) if constraint.accepting else None
