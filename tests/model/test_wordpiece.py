"""WordPiece against the reference: the tokenizer.json as the `tokenizers` library reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.wordpiece import WordPieceTokenizer, load_wordpiece

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture(scope="module")
def tokenizer(embedding_model_path: Path) -> WordPieceTokenizer:
    return load_wordpiece(embedding_model_path / "tokenizer.json")


@pytest.fixture(scope="module")
def reference(embedding_model_path: Path) -> tokenizers.Tokenizer:
    reference = tokenizers.Tokenizer.from_file(str(embedding_model_path / "tokenizer.json"))
    reference.no_truncation()
    reference.no_padding()
    return reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Hello, WÖRLD!!  isn't\tit?\r\n",
        "日本語の文章。한국어 문장. 中文",
        "नमस्ते दुनिया। مرحبا بالعالم שָׁלוֹם",
        "👩‍👩‍👧 🏳️‍🌈 e\u0301 \u200b\u200d\ufeff\ufffd\x00\x07",
        "x" * 99 + " " + "y" * 100 + " " + "z" * 101,
        "def f(x): return x**2  # https://example.com/a?b=c&d=%20",
        "İstanbul ŞİŞLİ ﬁ ½ Ⅷ ①",
        "\u2028\u2029\u00a0\u3000",
    ],
)
def test_ids_are_those_of_the_library(
    tokenizer: WordPieceTokenizer, reference: tokenizers.Tokenizer, text: str
) -> None:
    assert tokenizer.encode(text) == reference.encode(text).ids


def test_real_text_in_many_scripts(
    tokenizer: WordPieceTokenizer, reference: tokenizers.Tokenizer, project_folder: Path
) -> None:
    text = (project_folder / "tests/data/tokenizer/multilingual.txt").read_text()
    assert tokenizer.encode(text) == reference.encode(text).ids


@given(text=st.text().filter(lambda text: not any(special in text for special in SPECIAL)))
def test_any_text_has_the_ids_of_the_library(
    tokenizer: WordPieceTokenizer, reference: tokenizers.Tokenizer, text: str
) -> None:
    assert tokenizer.encode(text) == reference.encode(text).ids


@pytest.mark.parametrize("special", SPECIAL)
def test_no_text_becomes_a_control_token(tokenizer: WordPieceTokenizer, special: str) -> None:
    word = tokenizer.encode(special.strip("[]"))[1:-1]
    brackets = tokenizer.encode("[]")[1:-1]
    assert tokenizer.encode(special) == [101, brackets[0], *word, brackets[1], 102]


def test_half_a_surrogate_pair_is_a_replacement_character(tokenizer: WordPieceTokenizer) -> None:
    assert tokenizer.encode("a\ud83db") == tokenizer.encode("a\ufffdb")


# --- other files -----------------------------------------------------------------------------

Write = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Writes a small tokenizer.json with some of its entries replaced."""

    def write(**replaced: Any) -> Path:
        definition = {
            "normalizer": {"type": "BertNormalizer", "lowercase": False, "strip_accents": None},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
            "model": {
                "type": "WordPiece",
                "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "A": 3, "a": 4, "##b": 5, "é": 9},
            },
        }
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(definition | replaced))
        return path

    return write


def test_a_cased_tokenizer_keeps_case_and_accents(written: Write) -> None:
    tokenizer = load_wordpiece(written())
    assert tokenizer.encode("A ab é B") == [1, 3, 4, 5, 9, 0, 2]
    assert tokenizer.vocabulary_size == 10


def test_a_template_may_say_what_surrounds_a_text(written: Write) -> None:
    template = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"SpecialToken": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    path = written(post_processor={"type": "TemplateProcessing", "single": template})
    assert load_wordpiece(path).encode("a") == [1, 3, 4]


@pytest.mark.parametrize(
    ("replaced", "error", "message"),
    [
        ({"model": {"type": "BPE"}}, UnsupportedModelError, 'is "BPE"'),
        ({"normalizer": {"type": "NFC"}}, UnsupportedModelError, 'is "NFC"'),
        ({"pre_tokenizer": {"type": "Metaspace"}}, UnsupportedModelError, 'is "Metaspace"'),
        ({"normalizer": None}, ModelFileError, "normalizer"),
        ({"post_processor": None}, ModelFileError, "post_processor"),
        (
            {"post_processor": {"type": "TemplateProcessing", "single": []}},
            ModelFileError,
            "leaves the text out",
        ),
        (
            {"post_processor": {"type": "TemplateProcessing", "single": [7]}},
            ModelFileError,
            "not known",
        ),
        (
            {"post_processor": {"type": "BertProcessing", "cls": ["[X]", 1], "sep": ["[X]", 1]}},
            ModelFileError,
            r'no piece "\[X\]"',
        ),
        ({"model": {"type": "WordPiece", "vocab": {}}}, ModelFileError, "vocab"),
        ({"model": {"type": "WordPiece", "vocab": {"a": -1}}}, ModelFileError, '"a" the id -1'),
        ({"model": {"type": "WordPiece", "vocab": {"a": 1 << 40}}}, ModelFileError, '"a" the id'),
        (
            {"model": {"type": "WordPiece", "vocab": {"a": 1}}},
            ModelFileError,
            r'no piece "\[UNK\]"',
        ),
    ],
)
def test_what_is_damaged_or_of_another_kind_is_refused(
    written: Write, replaced: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_wordpiece(written(**replaced))
