"""The network: Llama's architecture in plain PyTorch, to be read from top to bottom.

Tokens become vectors; each block adds to them what attention finds in earlier positions and what a
feed-forward network makes of them; the head turns them into scores of the next token (Vaswani et
al. 2017, Touvron et al. 2023). It computes what the engine computes in C, so whatever is trained
here runs there, in `transformers` and in llama.cpp: see `weights.py` for loading and saving.

Shapes are written with B rows, T positions, D features of the residual stream, H query heads,
K key/value heads, F features per head, and V tokens.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from oneiros.errors import ModelFileError, TrainingError
from oneiros.model.architecture import (
    Architecture,
    RopeScaling,
    check_architecture,
    rope_frequencies,
)
from oneiros.training import tile_attention, tile_products

Mask = Tensor | BlockMask | None
"""Which positions see which: boolean (B, 1, T, T), blocks of it, what is added to their scores
(0 or -infinity, (B or 1, 1, T, T)), the first that each one sees (int32, (B or 1, T)), or None for
every earlier one."""

LONGEST_AT_ONCE = 512
"""Positions up to which training on a CPU in bfloat16, where it has no tiles, holds all scores of
attention in memory: the backward pass of PyTorch's fused attention is slower."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The network's numbers."""

    vocabulary: int  # V; may exceed the tokenizer's, a multiple of 64 is faster
    layers: int
    width: int  # D
    heads: int  # H
    kv_heads: int  # K; heads % kv_heads == 0
    head_dim: int  # F, even; heads * head_dim may differ from width
    ffn_width: int  # features inside the feed-forward network
    context: int  # positions that the model is made for
    rope_base: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rms_epsilon: float = 1e-5
    qk_norm: bool = False  # normalise each head's queries and keys (Qwen3)
    attention_bias: bool = False  # biases on q, k and v (Qwen2)
    tied: bool = True  # the head is the embedding

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            TrainingError: they contradict each other.
        """
        sizes = ("vocabulary", "layers", "width", "heads", "kv_heads", "head_dim", "ffn_width")
        for name in (*sizes, "context"):
            if getattr(self, name) < 1:
                raise TrainingError(f"A network's {name} is {getattr(self, name)}: at least 1.")
        if self.qk_norm and self.attention_bias:
            raise TrainingError("A network has either qk_norm (Qwen3) or attention_bias (Qwen2).")
        try:
            check_architecture(self.architecture, "The network")
        except ModelFileError as error:
            raise TrainingError(str(error)) from error

    @property
    def architecture(self) -> Architecture:
        """The same in the words of model files; pairs are rotated as Hugging Face folders do."""
        return Architecture(
            name="qwen3" if self.qk_norm else "qwen2" if self.attention_bias else "llama",
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            ffn_width=self.ffn_width,
            vocabulary=self.vocabulary,
            context=self.context,
            rope_base=self.rope_base,
            rope_dim=self.head_dim,
            rope_interleaved=False,
            rope_scaling=self.rope_scaling,
            rms_epsilon=self.rms_epsilon,
            tied=self.tied,
            qk_norm=self.qk_norm,
            attention_bias=self.attention_bias,
            sliding_window=None,
        )

    @staticmethod
    def of(architecture: Architecture) -> NetworkConfig:
        """The numbers of a model file's architecture; its context fits the sliding window.

        Raises:
            TrainingError: it has both biases and normalised queries, which no family has.
        """
        return NetworkConfig(
            vocabulary=architecture.vocabulary,
            layers=architecture.layers,
            width=architecture.width,
            heads=architecture.heads,
            kv_heads=architecture.kv_heads,
            head_dim=architecture.head_dim,
            ffn_width=architecture.ffn_width,
            context=architecture.context,
            rope_base=architecture.rope_base,
            rope_scaling=architecture.rope_scaling,
            rms_epsilon=architecture.rms_epsilon,
            qk_norm=architecture.qk_norm,
            attention_bias=architecture.attention_bias,
            tied=architecture.tied,
        )


class RMSNorm(nn.Module):
    """Divides by the root of the mean square, in float32 (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> the same shape, in the dtype of matrix products, which come next."""
        scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.epsilon)
        return (x.float() * scale * self.weight.float()).to(_product_dtype(x))


class Linear(nn.Linear):
    """A matrix, and perhaps a bias."""

    def __init__(self, features: int, out: int, *, bias: bool = False) -> None:
        super().__init__(features, out, bias=bias)
        self.in_tiles = not bias and tile_products.serves(features, out)

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) -> (..., out)."""
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        narrow = x.dtype is _product_dtype(x) is torch.bfloat16
        if self.in_tiles and learns and narrow and x.device.type == "cpu":
            return tile_products.product(x, self.weight)
        return super().forward(x)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions (Ainslie et al. 2023, Su et al. 2021)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.head_dim = config.head_dim
        self.q = Linear(config.width, queries, bias=config.attention_bias)
        self.k = Linear(config.width, keys, bias=config.attention_bias)
        self.v = Linear(config.width, keys, bias=config.attention_bias)
        self.output = Linear(queries, config.width)
        norm = functools.partial(RMSNorm, config.head_dim, config.rms_epsilon)
        self.q_norm: nn.Module = norm() if config.qk_norm else nn.Identity()
        self.k_norm: nn.Module = norm() if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], mask: Mask) -> Tensor:
        """(B, T, D) -> (B, T, D); `turns` as `rotated` takes them."""
        batch, length, _ = x.shape
        queries = self.q(x).view(batch, length, -1, self.head_dim)  # (B, T, H, F)
        keys = self.k(x).view(batch, length, -1, self.head_dim)  # (B, T, K, F)
        values = self.v(x).view(batch, length, -1, self.head_dim)
        queries = rotated(self.q_norm(queries), turns)
        keys = rotated(self.k_norm(keys), turns)
        mixed = attend(queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), mask)
        return cast(Tensor, self.output(mixed.transpose(1, 2).reshape(batch, length, -1)))


class FeedForward(nn.Module):
    """SwiGLU: one projection, gated by another (Shazeer 2020)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.gate = Linear(config.width, config.ffn_width)
        self.up = Linear(config.width, config.ffn_width)
        self.down = Linear(config.ffn_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return cast(Tensor, self.down(functional.silu(self.gate(x)) * self.up(x)))


class Block(nn.Module):
    """One layer: attention, then the feed-forward network, each adding to its normalised input."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.rms_epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.width, config.rms_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], mask: Mask) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attention(self.attention_norm(x), turns, mask)
        return cast(Tensor, x + self.feed_forward(self.feed_forward_norm(x)))


Call = Callable[..., Tensor]
"""(a part of the network, what it is given) -> what it gives."""


def call(part: nn.Module, *inputs: Any) -> Tensor:
    """How `Network` calls its blocks, and the norm after them.

    All blocks have one shape: compiled for the first, this serves the others too.
    """
    return cast(Tensor, part(*inputs))


class Network(nn.Module):
    """The language model.

    Attributes:
        config: its numbers.
        blocks: the layers in order.
    """

    frequencies: Tensor  # float32 (F / 2,): radians per position of each rotated pair

    def __init__(self, config: NetworkConfig) -> None:
        """A network with PyTorch's default weights; `initialise` gives it sensible ones."""
        super().__init__()
        self.config = config
        self.attends_in_tiles = tile_attention.serves(config.head_dim)
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.rms_epsilon)
        if not config.tied:
            self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.register_buffer("frequencies", _frequencies(config), persistent=False)

    def forward(
        self, tokens: Tensor, documents: Tensor | None = None, *, call: Call = call
    ) -> Tensor:
        """Scores of the next token at every position.

        Args:
            tokens: int64 (B, T).
            documents: int64 (B, T), each token's document, whose tokens stand together: attention
                stays within a document, and positions count from its start. None: each row is one.
            call: `call`, as it is or compiled.

        Returns:
            Logits, float32 (B, T, V).
        """
        return self.logits(self.features(tokens, documents, call=call))

    def features(
        self, tokens: Tensor, documents: Tensor | None = None, *, call: Call = call
    ) -> Tensor:
        """What the head sees, (B, T, D). The logits of all positions at once may be too large."""
        positions = _positions(tokens, documents)
        turns = self._turns(positions)
        x = self.embedding(tokens)
        mask = None if documents is None else document_mask(documents)
        if x.device.type == "cpu" and _product_dtype(x) is torch.bfloat16:
            if self.attends_in_tiles:
                mask = first_seen(positions)
            elif torch.is_grad_enabled() and x.shape[1] <= LONGEST_AT_ONCE:
                mask = score_mask(x, documents)
        for block in self.blocks:
            x = call(block, x, turns, mask)
        return call(self.norm, x)

    def logits(self, features: Tensor) -> Tensor:
        """(..., D) -> float32 (..., V)."""
        return functional.linear(features, self.head_weight).float()

    @property
    def head_weight(self) -> Tensor:
        """The head's matrix, (V, D)."""
        return self.embedding.weight if self.config.tied else self.head.weight

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Random weights that depend on the seed alone, whatever the device.

        Matrices keep the variance of their input; those that write to the residual stream are
        smaller by the root of their number, as in GPT-2 (Radford et al. 2019). The frequencies
        are set too, so that a network made on the meta device is complete after it.
        """
        random = torch.Generator().manual_seed(seed)
        writers = ("attention.output.weight", "feed_forward.down.weight")
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(0.0 if name.endswith(".bias") else 1.0)
                continue
            at_the_ends = name in ("embedding.weight", "head.weight")
            deviation = 0.02 if at_the_ends else parameter.shape[1] ** -0.5
            if name.endswith(writers):
                deviation /= math.sqrt(2 * self.config.layers)
            values = torch.randn(parameter.shape, generator=random) * deviation
            parameter.copy_(values)
        self.frequencies.copy_(_frequencies(self.config))

    def _turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each pair's angle at each position, float32 (B or 1, T, 1, F / 2)."""
        angles = positions[:, :, None, None].float() * self.frequencies
        return angles.cos(), angles.sin()


def rotated(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Queries or keys (B, T, heads, F), with features i and i + F / 2 turned as a pair."""
    cosine, sine = turns
    first, second = (half.float() for half in x.chunk(2, dim=-1))
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.cat([half.to(x.dtype) for half in turned], dim=-1)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """Attention of (B, H, T, F) queries over (B, K, T, F) keys and values: (B, H, T, F)."""
    queries, keys = queries.to(values.dtype), keys.to(values.dtype)
    if isinstance(mask, Tensor) and mask.dtype is torch.int32:
        queries, keys, values = (x.transpose(1, 2) for x in (queries, keys, values))
        return tile_attention.attention(queries, keys, values, mask).transpose(1, 2)
    shared = queries.shape[1] != keys.shape[1]
    if isinstance(mask, BlockMask):
        flexible: Callable[..., Any] = flex_attention
        if queries.is_cuda:
            flexible = _compiled_attention()
        return cast(Tensor, flexible(queries, keys, values, block_mask=mask, enable_gqa=shared))
    if mask is not None and mask.is_floating_point():
        if shared:
            groups = queries.shape[1] // keys.shape[1]
            keys, values = (x.repeat_interleave(groups, dim=1) for x in (keys, values))
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.mT
        chances = scores.add_(mask).softmax(dim=-1)
        return cast(Tensor, chances.to(values.dtype) @ values)
    return functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, is_causal=mask is None, enable_gqa=shared
    )


def document_mask(documents: Tensor) -> Mask:
    """Attention within documents, to earlier positions; `documents` is int64 (B, T).

    On a GPU whole blocks of the matrix are left out (FlexAttention, Dong et al. 2024).
    """
    return block_mask(documents) if documents.is_cuda else dense_mask(documents)


def dense_mask(documents: Tensor) -> Tensor:
    """The mask as a boolean matrix, (B, 1, T, T): rows see columns."""
    length = documents.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return (earlier & (documents[:, :, None] == documents[:, None, :]))[:, None]


def score_mask(x: Tensor, documents: Tensor | None) -> Tensor:
    """The same for the positions of `x` (B, T, D), to be added to scores; None: rows are one."""
    if documents is None:
        documents = torch.zeros(1, x.shape[1], dtype=torch.int64, device=x.device)
    seen = dense_mask(documents)
    added = torch.zeros(seen.shape, dtype=_product_dtype(x), device=x.device)
    return added.masked_fill_(~seen, -math.inf)


def first_seen(positions: Tensor) -> Tensor:
    """The mask as the first position that each one sees, from its place in its document."""
    places = torch.arange(positions.shape[1], device=positions.device)
    return (places - positions).to(torch.int32)


def block_mask(documents: Tensor) -> BlockMask:
    """The mask as blocks, for FlexAttention."""

    def sees(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (documents[row, query] == documents[row, key])

    rows, length = documents.shape
    return create_block_mask(sees, rows, None, length, length, device=str(documents.device))


@functools.cache
def _compiled_attention() -> Callable[..., Any]:
    # Not compiled, it would hold all scores in memory. In a compiled network this changes nothing.
    return torch.compile(flex_attention, dynamic=False)


def _product_dtype(x: Tensor) -> torch.dtype:
    """What matrix products with `x` are computed in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _positions(tokens: Tensor, documents: Tensor | None) -> Tensor:
    """Each token's place in its document, int64 (B or 1, T)."""
    places = torch.arange(tokens.shape[1], device=tokens.device)[None]
    if documents is None:
        return places
    starts = torch.zeros_like(documents)
    starts[:, 1:] = places[:, 1:] * (documents[:, 1:] != documents[:, :-1])
    return places - starts.cummax(dim=1).values


def _frequencies(config: NetworkConfig) -> Tensor:
    # from_numpy makes real numbers under the meta device too.
    return torch.from_numpy(rope_frequencies(config.architecture))
