"""Tokenizers from GGUF and tokenizer.json: the ids of other programs, and exact round trips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.errors import ModelFileError, TokenizationError, UnsupportedModelError
from oneiros.model import catalog
from oneiros.model.gguf import read_gguf
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import (
    TextStream,
    Tokenizer,
    load_tokenizer,
    tokenizer_from_gguf,
    tokenizer_from_json,
)
from tests.model.tokenizer_builders import (
    CONTROL,
    NOT_CONTROL,
    byte_level_json,
    edited_json,
    reference,
    sentencepiece_json,
)
from tests.model.tokenizer_texts import (
    MISSING_BYTES,
    TOKENIZER_DATA,
    covered,
    digest,
    slices,
    unicode_soup,
)

GOLDENS = json.loads((TOKENIZER_DATA / "goldens.json").read_text())

# Pieces that injected control tokens would be made of: whole, halved, nested, doubled.
SPECIAL_TEXTS = (*CONTROL, *NOT_CONTROL, "<s>", "</s>", "<unk>", "[INST]", "<0x0A>", "<repo_name>")
SHARDS = [text[:cut] for text in SPECIAL_TEXTS for cut in range(1, len(text) + 1)]
INJECTIONS = st.lists(st.sampled_from(SHARDS) | st.text(max_size=3), max_size=12).map("".join)


@pytest.fixture(scope="session")
def metadata(default_model_path: Path) -> dict[str, object]:
    return dict(read_gguf(default_model_path).metadata)


@pytest.fixture(scope="session")
def smollm2(metadata: dict[str, object]) -> Tokenizer:
    return tokenizer_from_gguf(metadata)


@pytest.fixture(scope="session")
def texts(data_folder: Path) -> dict[str, str]:
    return {name: covered(text) for name, text in slices(data_folder).items()}


@pytest.fixture(scope="session")
def json_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "byte-level": byte_level_json(tmp_path_factory.mktemp("byte-level")),
        "llama2": sentencepiece_json(tmp_path_factory.mktemp("llama2")),
        "metaspace first": sentencepiece_json(tmp_path_factory.mktemp("first"), "first"),
        "metaspace never": sentencepiece_json(tmp_path_factory.mktemp("never"), "never"),
    }


@pytest.fixture(scope="session")
def tokenizers_by_kind(smollm2: Tokenizer, json_paths: dict[str, Path]) -> dict[str, Tokenizer]:
    made = {name: tokenizer_from_json(path) for name, path in json_paths.items()}
    return {"gguf": smollm2, **made}


def check_goldens(tokenizer: Tokenizer, name: str, texts: dict[str, str]) -> None:
    for part, golden in GOLDENS["texts"][name].items():
        ids = tokenizer.encode(texts[part])
        assert ids[: len(golden["first"])] == golden["first"], part
        assert (len(ids), digest(ids)) == (golden["tokens"], golden["sha256"]), part
        assert tokenizer.decode(ids) == texts[part], part


def test_a_megabyte_gets_the_ids_of_llama_cpp_and_comes_back(smollm2, texts):
    assert sum(len(text.encode()) for text in texts.values()) > 900_000
    check_goldens(smollm2, "smollm2-135m", texts)


@pytest.mark.long
def test_qwen_gets_the_ids_of_llama_cpp_and_comes_back(texts):
    metadata = read_gguf(catalog.resolve("qwen2.5-coder-0.5b")).metadata
    check_goldens(tokenizer_from_gguf(metadata), "qwen2.5-coder-0.5b", texts)


@pytest.mark.parametrize("name", GOLDENS["pre_tokenizers"])
def test_pre_tokenizer_names_mean_what_llama_cpp_means(metadata, texts, name):
    tokenizer = tokenizer_from_gguf({**metadata, "tokenizer.ggml.pre": name})
    # llama.cpp approximates Tekken's letter cases.
    parts = ("code",) if name == "tekken" else ("code", "multilingual", "soup")
    ids = tokenizer.encode("".join(texts[part] for part in parts))
    assert digest(ids) == GOLDENS["pre_tokenizers"][name]


@pytest.mark.parametrize("kind", ["byte-level", "llama2", "metaspace first", "metaspace never"])
def test_tokenizer_json_gets_the_ids_of_the_tokenizers_library(json_paths, texts, kind):
    ours, theirs = tokenizer_from_json(json_paths[kind]), reference(json_paths[kind])
    for text in (texts["code"][:50_000], texts["soup"][:20_000], "x", " x", "a  b\n\n c "):
        # The library applies NFC and leaves out a prefix that the text already has; we never do.
        text = theirs.normalizer.normalize_str(text) if kind == "byte-level" else text
        text = text.lstrip(" ") if kind.startswith("metaspace") else text
        text = "".join(c for c in text if ours._covers(c))
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
        assert ours.decode(ours.encode(text)) == text


def test_texts_are_not_normalised(tokenizers_by_kind):
    decomposed = "e\u0301 \u1112\u1161\u11ab"
    for tokenizer in tokenizers_by_kind.values():
        assert tokenizer.decode(tokenizer.encode(decomposed)) == decomposed


@settings(deadline=None, max_examples=150)
@given(text=st.text(max_size=60) | INJECTIONS)
def test_every_text_comes_back_or_is_refused_at_its_first_bad_character(tokenizers_by_kind, text):
    for kind, tokenizer in tokenizers_by_kind.items():
        missing = MISSING_BYTES if kind == "gguf" else frozenset()
        bad = [i for i, c in enumerate(text) if missing & {*c.encode("utf-8", "surrogatepass")}]
        if bad:
            with pytest.raises(TokenizationError, match=f"at offset {bad[0]:,} of"):
                tokenizer.encode(text)
            continue
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        stored = b"".join(map(tokenizer.token_bytes, ids))
        prefixed = kind in ("llama2", "metaspace first") and text
        assert stored == (b" " if prefixed else b"") + text.encode()


@settings(deadline=None, max_examples=150)
@given(text=INJECTIONS)
def test_no_text_becomes_an_added_token(tokenizers_by_kind, text):
    for tokenizer in tokenizers_by_kind.values():
        assert not any(map(tokenizer.is_added, tokenizer.encode(covered(text))))


def test_texts_of_all_added_tokens_are_plain_text(tokenizers_by_kind):
    for tokenizer in tokenizers_by_kind.values():
        text = "".join(tokenizer.added_tokens) * 2
        ids = tokenizer.encode(text)
        assert not {*ids} & {*tokenizer.added_tokens.values()}
        assert tokenizer.decode(ids) == text


def test_a_merge_into_an_added_token_is_not_made(metadata):
    metadata = dict(metadata)
    tokens = metadata["tokenizer.ggml.tokens"].strings()
    kinds = metadata["tokenizer.ggml.token_type"].values()
    the = tokens.index("Ġthe")
    kinds[the] = 4  # "user defined": now an added token that merges lead to
    tokenizer = tokenizer_from_gguf({**metadata, "tokenizer.ggml.token_type": kinds})
    assert tokenizer.added_tokens["Ġthe"] == the
    assert the not in tokenizer.encode("in the house of the theory")
    assert tokenizer.decode(tokenizer.encode("in the house")) == "in the house"


def test_a_merge_into_a_byte_token_is_not_made(tmp_path):
    path = sentencepiece_json(tmp_path)
    model = json.loads(path.read_text())["model"]
    size = len(model["vocab"]) + 100
    halves = {"<0": size, "x0A>": size + 1, "x0": size + 2, "A>": size + 3}
    merges = [["x", "0"], ["A", ">"], ["x0", "A>"], ["<", "0"], ["<0", "x0A>"], *model["merges"]]
    changes = {
        "model.vocab": {**model["vocab"], **halves},
        "model.merges": merges,
        "model.ignore_merges": True,
    }
    tokenizer = tokenizer_from_json(edited_json(path, changes))
    for text in ("<0x0A>", "a<0x0A>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_characters_without_bytes_are_named(smollm2):
    with pytest.raises(TokenizationError) as caught:
        smollm2.encode("fine, then \x06 and \x04")
    assert r"'\x06' (U+0006) at offset 11 of the text" in str(caught.value)
    with pytest.raises(TokenizationError, match=r"U\+40000\) at offset 2"):
        smollm2.encode("é \U00040000")
    with pytest.raises(TokenizationError, match=r"U\+D800\) at offset 0"):
        smollm2.encode("\ud800")


def test_what_the_vocabulary_lacks_can_be_replaced(smollm2):
    assert smollm2.expressible("fine\n— 🜁") == "fine\n— 🜁"
    assert smollm2.expressible("a\x04b\U00040000\ud800") == "a\ufffdb\ufffd\ufffd"
    assert all(smollm2.encode(smollm2.expressible(chr(code))) for code in range(0, 0x110000, 97))


def test_ids_of_the_default_model(smollm2, default_model_path):
    assert smollm2.encode("Hello world") == [19556, 905]
    assert smollm2.prompt_ids("Hello world") == [19556, 905]
    assert (smollm2.bos_id, smollm2.eos_id, smollm2.add_bos) == (1, 2, False)
    assert smollm2.end_ids == {0, 2}
    assert smollm2.added_tokens["<|im_end|>"] == 2 and len(smollm2.added_tokens) == 17
    assert smollm2.token_bytes(2) == b"<|im_end|>" and smollm2.is_added(2)
    assert not smollm2.is_added(905) and smollm2.token_bytes(905) == b" world"
    assert load_tokenizer(open_parameters(default_model_path)).vocabulary_size == 49152


def test_tokens_for_people_show_what_is_not_printable(smollm2):
    shown = "".join(map(smollm2.token_text, smollm2.encode("a\n\tb\u00a0 🜁")))
    assert shown == r"a\n\tb\xa0 \xf0\x9f\x9c\x81"


def test_padding_of_the_embedding_stands_for_nothing(metadata):
    tokenizer = tokenizer_from_gguf(metadata, 50_000)
    assert tokenizer.vocabulary_size == 50_000
    assert tokenizer.decode([49_999, 905]) == " world" and not tokenizer.is_added(49_999)
    for bad in (-1, 50_000):
        with pytest.raises(IndexError):
            tokenizer.token_bytes(bad)
    with pytest.raises(ModelFileError, match="49,152 tokens and the model 49,151"):
        tokenizer_from_gguf(metadata, 49_151)


@settings(deadline=None)
@given(data=st.data())
def test_streams_give_whole_characters_and_lose_nothing(tokenizers_by_kind, data):
    kind = data.draw(st.sampled_from(sorted(tokenizers_by_kind)))
    tokenizer = tokenizers_by_kind[kind]
    text = covered(data.draw(st.text(max_size=40)))
    stream = TextStream(tokenizer, opens=True)
    pushed = [stream.push(token_id) for token_id in tokenizer.encode(text)]
    assert "".join(pushed) == text and stream.flush() == ""

    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size - 1), max_size=20))
    stream = TextStream(tokenizer)
    streamed = "".join(map(stream.push, ids)) + stream.flush()
    assert streamed == b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace")


def test_a_stream_waits_for_the_rest_of_a_character(smollm2):
    ids = smollm2.encode("🜁")
    assert len(ids) > 1
    stream = TextStream(smollm2)
    assert [stream.push(token_id) for token_id in ids] == [*[""] * (len(ids) - 1), "🜁"]
    assert stream.push(ids[0]) == "" and stream.flush() == "\ufffd"


def test_the_dummy_prefix_depends_on_what_comes_before(tokenizers_by_kind):
    end = tokenizers_by_kind["llama2"].added_tokens["<|im_end|>"]
    always, first = tokenizers_by_kind["llama2"], tokenizers_by_kind["metaspace first"]
    never = tokenizers_by_kind["metaspace never"]
    assert always.encode_parts([end, "x"]) == [end, *always.encode("x")]
    assert first.encode_parts([end, "x"]) == [end, *first.encode_parts(["x"], opens=False)]
    assert first.encode("x") != first.encode_parts(["x"], opens=False)
    assert never.encode("x") == never.encode_parts(["x"], opens=False)
    for tokenizer in (always, first, never):
        assert tokenizer.decode(tokenizer.encode_parts(["a", end, " b", end])) == (
            "a<|im_end|> b<|im_end|>"
        )


def test_settings_beside_tokenizer_json(tmp_path):
    path = byte_level_json(tmp_path)
    tokenizer = tokenizer_from_json(path)
    added = tokenizer.added_tokens
    assert tokenizer.add_bos and tokenizer.bos_id == added["<|endoftext|>"]
    assert tokenizer.eos_id == added["<|im_end|>"]
    assert tokenizer.end_ids == {added[t] for t in ("<|im_end|>", "<|endoftext|>", "<|eot_id|>")}
    assert tokenizer.prompt_ids("a") == [tokenizer.bos_id, *tokenizer.encode("a")]
    assert {*NOT_CONTROL} < {*added}

    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false, "bos_token": "<s>"}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    tokenizer = tokenizer_from_json(path)
    assert not tokenizer.add_bos and tokenizer.eos_id == 5 and {5, 6} < tokenizer.end_ids


def test_older_files_write_merges_as_strings(tmp_path):
    path = byte_level_json(tmp_path)
    before = tokenizer_from_json(path).encode("the words of a text")
    merges = json.loads(path.read_text())["model"]["merges"]
    strings = [" ".join(merge) for merge in merges]
    assert tokenizer_from_json(edited_json(path, {"model.merges": strings})).encode(
        "the words of a text"
    ) == before  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"model.type": "WordPiece"},
        {"model.dropout": 0.1},
        {"model.end_of_word_suffix": "</w>"},
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
    ],
)
def test_tokenizers_that_change_their_text_are_refused(tmp_path, changes):
    with pytest.raises(UnsupportedModelError, match="not supported"):
        tokenizer_from_json(edited_json(byte_level_json(tmp_path), changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": []},
        {"model.vocab": ["a"]},
        {"model.vocab": {"a": 1 << 40}},
        {"model.vocab": {"a": -1}},
        {"model.vocab": {"a": 0.5}},
        {"model.merges": None},
        {"model.merges": [["a"]]},
        {"model.merges": ["abc"]},
        {"model.merges": [["a", 1]]},
        {"added_tokens": [{"id": 1}]},
        {"added_tokens": [7]},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": "?"}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": 3}},
        {"post_processor": "x"},
    ],
)
def test_damaged_tokenizer_json_is_refused(tmp_path, changes):
    with pytest.raises(ModelFileError):
        tokenizer_from_json(edited_json(byte_level_json(tmp_path), changes))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": None}, "tokenizer.ggml.model"),
        ({"model": "bert"}, '"bert"'),
        ({"pre": "unheard-of"}, '"unheard-of"'),
        ({"pre": 3}, "tokenizer.ggml.pre"),
        ({"tokens": None}, "tokenizer.ggml.tokens"),
        ({"tokens": [1, 2]}, "tokenizer.ggml.tokens"),
        ({"token_type": [1]}, "1 entries for 49,152 tokens"),
        ({"token_type": ["a"] * 49152}, "token_type"),
        ({"merges": ["ab"]}, "merges"),
        ({"merges": ["a b c", "d"]}, "merges"),
        ({"merges": None}, "merges"),
        ({"eos_token_id": 49152}, "eos_token_id"),
        ({"bos_token_id": "x"}, "bos_token_id"),
        ({"add_bos_token": 1}, "add_bos_token"),
    ],
)
def test_damaged_gguf_metadata_is_refused(metadata, changes, what):
    changed = {**metadata, **{f"tokenizer.ggml.{key}": value for key, value in changes.items()}}
    with pytest.raises(ModelFileError, match=what):
        tokenizer_from_gguf(changed)


def test_soup_is_the_same_everywhere():
    assert unicode_soup(50) == unicode_soup(50) != unicode_soup(50, seed=8)
