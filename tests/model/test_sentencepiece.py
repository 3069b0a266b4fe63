"""SentencePiece's tokenizer.model: the ids of the sentencepiece library, and hostile files."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.errors import ModelFileError, OneirosError, TokenizationError, UnsupportedModelError
from oneiros.model.sentencepiece import scored_merges, sentencepiece_vocabulary, space_runs
from oneiros.model.tokenizer import (
    TextStream,
    Tokenizer,
    tokenizer_from_gguf,
    tokenizer_from_sentencepiece,
)
from tests.model.tokenizer_builders import mistral_model
from tests.model.tokenizer_texts import TOKENIZER_DATA, covered, digest, slices

GOLDENS = json.loads((TOKENIZER_DATA / "goldens.json").read_text())["texts"]["mistral-7b-v0.1"]
NORMAL, UNKNOWN, CONTROL, UNUSED, BYTE = 1, 2, 3, 5, 6


@pytest.fixture(scope="session")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_from_sentencepiece(mistral_model(tmp_path_factory.mktemp("mistral")))


def test_a_megabyte_gets_the_ids_of_sentencepiece_and_llama_cpp(mistral, data_folder):
    for name, text in slices(data_folder).items():
        text = covered(text)
        ids = mistral.encode(text)
        golden = GOLDENS[name]
        assert ids[: len(golden["first"])] == golden["first"], name
        assert (len(ids), digest(ids)) == (golden["tokens"], golden["sha256"]), name
        assert mistral.decode(ids) == text, name


def test_the_same_vocabulary_in_gguf_metadata_gives_the_same_ids(mistral, data_folder):
    vocabulary = mistral.vocabulary
    rank = {left + right: -index for index, (left, right) in enumerate(vocabulary.merges)}
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*vocabulary.pieces],
        "tokenizer.ggml.token_type": [*vocabulary.kinds],
        "tokenizer.ggml.scores": [float(rank.get(piece, 0)) for piece in vocabulary.pieces],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    tokenizer = tokenizer_from_gguf(metadata)
    text = slices(data_folder)["multilingual"]
    assert digest(tokenizer.encode(text)) == GOLDENS["multilingual"]["sha256"]
    assert tokenizer.prompt_ids("Hello") == mistral.prompt_ids("Hello") == [1, 22557]
    without = tokenizer_from_gguf({**metadata, "tokenizer.ggml.add_space_prefix": False})
    assert without.decode(without.encode("Hello")) == "Hello"
    assert without.encode(" Hello") == tokenizer.encode("Hello")


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=60) | st.text(alphabet="▁ ab<0x>A\n", max_size=40))
def test_every_text_comes_back(mistral, text):
    ids = mistral.encode(text)
    assert mistral.decode(ids) == text
    assert not any(map(mistral.is_added, ids))
    stream = TextStream(mistral, opens=True)
    assert "".join(map(stream.push, ids)) == text


def test_special_pieces_in_a_text_are_plain(mistral):
    for text in ("<s>", "</s>", "<unk>", "<0x0A>", "<s></s><s>"):
        ids = mistral.encode(text)
        assert min(ids) > 258 and mistral.decode(ids) == text


def test_the_space_character_of_the_vocabulary_is_not_taken_for_a_space(mistral):
    ids = mistral.encode("a▁b")
    assert ids != mistral.encode("a b") and mistral.decode(ids) == "a▁b"


def test_merges_prefer_the_left_of_two_overlapping_pairs():
    pieces = ["a", "n", "na", "an", "ana"]
    merges = scored_merges(pieces, [NORMAL] * 5, [0, 0, -2, -1, -3])
    assert merges == [("a", "n"), ("n", "a"), ("an", "a"), ("a", "na")]
    # "aab" "aa" "baa" would be the same piece twice only if "aabaa" had the mirrored cuts.
    merges = scored_merges(["a", "aa", "aaa"], [NORMAL] * 3, [0, -1, -2])
    assert {*merges} == {("a", "a"), ("aa", "a"), ("a", "aa")}


def test_merges_skip_pieces_that_text_must_not_become():
    pieces = ["<", "s>", "<s>", "ab", "a", "b"]
    kinds = [NORMAL, NORMAL, CONTROL, UNUSED, NORMAL, NORMAL]
    assert scored_merges(pieces, kinds, [0.0] * 6) == []


def test_cutting_at_spaces_is_left_out_where_a_piece_has_one_inside():
    assert space_runs(["▁a", "▁▁▁", "b"]) is not None
    assert space_runs(["▁a", "a▁b"]) is None


# A tokenizer.model by hand.


def field(number: int, value: int | bytes | float) -> bytes:
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value & (1 << 64) - 1)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number: int) -> bytes:
    head, rest = number & 0x7F, number >> 7
    return bytes([head | 0x80]) + varint(rest) if rest else bytes([head])


def model(
    pieces: list[tuple[str, int]],
    trainer: dict[int, int] | None = None,
    normalizer: dict[int, int | bytes] | None = None,
) -> bytes:
    entries = [
        field(1, field(1, piece.encode()) + field(2, -float(index)) + field(3, kind))
        for index, (piece, kind) in enumerate(pieces)
    ]
    settings = {3: 2} | (trainer or {})
    normal: dict[int, int | bytes] = {4: 0} | (normalizer or {})
    return (
        b"".join(entries)
        + field(2, b"".join(field(*item) for item in settings.items()))
        + field(3, b"".join(field(*item) for item in normal.items()))
    )


SMALL = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL), ("▁", NORMAL), ("a", NORMAL),
         ("b", NORMAL), ("ab", NORMAL), ("▁ab", NORMAL)]  # fmt: skip


def written(folder: Path, data: bytes) -> Path:
    path = folder / "tokenizer.model"
    path.write_bytes(data)
    return path


def test_a_model_without_bytes_refuses_what_it_lacks(tmp_path):
    tokenizer = tokenizer_from_sentencepiece(written(tmp_path, model(SMALL)))
    assert tokenizer.encode("ab ab") == [7, 7] and tokenizer.decode([7, 7]) == "ab ab"
    for text, offset in (("abc", 2), ("a▁b", 1)):
        with pytest.raises(TokenizationError, match=f"at offset {offset}"):
            tokenizer.encode(text)


def test_settings_of_the_file(tmp_path):
    tokenizer = tokenizer_from_sentencepiece(
        written(tmp_path, model(SMALL, {41: -1, 42: 2}, {3: 0}))
    )
    assert tokenizer.bos_id is None and tokenizer.eos_id == 2 and not tokenizer.add_bos
    assert tokenizer.encode("ab") == [6] == tokenizer.prompt_ids("ab")
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    tokenizer = tokenizer_from_sentencepiece(written(tmp_path, model(SMALL)))
    assert tokenizer.bos_id == 1 and tokenizer.prompt_ids("ab") == [7]


@pytest.mark.parametrize(
    ("trainer", "normalizer"),
    [({3: 1}, {}), ({24: 1}, {}), ({}, {2: b"map"}), ({}, {4: 1}), ({}, {5: 0})],
)
def test_models_that_are_not_plain_bpe_are_refused(tmp_path, trainer, normalizer):
    with pytest.raises(UnsupportedModelError, match="not supported"):
        sentencepiece_vocabulary(written(tmp_path, model(SMALL, trainer, normalizer)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        model([]),
        model(SMALL, {42: 99}),
        model([*SMALL, ("x" * 300, NORMAL)]),
        field(1, 5),
        field(1, field(1, b"\xff")),
        field(1, field(2, b"abc")),
        field(1, field(2, float("nan"))),
        b"\x0b",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x08" + b"\xff" * 11,
    ],
)
def test_damaged_files_are_refused(tmp_path, data):
    with pytest.raises(ModelFileError):
        sentencepiece_vocabulary(written(tmp_path, data))


def test_a_vocabulary_without_a_space_or_with_odd_bytes_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"U\+2581"):
        tokenizer_from_sentencepiece(written(tmp_path, model([("a", NORMAL)], {41: -1, 42: -1})))
    with pytest.raises(ModelFileError, match="<0x00>"):
        tokenizer_from_sentencepiece(written(tmp_path, model([*SMALL, ("<0xzz>", BYTE)])))


def test_no_truncation_or_flipped_bit_does_more_than_an_error(tmp_path):
    whole = model(SMALL)
    choose = random.Random(3)
    broken = [whole[:size] for size in range(len(whole))]
    for _ in range(400):
        data = bytearray(whole)
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
        broken.append(bytes(data))
    refused = 0
    for data in broken:
        try:
            tokenizer_from_sentencepiece(written(tmp_path, data))
        except OneirosError:
            refused += 1
    assert refused > len(broken) // 4
