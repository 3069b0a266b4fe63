"""Text that whoever looks at a document does not see, marked: a model reads it all.

What is hidden stays, shortened, as `[hidden: …]`, so that a model can say what a document hides and
does not take it for what the document says. The mark has no brackets inside, so that what is hidden
cannot end it.
"""

from __future__ import annotations

import re
from typing import Final

from oneiros.rendering import replaced

LONGEST: Final = 200  # characters of one hidden text that are kept
_FEW: Final = 8  # characters that are not seen, in a row, which are nothing but sloppy writing
_TAGS: Final = range(0xE0020, 0xE007F)  # ASCII, in characters that are never seen
# The flags of England, Scotland and Wales are written with them.
_FLAG: Final = re.compile("(?<=\U0001f3f4)[\U000e0061-\U000e007a]{4,6}\U000e007f")


def hidden_mark(text: str) -> str:
    """A hidden text as a mark; "": it has no letters or digits."""
    text = " ".join(text.translate(_BRACKETS).split())
    if not re.search(r"\w", text):
        return ""
    if len(text) <= LONGEST:
        return f"[hidden: {text}]"
    return f"[hidden: {text[:LONGEST]}… {len(text):,} characters]"


def marked(text: str) -> str:
    """A text with marks for runs of characters that are not seen, and without single ones.

    Runs can carry a message: ASCII as tags, bytes as variation selectors. What they say is in the
    mark.
    """
    return replaced(_FLAG.sub("", text), _unseen_mark)


def from_markdown(text: str) -> str:
    """Marks as they are, where something wrote their brackets for Markdown."""
    return re.sub(r"\\\[(hidden: [^\[\]]*)\\\]", r"[\1]", text)


def _unseen_mark(run: str) -> str:
    tags = "".join(chr(ord(one) - 0xE0000) for one in run if ord(one) in _TAGS)
    message = tags or _selected(run)
    if len(message) > 1 and (mark := hidden_mark(message)):
        return f" {mark} "
    return f" [hidden: {len(run):,} characters that are not seen] " if len(run) >= _FEW else ""


def _selected(run: str) -> str:
    """What variation selectors say, as bytes from 0 to 255."""
    values = []
    for one in run:
        if 0xFE00 <= ord(one) <= 0xFE0F:
            values.append(ord(one) - 0xFE00)
        elif 0xE0100 <= ord(one) <= 0xE01EF:
            values.append(ord(one) - 0xE0100 + 16)
    text = bytes(values).decode("utf-8", errors="ignore")
    return text if text.isprintable() else ""


_BRACKETS: Final = str.maketrans("[]", "()")
