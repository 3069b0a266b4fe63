"""Raw text to clean documents: what the filters find, and that it is always the same."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oneiros.errors import ModelFileError, TrainingError
from oneiros.training.data.prepare import DataRequest, DataWatcher, prepare_data
from oneiros.training.data.settings import DataSettings
from oneiros.training.shards import open_shards, verify_shards
from oneiros.training.tokenizer import TokenizerConfig, save_tokenizer, train_tokenizer
from tests.training.planted import (
    Planted,
    handbook_texts,
    planted_corpus,
    write_benchmarks,
    write_corpus,
)

FAULTLESS = {"good", "halves", "pii", "innocent"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The planted corpus and what became of each of its documents."""

    corpus: list[Planted]
    folder: Path
    values: dict[str, Any]
    kept: dict[int, str]  # number of the document: its clean text
    removed: dict[int, tuple[str, str]]  # number: filter and detail

    def found(self, kinds: tuple[str, ...], filters: tuple[str, ...]) -> tuple[float, float]:
        """Precision and recall of some filters as finders of some kinds of fault.

        Faults that other filters had removed before do not count, nor does it matter whether one
        fault was taken for another: what is wrong is to remove what has none.
        """
        mine = {n for n, (name, _) in self.removed.items() if name in filters}
        planted = {
            n
            for n, one in enumerate(self.corpus)
            if one.kind in kinds and (n in mine or n not in self.removed)
        }
        wrong = {n for n in mine if self.corpus[n].kind in FAULTLESS}
        right = planted & mine
        return len(right) / (len(right) + len(wrong)), len(right) / len(planted)


@pytest.fixture(scope="module")
def outcome(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("planted")
    benchmarks = write_benchmarks(data_folder, folder / "benchmarks")
    corpus = planted_corpus(data_folder, benchmarks)
    path = write_corpus(corpus, folder / "corpus.jsonl")
    request = DataRequest(
        inputs=(path,), output=folder / "out", benchmarks=(benchmarks,), keep_removed=True
    )
    result = prepare_data(request)
    kept = {_number(row): row["text"] for row in _rows(result.documents)}
    removed = {
        _number(row): (row["filter"], row["detail"]) for row in _rows(request.output / "removed")
    }
    return Outcome(corpus, request.output, result.values, kept, removed)


def _number(row: dict[str, Any]) -> int:
    return int(row["id"].rpartition(":")[2]) - 1


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


@pytest.mark.parametrize(
    ("kind", "filters", "precision", "recall"),
    [
        ("language", ("language",), 0.98, 0.96),
        ("boilerplate", ("repetition", "gopher", "c4", "fineweb"), 0.7, 0.95),
        ("duplicate", ("duplicates",), 0.98, 0.9),
        ("contamination", ("contamination",), 0.98, 0.98),
    ],
)
def test_planted_faults_are_found(
    outcome: Outcome, kind: str, filters: tuple[str, ...], precision: float, recall: float
) -> None:
    right, found = outcome.found((kind,), filters)
    print(f"{kind}: precision {right:.3f}, recall {found:.3f}")
    assert right >= precision
    assert found >= recall


def test_faultless_text_is_kept(outcome: Outcome) -> None:
    kinds = {n for n, one in enumerate(outcome.corpus) if one.kind in FAULTLESS}
    assert len(kinds & outcome.kept.keys()) > 0.93 * len(kinds)


def test_a_copy_goes_and_its_original_stays(outcome: Outcome) -> None:
    texts = {one.text: n for n, one in enumerate(outcome.corpus)}
    for n, (name, detail) in outcome.removed.items():
        if name == "duplicates":
            original = texts[outcome.corpus[n].about]
            assert detail == f"of corpus.jsonl:{original + 1}"
            assert original in outcome.kept


def test_texts_that_share_a_half_are_no_copies(outcome: Outcome) -> None:
    halves = {n for n, one in enumerate(outcome.corpus) if one.kind == "halves"}
    assert not halves & {n for n, (name, _) in outcome.removed.items() if name == "duplicates"}


def test_personal_data_is_masked_and_other_numbers_are_not(outcome: Outcome) -> None:
    planted = [(n, one) for n, one in enumerate(outcome.corpus) if n in outcome.kept]
    secrets = [(n, one.about) for n, one in planted if one.kind == "pii"]
    others = [(n, one.about) for n, one in planted if one.kind == "innocent"]
    assert len(secrets) >= 10
    assert len(others) >= 4
    for n, secret in secrets:
        assert secret not in outcome.kept[n]
    for n, text in others:
        assert text in outcome.kept[n]
    assert set(outcome.values["masked"]) == {"card", "email", "ip", "telephone"}


def test_the_report_accounts_for_every_document(outcome: Outcome) -> None:
    values = json.loads((outcome.folder / "report.json").read_text(encoding="utf-8"))
    assert values == outcome.values
    assert values["documents"]["read"] == len(outcome.corpus)
    assert values["documents"]["kept"] == len(outcome.kept)
    left = len(outcome.corpus)
    for row in values["filters"]:
        assert row["documents"] == left
        assert row["removed"] == sum(one["documents"] for one in row["reasons"].values())
        assert row["removed"] == sum(name == row["name"] for name, _ in outcome.removed.values())
        assert all(one["examples"] for one in row["reasons"].values())
        left -= row["removed"]
    assert left == len(outcome.kept)
    text = (outcome.folder / "report.md").read_text(encoding="utf-8")
    assert values["inputs"][0]["sha256"] in text
    assert "`near_duplicate`" in text


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Passages of the handbook in several files, and a tokenizer."""
    folder = tmp_path_factory.mktemp("small")
    texts = [text for language, text in handbook_texts() if language == "en"][:60]
    (folder / "in").mkdir()
    for number in range(3):
        rows = [Planted("good", text) for text in [*texts[number::3], texts[0]]]
        write_corpus(rows, folder / "in" / f"{number}.jsonl")
    (folder / "in" / "book.txt").write_text("\n".join(texts[:20]))
    save_tokenizer(train_tokenizer(texts[:20], TokenizerConfig(400)), folder / "tokenizer")
    return folder


SMALL = DataSettings(skip=("contamination", "fineweb"), part_bytes=30_000)


def request_of(small: Path, output: Path, **changes: Any) -> DataRequest:
    values = {"tokenizer": small / "tokenizer", "settings": SMALL, **changes}
    return DataRequest(inputs=(small / "in",), output=output, **values)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def uninterrupted(small: Path) -> dict[str, bytes]:
    prepare_data(request_of(small, small / "whole"))
    return contents(small / "whole")


def test_two_runs_give_identical_files(
    small: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    prepare_data(request_of(small, tmp_path / "again"))
    assert contents(tmp_path / "again") == uninterrupted
    assert {"shards/manifest.json", "report.md", "data.json"} <= uninterrupted.keys()
    assert not any(name.startswith("work") for name in uninterrupted)


@pytest.mark.long
def test_processes_give_what_one_process_gives(
    small: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    prepare_data(request_of(small, tmp_path / "two", workers=2))
    assert contents(tmp_path / "two") == uninterrupted


class _StopError(BaseException):
    """As Ctrl-C: no error that anything catches."""


def stopping(stage: str, times: int) -> Callable[[str, int, int], None]:
    """A watcher that stops the work at the given call for a stage."""
    seen = 0

    def moved(now: str, done: int, of: int) -> None:
        nonlocal seen
        seen += now == stage
        if seen == times:
            raise _StopError

    return moved


def test_what_was_interrupted_goes_on_and_repeats_nothing(
    small: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    request = request_of(small, tmp_path / "out")
    for stage, times in (("Filtering", 1), ("Filtering", 1), ("Writing", 2), ("Tokenising", 1)):
        with pytest.raises(_StopError):
            prepare_data(request, DataWatcher(stopping(stage, times)))
    stages: list[str] = []
    prepare_data(request, DataWatcher(lambda stage, done, of: stages.append(stage)))
    assert set(stages) == {"Hashing", "Tokenising"}
    assert contents(request.output) == uninterrupted
    stages.clear()
    prepare_data(request, DataWatcher(lambda stage, done, of: stages.append(stage)))
    assert set(stages) == {"Hashing"}


def test_a_killed_run_goes_on_to_the_same_files(
    small: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    program = f"""
import os, signal
from pathlib import Path
from oneiros.training.data.prepare import DataRequest, DataWatcher, prepare_data
from oneiros.training.data.settings import DataSettings
settings = DataSettings(skip={SMALL.skip!r}, part_bytes={SMALL.part_bytes})
request = DataRequest(inputs=(Path({str(small / "in")!r}),), output=Path({str(output)!r}),
                      settings=settings)
def moved(stage, done, of):
    if stage == "Filtering" and done > of / 3:
        os.kill(os.getpid(), signal.SIGKILL)
prepare_data(request, DataWatcher(moved))
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert (output / "work").is_dir()
    prepare_data(request_of(small, output))
    assert contents(output) == uninterrupted


def test_every_document_is_one_of_the_shards(small: Path, uninterrupted: dict[str, bytes]) -> None:
    folder = small / "whole"
    corpus = open_shards(folder / "shards")
    verify_shards(folder / "shards")
    rows = _rows(folder / "documents")
    assert corpus.train.documents == len(rows)
    assert corpus.train.bytes + corpus.validation.bytes == sum(
        len(row["text"].encode()) for row in rows
    )
    batch = corpus.train.windows(corpus.train._starts[:1], 2048)
    assert batch.documents.max() > 0


def test_shards_can_come_later_with_a_tokenizer(
    small: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    first = prepare_data(request_of(small, output, tokenizer=None))
    assert first.shards is None
    assert first.values["shards"] is None
    second = prepare_data(request_of(small, output))
    assert second.shards == output / "shards"
    assert contents(output) == uninterrupted


def refusal(request: DataRequest) -> str:
    with pytest.raises(TrainingError) as caught:
        prepare_data(request)
    return str(caught.value)


def test_a_folder_begun_with_something_else_is_refused(
    small: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    source = tmp_path / "in.txt"
    source.write_text("\n".join(text for _, text in handbook_texts()[:20]))
    request = DataRequest(inputs=(source,), output=tmp_path / "out", settings=SMALL)
    prepare_data(request)
    other = DataSettings(skip=SMALL.skip, part_bytes=1000)
    changed = DataRequest(inputs=(source,), output=tmp_path / "out", settings=other)
    assert "begun with other settings" in refusal(changed)
    source.write_text("Something else.")
    assert "begun with other inputs" in refusal(request)
    assert "holds other files" in refusal(
        DataRequest(inputs=(source,), output=tmp_path, settings=SMALL)
    )


def test_text_that_no_filter_leaves_is_said(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "Too short."}\n' * 3)
    said = refusal(DataRequest(inputs=(source,), output=tmp_path / "out", settings=SMALL))
    assert "No text is left of 3 documents" in said
    assert "--skip" in said
    assert (tmp_path / "out" / "report.md").is_file()


def test_files_without_any_text_are_said(tmp_path: Path) -> None:
    source = tmp_path / "empty.txt"
    source.write_text("\n")
    said = refusal(DataRequest(inputs=(source,), output=tmp_path / "out", settings=SMALL))
    assert "1 hold none" in said
    assert "--skip" not in said


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"skip": ("grammar",)}, "no filter grammar: url, "),
        ({"skip": ("extraction",)}, "cannot be skipped"),
        ({"language_score": 2.0}, "not in 0 .. 1"),
        ({"languages": ()}, "No language is wanted"),
        ({"ngram": 3}, "by chance"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        DataSettings(**values)


def test_a_missing_benchmark_is_no_silent_pass(small: Path, tmp_path: Path) -> None:
    settings = DataSettings()
    said = refusal(request_of(small, tmp_path / "out", settings=settings))
    assert "--benchmarks" in said
    said = refusal(
        request_of(small, tmp_path / "out", settings=settings, benchmarks=(tmp_path / "none",))
    )
    assert "holds no benchmark" in said


def test_a_full_disk_is_said_and_the_run_goes_on_after_it(
    small: Path,
    uninterrupted: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = request_of(small, tmp_path / "out")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("oneiros.training.data.parts.write_signatures", full)
        with pytest.raises(ModelFileError, match="No space left on device"):
            prepare_data(request)
    prepare_data(request)
    assert contents(request.output) == uninterrupted
