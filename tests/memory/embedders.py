"""An embedder without a model: texts are near each other that have words of the same topic."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TOPICS = (
    {"roses", "garden", "prune", "flowers", "blossoms"},
    {"engine", "motor", "car", "vehicle"},
    {"money", "euro", "budget", "price"},
)


class TopicEmbedder:
    """One dimension for each topic, and one for what has none."""

    dimensions = len(TOPICS) + 1
    longest = 40

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) + 2 for text in texts]

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> NDArray[np.float32]:
        self.embedded += texts
        rows = np.full((len(texts), self.dimensions), 0.01, np.float32)
        for row, text in zip(rows, texts, strict=True):
            words = text.lower().replace(".", " ").replace("?", " ").split()
            for place, topic in enumerate(TOPICS):
                row[place] += sum(word in topic for word in words)
            row[-1] += 0.1
        normal: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return normal
