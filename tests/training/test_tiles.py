"""The C kernels of training: portable everywhere, in tiles where the processor has them."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from oneiros.errors import KernelError
from oneiros.training import tile_attention, tile_products, tiles
from oneiros.training.network import Linear, Network, NetworkConfig

PATHS = [path for path in tiles.PATHS if path == "portable" or tiles.has_tiles()]

# B, T, H, K, F, and how documents begin
ATTENTION = {
    "one position": (1, 1, 2, 2, 32, False),
    "less than a block": (3, 40, 2, 2, 64, True),
    "a block and one": (2, 65, 4, 1, 96, True),
    "whole blocks": (2, 128, 3, 3, 64, False),
    "shared keys": (2, 200, 6, 2, 64, True),
    "large heads": (1, 130, 2, 1, 256, True),
    "documents that end beside blocks": (1, 270, 2, 1, 32, (0, 65, 255)),
}


def attention_inputs(
    rows: int,
    length: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    documents: bool | tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys and values, and the first position that each one sees.

    Documents begin at random (True), at the positions given, or with the row alone (False).
    """
    random = torch.Generator().manual_seed(length)
    queries = torch.randn(rows, length, heads, head_dim, generator=random).bfloat16()
    keys = torch.randn(rows, length, kv_heads, head_dim, generator=random).bfloat16()
    values = torch.randn(rows, length, kv_heads, head_dim, generator=random).bfloat16()
    if not documents:
        return queries, keys, values, torch.zeros(1, length, dtype=torch.int32)
    if documents is True:
        begins = torch.rand(rows, length, generator=random) < 0.04
    else:
        begins = torch.isin(torch.arange(length), torch.tensor(documents)).expand(rows, -1)
    places = torch.arange(length).expand(rows, -1)
    return queries, keys, values, (places * begins).cummax(1).values.to(torch.int32)


def seen(first: Tensor) -> Tensor:
    """(B or 1, T) -> boolean (B or 1, 1, T, T)."""
    places = torch.arange(first.shape[1])
    return ((places <= places[:, None]) & (places >= first[:, :, None]))[:, None]


def attention_by_its_formula(queries, keys, values, first, direction):
    """The result in float32, base-2 logarithms of the sums, and the gradients of the inputs."""
    inputs = [x.float().requires_grad_() for x in (queries, keys, values)]
    groups = queries.shape[2] // keys.shape[2]
    q, k, v = (x.transpose(1, 2) for x in inputs)
    k, v = (x.repeat_interleave(groups, 1) for x in (k, v))
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~seen(first), -math.inf)
    mixed = (scores.softmax(-1) @ v).transpose(1, 2)
    gradients = torch.autograd.grad(mixed, inputs, direction.float())
    return mixed.detach(), scores.logsumexp(-1).detach() / math.log(2), *gradients


def distance(found: Tensor, right: Tensor) -> float:
    """Relative to the size of what is right, of single values and of all together."""
    return float((found.float() - right).norm() / (right.norm() + 1e-3))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", ATTENTION.values(), ids=ATTENTION.keys())
def test_attention_in_blocks_is_the_formula_within_the_rounding_of_bfloat16(shape, path):
    queries, keys, values, first = attention_inputs(*shape)
    direction = torch.randn(queries.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    mixed, log_sum = tile_attention.forward(queries, keys, values, first, path)
    gradients = tile_attention.backward(
        direction, queries, keys, values, first, mixed, log_sum, path
    )
    right = attention_by_its_formula(queries, keys, values, first, direction)
    assert distance(log_sum, right[1]) < 1e-5
    for found, wanted in zip((mixed, *gradients), (right[0], *right[2:]), strict=True):
        # bfloat16 rounds to 1 in 256: results once, weights before them once more.
        assert distance(found, wanted) < 2**-8
        torch.testing.assert_close(found.float(), wanted, rtol=2**-6, atol=2**-5)


@pytest.mark.parametrize("path", PATHS)
def test_what_a_position_does_not_see_changes_no_bit_of_it(path):
    queries, keys, values, first = attention_inputs(2, 150, 2, 1, 64, True)
    mixed, _ = tile_attention.forward(queries, keys, values, first, path)
    hidden = slice(50, 55)
    keys[:, hidden] = 1e30
    values[:, hidden] = -3e38  # two of them are infinite
    changed, _ = tile_attention.forward(queries, keys, values, first, path)
    sees = seen(first)[:, 0, :, hidden].any(-1)
    assert not sees[:, 64:].all()  # in a block of its own too
    assert torch.equal(changed[~sees], mixed[~sees])
    assert not torch.equal(changed[sees], mixed[sees])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("which", [0, 1, 2], ids=["queries", "keys", "values"])
def test_a_number_that_is_none_is_not_lost(which, path):
    """The guard against divergence has to see it."""
    inputs = attention_inputs(1, 80, 1, 1, 32, False)
    inputs[which][0, 3, 0, 5] = math.nan
    mixed, log_sum = tile_attention.forward(*inputs, path)
    assert mixed[0, 3].isnan().any()
    gradients = tile_attention.backward(torch.ones_like(mixed), *inputs, mixed, log_sum, path)
    assert gradients[0][0, 3].isnan().any()


@pytest.mark.parametrize("path", PATHS)
def test_the_number_of_threads_changes_no_bit(path):
    queries, keys, values, first = attention_inputs(3, 100, 4, 2, 32, True)
    tall = torch.randn(2, 500, 96, generator=torch.Generator().manual_seed(0)).bfloat16()

    def everything():
        mixed, log_sum = tile_attention.forward(queries, keys, values, first, path)
        gradients = tile_attention.backward(
            mixed, queries, keys, values, first, mixed, log_sum, path
        )
        return mixed, log_sum, *gradients, tile_products.weight_gradient(*tall, path)

    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(everything())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "rows, down, across",
    [(0, 32, 64), (1, 32, 32), (31, 64, 96), (257, 96, 32), (600, 1056, 64), (70, 32, 2080)],
)
def test_the_gradient_of_weights_is_the_product_over_the_rows(rows, down, across, path):
    random = torch.Generator().manual_seed(rows)
    left = torch.randn(rows, down, generator=random).bfloat16()
    right = torch.randn(rows, across, generator=random).bfloat16()
    found = tile_products.weight_gradient(left, right, path)
    torch.testing.assert_close(found, left.float().T @ right.float(), rtol=1e-5, atol=1e-4)


def test_a_linear_layer_in_tiles_is_the_layer(monkeypatch):
    monkeypatch.setattr(tiles, "available", lambda: True)
    torch.manual_seed(0)
    layer, x = Linear(96, 64), torch.randn(3, 50, 96)
    assert layer.in_tiles and not Linear(96, 40).in_tiles and not Linear(96, 64, bias=True).in_tiles
    direction = torch.randn(3, 50, 64).bfloat16()

    def found():
        narrow = x.bfloat16().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(narrow)
        return y, *torch.autograd.grad(y, (narrow, layer.weight), direction)

    in_tiles = found()
    layer.in_tiles = False
    plain = found()
    assert torch.equal(in_tiles[0], plain[0])
    assert torch.equal(in_tiles[1], plain[1])
    assert in_tiles[2].dtype is torch.float32
    torch.testing.assert_close(in_tiles[2], plain[2], rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "traced"])
def test_a_network_in_tiles_is_as_near_to_float32_as_pytorch_in_bfloat16(compiled, monkeypatch):
    config = NetworkConfig(
        vocabulary=64,
        layers=2,
        width=64,
        heads=2,
        kv_heads=1,
        head_dim=32,
        ffn_width=96,
        context=80,
        qk_norm=True,
    )
    random = torch.Generator().manual_seed(0)
    tokens, targets = torch.randint(64, (2, 2, 80), generator=random)
    documents = torch.arange(80).div(30, rounding_mode="floor").expand(2, -1)

    def learned(*, tiled: bool, bfloat16: bool) -> tuple[float, Tensor]:
        monkeypatch.setattr(tiles, "available", lambda: tiled)
        network = Network(config)
        network.initialise(1)
        forward = network
        if compiled and tiled:  # all of `torch.compile` but its C++, which takes its time
            forward = torch.compile(network, dynamic=False, fullgraph=True, backend="aot_eager")
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = forward(tokens, documents)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        gradients = torch.autograd.grad(loss, [*network.parameters()])
        return loss.item(), torch.cat([gradient.flatten() for gradient in gradients])

    loss, right = learned(tiled=False, bfloat16=False)
    _, plain = learned(tiled=False, bfloat16=True)
    tiled_loss, tiled = learned(tiled=True, bfloat16=True)
    assert tiled_loss == pytest.approx(loss, rel=1e-3)
    assert not torch.equal(tiled, plain)
    assert distance(tiled, right) < 1.1 * distance(plain, right) < 0.02


def test_pytorch_knows_all_of_the_operations():
    """Their schemas, shapes and gradients, as `torch.compile` relies on them."""
    inputs = attention_inputs(2, 70, 4, 2, 32, True)
    learns = tuple(x.requires_grad_() if x.is_floating_point() else x for x in inputs)
    torch.library.opcheck(torch.ops.oneiros.attention, learns)
    torch.library.opcheck(torch.ops.oneiros.weight_gradient, (*torch.ones(2, 9, 32).bfloat16(),))


def test_kernels_refuse_what_they_would_misread():
    queries, keys, values, first = attention_inputs(2, 20, 2, 2, 32, False)
    narrow = tuple(x[..., :16].contiguous() for x in (queries, keys, values))
    for wrong in (
        (queries.float(), keys, values, first),
        (queries, keys[:, :10], values, first),
        (queries, keys, values.transpose(1, 2).contiguous().transpose(1, 2), first),
        (queries, keys, values, first.long()),
        (queries, keys, values, first.expand(3, -1).contiguous()),
        (*narrow, first),
    ):
        with pytest.raises(ValueError, match="kernel"):
            tile_attention.forward(*wrong, "portable")
    for columns in (0, 40):
        with pytest.raises(ValueError, match="multiples of 32"):
            tile_products.weight_gradient(*torch.ones(2, 4, columns).bfloat16(), "portable")


def test_a_gradient_of_the_gradient_is_refused(monkeypatch):
    monkeypatch.setattr(tiles, "available", lambda: True)
    x = torch.ones(2, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = Linear(32, 32)(x.bfloat16())
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        slope.sum().backward()


def test_work_that_no_thread_had_memory_for_is_reported(monkeypatch):
    """So that the micro-batch is halved."""
    kernels = SimpleNamespace(oneiros_weight_gradient_portable=lambda work: None)
    monkeypatch.setattr(tiles, "_kernels", lambda: kernels)
    monkeypatch.setattr(tiles, "_openmp", lambda: None)
    with pytest.raises(torch.OutOfMemoryError, match="weight_gradient"):
        tile_products.weight_gradient(*torch.ones(2, 4, 32).bfloat16(), "portable")


def test_kernels_that_are_not_built_are_named(monkeypatch):
    monkeypatch.setattr(tiles, "__file__", str(Path("/nowhere/tiles.py")))
    with pytest.raises(KernelError, match="make kernels"):
        tiles._kernels.__wrapped__()


def test_tiles_are_refused_where_the_processor_has_none(monkeypatch):
    monkeypatch.setattr(tiles, "has_tiles", lambda: False)
    with pytest.raises(KernelError, match="AMX"):
        tile_products.weight_gradient(*torch.ones(2, 4, 32).bfloat16(), "tiles")


def test_instructions_that_are_forbidden_are_not_used(monkeypatch):
    monkeypatch.setenv("ONEIROS_INSTRUCTIONS", "portable")
    assert not tiles.available.__wrapped__()
