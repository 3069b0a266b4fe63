"""Make the golden embeddings that tests/engine/test_embedding.py compares with.

Not run by the tests: it needs torch and sentence-transformers, which Oneiros does not. In an
environment that holds Oneiros as well (its C kernels are not needed), from the root of the source
tree:

    pip install torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0
    python -m tests.engine.make_embedding_goldens

`all-minilm-l6-v2` holds the float32 vectors (texts, 384) of `golden_texts()` as
sentence-transformers makes them: cut off at 256 tokens, the mean of the tokens, scaled to unit
length. `tiny` holds the same (texts, 48) for the tokens of `tiny_ids()` in a small random network.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from oneiros.model.catalog import resolve
from tests.engine.embedding_cases import GOLDENS, golden_texts, tiny_folder, tiny_ids


def main() -> None:
    """Write tests/data/golden-embeddings.npz."""
    torch.set_num_threads(2)
    np.savez_compressed(GOLDENS, **{"all-minilm-l6-v2": minilm_vectors(), "tiny": tiny_vectors()})


def minilm_vectors() -> NDArray[np.float32]:
    """Vectors of the texts, by the pipeline of sentence-transformers."""
    encoder = Transformer(str(resolve("all-minilm-l6-v2")), max_seq_length=256)
    pooling = Pooling(384, pooling_mode="mean")
    model = SentenceTransformer(modules=[encoder, pooling, Normalize()], device="cpu")
    vectors: NDArray[np.float32] = model.encode(golden_texts(), batch_size=4)
    return vectors


def tiny_vectors() -> NDArray[np.float32]:
    """Vectors of token ids, by the network in transformers."""
    with tempfile.TemporaryDirectory() as directory:
        folder = tiny_folder(Path(directory) / "tiny")
        network: Any = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False)
    vectors = []
    with torch.inference_mode():
        for ids in tiny_ids():
            mean = network(torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
            vectors.append((mean / mean.norm()).numpy())
    return np.array(vectors)


if __name__ == "__main__":
    main()
