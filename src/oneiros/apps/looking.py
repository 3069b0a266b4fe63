"""Files and pages that a message names are looked at before a small model speaks.

Such models answer from a name alone, or write what they take a file to hold. What they are shown at
once they do not have to call for, which saves a reply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence

from oneiros.kernel.program import ToolRequest

MOST = 4  # files and pages
LONGEST = 4_000  # characters that are shown, of all together
WHOLE = 1_000  # characters of a file that is shown whole to who may compute: a program does more
HEAD = 400  # characters of its beginning, which says of what form it is

_PARTLY = "its beginning"
# What is read of these is no text on the disk.
_EXTRACTED = re.compile(r"\.(?:pdf|docx?|xlsx?|png|jpe?g)$", re.IGNORECASE)

_FILES, _PAGES = ("read_file", "path"), ("fetch_page", "url")


def looks(names: Sequence[str], tools: Collection[str]) -> dict[str, ToolRequest]:
    """Calls that look at what is named, as far as there are tools for it."""
    requests = {}
    for name in names[:MOST]:
        tool, argument = _PAGES if "://" in name else _FILES
        if tool in tools:
            requests[name] = ToolRequest(tool=tool, arguments=json.dumps({argument: name}))
    return requests


def seen(results: Iterable[tuple[str, str]], *, python: bool) -> str:
    """What was found, for the model; "" where nothing was, or nothing that is short enough.

    What failed is left out: a file that is not there may be one that is to be made.

    Args:
        results: names of files and pages, and the texts of the calls' results.
        python: whether the model may call Python. Small models write programs as if what they have
            seen were in a variable, and are told what is.
    """
    parts: list[str] = []
    for name, text in results:
        computes = python and "://" not in name
        whole = len(text) <= WHOLE or not computes
        shown = text if whole else _head(text)
        if not text.startswith("Error: ") and sum(map(len, (*parts, shown))) <= LONGEST:
            about = [] if whole else [_PARTLY]
            if computes and not _EXTRACTED.search(name):
                about.append(f"in Python: open({name!r}).read()")
            head = f"{name} ({'; '.join(about)})" if about else name
            parts.append(f"{head}:\n{shown}")
    return "\n\n".join(parts)


def is_partly_seen(name: str, seen: str) -> bool:
    """Whether only the beginning of a file is in what was shown."""
    return f"{name} ({_PARTLY}" in seen


def _head(text: str) -> str:
    """The first lines of a text, or what of one fits, and how much there is."""
    shown = text[:HEAD].rpartition("\n")[0] or text[:HEAD]
    if text.startswith("[Lines "):  # a part of a file, which says so itself
        return f"{shown}\n[…]"
    lines = len(text.splitlines())
    return f"{shown}\n[… these are {len(shown):,} of {len(text):,} characters in {lines:,} lines]"
