"""BERT encoders (Devlin et al. 2018) in float32 NumPy: token ids to a vector for each token.

Texts are laid end to end, without padding. Everything but attention treats each token by itself, so
it is one matrix product for all of them; attention takes texts of one length together.

Arrays are (features, tokens), so that weights multiply from the left as files store them. For a
few tokens BLAS is twice as fast that way, because it does not copy the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneiros.errors import ModelFileError, UnsupportedModelError, quoted
from oneiros.model.hyperparameters import Hyperparameters
from oneiros.model.json_text import read_object
from oneiros.model.safetensors import read_safetensors
from oneiros.model.tensor import Tensor

Floats = NDArray[np.float32]

# Not part of what a token's vector is computed from.
_UNUSED = ("pooler.", "embeddings.position_ids")


@dataclass(frozen=True, slots=True)
class BertShape:
    """The numbers of an encoder."""

    layers: int
    width: int  # features of a token; width % heads == 0
    heads: int
    ffn_width: int  # features inside the feed-forward network
    vocabulary: int
    positions: int  # the longest text, in tokens
    token_types: int
    epsilon: float  # of the layer normalisations


@dataclass(frozen=True, slots=True)
class Linear:
    weight: Floats  # (outputs, inputs)
    bias: Floats  # (outputs,)

    def __call__(self, x: Floats) -> Floats:
        """(inputs, tokens) to (outputs, tokens)."""
        y: Floats = self.weight @ x
        y += self.bias[:, None]
        return y


@dataclass(frozen=True, slots=True)
class LayerNorm:
    gain: Floats  # (width,)
    bias: Floats  # (width,)
    epsilon: float

    def __call__(self, x: Floats) -> Floats:
        """(width, tokens), normalised in place (Ba et al. 2016)."""
        x -= x.mean(axis=0)
        variance = np.einsum("wt,wt->t", x, x) / np.float32(len(x))
        x *= 1 / np.sqrt(variance + np.float32(self.epsilon))
        x *= self.gain[:, None]
        x += self.bias[:, None]
        return x


@dataclass(frozen=True, slots=True)
class Layer:
    query_key_value: Linear  # width -> 3 * width, in this order
    output: Linear  # width -> width
    attention_norm: LayerNorm
    up: Linear  # width -> ffn_width
    down: Linear  # ffn_width -> width
    ffn_norm: LayerNorm


@dataclass(frozen=True, slots=True)
class Bert:
    """An encoder and its weights."""

    shape: BertShape
    words: Floats  # (vocabulary, width)
    places: Floats  # (positions, width): what a token's position adds, with token type 0
    norm: LayerNorm
    layers: tuple[Layer, ...]

    def encode(self, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> Floats:
        """The last layer's vectors, float32 (width, tokens).

        Args:
            ids: (tokens,) of all texts, end to end.
            lengths: (texts,) tokens of each, ascending, from 1 to `shape.positions`; their sum is
                the number of tokens.
        """
        embedded = self.words[ids]  # (tokens, width)
        embedded += self.places[np.concatenate([np.arange(length) for length in lengths])]
        x = self.norm(np.ascontiguousarray(embedded.T))
        for layer in self.layers:
            mixed = _attention(layer.query_key_value(x), lengths, self.shape.heads)
            x += layer.output(mixed)
            x = layer.attention_norm(x)
            x += layer.down(gelu(layer.up(x)))
            x = layer.ffn_norm(x)
        return x


_SCORES = 1 << 17  # elements that stay in the cache with what is made of them


def _attention(qkv: Floats, lengths: NDArray[np.int64], heads: int) -> Floats:
    """Every token looks at all tokens of its own text: (3 * width, tokens) to (width, tokens)."""
    mixed = np.empty((len(qkv) // 3, qkv.shape[1]), np.float32)
    start = 0
    for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
        span = slice(start, start + count * length)
        start = span.stop
        parts = qkv[:, span].reshape(3, heads, -1, count, length).swapaxes(2, 3)
        to = mixed[:, span].reshape(heads, -1, count, length).swapaxes(1, 2)
        together = max(1, _SCORES // (count * length * length))
        for head in range(0, heads, together):
            q, k, v = parts[:, head : head + together]
            _attend(q, k, v, to[head : head + together])
    return mixed


def _attend(q: Floats, k: Floats, v: Floats, to: Floats) -> None:
    """Scaled dot-product attention, all arrays (heads, texts, features, length)."""
    scores = k.swapaxes(2, 3) @ (q * np.float32(q.shape[2] ** -0.5))  # (.., keys, queries)
    scores -= scores.max(axis=2, keepdims=True)
    np.exp(scores, out=scores)
    np.matmul(v, scores, out=to)
    to /= scores.sum(axis=2, keepdims=True)  # here and not in the scores, which are more


# NumPy has no erf. x * Phi(x), with Phi the normal distribution function, is nearly
# x / 2 * (1 + tanh(x * p(x * x))) for a polynomial p. This one was fitted by iteratively reweighted
# least squares: for every x the result is off by less than 7e-8 before float32 rounds it. Where
# x * x is cut off, tanh is +-1.
_GELU = np.array(
    [
        0.7978842684503231,
        0.03633414898851391,
        -3.3026604616490614e-05,
        -5.5273415497027434e-05,
        3.9740746676206535e-06,
        -1.337834392478727e-07,
        1.8139326289713942e-09,
    ],
    np.float32,
)
_GELU_END = np.float32(5.6**2)
_GELU_PIECE = 1 << 16  # elements: with their intermediate values they stay in the cache


def gelu(x: Floats) -> Floats:
    """x * Phi(x) (Hendrycks & Gimpel 2016), in place."""
    flat = x.reshape(-1)
    for start in range(0, len(flat), _GELU_PIECE):
        piece = flat[start : start + _GELU_PIECE]
        square = np.minimum(piece * piece, _GELU_END)
        inner = square * _GELU[-1]
        for coefficient in _GELU[-2:0:-1]:
            inner += coefficient
            inner *= square
        inner += _GELU[0]
        inner *= piece
        np.tanh(inner, out=inner)
        inner += 1
        piece *= np.float32(0.5)
        piece *= inner
    return x


def read_bert(folder: Path) -> Bert:
    """The encoder in a folder with config.json and model.safetensors.

    Raises:
        ModelFileError: a file is missing, damaged or inconsistent.
        UnsupportedModelError: it is another kind of network.
    """
    shape = _shape(
        Hyperparameters(f"{folder.name}/config.json", read_object(folder / "config.json"))
    )
    weights = _Weights.read(folder / "model.safetensors")
    width, epsilon = shape.width, shape.epsilon
    words = weights.take("embeddings.word_embeddings.weight", shape.vocabulary, width)
    places = weights.take("embeddings.position_embeddings.weight", shape.positions, width)
    types = weights.take("embeddings.token_type_embeddings.weight", shape.token_types, width)
    bert = Bert(
        shape=shape,
        words=words,
        places=places + types[0],
        norm=weights.norm("embeddings.LayerNorm", width, epsilon),
        layers=tuple(_layer(weights, shape, index) for index in range(shape.layers)),
    )
    weights.check_all_taken()
    return bert


def _shape(keys: Hyperparameters) -> BertShape:
    kind = keys.text("model_type", "")
    if kind != "bert":
        raise UnsupportedModelError(
            f"{keys.where}: model type {quoted(kind)} is no encoder that Oneiros runs. Embeddings "
            "are computed by BERT encoders, such as all-minilm-l6-v2."
        )
    for key, known in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        found = keys.text(key, known)
        if found != known:
            raise UnsupportedModelError(
                f"{keys.describe(key)} is {quoted(found)}; only {quoted(known)} is supported."
            )
    width, heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
    if width % heads:
        keys.fail("num_attention_heads", f"does not divide the width {width}")
    return BertShape(
        layers=keys.integer("num_hidden_layers", most=1 << 10),
        width=width,
        heads=heads,
        ffn_width=keys.integer("intermediate_size"),
        vocabulary=keys.integer("vocab_size"),
        positions=keys.integer("max_position_embeddings"),
        token_types=keys.integer("type_vocab_size", 2),
        epsilon=keys.positive("layer_norm_eps", 1e-12),
    )


def _layer(weights: _Weights, shape: BertShape, index: int) -> Layer:
    name, width = f"encoder.layer.{index}", shape.width
    parts = [
        weights.linear(f"{name}.attention.self.{part}", width, width)
        for part in ("query", "key", "value")
    ]
    return Layer(
        query_key_value=Linear(
            np.concatenate([part.weight for part in parts]),
            np.concatenate([part.bias for part in parts]),
        ),
        output=weights.linear(f"{name}.attention.output.dense", width, width),
        attention_norm=weights.norm(f"{name}.attention.output.LayerNorm", width, shape.epsilon),
        up=weights.linear(f"{name}.intermediate.dense", width, shape.ffn_width),
        down=weights.linear(f"{name}.output.dense", shape.ffn_width, width),
        ffn_norm=weights.norm(f"{name}.output.LayerNorm", width, shape.epsilon),
    )


@dataclass(frozen=True, slots=True)
class _Weights:
    """The tensors of a file, each to be taken once."""

    where: str
    tensors: dict[str, Tensor]

    @staticmethod
    def read(path: Path) -> _Weights:
        file = read_safetensors(path)
        tensors = {
            name: tensor for name, tensor in file.tensors.items() if not name.startswith(_UNUSED)
        }
        return _Weights(path.name, tensors)

    def take(self, name: str, *shape: int) -> Floats:
        tensor = self.tensors.pop(name, None)
        if tensor is None:
            raise ModelFileError(f"{self.where}: tensor {quoted(name)} is missing or no float.")
        if tensor.shape != shape:
            raise ModelFileError(
                f"{self.where}: tensor {quoted(name)} has the shape {tensor.shape}, and "
                f"config.json makes it {shape}."
            )
        return tensor.float32()

    def linear(self, name: str, inputs: int, outputs: int) -> Linear:
        return Linear(
            self.take(f"{name}.weight", outputs, inputs), self.take(f"{name}.bias", outputs)
        )

    def norm(self, name: str, width: int, epsilon: float) -> LayerNorm:
        return LayerNorm(
            self.take(f"{name}.weight", width), self.take(f"{name}.bias", width), epsilon
        )

    def check_all_taken(self) -> None:
        for name in self.tensors:
            raise UnsupportedModelError(
                f"{self.where}: tensor {quoted(name)} is not part of a BERT encoder as Oneiros "
                "computes it."
            )
