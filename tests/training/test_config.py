"""One dial, and what follows from it."""

from __future__ import annotations

import itertools

import pytest

from oneiros.errors import TrainingError
from oneiros.training.config import PretrainConfig, pretrain_config
from oneiros.training.network import Network
from oneiros.training.pretrain import network_config


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 6, 8, 12, 16, 20, 26, 32])
@pytest.mark.parametrize("vocabulary", [512, 4096, 65536])
def test_every_depth_gives_a_sensible_run(depth: int, vocabulary: int) -> None:
    config = pretrain_config(depth, vocabulary)
    assert config.depth == depth
    assert config.heads * config.head_dim == config.width
    assert config.ffn_width % 32 == config.width % 32 == 0
    assert 19 < config.tokens / config.parameters < 21
    assert config.micro_batch <= config.batch
    assert config.batch & (config.batch - 1) == 0
    assert 500 < config.steps < 100_000
    assert config.warmup + config.decay < config.steps


def test_a_larger_depth_is_a_larger_longer_run() -> None:
    runs = [pretrain_config(depth, 4096) for depth in (2, 4, 8, 16, 32)]
    for smaller, larger in itertools.pairwise(runs):
        assert larger.parameters > 2 * smaller.parameters
        assert larger.tokens > 2 * smaller.tokens
        assert larger.batch_tokens >= smaller.batch_tokens
        assert larger.context >= smaller.context
        assert larger.embedding_rate < smaller.embedding_rate


@pytest.mark.parametrize("qk_norm", [True, False])
def test_parameters_are_counted_as_the_network_has_them(qk_norm: bool) -> None:
    config = pretrain_config(3, 320, kv_heads=3, heads=6, head_dim=10, width=48, qk_norm=qk_norm)
    network = Network(network_config(config))
    assert config.parameters == sum(parameter.numel() for parameter in network.parameters())
    matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and "blocks" in name]
    assert config.matrix_parameters == sum(parameter.numel() for parameter in matrices)


def test_what_is_set_stays_and_the_rest_follows_from_it() -> None:
    config = pretrain_config(4, 1024, width=128, tokens=1e6, batch=None)
    assert (config.depth, config.width) == (4, 128)
    assert config.heads * config.head_dim == 128
    assert config.tokens == pytest.approx(1e6, rel=0.01)
    shorter = pretrain_config(4, 1024, width=128, tokens=1e6, steps=10, warmup=3)
    assert (shorter.steps, shorter.warmup) == (10, 3)
    assert shorter.decay == 4
    assert pretrain_config(4, 1024, processes=3).batch % 3 == 0


def test_settings_survive_being_written() -> None:
    config = pretrain_config(4, 1024)
    assert PretrainConfig.from_dict(config.to_dict()) == config
    with pytest.raises(TrainingError, match=r"another version.*\(clip\)"):
        PretrainConfig.from_dict(
            {name: value for name, value in config.to_dict().items() if name != "clip"}
        )


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ({"heads": 4, "kv_heads": 3}, "4 query heads cannot share 3"),
        ({"head_dim": 7}, "head_dim is 7, and must be even"),
        ({"steps": 10, "warmup": 8, "decay": 8}, "do not fit into 10 steps"),
        ({"matrix_rate": -1.0}, "matrix_rate is -1.0, and must be above 0"),
        ({"clip": float("nan")}, "clip is nan"),
        ({"matrix_decay": -0.1}, "matrix_decay is -0.1, and must not be negative"),
        ({"batch": 7, "processes": 2}, "A batch of 7 rows cannot be shared evenly by 2"),
        ({"precision": "int4"}, "choose float32 or bfloat16"),
        ({"widht": 3}, "no setting called widht"),
        ({"tokens": -5}, "tokens is -5, and must be above 0"),
        ({"tokens": 0}, "tokens is 0, and must be above 0"),
        ({"tokens": float("inf")}, "tokens is inf"),
        ({"tokens": float("nan")}, "tokens is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    chosen: dict[str, float | str], problem: str
) -> None:
    with pytest.raises(TrainingError) as raised:
        pretrain_config(4, 1024, **chosen)
    assert problem in str(raised.value)
