"""Cases of fine-tuning: replies that end, loss with and without masks, adapters beside all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig as PeftConfig
from peft import inject_adapter_in_model

from bench.report import Row
from bench.training_parts.characters import DATA
from bench.training_parts.console import say
from oneiros.errors import TrainingError
from oneiros.model import catalog
from oneiros.model.chat_format import load_chat_format
from oneiros.model.convert import convert
from oneiros.model.parameters import open_parameters
from oneiros.model.tensor_types import TensorType
from oneiros.model.tokenizer import Tokenizer, load_tokenizer
from oneiros.training.bits_per_byte import token_lengths
from oneiros.training.conversations import (
    Conversation,
    Example,
    example_of,
    is_set_aside,
    read_conversations,
)
from oneiros.training.demo import short_talks
from oneiros.training.finetune import (
    FinetuneConfig,
    build_learner,
    evaluate_replies,
    finetune_config,
)
from oneiros.training.lora import TARGETS
from oneiros.training.machine import computes_bfloat16
from oneiros.training.network import Network, NetworkConfig
from oneiros.training.optimizer import rate_factor
from oneiros.training.packing import PackedBatches, PackedRows
from oneiros.training.processes import Processes
from oneiros.training.samples import answers
from oneiros.training.step import Learner, train_step
from oneiros.training.tokenizer import TokenizerConfig, save_tokenizer, train_tokenizer
from oneiros.training.weights import load_model, save_folder

MODEL = "smollm2-135m"
LONGEST = 600  # characters of a conversation
CONTEXT, ROWS = 256, 4
ASIDE = 0.1  # of the conversations
RANK = 8
STOPPING, NEAR_FULL = 0.95, 1.01


@dataclass(frozen=True, slots=True)
class Material:
    """A model to start from, and what it is to learn."""

    model: Path
    tokenizer: Tokenizer
    learnt: Sequence[Example]
    aside: Sequence[Example]
    asked: Sequence[Conversation]  # those that were set aside
    context: int
    reply: int  # tokens, at most
    epochs: float

    @property
    def config(self) -> FinetuneConfig:
        """Our defaults for all weights."""
        return self._config()

    @property
    def lora_config(self) -> FinetuneConfig:
        """And for adapters."""
        return self._config(rank=RANK)

    def _config(self, **chosen: float) -> FinetuneConfig:
        parameters = open_parameters(self.model)
        bfloat16 = computes_bfloat16(torch.device("cpu"))
        return finetune_config(
            NetworkConfig.of(parameters.architecture),
            [len(example.ids) for example in self.learnt],
            epochs=self.epochs,
            context=self.context,
            batch=ROWS,
            precision="bfloat16" if bfloat16 else "float32",
            **chosen,
        )


def dolly(folder: Path) -> Material:
    """SmolLM2-135M-Instruct, and the short conversations of Dolly."""
    path = DATA / "conversations" / "dolly-hhrlhf-small.jsonl"
    return _material(catalog.resolve(MODEL), short_talks(path, LONGEST), folder, CONTEXT, 256, 1)


def sums(folder: Path) -> Material:
    """A tiny network with random weights, and sums, for a smoke run."""
    talks = [
        {"prompt": f"What is {a} + {b}?", "response": f"{a + b}."}
        for a in range(8)
        for b in range(8)
    ]
    tokenizer = train_tokenizer((talk["prompt"] for talk in talks), TokenizerConfig(270))
    save_tokenizer(tokenizer, folder / "tokenizer")
    network = Network(NetworkConfig(320, 1, 64, 2, 1, 32, 128, 64))
    network.initialise(seed=1)
    save_folder(network, folder / "start", tokenizer=folder / "tokenizer")
    return _material(folder / "start", talks, folder, 64, 32, 2)


def sft_rows(case: str, material: Material, folder: Path) -> Iterator[Row]:
    """Once with loss on replies alone, as ours does it, and once on every token."""
    start = load_model(material.model)
    masked, loss = _trained("replies alone", material, start, material.config)
    yield _stop_row(case, masked.network, material, folder)
    every = [Example(e.ids, np.ones_like(e.said)) for e in material.learnt]
    _, peer = _trained(
        "every token",
        replace(material, learnt=every),
        load_model(material.model),
        material.config,
    )
    yield Row(case, "masked-loss", loss, peer, "nats/token", "lower", 1.0)


def lora_rows(case: str, material: Material) -> Iterator[Row]:
    """Loss with adapters over that of fine-tuning all weights: ours, and PEFT's."""
    config = material.lora_config
    _, full = _trained("all weights", material, load_model(material.model), material.config)
    _, ours = _trained("our adapters", material, load_model(material.model), config)
    network = load_model(material.model)
    settings = PeftConfig(
        r=RANK,
        lora_alpha=int(config.alpha),
        target_modules=[name.rpartition(".")[2] for name in TARGETS.values()],
    )
    torch.manual_seed(config.seed)
    inject_adapter_in_model(settings, network)
    _, peft = _trained("PEFT's adapters", material, network, replace(config, rank=0, alpha=1.0))
    yield Row(
        case,
        "loss-vs-full",
        ours / full,
        peft / full,
        "of full's",
        "lower",
        NEAR_FULL,
        absolute=True,
    )


def _material(
    model: Path,
    talks: Iterable[Mapping[str, str]],
    folder: Path,
    context: int,
    reply: int,
    epochs: float,
) -> Material:
    lines = folder / "talks.jsonl"
    lines.write_text("".join(json.dumps(talk) + "\n" for talk in talks), "utf-8")
    parameters = open_parameters(model)
    tokenizer = load_tokenizer(parameters)
    chat_format = load_chat_format(parameters, tokenizer)
    if chat_format is None:
        raise TrainingError(f"{model}: has no chat template.")
    pairs = [(talk, example_of(talk, chat_format)) for talk in read_conversations([lines])]
    fitting = [pair for pair in pairs if len(pair[1].ids) - 1 <= context]
    aside = [pair for pair in fitting if is_set_aside(pair[0], ASIDE)]
    learnt = [example for talk, example in fitting if not is_set_aside(talk, ASIDE)]
    return Material(
        model=model,
        tokenizer=tokenizer,
        learnt=learnt,
        aside=[example for _, example in aside],
        asked=[talk for talk, _ in aside],
        context=context,
        reply=reply,
        epochs=epochs,
    )


def _trained(
    name: str, material: Material, network: Network, config: FinetuneConfig
) -> tuple[Learner, float]:
    """`finetune`'s updates, without a run folder; with the loss on what was set aside."""
    learner = build_learner(config, network, Processes(torch.device("cpu")))
    batches = PackedBatches(PackedRows(material.learnt, config.context), config.batch, config.seed)
    begun = time.perf_counter()
    for step in range(config.steps):
        factor = rate_factor(
            step,
            config.steps,
            warmup=config.warmup,
            decay=config.decay,
            final=config.final_rate,
        )
        train_step(learner, batches.batch(step), factor)
    seconds, loss = time.perf_counter() - begun, _loss(learner, material)
    say(
        f"  {name}: {config.steps} steps of {config.batch_tokens:,} tokens, "
        f"{seconds:.0f} s; loss on {len(material.aside)} conversations that "
        f"were set aside: {loss:.4f}"
    )
    return learner, loss


def _loss(learner: Learner, material: Material) -> float:
    """Of the replies that were set aside, nats per token."""
    rows = PackedRows(material.aside, material.context)
    found = evaluate_replies(learner, rows, token_lengths(material.tokenizer))
    assert found is not None  # some were set aside
    return found.loss


def _stop_row(case: str, network: Network, material: Material, folder: Path) -> Row:
    save_folder(network, folder / "tuned", tokenizer=material.model)
    convert(folder / "tuned", folder / "tuned.gguf", tensor_type=TensorType.Q8_0)
    replies = answers(folder / "tuned.gguf", material.asked, tokens=material.reply, seed=1)
    rate = sum(reply.ended for reply in replies) / len(replies)
    say(f"  {len(replies)} questions that were set aside: {rate:.1%} of the replies end")
    return Row(case, "stop-rate", rate, None, "of replies", "higher", STOPPING, absolute=True)
