"""Drafts of the next tokens, looked up in what a reply has been so far.

Where the last tokens occurred before, what followed then may follow again: in edits, quotations and
code it often does (prompt lookup decoding, Saxena 2023). The model checks a whole draft in one
step, and since its logits do not depend on how tokens are cut into steps, a reply with drafts is
the same, to the token, as one without (Leviathan et al. 2023 for why checking is enough).
"""

from __future__ import annotations

from collections.abc import Sequence as Items

_GRAM = 3
_LONGEST_DRAFT = 15
# A token more in a step takes about a fifth of a step of one token (measured with SmolLM2).
_TOKEN_COST = 0.2
# Steps that drafts may lose: one at first, then one in fifty.
_FIRST_CREDIT = 1.0
_CREDIT_PER_STEP = 0.02


class Drafter:
    """Proposes tokens for one reply, and stops where that does not pay."""

    def __init__(self, tokens: Items[int]) -> None:
        """`tokens`: the prompt."""
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # position after the last such n-gram but one
        self._credit = _FIRST_CREDIT
        self._length = 2
        self.extend(tokens)

    def extend(self, tokens: Items[int]) -> None:
        """Tokens were generated (or read)."""
        start = max(_GRAM, len(self._tokens))
        self._tokens.extend(tokens)
        known = self._tokens
        for end in range(start, len(known)):
            self._after[tuple(known[end - _GRAM : end])] = end

    def draft(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next; none if nothing is known, or it does not pay."""
        affordable = int(self._credit / _TOKEN_COST)
        length = min(most, self._length, affordable)
        start = self._after.get(tuple(self._tokens[-_GRAM:]))
        if start is None or length < 1:
            return []
        return self._tokens[start : start + length]

    def checked(self, drafted: int, accepted: int) -> None:
        """One step was made, in which `accepted` of `drafted` tokens turned out right."""
        self._credit += _CREDIT_PER_STEP + accepted - _TOKEN_COST * drafted
        self._credit = min(self._credit, 4 * _LONGEST_DRAFT * _TOKEN_COST)
        if drafted and accepted == drafted:
            self._length = min(2 * self._length, _LONGEST_DRAFT)
        elif drafted:
            self._length = max(2, accepted)
