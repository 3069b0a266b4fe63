"""What a model answers before and after fine-tuning, from the engine that will run it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from oneiros.engine.engine import Engine
from oneiros.engine.language_model import LanguageModel
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import TrainingError
from oneiros.model.chat_format import load_chat_format
from oneiros.model.json_text import read_object
from oneiros.model.parameters import open_parameters
from oneiros.model.replacement import replacing_file
from oneiros.model.tokenizer import load_tokenizer
from oneiros.training.conversations import Conversation


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered."""

    text: str
    ended: bool  # by the model, and with the token that ends replies rather than documents


@dataclass(frozen=True, slots=True)
class Sample:
    """A question, and what became of the answer."""

    question: str  # the last message before the reply
    wanted: str  # what the conversation's assistant said
    before: Reply
    after: Reply | None = None  # None: the run is not finished


def answers(
    model: Path,
    conversations: Sequence[Conversation],
    *,
    tokens: int,
    seed: int,
    threads: int | None = None,
) -> list[Reply]:
    """Let a model make the first reply of some conversations, as `oneiros run` would.

    Args:
        model: a GGUF file or a folder.
        conversations: whose beginnings are the prompts.
        tokens: of a reply at most.
        seed: the same seed gives the same replies.
        threads: of the engine; default: the cores that this process may use.

    Raises:
        OneirosError: the engine cannot open the model, or a prompt does not fit it.
    """
    if not conversations:
        return []
    parameters = open_parameters(model)
    tokenizer = load_tokenizer(parameters)
    chat_format = load_chat_format(parameters, tokenizer)
    engine = Engine(parameters, threads=threads)  # packed in memory: it is gone in a moment
    language_model = LanguageModel(model.name, parameters, tokenizer, chat_format, engine)
    options = SamplingOptions(seed=seed, max_tokens=tokens)
    replies = []
    for conversation in conversations:
        generation = language_model.stream(conversation.question, options)
        for _ in generation:
            pass
        ended = generation.finish_reason == "stop" and _is_turn(
            language_model, conversation, generation.token_ids
        )
        replies.append(Reply(generation.text, ended))
    return replies


def _is_turn(model: LanguageModel, conversation: Conversation, reply: Sequence[int]) -> bool:
    """Whether a reply that ended was ended as a reply: that token was likelier than other ends.

    A base model ends documents, which may be short.
    """
    assert model.chat_format is not None  # conversations were written with it
    turns = model.chat_format.render_turns(conversation.messages, tools=conversation.tools)
    turn_end = next(turn.ids[-1] for turn in turns if turn.said)
    prompt = model.chat_format.render(conversation.question)
    logits = model.engine.sequence().extend([*prompt, *reply])
    assert logits is not None  # "last" was asked for
    return max(model.tokenizer.end_ids, key=lambda token: float(logits[token])) == turn_end


def save_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Write samples.json.

    Raises:
        ModelFileError: it cannot be written.
    """
    records = {"samples": [asdict(sample) for sample in samples]}
    with replacing_file(path) as file:
        file.write((json.dumps(records, indent=2, ensure_ascii=False) + "\n").encode())


def load_samples(path: Path) -> list[Sample]:
    """Read samples.json.

    Raises:
        ModelFileError: it cannot be read.
        TrainingError: it is damaged.
    """
    content: dict[str, Any] = read_object(path)
    try:
        return [_sample(record) for record in content["samples"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path}: is damaged ({error}).") from error


def with_answers(samples: Sequence[Sample], replies: Sequence[Reply]) -> list[Sample]:
    """The samples with what the model answers now."""
    return [replace(sample, after=reply) for sample, reply in zip(samples, replies, strict=True)]


def _sample(record: dict[str, Any]) -> Sample:
    after = record["after"]
    return Sample(
        record["question"],
        record["wanted"],
        Reply(**record["before"]),
        None if after is None else Reply(**after),
    )
