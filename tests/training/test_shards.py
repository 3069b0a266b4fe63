"""Text to token shards, and shards to batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.errors import TrainingError
from oneiros.training.documents import find_files, read_documents
from oneiros.training.shard_writer import write_shards
from oneiros.training.shards import (
    IGNORED,
    MANIFEST,
    Batches,
    Corpus,
    TokenStream,
    open_shards,
    verify_shards,
)
from tests.training.builders import byte_tokenizer, sentences, write_jsonl

END = 256


def written(folder: Path, texts: list[str], **options: float) -> Corpus:
    folder.mkdir(parents=True, exist_ok=True)
    source = write_jsonl(folder / "source.jsonl", texts)
    write_shards([source], byte_tokenizer(), folder / "shards", **options)
    return open_shards(folder / "shards")


def documents_of(stream: TokenStream) -> list[str]:
    """The texts in a stream, from its tokens alone."""
    tokens = stream.read(0, stream.tokens).tolist()
    texts = byte_tokenizer().decode(tokens).split("<|end|>")
    return [text for text in texts if text]


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=8))
def test_every_text_comes_back_from_its_tokens(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    corpus = written(tmp_path_factory.mktemp("shards"), texts, validation=0.0, shard_tokens=40)
    decoded = byte_tokenizer().decode(corpus.train.read(0, corpus.train.tokens).tolist())
    assert decoded == "".join(f"<|end|>{text}<|end|>" for text in texts)
    assert corpus.train.documents == len(texts)
    assert corpus.train.bytes == sum(len(text.encode()) for text in texts)
    assert corpus.validation.tokens == 0


def test_a_window_may_span_shards(tmp_path: Path) -> None:
    texts = sentences(40)
    many = written(tmp_path / "many", texts, validation=0.0, shard_tokens=100)
    one = written(tmp_path / "one", texts, validation=0.0)
    assert len(many.manifest.splits["train"]) > 5
    begins = np.arange(0, one.train.tokens - 65, 13)
    for name in ("tokens", "targets", "documents"):
        found = getattr(many.train.windows(begins, 64), name)
        assert np.array_equal(found, getattr(one.train.windows(begins, 64), name)), name


def test_rows_number_their_documents_and_leave_out_targets_across_them(tmp_path: Path) -> None:
    stream = written(tmp_path, ["ab", "c", "defg"], validation=0.0).train
    a, b, c, d, e, f, g = byte_tokenizer().encode("abcdefg")
    assert stream.read(0, 13).tolist() == [END, a, b, END, END, c, END, END, d, e, f, g, END]
    batch = stream.windows(np.array([1, 4]), 6)
    assert batch.tokens.tolist() == [[a, b, END, END, c, END], [END, c, END, END, d, e]]
    assert batch.targets.tolist() == [
        [b, END, IGNORED, c, END, IGNORED],
        [c, END, IGNORED, d, e, f],
    ]
    assert batch.documents.tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]]


def test_every_epoch_shows_every_window_once_in_another_order(tmp_path: Path) -> None:
    stream = written(tmp_path, sentences(60), validation=0.0).train
    batches = Batches(stream, 16, 5, seed=3)
    count = batches.windows_per_epoch
    assert count == (stream.tokens - 1) // 16 - 1
    steps = range(-(-3 * count // 5))
    begins = np.concatenate([batches.begins(step) for step in steps])
    epochs = [begins[epoch * count : (epoch + 1) * count] for epoch in range(3)]
    for epoch in epochs:
        assert np.array_equal(np.sort(epoch), np.arange(count) * 16 + epoch.min())
        assert epoch.max() + 17 <= stream.tokens
    assert len({tuple(epoch - epoch.min()) for epoch in epochs}) == 3
    assert len({int(epoch.min()) for epoch in epochs}) > 1


def test_a_batch_follows_from_seed_and_step_alone(tmp_path: Path) -> None:
    stream = written(tmp_path, sentences(60), validation=0.0).train
    forwards = Batches(stream, 16, 5, seed=3)
    expected = [forwards.batch(step) for step in range(60)]
    for step in reversed(range(60)):
        again = Batches(stream, 16, 5, seed=3).batch(step)
        assert np.array_equal(again.tokens, expected[step].tokens)
        halves = [forwards.batch(step, rows).tokens for rows in (slice(0, 2), slice(2, 5))]
        assert np.array_equal(np.concatenate(halves), expected[step].tokens)
    assert not np.array_equal(Batches(stream, 16, 5, seed=4).batch(0).tokens, expected[0].tokens)


def test_two_writings_give_the_same_files(tmp_path: Path) -> None:
    texts = sentences(300)
    first = written(tmp_path / "a", texts, validation=0.1, shard_tokens=500)
    second = written(tmp_path / "b", texts, validation=0.1, shard_tokens=500)
    assert first.manifest == second.manifest
    files = sorted(path.name for path in (tmp_path / "a" / "shards").iterdir())
    for name in files:
        contents = [(tmp_path / run / "shards" / name).read_bytes() for run in "ab"]
        assert contents[0] == contents[1], name
    assert first.manifest.fingerprint != written(tmp_path / "c", texts[1:]).manifest.fingerprint


def test_many_documents_are_split_by_content_whatever_their_order(tmp_path: Path) -> None:
    texts = sentences(400)
    forwards = written(tmp_path / "a", [*texts, texts[0]], validation=0.2)
    backwards = written(tmp_path / "b", texts[::-1], validation=0.2)
    held = set(documents_of(forwards.validation))
    assert held == set(documents_of(backwards.validation))
    assert held.isdisjoint(documents_of(forwards.train))
    assert held | set(documents_of(forwards.train)) == set(texts)
    assert 50 < len(held) < 110


def test_of_a_long_text_the_end_is_set_aside_from_a_line_on(tmp_path: Path) -> None:
    text = "".join(f"line {number}\n" for number in range(1000))
    path = tmp_path / "book.txt"
    path.write_text(text)
    write_shards([path], byte_tokenizer(), tmp_path / "shards", validation=0.1)
    corpus = open_shards(tmp_path / "shards")
    (train,), (validation,) = documents_of(corpus.train), documents_of(corpus.validation)
    assert train + validation == text
    assert train.endswith("\n")
    assert 0.08 < len(validation) / len(text) < 0.1


def test_text_never_becomes_a_control_token(tmp_path: Path) -> None:
    corpus = written(tmp_path, ["<|end|> says who?"], validation=0.0)
    assert corpus.train.read(0, corpus.train.tokens).tolist().count(END) == 2


def test_folders_are_searched_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2.txt", "b/1.md", "a.JSONL", "picture.png"):
        (tmp_path / name).write_text('{"text": "x"}\n')
    found = [path.relative_to(tmp_path).as_posix() for path in find_files([tmp_path])]
    assert found == ["a.JSONL", "b/1.md", "b/2.txt"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "line 3: is not JSON"),
        (b"[1]", 'line 3: is not an object with a string under "text"'),
        (b'{"prompt": "x", "answer": "y"}', '(keys "prompt", "answer")'),
        (b'{"text": 3}', 'line 3: is not an object with a string under "text"'),
        (b'{"text": "\xff"}', "line 3: is not UTF-8 (byte 0xff at offset 10)"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(b'{"text": "good"}\n\n' + line + b"\n")
    with pytest.raises(TrainingError) as raised:
        list(read_documents(path))
    assert problem in str(raised.value)
    with pytest.raises(TrainingError):
        write_shards([path], byte_tokenizer(), tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_no_text_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(TrainingError, match="no text to train on"):
        write_shards([empty], byte_tokenizer(), tmp_path / "shards")
    with pytest.raises(TrainingError, match="no such file"):
        write_shards([tmp_path / "missing.txt"], byte_tokenizer(), tmp_path / "shards")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TrainingError, match=r"holds no \.txt, \.md or \.jsonl"):
        write_shards([tmp_path / "folder"], byte_tokenizer(), tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_data_that_is_shorter_than_a_row_is_refused(tmp_path: Path) -> None:
    stream = written(tmp_path, ["abcdef"], validation=0.0).train
    assert Batches(stream, 7, 2, seed=1).batch(5).tokens.shape == (2, 7)
    with pytest.raises(TrainingError, match="8 tokens for training, and a context of 8"):
        Batches(stream, 8, 2, seed=1)


def test_damaged_shards_are_refused(tmp_path: Path) -> None:
    written(tmp_path, sentences(20), validation=0.0)
    folder = tmp_path / "shards"
    verify_shards(folder)
    path = folder / "train-00000.bin"
    content = path.read_bytes()

    path.write_bytes(content[:-2])
    with pytest.raises(TrainingError, match=r"train-00000\.bin: has .* bytes"):
        open_shards(folder)
    path.write_bytes(content[:-2] + b"xy")
    with pytest.raises(TrainingError, match="content has changed"):
        verify_shards(folder)
    path.unlink()
    with pytest.raises(TrainingError, match="cannot be read"):
        open_shards(folder)

    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["splits"]["train"][0]["tokens"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(TrainingError, match="damaged"):
        open_shards(folder)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(TrainingError, match="JSON"):
        open_shards(folder)
    with pytest.raises(TrainingError, match="no folder of token shards"):
        open_shards(tmp_path)
