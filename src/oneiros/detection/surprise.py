"""Stretches of a text that a language model finds far less likely than text is.

Suffixes that were optimised to make models obey (Zou et al. 2023, arXiv 2307.15043) are rows of
tokens that nobody writes. Their perplexity gives them away (Alon and Kamfonas 2023, arXiv
2308.14132), best in windows, so that a long harmless text does not hide a short suffix (Jain et al.
2023, arXiv 2309.00614).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from oneiros.detection.findings import Finding

KIND: Final = "surprising"
WINDOW: Final = 12  # tokens
# Nats per token. Both are from smollm2-135m on normal text; docs/detectors.md says how.
THRESHOLD: Final = 8.0
MARGIN: Final = 4.0  # above the median of the text's windows
_READ: Final = 512  # tokens that are evaluated together
_CONTEXT: Final = 128  # of them that were before


@dataclass(frozen=True, slots=True)
class SurprisingWindow:
    """Tokens begin .. end, and how little they were expected."""

    begin: int
    end: int
    surprise: float  # mean negative log-likelihood, nats per token


class Vocabulary(Protocol):
    """What is needed of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...
    def prompt_ids(self, text: str) -> list[int]: ...
    def token_bytes(self, token_id: int) -> bytes: ...


class Predictor(Protocol):
    """What is needed of a language model."""

    @property
    def tokenizer(self) -> Vocabulary: ...
    def log_probabilities(self, ids: Sequence[int]) -> NDArray[np.float64]: ...


def window_surprises(
    log_probabilities: NDArray[np.float64], window: int = WINDOW
) -> NDArray[np.float64]:
    """Mean surprise of each window of so many tokens, (n - window + 1,), in nats per token.

    A text shorter than a window has one window, of all its tokens; one without tokens has none.
    """
    sums = np.concatenate(([0.0], np.cumsum(-log_probabilities)))
    window = max(1, min(window, len(log_probabilities)))
    means: NDArray[np.float64] = (sums[window:] - sums[:-window]) / window
    return means


def surprising_windows(
    log_probabilities: NDArray[np.float64],
    *,
    window: int = WINDOW,
    threshold: float = THRESHOLD,
    margin: float = MARGIN,
) -> list[SurprisingWindow]:
    """Stretches of a text whose tokens are far less likely than the rest's, and than text's.

    Args:
        log_probabilities: of each token after those before it, (n,), nats.
        window: tokens of a window.
        threshold: the least mean surprise of a window that counts, nats per token.
        margin: by how much it has to exceed the median of the text's windows as well. In a text
            of few windows, where most would belong to the suffix, only the threshold counts.

    Returns:
        Windows that overlap are one, in their order.
    """
    means = window_surprises(log_probabilities, window)
    if len(means) > 2 * window:
        threshold = max(threshold, float(np.median(means)) + margin)
    size = min(window, len(log_probabilities))
    found: list[SurprisingWindow] = []
    for begin in map(int, np.flatnonzero(means > threshold)):
        new = SurprisingWindow(begin, begin + size, float(means[begin]))
        if found and begin <= found[-1].end:
            last = found.pop()
            new = SurprisingWindow(last.begin, new.end, max(last.surprise, new.surprise))
        found.append(new)
    return found


def text_log_probabilities(model: Predictor, token_ids: Sequence[int]) -> NDArray[np.float64]:
    """log p of each token of a text after at least 128 before it, where there are so many, (n,).

    The first is given after the model's BOS token, and is 0 where it has none.
    """
    start = model.tokenizer.prompt_ids("")
    found = [np.zeros(0 if start else min(1, len(token_ids)))]
    done = 0
    while done < len(token_ids):
        begin = max(0, done - _CONTEXT)
        end = min(begin + _READ, len(token_ids))
        part = model.log_probabilities([*start, *token_ids[begin:end]])
        count = min(end - done, len(part))
        found.append(part[len(part) - count :])
        done = end
    return np.concatenate(found)


def surprising_text(model: Predictor, text: str) -> Iterator[Finding]:
    """Findings of the kind "surprising", with what stands there; a text of one token has none."""
    ids = model.tokenizer.encode(text)
    if len(ids) < 2:
        return
    ends = np.cumsum([len(model.tokenizer.token_bytes(token_id)) for token_id in ids])
    data = text.encode(errors="replace")
    for found in surprising_windows(text_log_probabilities(model, ids)):
        first = int(ends[found.begin - 1]) if found.begin else 0
        start = len(data[:first].decode(errors="ignore"))
        end = len(data[: int(ends[found.end - 1])].decode(errors="ignore"))
        yield Finding(KIND, start, end, text[start:end])
