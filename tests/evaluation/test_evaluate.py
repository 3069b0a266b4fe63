"""Evaluating the default model: agreement with lm-evaluation-harness, caching, going on."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oneiros
from oneiros.engine.language_model import LanguageModel
from oneiros.engine.local_model import LocalModel
from oneiros.errors import EvaluationError, ModelFileError
from oneiros.evaluation.answer_file import AnswerFile
from oneiros.evaluation.asking import Outcome, ask, prompt_of
from oneiros.evaluation.evaluate import evaluate
from oneiros.evaluation.items import Choice, Cloze, Item, Reply, Scored, Suite
from oneiros.evaluation.passages import passage_suite
from oneiros.evaluation.perplexity import perplexity
from oneiros.evaluation.results import suite_result
from oneiros.evaluation.suites import Selection, build_suite
from tests.engine.serving import serving
from tests.evaluation.lm_eval_cases import FILE, prompt_sha256

LOGPROB_TOLERANCE = 0.02  # of a log-likelihood, beside half a nat


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """The default model."""
    return oneiros.load("smollm2-135m")


@asynccontextmanager
async def local(model: LanguageModel, spool: Path) -> AsyncIterator[LocalModel]:
    async with serving(model.engine, spool / "spool", model=model, pages=800) as service:
        yield LocalModel(
            name="smollm2",
            tokenizer=model.tokenizer,
            chat_format=model.chat_format,
            end_ids=model.tokenizer.end_ids,
            context=model.context,
            service=service,
            sha256=model.engine.model_sha256,
        )


def asked(model: LanguageModel, spool: Path, *items: Item) -> list[Outcome]:
    async def program() -> list[Outcome]:
        async with local(model, spool) as served:
            return list(await asyncio.gather(*(ask(served, item) for item in items)))

    return asyncio.run(program())


def evaluated(
    model: LanguageModel,
    spool: Path,
    suite: Suite,
    answers: Path | None = None,
    stop_after: int | None = None,
) -> tuple[dict[int, Outcome], int]:
    """The outcomes, and how many tokens of prompts were computed."""

    def progress(suite: Suite, done: int, outcome: Outcome) -> None:
        if done == stop_after:
            raise ConnectionError("stopped")

    async def program() -> tuple[dict[int, Outcome], int]:
        async with local(model, spool) as served:
            with AnswerFile(answers, served.name, served.sha256, served.context) as file:
                (outcomes,) = await evaluate(served, [suite], file, progress)
            totals = await served.service.statistics()
            return outcomes, totals.prompt_tokens - totals.cached_tokens

    return asyncio.run(program())


def built(model: LanguageModel, data: Path, name: str, **selection: Any) -> Suite:
    return build_suite(
        name,
        Selection(data, **selection),
        tokenizer=model.tokenizer,
        context=model.context,
        chat=False,
    )


@pytest.fixture(scope="session")
def harness(project_folder: Path) -> dict[str, Any]:
    """What lm-evaluation-harness found; make_lm_eval_goldens.py says how."""
    found: dict[str, Any] = json.loads((project_folder / FILE).read_text())
    return found


def check_agreement(
    model: LanguageModel, spool: Path, suite: Suite, theirs: dict[str, Any]
) -> None:
    for index, item in suite.items.items():
        texts = item.options if isinstance(item, Choice) else (item.text,)
        shown = prompt_sha256((text.context, text.continuation) for text in texts)
        assert shown == theirs["prompt_sha256"][index]
    outcomes, _ = evaluated(model, spool, suite)
    chosen = []
    for index, outcome in outcomes.items():
        expected = theirs["logprobs"][index]
        np.testing.assert_allclose(
            outcome["logprobs"], expected, rtol=LOGPROB_TOLERANCE, atol=0.5, err_msg=str(index)
        )
        if suite.name == "piqa":
            right = int(np.argmax(outcome["logprobs"]) == outcome["gold"])
        else:
            right = outcome["score"]
        chosen.append(right == theirs["right"][index])
    assert sum(not same for same in chosen) <= math.ceil(0.04 * len(chosen))


@pytest.mark.parametrize("name", ["piqa", "lambada"])
def test_log_likelihoods_agree_with_the_harness(
    model: LanguageModel, tmp_path: Path, data_folder: Path, harness: dict[str, Any], name: str
) -> None:
    suite = built(model, data_folder, name, shots=0)
    first = Suite(name, 0, {i: suite.items[i] for i in range(5)}, suite.baseline)
    check_agreement(model, tmp_path, first, harness[name])


@pytest.mark.long
@pytest.mark.parametrize("name", ["piqa", "lambada"])
def test_accuracies_agree_with_the_harness(
    model: LanguageModel, tmp_path: Path, data_folder: Path, harness: dict[str, Any], name: str
) -> None:
    suite = built(model, data_folder, name, shots=0)
    count = len(harness[name]["right"])
    items = {i: suite.items[i] for i in range(count)}
    check_agreement(model, tmp_path, Suite(name, 0, items, suite.baseline), harness[name])


def test_items_with_the_same_examples_share_their_keys_and_values(
    model: LanguageModel, tmp_path: Path, data_folder: Path
) -> None:
    suite = built(model, data_folder, "copa", shots=6, limit=3, seed=2, fixed_shots=True)
    outcomes, computed = evaluated(model, tmp_path, suite)
    whole = sum(
        len(model.tokenizer.encode(option.context + option.continuation))
        for item in suite.items.values()
        if isinstance(item, Choice)
        for option in item.options
    )
    (item, outcome), *others = zip(suite.items.values(), outcomes.values(), strict=True)
    assert len(others) == 2 and isinstance(item, Choice)
    ids = model.tokenizer.encode(item.options[1].context + item.options[1].continuation)
    direct = model.log_probabilities(ids)[-outcome["tokens"][1] :]
    assert outcome["logprobs"][1] == pytest.approx(float(direct.sum()), rel=1e-9)
    assert computed < whole / 2


def test_a_run_that_was_stopped_goes_on_where_it_was(
    model: LanguageModel, tmp_path: Path, data_folder: Path
) -> None:
    suite, path = built(model, data_folder, "copa", limit=4), tmp_path / "answers.jsonl"
    with pytest.raises(ConnectionError):
        evaluated(model, tmp_path, suite, path, stop_after=2)
    kept = path.read_text().splitlines()
    assert len(kept) >= 3
    outcomes, _ = evaluated(model, tmp_path, suite, path)
    lines = path.read_text().splitlines()
    assert lines[: len(kept)] == kept
    assert len(lines) == 1 + 4  # each item once
    assert list(outcomes) == list(suite.items)
    again, computed = evaluated(model, tmp_path, suite, path)
    assert (again, computed) == (outcomes, 0)


def test_bits_per_byte_are_those_of_perplexity(model: LanguageModel, tmp_path: Path) -> None:
    text = "It was the best of times, it was the worst of times. " * 3
    suite = passage_suite(
        "bits_per_byte", text, model.tokenizer, context=25, choose=lambda n: range(n)
    )
    outcomes, _ = evaluated(model, tmp_path, suite)
    expected = perplexity(model, model.tokenizer.encode(text), window=24)
    result = suite_result(suite, outcomes, 0)
    assert result.estimate.value == pytest.approx(expected.bits_per_byte, rel=1e-9)
    assert sum(o["tokens"] for o in outcomes.values()) == expected.tokens


def test_bits_per_byte_need_a_text(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="--text"):
        built(model, tmp_path, "bits_per_byte")


def test_every_form_of_item_is_judged(model: LanguageModel, tmp_path: Path) -> None:
    capital = "The capital of France is"
    right, wrong = Scored(capital, " Paris"), Scored(capital, " a kind of cheese made of milk")
    reply = Reply("1, 2, 3, 4, 5, 6,", "7", str.strip, (",",), 8)
    chosen, written, foretold, missed, replied = asked(
        model,
        tmp_path,
        Choice((wrong, right), 1, exact=True),
        Choice((wrong, right), 0, exact=True),
        Cloze(right),
        Cloze(wrong),
        reply,
    )
    assert (chosen["score"], chosen["exact"]) == (1, 1)
    assert (written["score"], written["exact"]) == (0, 0)
    assert (foretold["score"], foretold["answer"]) == (1, " Paris")
    assert missed["score"] == 0
    assert (replied["score"], replied["text"]) == (1, " 7")


def test_a_conversation_is_refused_for_a_base_model(model: LanguageModel, tmp_path: Path) -> None:
    item = Reply(({"role": "user", "content": "Hi"},), "7", str.strip, (), 8)

    async def program() -> None:
        async with local(model, tmp_path) as served:
            await ask(replace(served, chat_format=None), item)

    with pytest.raises(ModelFileError, match="--no-chat"):
        asyncio.run(program())


def test_prompts_too_long_lose_their_beginning(model: LanguageModel) -> None:
    text = Scored("one two three four five six seven", " eight nine")
    whole = prompt_of(model.tokenizer, text, 100)
    cut = prompt_of(model.tokenizer, text, 5)
    assert not whole.cut and cut.cut
    assert cut.ids == whole.ids[-5:]
    assert cut.ids[cut.first :] == whole.ids[whole.first :]
    tiny = prompt_of(model.tokenizer, text, 2)
    assert (len(tiny.ids), tiny.first) == (2, 1)  # something comes before what is scored
