"""What is read from files: pages, crawls, tables and lines, and what is wrong with them."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from oneiros.errors import TrainingError
from oneiros.training.data.contamination import BenchmarkIndex
from oneiros.training.data.filters import Chain
from oneiros.training.data.masking import Masker
from oneiros.training.data.settings import DataSettings
from oneiros.training.data.sources import RawDocument, Reader, find_inputs
from oneiros.training.data.words import WORDS
from tests.training.planted import handbook_pages, handbook_texts

TEXTS = [text for _, text in handbook_texts()[:5]]


def read(*paths: Path, field: str = "text") -> list[RawDocument]:
    reader = Reader(find_inputs(paths), field)
    documents = list(reader)
    assert reader.position == sum(file.path.stat().st_size for file in find_inputs(paths))
    return documents


def write_warc(path: Path, records: list[tuple[str, str, str, bytes]]) -> Path:
    """A crawl of (address, status, content type, content)."""
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=path.suffix == ".gz")
        writer.write_record(writer.create_warcinfo_record(path.name, {"software": "a test"}))
        for url, status, kind, content in records:
            headers = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.1")
            record = writer.create_warc_record(
                url, "response", payload=io.BytesIO(content), http_headers=headers
            )
            writer.write_record(record)
    return path


def test_every_format_gives_the_same_texts(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"content": text}) + "\n\n" for text in TEXTS)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    parquet.write_table(pyarrow.table({"content": TEXTS}), tmp_path / "c.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        assert [one.text for one in read(tmp_path / name, field="content")] == TEXTS
    (tmp_path / "d.txt").write_text(TEXTS[0])
    assert [one.text for one in read(tmp_path / "d.txt")] == TEXTS[:1]
    everything = read(tmp_path, field="content")
    assert len(everything) == 16
    assert everything[1].id == "a.jsonl:3"  # the line, though the one between is blank


def test_addresses_are_found_beside_the_text_and_in_metadata(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "url": "http://a.org"},
        {"text": "b", "metadata": {"url": "http://b.org"}},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [one.url for one in read(tmp_path / "a.jsonl")] == ["http://a.org", "http://b.org"]


@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz"])
def test_a_crawl_gives_its_pages_and_says_what_is_none(tmp_path: Path, name: str) -> None:
    page = handbook_pages()[0][2].encode()
    records = [
        ("http://a.org/", "200 OK", "text/html; charset=utf-8", page),
        ("http://a.org/x", "404 Not Found", "text/html", b"gone"),
        ("http://a.org/y.png", "200 OK", "image/png", b"\x89PNG"),
    ]
    documents = read(write_warc(tmp_path / name, records))
    assert [(one.url, one.fault) for one in documents] == [
        ("http://a.org/", None),
        ("http://a.org/x", "status_404"),
        ("http://a.org/y.png", "not_html"),
    ]
    assert documents[0].html


def test_of_a_page_its_text_is_left() -> None:
    chain = Chain(DataSettings(skip=("url", "gopher", "c4", "fineweb")), None)
    kept = removed = 0
    for name, language, html in handbook_pages():
        verdict = chain.judge(RawDocument(name, html, page=True, html=True))
        if language == "en":
            assert verdict.removal is None, (name, verdict.removal)
            assert "toc_nav" not in verdict.text
            assert "Prev" not in verdict.text.split()
            assert len(verdict.text) > 200
            kept += 1
        else:
            removed += verdict.removal is not None and verdict.removal.filter == "language"
    assert kept == 22
    assert removed == 18


def test_pages_in_old_encodings_are_read(tmp_path: Path) -> None:
    body = "<p>Größe, Übung, naïveté: " + "Müßiggang ist aller Laster Anfang. " * 20
    html = f"<html><head><meta charset='iso-8859-1'></head><body>{body}</body></html>"
    (tmp_path / "a.html").write_bytes(html.encode("latin-1"))
    assert "Größe, Übung, naïveté" in read(tmp_path / "a.html")[0].text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\nnot json\n', r"a\.jsonl, line 2: is not JSON"),
        ("a.jsonl", b'{"body": "x"}\n', r'line 1: .*"text" \("body"\)\. .*--field'),
        ("a.jsonl", b"[1]\n", "line 1: is not an object"),
        ("a.jsonl", b'{"text": "\xff"}\n', "line 1: is not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 9)[:-12], "damaged gzip"),
        ("a.jsonl.gz", b"plain", "damaged gzip"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.parquet", b"PAR1 and so on", "damaged Parquet"),
        ("a.docx", b"PK", "unknown format.*jsonl"),
        ("a.warc", b"nothing of the kind\n" * 9, "record 1: is damaged"),
    ],
)
def test_what_breaks_its_format_is_refused_with_the_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingError, match=message):
        read(tmp_path / name)


def test_a_crawl_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    page = handbook_pages()[0][2].encode()
    records = [(f"http://a.org/{n}", "200 OK", "text/html", page) for n in range(3)]
    for name in ("a.warc", "b.warc.gz"):
        path = write_warc(tmp_path / name, records)
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(TrainingError, match="is damaged"):
            read(path)


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"body": ["x"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(TrainingError, match=r'no column "text" \(body, n\)'):
        read(tmp_path / "a.parquet")
    with pytest.raises(TrainingError, match=r"row 1: .* no text"):
        read(tmp_path / "a.parquet", field="n")


def test_inputs_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such file"):
        find_inputs([tmp_path / "none"])
    with pytest.raises(TrainingError, match="no file of a known format"):
        find_inputs([tmp_path])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text("x")
    with pytest.raises(TrainingError, match="another input is called"):
        find_inputs([tmp_path / "a", tmp_path / "b"])


def test_half_characters_of_json_do_no_harm() -> None:
    chain = Chain(DataSettings(skip=("language", "repetition", "gopher", "c4", "fineweb")), None)
    assert chain.judge(RawDocument("a", "x \ud800 y")).text == "x ? y"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("a@b.org and c.d+e@f-g.co.uk", {"email": 2}),
        ("from 8.8.8.8 to 10.0.0.1 and 127.0.0.1", {"ip": 1}),
        ("release 2.6.32.5, 1.2.3.4.5 and v1.2.3.4", {}),
        ("call (212) 736-5000 or +49 (30) 901820!", {"telephone": 2}),
        ("card 4539 1488 0343 6467, order 4539 1488 0343 6468", {"card": 1}),
        ("+1 or 2, 1914-1918, 2024-11-22 07:30, 3.14159265358979", {}),
    ],
)
def test_what_is_personal_data_and_what_is_not(text: str, masked: dict[str, int]) -> None:
    clean, counts = Masker().mask(text)
    assert counts == masked
    assert (clean == text) == (not masked)
    assert Masker().mask(clean) == (clean, {})


BENCHMARK = "A very old clock-maker in the town of Ulm repairs 3 clocks a day, and sells two."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Before. {BENCHMARK} After.", True),
        (BENCHMARK.upper().replace(" ", "\n"), True),
        (BENCHMARK.replace("3", "17"), True),
        ("A very old clock-maker in the town of Ulm. He repairs clocks and sells two.", False),
        ("Where does water go when it rains in the hills?", True),
        ("Where does water go when it rains in the", False),
        ("and so on and so on and so on and so on and so on", False),
        ("", False),
    ],
)
def test_texts_of_benchmarks_are_found_in_other_signs(text: str, found: bool) -> None:
    index = BenchmarkIndex(13)
    index.add("clocks", BENCHMARK)
    index.add("water", "Where does water go when it rains in the hills?")
    index.add("nonsense", "and so on and so on and so on and so on and so on and so on")
    assert (index.find(text) is not None) == found


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_words_and_sentences_lose_only_white_space(text: str) -> None:
    words = "".join(WORDS.word_tokenize(text))
    assert "".join(words.split()) == "".join(text.split())
    spans = WORDS.span_tokenize(text)
    assert spans == sorted(spans)
    assert all(begin < end for begin, end in spans)
    assert WORDS.sent_tokenize(text) == [text[begin:end].strip() for begin, end in spans]


@pytest.mark.long  # reads lists of 4.6 million domains
@pytest.mark.filterwarnings("ignore:The 'registered_domain':DeprecationWarning")
def test_addresses_on_the_lists_are_refused() -> None:
    chain = Chain(DataSettings(), None)
    said: dict[str, Any] = {}
    for url in (
        "https://docs.python.org/3/library/re.html",
        "https://en.wikipedia.org/wiki/Essex",
        "https://www.pornhub.com/about",
        "http://193.99.144.80/",
    ):
        removal = chain.judge(RawDocument(url, TEXTS[0], url)).removal
        said[url] = removal if removal is None else removal.filter
    assert [name == "url" for name in said.values()] == [False, False, True, False]
