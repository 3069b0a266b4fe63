"""Sentence embeddings against sentence-transformers, and what may be relied on."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.engine.bert import gelu
from oneiros.engine.embedding import Embedder, load_embedder
from oneiros.errors import (
    ContextLengthError,
    ModelFileError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from tests.engine.embedding_cases import GOLDENS, golden_texts, tiny_folder, tiny_ids

SENTENCES = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
]


@pytest.fixture(scope="module")
def embedder(embedding_model_path: Path) -> Embedder:
    return load_embedder(embedding_model_path)


# --- what is computed ------------------------------------------------------------------------


def test_vectors_are_those_of_sentence_transformers(embedder: Embedder) -> None:
    expected = np.load(GOLDENS)["all-minilm-l6-v2"]
    found = embedder.embed(golden_texts(), truncate=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_network_of_other_sizes_is_computed_as_transformers_does(tmp_path: Path) -> None:
    tiny = load_embedder(tiny_folder(tmp_path / "tiny"))
    assert tiny.dimensions == 48
    assert tiny.longest == 40
    np.testing.assert_allclose(
        tiny.embed_ids(tiny_ids()), np.load(GOLDENS)["tiny"], rtol=0, atol=1e-6
    )


def test_similarities_are_those_that_sentence_transformers_publishes(embedder: Embedder) -> None:
    """The example in the documentation of sentence-transformers (Quickstart)."""
    vectors = embedder.embed(SENTENCES)
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, expected, rtol=0, atol=1e-4)


def test_a_question_is_nearest_to_its_answer(embedder: Embedder) -> None:
    answers = [
        "Photosynthesis turns light into chemical energy.",
        "The recipe asks for two eggs and a cup of flour.",
        "Interest rates were raised by a quarter of a point.",
    ]
    questions = [
        "How do plants get energy from the sun?",
        "What do I need to bake this cake?",
        "What did the central bank decide?",
    ]
    similarity = embedder.embed(questions) @ embedder.embed(answers).T
    assert similarity.argmax(axis=1).tolist() == [0, 1, 2]


def test_gelu_is_that_of_the_error_function() -> None:
    x = np.concatenate([np.linspace(-12, 12, 100_001), [0.0, 1e4, -1e4]]).astype(np.float32)
    exact = [value / 2 * math.erfc(-value / math.sqrt(2)) for value in x.tolist()]
    found = gelu(x.copy())
    np.testing.assert_allclose(found, exact, rtol=5e-7, atol=5e-7)
    assert found[-3:].tolist() == [0.0, 1e4, 0.0]


# --- lengths and batches ---------------------------------------------------------------------


def test_an_empty_text_has_a_vector(embedder: Embedder) -> None:
    (vector,) = embedder.embed([""])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert embedder.count_tokens([""]) == [2]


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


def test_a_text_may_be_as_long_as_the_model_says_and_no_longer(embedder: Embedder) -> None:
    assert embedder.longest == 256
    fits = "meaning " * 254
    assert embedder.count_tokens([fits, fits + "meaning"]) == [256, 257]
    assert embedder.embed([fits]).shape == (1, 384)
    with pytest.raises(ContextLengthError, match=r"Text 2 of 2 has 257 tokens .* reads 256"):
        embedder.embed(["short", fits + "meaning"])


def test_a_text_that_is_cut_off_counts_as_its_beginning(embedder: Embedder) -> None:
    beginning = "meaning " * 254
    (cut,) = embedder.embed([beginning + "nonsense " * 1000], truncate=True)
    np.testing.assert_allclose(cut, embedder.embed([beginning])[0], rtol=0, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_vector_does_not_depend_on_its_neighbours(
    embedder: Embedder, data: st.DataObject
) -> None:
    words = st.lists(st.sampled_from(["cat", "déjà", "你好", "xyzzy", "42", "!"]), max_size=60)
    texts = data.draw(st.lists(words.map(" ".join), min_size=1, max_size=40))
    together = embedder.embed(texts)
    index = data.draw(st.integers(0, len(texts) - 1))
    np.testing.assert_allclose(
        together[index], embedder.embed([texts[index]])[0], rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=0, atol=1e-6)


def test_vectors_keep_the_order_of_the_texts_over_many_batches(embedder: Embedder) -> None:
    texts = [f"number {n} " + "and so on " * (n % 37) for n in range(200)]
    found = embedder.embed(texts)
    for index in (0, 36, 99, 199):
        alone = embedder.embed([texts[index]])[0]
        np.testing.assert_allclose(found[index], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_vectors(
    embedding_model_path: Path, embedder: Embedder, threads: int
) -> None:
    texts = [f"{n} " * (n % 50) for n in range(120)]
    other = load_embedder(embedding_model_path, threads=threads)
    np.testing.assert_array_equal(other.embed(texts), embedder.embed(texts))


def test_several_threads_of_a_program_may_ask_at_once(embedder: Embedder) -> None:
    expected = embedder.embed(SENTENCES)
    found: list[np.ndarray] = []
    callers = [
        threading.Thread(target=lambda: found.append(embedder.embed(SENTENCES))) for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 4
    for vectors in found:
        np.testing.assert_array_equal(vectors, expected)


def test_ids_that_are_no_text_are_refused(embedder: Embedder) -> None:
    for ids in ([], [30522], [-1]):
        with pytest.raises(ValueError, match="text 1"):
            embedder.embed_ids([ids])


# --- what is refused -------------------------------------------------------------------------


def test_a_model_that_was_not_pulled_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEIROS_HOME", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="oneiros pull all-minilm-l6-v2"):
        load_embedder("all-minilm-l6-v2")


def test_a_language_model_is_no_embedding_model(default_model_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="is no embedding model"):
        load_embedder(default_model_path)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"model_type": "roberta"}, UnsupportedModelError, '"roberta" is no encoder'),
        ({"hidden_act": "relu"}, UnsupportedModelError, '"hidden_act" is "relu"'),
        (
            {"position_embedding_type": "relative_key"},
            UnsupportedModelError,
            '"relative_key"; only "absolute"',
        ),
        ({"num_attention_heads": 5}, ModelFileError, "does not divide the width 48"),
        ({"num_hidden_layers": 4}, ModelFileError, r"encoder.layer.3.* is missing"),
        ({"num_hidden_layers": 2}, UnsupportedModelError, r"encoder.layer.2.* is not part"),
        ({"intermediate_size": 96}, ModelFileError, r"shape \(112, 48\), and .* \(96, 48\)"),
        ({"hidden_size": "48"}, ModelFileError, '"hidden_size" is not an integer'),
        ({"vocab_size": 20}, ModelFileError, r"shape \(90, 48\)"),
    ],
)
def test_other_networks_and_contradictions_are_refused(
    tmp_path: Path, config: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_embedder(tiny_folder(tmp_path / "tiny", config))


def test_a_tensor_that_is_not_known_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny", extra=("encoder.layer.0.adapter.bias",))
    with pytest.raises(UnsupportedModelError, match=r"adapter\.bias"):
        load_embedder(folder)


def test_the_pooler_that_training_leaves_behind_does_not_matter(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny", extra=("pooler.dense.bias",))
    assert load_embedder(folder).embed(["a b c"]).shape == (1, 48)


@pytest.mark.parametrize(
    "pooling",
    ['{"pooling_mode_cls_token": true}', '{"pooling_mode": "max"}'],
)
def test_vectors_that_are_no_means_are_refused(tmp_path: Path, pooling: str) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(pooling)
    with pytest.raises(UnsupportedModelError, match="only the mean"):
        load_embedder(folder)


def test_a_layer_after_the_mean_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    (folder / "2_Dense").mkdir()
    with pytest.raises(UnsupportedModelError, match="2_Dense"):
        load_embedder(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    (folder / name).unlink()
    with pytest.raises(ModelFileError, match=name):
        load_embedder(folder)
