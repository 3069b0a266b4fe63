"""Putting an item to a model, and judging what comes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from oneiros.engine.local_model import LocalModel
from oneiros.engine.requests import (
    BACKGROUND,
    GenerationRequest,
    PromptRead,
    TokenLogprob,
    Tokens,
)
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.stop_texts import StopTexts
from oneiros.errors import ModelFileError
from oneiros.evaluation.items import Choice, Cloze, Item, Passage, Reply, Scored
from oneiros.model.tokenizer import TextStream, Tokenizer

LN2 = math.log(2)

Outcome = dict[str, Any]
"""What is kept of an answer; `score` is 1 or 0, for a passage its bits per byte."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids of which those from `first` on are scored."""

    ids: tuple[int, ...]
    first: int
    cut: bool  # whether the beginning did not fit the context


def prompt_of(tokenizer: Tokenizer, text: Scored, longest: int) -> Prompt:
    """A text as at most `longest` tokens, the end of it kept where it is longer.

    Context and continuation are tokenized as one text, so that the model sees the tokens that it
    learnt from; the continuation begins where these differ from the context's own.
    """
    start = tokenizer.prompt_ids("")
    if not start and not text.context:
        start = [_start_of_texts(tokenizer)]  # something has to come before what is scored
    context = tokenizer.encode(text.context)
    whole = tokenizer.encode(text.context + text.continuation)
    first = 0
    while first < min(len(context), len(whole) - 1) and context[first] == whole[first]:
        first += 1
    room = longest - len(start)
    dropped = max(0, len(whole) - room)
    ids = (*start, *whole[dropped:])
    return Prompt(ids, max(1, len(start) + first - dropped), dropped > 0)


async def ask(model: LocalModel, item: Item) -> Outcome:
    """The outcome of one item.

    Raises:
        ModelFileError: a conversation for a model without a chat format.
        OneirosError: of the engine; see EngineService.generate.
    """
    match item:
        case Choice():
            return await _choose(model, item)
        case Cloze():
            return await _foretell(model, item)
        case Passage():
            return await _predict(model, item)
        case Reply():
            return await _reply(model, item)


async def _choose(model: LocalModel, item: Choice) -> Outcome:
    sums, tokens, exact, cut = [], [], False, False
    for index, option in enumerate(item.options):
        top = 1 if item.exact and index == item.gold else 0
        prompt = prompt_of(model.tokenizer, option, model.context - 1)
        logprobs = await _logprobs(model, prompt.ids, prompt.first, top)
        sums.append(sum(p.logprob for p in logprobs))
        tokens.append(len(logprobs))
        cut |= prompt.cut
        exact |= top > 0 and _is_greedy(logprobs)
    means = [total / count for total, count in zip(sums, tokens, strict=True)]
    answer = means.index(max(means))
    outcome: Outcome = {
        "answer": answer,
        "gold": item.gold,
        "score": int(answer == item.gold),
        "logprobs": sums,
        "tokens": tokens,
        "characters": [len(option.continuation.strip()) for option in item.options],
    }
    if item.exact:
        outcome["exact"] = int(exact)
    return outcome | ({"cut": True} if cut else {})


async def _foretell(model: LocalModel, item: Cloze) -> Outcome:
    prompt = prompt_of(model.tokenizer, item.text, model.context - 1)
    logprobs = await _logprobs(model, prompt.ids, prompt.first, 1)
    stream = TextStream(model.tokenizer)
    said = "".join(stream.push(p.top[0][0]) for p in logprobs) + stream.flush()
    return {
        "answer": said,
        "gold": item.text.continuation,
        "score": int(_is_greedy(logprobs)),
        "logprobs": [sum(p.logprob for p in logprobs)],
        "tokens": [len(logprobs)],
    } | ({"cut": True} if prompt.cut else {})


async def _predict(model: LocalModel, item: Passage) -> Outcome:
    logprobs = await _logprobs(model, item.ids, item.first, 0)
    bits = -sum(p.logprob for p in logprobs) / LN2
    return {
        "score": bits / item.bytes if item.bytes else 0.0,
        "bits": bits,
        "tokens": len(logprobs),
        "bytes": item.bytes,
    }


async def _reply(model: LocalModel, item: Reply) -> Outcome:
    room = min(item.max_tokens, model.context // 2)
    if isinstance(item.prompt, str):
        ids = model.tokenizer.prompt_ids(item.prompt)
    elif model.chat_format is None:
        raise ModelFileError(f"{model.name} has no chat template: ask it with --no-chat.")
    else:
        ids = model.chat_format.render(item.prompt, add_generation_prompt=True)
    longest = model.context - room
    request = GenerationRequest(
        tuple(ids[-longest:]),
        SamplingOptions(temperature=0.0, max_tokens=room),
        end_ids=model.end_ids,
        priority=BACKGROUND,
    )
    stream, stops = TextStream(model.tokenizer), StopTexts(item.stop)
    text = ""
    async with aclosing(model.service.generate(request)) as outputs:
        async for output in outputs:
            if isinstance(output, Tokens):
                text += "".join(stops.push(stream.push(i)) for i in output.ids)
                if stops.met:
                    break
    if not stops.met:
        text += stops.push(stream.flush()) + stops.flush()
    answer = item.read(text)
    return {
        "answer": answer,
        "gold": item.gold,
        "score": int(answer == item.gold),
        "text": text,
    } | ({"cut": True} if len(ids) > longest else {})


async def _logprobs(
    model: LocalModel, ids: Sequence[int], first: int, top: int
) -> tuple[TokenLogprob, ...]:
    """Of the tokens from `first` on; what comes before may be in the prefix cache."""
    request = GenerationRequest(
        tuple(ids),
        SamplingOptions(temperature=0.0, max_tokens=1),
        priority=BACKGROUND,
        prompt_logprobs=top,
        prompt_logprobs_from=first,
    )
    logprobs: tuple[TokenLogprob, ...] = ()
    async with aclosing(model.service.generate(request)) as outputs:
        async for output in outputs:
            if isinstance(output, PromptRead):
                logprobs = output.logprobs
    return logprobs


def _is_greedy(logprobs: Sequence[TokenLogprob]) -> bool:
    return all(p.top[0][0] == p.token for p in logprobs)


def _start_of_texts(tokenizer: Tokenizer) -> int:
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    return 0 if start is None else start
