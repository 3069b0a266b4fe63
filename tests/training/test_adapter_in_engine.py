"""The engine with an adapter, against PEFT and transformers in float32."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from transformers import AutoModelForCausalLM

import oneiros
from oneiros.model.convert import convert
from oneiros.model.tensor_types import TensorType
from oneiros.training.lora import TARGETS, LoraConfig, adapt, adapters, save_adapter
from oneiros.training.weights import load_model
from tests.training.chat_builders import tiny_chat

TOKENS = [int(t) for t in np.random.default_rng(2).integers(0, 256, 48)]


def peft_logits(base: Path, adapter: Path, rank: int, size: float) -> NDArray[np.float32]:
    """Logits of PEFT's own model, whose random adapter it writes to a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        torch.manual_seed(3)
        config = PeftConfig(r=rank, lora_alpha=16, target_modules=[*TARGETS], use_rslora=True)
        adapted = get_peft_model(model, config)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=size)
        adapted.save_pretrained(adapter)
        adapted.eval()
        with torch.no_grad():
            return adapted(torch.tensor([TOKENS])).logits[0].numpy()


def logits(base: Path, adapter: Path | None) -> NDArray[np.float32]:
    sequence = oneiros.load(base, adapter=adapter, threads=1).engine.sequence()
    found = sequence.extend(TOKENS, "all")
    assert found is not None
    return found


def test_an_adapter_that_peft_wrote_has_peft_s_logits(tmp_path: Path) -> None:
    base = tiny_chat(tmp_path, qk_norm=False).path
    expected = peft_logits(base, tmp_path / "adapter", rank=5, size=0.1)
    ours = logits(base, tmp_path / "adapter")
    assert np.abs(logits(base, None) - expected).max() > 0.1
    np.testing.assert_allclose(ours, expected, atol=4e-3 * np.abs(expected).max())


def test_an_adapter_of_our_training_has_its_network_s_logits(tmp_path: Path) -> None:
    base = tiny_chat(tmp_path, qk_norm=False).path
    network = load_model(base)
    config = LoraConfig(3, 5.0)
    adapt(network, config, seed=1)
    torch.manual_seed(4)
    for _, adapted in adapters(network):
        torch.nn.init.normal_(adapted.b, std=0.1)
    save_adapter(network, config, tmp_path / "adapter", base=str(base))
    with torch.no_grad():
        expected = network(torch.tensor([TOKENS]))[0].numpy()
    ours = logits(base, tmp_path / "adapter")
    assert np.abs(logits(base, None) - expected).max() > 0.1
    np.testing.assert_allclose(ours, expected, atol=4e-3 * np.abs(expected).max())


@pytest.mark.long
@pytest.mark.parametrize("kind", [TensorType.F16, TensorType.F32])
def test_the_default_model_with_an_adapter_has_peft_s_logits(
    default_model_path: Path, tmp_path: Path, kind: TensorType
) -> None:
    convert(default_model_path, tmp_path / "base", tensor_type=kind)
    expected = peft_logits(tmp_path / "base", tmp_path / "adapter", rank=8, size=0.005)
    ours = logits(tmp_path / "base", tmp_path / "adapter")
    assert np.abs(logits(tmp_path / "base", None) - expected).max() > 1
    np.testing.assert_allclose(ours, expected, atol=2e-3 * np.abs(expected).max())
    assert (ours.argmax(1) == expected.argmax(1)).mean() > 0.95
