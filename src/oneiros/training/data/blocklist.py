"""Filtering by address, with the lists that datatrove carries."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.filters import URLFilter
from datatrove.utils._import_utils import ASSETS_PATH
from datatrove.utils.hashes.xxhash import xxhash64
from numpy.typing import NDArray
from tldextract import TLDExtract

_LISTS = "url_filterblacklistsv0_3_0.tar.gz"


class _Names:
    """A set of many strings in eight bytes each: 4.6 million domains take 36 MB, not 600."""

    def __init__(self, names: Iterable[bytes]) -> None:
        hashes = np.fromiter(map(xxhash64, names), np.uint64)
        hashes.sort()
        self._hashes: NDArray[np.uint64] = hashes

    def __contains__(self, name: str) -> bool:
        value = np.uint64(xxhash64(name))
        place = int(np.searchsorted(self._hashes, value))
        return place < len(self._hashes) and bool(self._hashes[place] == value)


def url_filter() -> Any:
    """datatrove's filter, with its own lists, which takes neither the network nor a cache.

    By itself it unpacks the lists into a folder below the user's home, and asks the network for
    the endings of domains; what comes with the packages is enough, and always the same.
    """
    assets = Path(ASSETS_PATH)
    words = {
        name: (assets / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        for name in ("banned_words", "banned_subwords", "soft_banned_words")
    }
    for lines in words.values():
        lines[:] = [line for line in lines if line]
    found = URLFilter(use_integrated_lists=False, **words)
    with tarfile.open(assets / _LISTS) as lists:
        found.block_listed_domains = _Names(_lines(lists, "domains"))
        found.block_listed_url = _Names(_lines(lists, "urls"))
    found.tldextractor = TLDExtract(cache_dir=None, suffix_list_urls=())
    return found


def _lines(archive: tarfile.TarFile, name: str) -> list[bytes]:
    member = archive.extractfile(name)
    if member is None:
        raise FileNotFoundError(f"{_LISTS}: has no {name}.")
    return member.read().split()
