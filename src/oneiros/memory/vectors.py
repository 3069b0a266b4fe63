"""Nearest vectors by cosine: exact while they are few, a graph when they are many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

# From here on a search that looks at every vector would take some ten milliseconds. The graph
# (Malkov and Yashunin 2016, "Efficient and robust approximate nearest neighbor search using
# hierarchical navigable small world graphs") finds almost all of the nearest in one.
EXACT = 50_000

_EXPANSION = 128  # candidates that a search of the graph keeps; 0.97 recall at 10 and above


class VectorSet:
    """Vectors of unit length under integer keys, kept as float16."""

    def __init__(self, dimensions: int, *, exact: int = EXACT) -> None:
        """An empty set.

        Args:
            dimensions: numbers in a vector.
            exact: how many vectors are searched one by one.
        """
        self._exact = exact
        self._rows = np.empty((0, dimensions), np.float16)  # (capacity, dimensions)
        self._keys = np.empty(0, np.int64)  # (capacity,)
        self._row_of: dict[int, int] = {}
        self._graph: object | None = None

    def __len__(self) -> int:
        return len(self._row_of)

    def add(self, keys: Sequence[int], vectors: NDArray[np.float16]) -> None:
        """Add vectors (keys, dimensions) under keys that are not there."""
        count, more = len(self), len(keys)
        if count + more > len(self._rows):
            capacity = max(2 * len(self._rows), count + more)
            self._rows = np.resize(self._rows, (capacity, self._rows.shape[1]))
            self._keys = np.resize(self._keys, capacity)
        self._rows[count : count + more] = vectors
        self._keys[count : count + more] = keys
        self._row_of |= {key: count + place for place, key in enumerate(keys)}
        if self._graph is not None:
            self._graph.add(np.array(keys, np.uint64), vectors)  # type: ignore[attr-defined]

    def remove(self, keys: Iterable[int]) -> None:
        """Remove vectors; keys that are not there are passed over."""
        for key in keys:
            row = self._row_of.pop(key, None)
            if row is None:
                continue
            last = len(self._row_of)
            if row != last:  # the last one takes its place
                self._rows[row], self._keys[row] = self._rows[last], self._keys[last]
                self._row_of[int(self._keys[row])] = row
            if self._graph is not None:
                self._graph.remove(key)  # type: ignore[attr-defined]

    def nearest(self, vector: NDArray[np.float32], count: int) -> list[tuple[int, float]]:
        """The keys of the nearest vectors with their cosines, the nearest first."""
        if not self._row_of or count < 1:
            return []
        from usearch.index import search

        query = vector.astype(np.float16)
        count = min(count, len(self))
        if len(self) > self._exact:
            matches = self._built().search(query, count)  # type: ignore[attr-defined]
            keys = matches.keys
        else:
            rows = self._rows[: len(self)]
            matches = search(rows, query, count, "cos", exact=True, threads=1)
            keys = self._keys[matches.keys]
        return [
            (int(key), 1.0 - float(distance))
            for key, distance in zip(keys, matches.distances, strict=True)
        ]

    def cosines(self, vector: NDArray[np.float32], keys: Sequence[int]) -> dict[int, float]:
        """The cosines of the vectors under some keys, as far as these are there."""
        there = [key for key in keys if key in self._row_of]
        rows = self._rows[[self._row_of[key] for key in there]].astype(np.float32)
        return dict(zip(there, map(float, rows @ vector), strict=True))

    def _built(self) -> object:
        if self._graph is None:
            from usearch.index import Index

            graph = Index(
                ndim=self._rows.shape[1],
                metric="cos",
                dtype="f16",
                expansion_search=_EXPANSION,
            )
            graph.add(self._keys[: len(self)].astype(np.uint64), self._rows[: len(self)])
            self._graph = graph
        return self._graph
