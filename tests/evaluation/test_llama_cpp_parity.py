"""Perplexity and LAMBADA accuracy equal those of llama.cpp on the same files and token ids.

What differs is where each side rounds: without it (floating-point formats) perplexities agree to
a few parts in 10,000, and with activations of 8 bits to half a percent. llama.cpp's scores are
stored (make_llama_cpp_goldens.py). The long tests take all of them, the others the first ones.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oneiros.engine.engine import Engine, Work
from oneiros.engine.language_model import LanguageModel
from oneiros.evaluation.perplexity import perplexity
from oneiros.model.parameters import open_parameters
from oneiros.model.tensor_types import TensorType
from oneiros.model.tokenizer import load_tokenizer
from tests.evaluation.llama_cpp_cases import (
    CASES,
    GOLDENS,
    WINDOW,
    Case,
    Example,
    lambada,
    model_file,
    shakespeare,
)
from tests.model.tokenizer_texts import digest

TOLERANCE = 0.005  # of a perplexity
FLOATS = (TensorType.F16, TensorType.BF16)
FLOAT_TOLERANCE = 0.001
EXAMPLES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Scored:
    """A model that llama.cpp has scored."""

    case: Case
    model: LanguageModel
    golden: dict[str, Any]


def goldens(name: str) -> dict[str, Any]:
    """What llama.cpp scored in one case."""
    golden: dict[str, Any] = json.loads(GOLDENS.read_text())[name]
    return golden


@pytest.fixture(scope="module")
def scored(request: pytest.FixtureRequest) -> Iterator[Scored]:
    """The case named by the parameter; the golden is of exactly this file."""
    name: str = request.param
    case, golden = CASES[name], goldens(name)
    with tempfile.TemporaryDirectory() as folder:
        parameters = open_parameters(model_file(case, Path(folder)))
        assert parameters.sha256() == golden["file_sha256"], "the golden is of another file"
        engine = Engine(parameters, context=WINDOW)
        model = LanguageModel(name, parameters, load_tokenizer(parameters), None, engine)
        yield Scored(case, model, golden)


def assert_perplexity_matches(scored: Scored, data_folder: Path, windows: int) -> None:
    case, golden = scored.case, scored.golden["perplexity"]
    ids = shakespeare(scored.model.tokenizer, data_folder, case.windows)
    assert digest(ids) == golden["ids_sha256"], "the golden is of other tokens"
    score = perplexity(scored.model, ids[: windows * WINDOW], window=WINDOW, overlap=0)
    assert score.tokens == windows * (WINDOW - 1)
    ours = score.perplexity
    theirs = math.exp(sum(golden["nats"][:windows]) / score.tokens)
    if case.exact is None:
        tolerance = FLOAT_TOLERANCE if case.converted in FLOATS else TOLERANCE
        assert ours == pytest.approx(theirs, rel=tolerance)
        return
    golden = goldens(case.exact)["perplexity"]
    assert golden["ids_sha256"] == digest(ids)
    exact = math.exp(sum(golden["nats"][:windows]) / score.tokens)
    assert ours == pytest.approx(exact, rel=TOLERANCE)
    assert ours <= theirs * (1 + TOLERANCE)


@pytest.mark.parametrize(
    "scored", [name for name, case in CASES.items() if case.first_windows], indirect=True
)
def test_perplexity_of_the_first_windows(scored: Scored, data_folder: Path) -> None:
    assert_perplexity_matches(scored, data_folder, scored.case.first_windows)


@pytest.mark.long
@pytest.mark.parametrize("scored", CASES, indirect=True)
def test_perplexity_of_all_windows(scored: Scored, data_folder: Path) -> None:
    assert_perplexity_matches(scored, data_folder, scored.case.windows)


def recalled(engine: Engine, examples: list[Example]) -> list[bool]:
    """Of each example, whether every token of the target is the most probable one."""
    result = []
    for first in range(0, len(examples), EXAMPLES_AT_ONCE):
        batch = [(engine.sequence(), example) for example in examples[first:][:EXAMPLES_AT_ONCE]]
        engine.step([Work(s, example.context[:-1], "none") for s, example in batch])
        ends = [Work(s, [e.context[-1], *e.target[:-1]], "all") for s, e in batch]
        for (sequence, example), logits in zip(batch, engine.step(ends), strict=True):
            assert logits is not None
            result.append(logits.argmax(axis=1).tolist() == example.target)
            sequence.close()
    return result


@pytest.mark.parametrize(
    "scored", [name for name, case in CASES.items() if case.examples], indirect=True
)
def test_lambada_accuracy(scored: Scored, data_folder: Path) -> None:
    golden = scored.golden["lambada"]
    examples = lambada(scored.model.tokenizer, data_folder, scored.case.examples)
    ids = [i for example in examples for i in example.context + example.target]
    assert digest(ids) == golden["ids_sha256"], "the golden is of other examples"
    ours = recalled(scored.model.engine, examples)
    theirs = [correct == "1" for correct in golden["correct"]]
    assert len(ours) == len(theirs) == scored.case.examples
    assert abs(sum(ours) - sum(theirs)) <= 0.01 * len(ours)
    different = sum(mine != other for mine, other in zip(ours, theirs, strict=True))
    assert different <= 0.05 * len(ours)  # near ties; equal sums of unlike answers do not pass
