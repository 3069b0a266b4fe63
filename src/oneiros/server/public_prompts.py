"""System prompts that the operator declares public: their KV pages serve every principal.

Whether a prefix is cached can be seen in the time to the first token, so by default a principal
meets its own prefixes only. What everybody may read anyway gives nothing away.
"""

from __future__ import annotations

from collections.abc import Sequence

from oneiros.engine.local_model import LocalModel


class PublicPrompts:
    """The beginnings of prompts, as token ids, that hold nothing but public text."""

    def __init__(self, model: LocalModel, texts: Sequence[str]) -> None:
        self._beginnings: list[tuple[int, ...]] = []
        if model.chat_format is None:
            return
        for text in texts:
            # What two conversations have in common that differ in the user's first word.
            one, other = (
                model.chat_format.render(
                    [{"role": "system", "content": text}, {"role": "user", "content": user}]
                )
                for user in ("1", "a")
            )
            self._beginnings.append(tuple(one[: _common(one, other)]))

    def length_in(self, prompt: Sequence[int]) -> int:
        """How many of a prompt's first tokens are public."""
        return max((_common(beginning, prompt) for beginning in self._beginnings), default=0)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))
