"""The library as a program uses it, on the default model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import oneiros
from oneiros.engine.language_model import LanguageModel
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import ContextLengthError, ModelFileError, ModelNotFoundError
from oneiros.model.tensor_types import TensorType
from tests.model.builders import build_gguf, tiny_architecture

GREEDY = SamplingOptions(temperature=0.0, max_tokens=24)


def test_the_example_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    model = oneiros.load("smollm2-135m")
    for text in model.stream("Why is the sky blue?", GREEDY):
        print(text, end="")
    assert "light" in capsys.readouterr().out


def test_a_completion_knows_a_capital(model: LanguageModel) -> None:
    generation = model.complete("The capital of France is", GREEDY)
    assert "".join(generation).startswith(" Paris")
    assert generation.finish_reason == "length"
    assert generation.statistics.prompt_tokens == 5
    assert generation.statistics.generated_tokens == 24
    assert model.tokenizer.decode(generation.token_ids) == generation.text


def test_a_chat_costs_only_its_new_tokens_and_equals_one_rendered_whole(
    model: LanguageModel,
) -> None:
    chat = model.chat(system="You are a helpful assistant.")
    first = chat.send("Name a colour.", SamplingOptions(temperature=0.0))
    "".join(first)
    assert first.finish_reason == "stop"
    second = chat.send("And another one.", GREEDY)
    reply = "".join(second)
    assert second.statistics.cached_tokens == first.length
    assert model.chat_format is not None
    whole = model.stream(chat.messages[:-1], GREEDY)
    assert "".join(whole) == reply
    assert whole.statistics.prompt_tokens == second.statistics.prompt_tokens
    assert [m["role"] for m in chat.messages] == ["system", *["user", "assistant"] * 2]


def test_a_cancelled_reply_stays_as_far_as_it_came(model: LanguageModel) -> None:
    chat = model.chat()
    generation = chat.send("Tell me a long story.", SamplingOptions(temperature=0.0))
    said = ""
    for piece in generation:
        said += piece
        if len(generation.token_ids) == 10:
            generation.cancel()
    assert generation.finish_reason == "cancelled"
    assert len(generation.token_ids) == 10
    assert chat.messages[-1] == {"role": "assistant", "content": said}
    again = chat.send("Go on.", GREEDY)
    assert "".join(again)
    assert again.statistics.cached_tokens == generation.length


def test_a_reply_cancelled_before_it_began_leaves_the_chat_usable(model: LanguageModel) -> None:
    chat = model.chat()
    first = chat.send("Hello " * 400, GREEDY)
    first.cancel()
    assert "".join(first) == ""
    assert "".join(chat.send("What is two plus two?", GREEDY))


def test_a_stop_text_ends_the_reply_before_it(model: LanguageModel) -> None:
    whole = "".join(model.complete("1, 2, 3, 4,", GREEDY))
    stop = whole[9:12]
    options = SamplingOptions(temperature=0.0, max_tokens=24, stop=(stop, "never said"))
    generation = model.complete("1, 2, 3, 4,", options)
    pieces = list(generation)
    assert "".join(pieces) == generation.text == whole[: whole.index(stop)]
    assert generation.finish_reason == "stop"


def test_a_chat_forgets_what_came_after_a_stop_text(model: LanguageModel) -> None:
    chat = model.chat()
    stopped = SamplingOptions(temperature=0.0, max_tokens=60, stop=(" ",))
    first = chat.send("Name a colour.", stopped)
    said = "".join(first)
    assert first.cut
    assert chat.messages[-1]["content"] == said
    reply = "".join(chat.send("And another one.", GREEDY))
    assert "".join(model.stream(chat.messages[:-1], GREEDY)) == reply


def test_the_end_of_the_context_ends_a_reply() -> None:
    model = oneiros.load("smollm2-135m", context=48)
    generation = model.complete("The quick brown fox", SamplingOptions(seed=0, temperature=2.0))
    "".join(generation)
    if generation.finish_reason == "length":
        assert generation.context_full
        assert generation.length == 48


def test_a_prompt_beyond_the_context_is_refused_by_how_much() -> None:
    model = oneiros.load("smollm2-135m", context=32)
    with pytest.raises(ContextLengthError, match=r"41 tokens and the context 32: 10 too many"):
        model.complete("a" + " b" * 40)
    with pytest.raises(ContextLengthError, match=r"context of 9000 .* from 1 to 8192"):
        oneiros.load("smollm2-135m", context=9000)


@pytest.mark.long
def test_positions_up_to_the_end_of_an_8k_context(model: LanguageModel) -> None:
    """A text that repeats itself stays predictable right to the last position."""
    text = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back. "
    ids = (model.tokenizer.encode(text) * 400)[: model.context]
    scores = model.log_probabilities(ids)
    assert len(scores) == model.context - 1
    assert scores[-200:].mean() > -0.5


def test_log_probabilities_are_those_of_the_logits(model: LanguageModel) -> None:
    ids = model.tokenizer.encode("All happy families are alike; " * 12)
    logits = model.engine.sequence().extend(ids, "all")
    assert logits is not None
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(1, keepdims=True))
    expected = exact[np.arange(len(ids) - 1), ids[1:]]
    np.testing.assert_allclose(model.log_probabilities(ids), expected, atol=1e-6)


def test_next_tokens_are_a_distribution_in_order(model: LanguageModel) -> None:
    tokens = model.next_tokens("The capital of France is", 5)
    assert tokens[0].text == " Paris"
    probabilities = [t.probability for t in tokens]
    assert probabilities == sorted(probabilities, reverse=True)
    everything = model.next_tokens("", model.engine.vocabulary)
    assert sum(t.probability for t in everything) == pytest.approx(1)


def test_a_base_model_says_that_it_cannot_chat(tmp_path: Path) -> None:
    path = build_gguf(
        tmp_path / "base.gguf",
        tiny_architecture(),
        TensorType.F16,
        metadata={
            "tokenizer.chat_template": None,
            "tokenizer.ggml.token_type": [1] * 288,
        },
    )
    model = oneiros.load(path)
    assert "".join(model.complete("the", SamplingOptions(max_tokens=4, seed=1))) is not None
    with pytest.raises(ModelFileError, match="base model"):
        model.stream("hello")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ModelNotFoundError, match="smollm2-135m"):
        oneiros.load("smolm2-135")
