"""What a request names and no call has dealt with: files, and addresses of pages.

Small models answer from the request alone, as if they had read what it names, or say that a file is
written that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_ADDRESS = re.compile(r"https?://[^\s<>\"']+")
_KINDS = "txt|csv|tsv|md|json|ini|toml|py|js|sh|pdf|docx?|xlsx?|html?|log|xml|ya?ml|png|jpe?g|svg"
_FILE = re.compile(rf"(?<![\w@./-])[\w./-]*\w\.(?:{_KINDS})(?![\w/-])", re.IGNORECASE)
_SENTENCE = ".,;:!?)]}'\""  # what ends it, behind an address


def named(request: str) -> tuple[str, ...]:
    """The files and addresses in a request, each once."""
    addresses = [found.rstrip(_SENTENCE) for found in _ADDRESS.findall(request)]
    return tuple(dict.fromkeys([*addresses, *_FILE.findall(_ADDRESS.sub(" ", request))]))


def not_dealt_with(names: Iterable[str], said: Iterable[str]) -> tuple[str, ...]:
    """The names that stand in none of these texts: calls that were made, and their results.

    Of a file its last part is enough: tools and people name folders differently.
    """
    texts = [text.lower() for text in said]
    return tuple(
        name for name in names if not any(_shortest(name).lower() in text for text in texts)
    )


def _shortest(name: str) -> str:
    return name if "://" in name else name.rpartition("/")[2]
