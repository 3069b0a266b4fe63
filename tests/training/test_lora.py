"""Adapters: against plain PyTorch, merged, and to and from PEFT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from torch.func import functional_call
from torch.nn import functional
from transformers import AutoModelForCausalLM

from oneiros.errors import ModelFileError, TrainingError, UnsupportedModelError
from oneiros.training.finetune import build_learner, finetune_config
from oneiros.training.lora import (
    CONFIG,
    TARGETS,
    WEIGHTS,
    LoraConfig,
    adapt,
    adapters,
    base_of,
    load_adapter,
    merge,
    merge_folder,
    save_adapter,
)
from oneiros.training.network import Network
from oneiros.training.packing import PackedRows
from oneiros.training.step import train_step
from oneiros.training.weights import load_model
from tests.training.builders import CPU
from tests.training.chat_builders import TinyChat, examples, talks, tiny_chat

TOKENS = torch.arange(48).view(2, 24) % 256


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> TinyChat:
    return tiny_chat(tmp_path_factory.mktemp("chat"), qk_norm=False)


def randomised(chat: TinyChat, config: LoraConfig) -> Network:
    """A network whose adapters change its logits much."""
    network = load_model(chat.path)
    adapt(network, config)
    random = torch.Generator().manual_seed(5)
    for _, adapted in adapters(network):
        adapted.b.data = torch.randn(adapted.b.shape, generator=random) * 0.5
    return network


def reference_losses(chat: TinyChat, rows: PackedRows, steps: int, rate: float) -> list[float]:
    """What LoRA is, in twenty lines of plain PyTorch: W + (alpha / r) B A, with AdamW."""
    started = load_model(chat.path)
    adapt(started, LoraConfig(4, 8.0), seed=1)
    parts = {name: adapted.a.detach().clone() for name, adapted in adapters(started)}
    a = {name: part.requires_grad_() for name, part in parts.items()}
    network = load_model(chat.path).requires_grad_(False)
    weights = dict(network.named_parameters())
    b = {name: torch.zeros(len(weights[f"{name}.weight"]), 4).requires_grad_() for name in a}
    adam = torch.optim.AdamW(
        [*a.values(), *b.values()], lr=rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    found = []
    for step in range(steps):
        batch = rows.batch([step % len(rows)])
        tokens, targets, documents = map(
            torch.from_numpy, (batch.tokens, batch.targets, batch.documents)
        )
        changed = {
            f"{name}.weight": weights[f"{name}.weight"] + 2.0 * b[name] @ a[name] for name in a
        }
        logits = functional_call(network, changed, (tokens, documents))
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*a.values(), *b.values()], 1.0)
        adam.step()
        adam.zero_grad()
        found.append(float(loss.detach()))
    return found


def test_training_equals_a_plain_loop(chat: TinyChat, tmp_path: Path) -> None:
    rows = PackedRows(examples(chat, tmp_path, talks(12)), 128)
    network = load_model(chat.path)
    config = finetune_config(network.config, [60] * 20, rank=4, context=128, batch=1, rate=0.01)
    learner = build_learner(config, network, CPU)
    found = [train_step(learner, rows.batch([i % len(rows)]), 1.0).loss for i in range(12)]
    expected = reference_losses(chat, rows, 12, 0.01)
    assert found == pytest.approx(expected, abs=1e-4)
    assert expected[-1] < expected[0] - 0.2
    frozen = dict(load_model(chat.path).named_parameters())
    for name, adapted in adapters(network):
        assert torch.equal(adapted.linear.weight, frozen[f"{name}.weight"])


def test_a_new_adapter_changes_nothing(chat: TinyChat) -> None:
    network = load_model(chat.path)
    before = network(TOKENS)
    adapt(network, LoraConfig(4, 8.0))
    assert torch.equal(network(TOKENS), before)
    assert len([*adapters(network)]) == 2 * len(TARGETS)


def test_a_merged_network_has_the_logits_of_the_adapted_one(chat: TinyChat, tmp_path: Path) -> None:
    config = LoraConfig(3, 5.0)
    network = randomised(chat, config)
    expected = network(TOKENS)
    assert (expected - load_model(chat.path)(TOKENS)).abs().max() > 0.05
    save_adapter(network, config, tmp_path / "adapter", base=str(chat.path))
    assert base_of(tmp_path / "adapter") == str(chat.path)
    changed = merge_folder(chat.path, tmp_path / "adapter", tmp_path / "merged")
    assert changed == 2 * len(TARGETS)
    merge(network)
    assert not [*adapters(network)]
    for merged in (network, load_model(tmp_path / "merged")):
        assert torch.allclose(merged(TOKENS), expected, atol=1e-4)


def test_peft_loads_our_adapters_and_we_load_its(chat: TinyChat, tmp_path: Path) -> None:
    config = LoraConfig(3, 5.0)
    network = randomised(chat, config)
    save_adapter(network, config, tmp_path / "ours", base=str(chat.path))
    base = AutoModelForCausalLM.from_pretrained(chat.path, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path / "ours")
    with torch.no_grad():
        assert torch.allclose(theirs(TOKENS).logits, network(TOKENS), atol=1e-4)

    base = AutoModelForCausalLM.from_pretrained(chat.path, dtype=torch.float32)
    settings = PeftConfig(
        r=4, lora_alpha=16, target_modules=["q_proj", "down_proj"], use_rslora=True
    )
    theirs = get_peft_model(base, settings)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    theirs.save_pretrained(tmp_path / "theirs")
    network = load_model(chat.path)
    load_adapter(network, tmp_path / "theirs")
    with torch.no_grad():
        assert torch.allclose(theirs(TOKENS).logits, network(TOKENS), atol=1e-4)


def test_adapters_that_do_not_fit_are_refused(chat: TinyChat, tmp_path: Path) -> None:
    config = LoraConfig(3, 5.0)
    good = tmp_path / "good"
    save_adapter(randomised(chat, config), config, good, base=str(chat.path))
    with pytest.raises(ModelFileError, match="exists already"):
        save_adapter(load_model(chat.path), config, good, base="")
    with pytest.raises(ModelFileError, match="holds no adapter"):
        load_adapter(load_model(chat.path), tmp_path)
    other = tiny_chat(tmp_path, width=32, heads=2, kv_heads=1)
    with pytest.raises(ModelFileError, match="belongs to another model"):
        load_adapter(load_model(other.path), good)
    shallow = tiny_chat(tmp_path / "shallow", layers=1)
    with pytest.raises(ModelFileError, match=r"layers\.1\..* has no place in the network"):
        load_adapter(load_model(shallow.path), good)
    dora = tmp_path / "dora"
    shutil.copytree(good, dora)
    settings = json.loads((dora / CONFIG).read_text())
    (dora / CONFIG).write_text(json.dumps(settings | {"use_dora": True}))
    with pytest.raises(UnsupportedModelError, match="use_dora is True: only plain LoRA"):
        load_adapter(load_model(chat.path), dora)
    cut = tmp_path / "cut"
    shutil.copytree(good, cut)
    (cut / WEIGHTS).write_bytes((good / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(ModelFileError):
        load_adapter(load_model(chat.path), cut)
    with pytest.raises(TrainingError, match="rank is 0"):
        LoraConfig(0, 1.0)
    with pytest.raises(TrainingError, match="there is no w_proj"):
        LoraConfig(1, 1.0, ("w_proj",))
