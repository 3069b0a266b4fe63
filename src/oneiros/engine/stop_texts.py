"""Texts that end a reply."""

from __future__ import annotations


class StopTexts:
    """Lets a text through, piece by piece, up to the first of some stop texts.

    What may turn out to begin a stop text is held back until that is known.

    Attributes:
        met: whether a stop text was met; nothing comes through after it.
    """

    def __init__(self, texts: tuple[str, ...]) -> None:
        """`texts`: none of them empty."""
        self.met = False
        self._texts = texts
        self._held = ""

    def push(self, piece: str) -> str:
        """What comes through now, of this piece and of what was held back."""
        if self.met:
            return ""
        held = self._held + piece
        found = [at for at in (held.find(text) for text in self._texts) if at >= 0]
        self.met = bool(found)
        free = min(found) if found else len(held) - self._overlap(held)
        self._held = "" if self.met else held[free:]
        return held[:free]

    def flush(self) -> str:
        """What is still held back, where the text ends here."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, text: str) -> int:
        """Characters at the end of `text` with which some stop text begins."""
        lengths = (
            length
            for stop in self._texts
            for length in range(min(len(stop), len(text)), 0, -1)
            if text.endswith(stop[:length])
        )
        return max(lengths, default=0)
