"""Files and pages that a message names are looked at before a small model speaks.

Such models answer from a name alone, or write what they take a file to hold. What they are shown at
once they do not have to call for, which saves a reply.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

from oneiros.kernel.program import ToolRequest

MOST = 4  # files and pages
LONGEST = 4_000  # characters that are shown, of all together

_FILES, _PAGES = ("read_file", "path"), ("fetch_page", "url")


def looks(names: Sequence[str], tools: Collection[str]) -> dict[str, ToolRequest]:
    """Calls that look at what is named, as far as there are tools for it."""
    requests = {}
    for name in names[:MOST]:
        tool, argument = _PAGES if "://" in name else _FILES
        if tool in tools:
            requests[name] = ToolRequest(tool=tool, arguments=json.dumps({argument: name}))
    return requests


def seen(results: Iterable[tuple[str, str]]) -> str:
    """What was found, for the model; "" where nothing was, or nothing that is short enough.

    What failed is left out: a file that is not there may be one that is to be made.

    Args:
        results: names of files and pages, and the texts of the calls' results.
    """
    parts: list[str] = []
    for name, text in results:
        if not text.startswith("Error: ") and sum(map(len, (*parts, text))) <= LONGEST:
            parts.append(f"{name}:\n{text}")
    return "\n\n".join(parts)
