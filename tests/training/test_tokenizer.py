"""Tokenizers that we train: one vocabulary, whoever encodes with it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from oneiros.errors import ModelFileError, TokenizationError, TrainingError
from oneiros.model.chat_format import ChatFormat
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import Tokenizer, load_tokenizer, tokenizer_from_gguf
from oneiros.model.tokenizer_files import gguf_tokenizer
from oneiros.model.tool_calls import tool_call_format
from oneiros.training.chat_markup import CHAT_TEMPLATE
from oneiros.training.tokenizer import (
    SMALLEST,
    SPECIAL_TOKENS,
    TokenizerConfig,
    bytes_per_token,
    fast_encoder,
    save_tokenizer,
    train_tokenizer,
)
from oneiros.training.weights import open_tokenizer
from tests.model.tokenizer_texts import slices

VOCABULARY = 3000
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather of a place.",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        },
    }
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Zürich"}}}
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Zürich?"},
    {"role": "assistant", "content": "", "reasoning_content": "I look.", "tool_calls": [CALL] * 2},
    {"role": "tool", "content": "rain"},
    {"role": "assistant", "content": "It rains."},
    {"role": "user", "content": "Thanks <|im_end|>"},
]


@pytest.fixture(scope="module")
def texts(data_folder: Path) -> dict[str, str]:
    return slices(data_folder)


@pytest.fixture(scope="module")
def trained(texts: dict[str, str]) -> Tokenizer:
    return train_tokenizer(texts.values(), TokenizerConfig(VOCABULARY))


@pytest.fixture(scope="module")
def folder(trained: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "tokenizer"
    save_tokenizer(trained, path)
    return path


def train(documents: Iterable[str], vocabulary: int = SMALLEST) -> Tokenizer:
    return train_tokenizer(documents, TokenizerConfig(vocabulary))


# --- one vocabulary ---------------------------------------------------------------------------


def test_every_encoder_gives_the_same_ids_and_the_text_comes_back(trained, folder, texts):
    from_file = open_tokenizer(folder)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    from_gguf = tokenizer_from_gguf(gguf_tokenizer(trained.vocabulary, VOCABULARY, None))
    fast = fast_encoder(trained)([*texts.values()])
    for (name, text), ids in zip(texts.items(), fast, strict=True):
        assert trained.encode(text) == ids, name
        assert from_file.encode(text) == ids, name
        assert from_gguf.encode(text) == ids, name
        assert library.encode(text, add_special_tokens=False).ids == ids, name
        assert trained.decode(ids) == text, name
    assert from_file.sha256 == from_gguf.sha256 == trained.sha256


@given(st.text(), st.data())
def test_any_text_gets_the_same_ids_from_tiktoken_and_comes_back(encoders, text, data):
    trained, fast = encoders
    text = data.draw(st.just(text) | st.text(alphabet="ab the'LlsS 1\n\r\t.\u3000é<|im_start>_"))
    (ids,) = fast([text])
    assert ids == trained.encode(text)
    assert trained.decode(ids) == text


@pytest.fixture(scope="module")
def encoders(trained):
    return trained, fast_encoder(trained)


def test_all_bytes_are_tokens_and_a_vocabulary_of_bytes_alone_works():
    smallest = train(["No pair of these is merged."])
    assert smallest.vocabulary_size == SMALLEST
    assert sorted(smallest.token_bytes(i) for i in range(256)) == [bytes([i]) for i in range(256)]
    # Every byte that UTF-8 can hold, in characters of one to four bytes.
    text = "".join(
        map(chr, [*range(0x800), *range(0x800, 0xD800, 64), *range(0xE000, 0x110000, 64)])
    )
    ids = smallest.encode(text)
    assert len(ids) == len(text.encode())
    assert smallest.decode(ids) == text


def test_no_text_becomes_a_special_token(trained):
    added = set(trained.added_tokens.values())
    assert trained.added_tokens.keys() == SPECIAL_TOKENS.keys()
    for text in SPECIAL_TOKENS:
        for ids in (trained.encode(text), *fast_encoder(trained)([text, f"x{text}y"])):
            assert not added & set(ids)
        assert trained.decode(trained.encode(text)) == text


def test_a_text_full_of_special_tokens_teaches_none_of_them():
    tokenizer = train(["".join(SPECIAL_TOKENS) * 50], 300)
    pieces = [tokenizer.token_bytes(i) for i in range(tokenizer.vocabulary_size)]
    assert len(set(pieces)) == len(pieces)


def test_transformers_loads_it(trained, folder, texts):
    theirs = AutoTokenizer.from_pretrained(folder)
    text = texts["multilingual"][:5000]
    assert theirs(text)["input_ids"] == trained.prompt_ids(text)
    assert theirs.decode(trained.encode(text)) == text
    assert (theirs.bos_token_id, theirs.eos_token_id) == (trained.bos_id, trained.eos_id)


# --- training ---------------------------------------------------------------------------------


def test_the_same_text_gives_the_same_tokenizer_whatever_pieces_it_comes_in(texts):
    text = texts["shakespeare"] + texts["code"]  # longer than the pieces that it is cut into
    first = train([text], 1000)
    assert train([text], 1000).sha256 == first.sha256
    lines = re.split(r"(?<=\n)(?=[A-Za-z])", text)
    assert train(lines, 1000).sha256 == first.sha256
    assert train(texts.values(), 1000).sha256 != first.sha256


def test_merges_are_the_most_frequent_pairs_first():
    tokenizer = train(["low low low low lower newest newest"], SMALLEST + 3)
    learnt = [tokenizer.token_bytes(256 + i) for i in range(3)]
    assert learnt == [b"lo", b"low", b" low"]


def test_a_larger_vocabulary_says_more_with_each_token_and_begins_like_the_smaller(texts):
    text = texts["shakespeare"]
    small, large = train([text], 500), train([text], 2000)
    assert large.vocabulary.merges[: len(small.vocabulary.merges)] == small.vocabulary.merges
    assert 1 < bytes_per_token(small, [text], 100_000) < bytes_per_token(large, [text], 100_000)


def test_merges_never_join_words_or_digits(trained):
    for token_id in range(256, VOCABULARY - len(SPECIAL_TOKENS)):
        text = trained.token_bytes(token_id).decode(errors="replace")
        assert not any(
            character.isdigit() and len(text) > 1 for character in text if character < "~"
        )
        assert " " not in text.strip(" ")


@pytest.mark.parametrize("documents", [[], [""], ["", ""]])
def test_no_text_is_refused(documents):
    with pytest.raises(TrainingError, match="no text"):
        train(documents)


def test_too_little_text_is_refused_with_what_it_would_give():
    with pytest.raises(
        TrainingError, match=r"\(4 characters\) gives 267 tokens at most, and 4,096"
    ):
        train(["abab"], 4096)
    assert train(["abab"], 267).vocabulary_size == 267


@pytest.mark.parametrize("vocabulary", [0, -1, 255, SMALLEST - 1])
def test_too_small_a_vocabulary_is_refused(vocabulary):
    with pytest.raises(TrainingError, match=f"take {SMALLEST} already"):
        TokenizerConfig(vocabulary)


def test_half_a_character_is_refused_with_its_place(trained):
    with pytest.raises(TrainingError, match=r"Document 2: .*U\+D800.* offset 3"):
        train(["fine", "abc\ud800"])
    with pytest.raises(TokenizationError, match="offset 3"):
        fast_encoder(trained)(["abc\ud800"])


def test_nothing_is_overwritten(trained, folder):
    before = (folder / "tokenizer.json").read_bytes()
    with pytest.raises(ModelFileError, match="exists already"):
        save_tokenizer(trained, folder)
    assert (folder / "tokenizer.json").read_bytes() == before


# --- other vocabularies -----------------------------------------------------------------------


def test_vocabularies_that_tiktoken_would_not_get_right_are_encoded_all_the_same(
    trained, default_model_path, texts
):
    """The default model's pre-tokenizer has two steps; and merges may come in any order."""
    default = load_tokenizer(open_parameters(default_model_path))
    merges = trained.vocabulary.merges
    turned = Tokenizer(replace(trained.vocabulary, merges=[*merges[1:], merges[0]]))
    text = texts["shakespeare"][:20_000]
    for tokenizer in (default, turned):
        assert fast_encoder(tokenizer)([text]) == [tokenizer.encode(text)]


# --- conversations ----------------------------------------------------------------------------


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("length", range(1, len(CONVERSATION) + 1))
def test_conversations_are_the_ids_that_transformers_gives(trained, folder, tools, length):
    messages = [*CONVERSATION[:length]]
    messages[-1] = {**messages[-1], "content": messages[-1]["content"].replace("<|im_end|>", "")}
    ours = ChatFormat(CHAT_TEMPLATE, trained).render(messages, tools=tools)
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, tools=tools, add_generation_prompt=True, return_dict=False
    )
    assert ours == theirs


def test_a_conversation_reads_as_it_should(trained):
    ids = ChatFormat(CHAT_TEMPLATE, trained).render(CONVERSATION, tools=TOOLS)
    assert trained.decode(ids).partition("\nTo call one")[2] == (
        ", write its name and arguments:\n<tool_call>\n"
        '{"name": "...", "arguments": {...}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nWeather in Zürich?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nI look.\n</think>\n\n"
        '<tool_call>\n{"name": "weather", "arguments": {"place": "Zürich"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"place": "Zürich"}}\n</tool_call>'
        "<|im_end|>\n"
        "<|im_start|>tool\n<tool_response>\nrain\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nIt rains.<|im_end|>\n"
        "<|im_start|>user\nThanks <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    # The user's own "<|im_end|>" is text: it ends nothing.
    assert ids.count(trained.added_tokens["<|im_end|>"]) == 6


def test_the_engine_knows_the_form_of_its_tool_calls_and_thoughts():
    form = tool_call_format(CHAT_TEMPLATE)
    assert (form.name, form.described, form.reasoning) == ("hermes", False, "marked")


def test_a_conversation_that_goes_on_begins_with_the_same_ids(trained):
    chat = ChatFormat(CHAT_TEMPLATE, trained)
    for length in range(1, len(CONVERSATION)):
        begun = chat.render(CONVERSATION[:length], add_generation_prompt=False, tools=TOOLS)
        longer = chat.render(CONVERSATION[: length + 1], add_generation_prompt=False, tools=TOOLS)
        assert longer[: len(begun)] == begun
