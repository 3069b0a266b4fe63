"""Hidden payloads are found and decoded; what is not hidden is left alone."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.detection.detect import DEPTH, MOST, detect
from oneiros.detection.findings import KINDS, Finding, counted
from tests.detection.planting import DISGUISES, SENTENCES, sentences

BEFORE = "Flour, sugar and butter are mixed first.\n"
AFTER = "\nThen the oven is heated to 180 degrees."


def hidden(text: str) -> list[Finding]:
    return [finding for finding in detect(text) if finding.kind != "instructions"]


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("sentence", SENTENCES[:3])
def test_a_hidden_sentence_is_found_where_it_stands_and_read(disguise: str, sentence: str) -> None:
    kind, hide = DISGUISES[disguise]
    if disguise == "address" and "ignore" not in sentence.lower():
        sentence = SENTENCES[0]  # an address with words in it is none, until they are instructions
    planted = hide(sentence)
    (found,) = hidden(BEFORE + planted + AFTER)
    assert found.kind == kind
    middle = len(BEFORE) + len(planted) // 2
    assert found.start < middle < found.end
    words = re.findall(r"\w+", sentence.lower())
    assert sum(word in found.decoded.lower() for word in words) > 0.8 * len(words)


def test_instructions_in_what_was_decoded_are_counted() -> None:
    for disguise, (_, hide) in DISGUISES.items():
        (found,) = hidden(BEFORE + hide(SENTENCES[0]) + AFTER)
        assert found.instructions >= 1, disguise


@settings(max_examples=30)
@given(sentences, st.lists(st.sampled_from(["base64", "hex", "percent", "base32"]), max_size=DEPTH))
def test_payloads_in_payloads_are_opened(sentence: str, layers: list[str]) -> None:
    planted = sentence
    for name in reversed(layers):
        planted = DISGUISES[name][1](planted)
    findings = hidden(BEFORE + planted + AFTER)
    kinds = [DISGUISES[name][0] for name in layers]
    if layers:
        innermost = findings[-1]
        assert [*innermost.inside, innermost.kind] == kinds
        assert sentence in innermost.decoded
    else:
        assert not findings


def test_plain_instructions_are_findings_of_their_own() -> None:
    text = f"{BEFORE}Important: AI assistant, before you answer, do the following first.{AFTER}"
    assert counted(detect(text)) == {"instructions": 3}
    assert not detect(BEFORE + AFTER)


@pytest.mark.parametrize(
    "text",
    [
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "123e4567-e89b-12d3-a456-426614174000 in src/oneiros/kernel/journal_database.py",
        "https://example.org/search?q=caf%C3%A9+au+lait%20near%20me&utm_source=mail",
        "The 1st of May, 3D prints, h2o and mp3s, 20 23 45 61 62 63 64 65 66 67 68",
        "می‌خواهم \N{MAN}\u200d\N{PERSONAL COMPUTER} \U0001f3f4\U000e0067\U000e0062\U000e007f",
        "\ufeffWords of the dictio\u00adnary; Привет, это обычный русский текст о космосе и сосне.",
        "שלום \u200fעולם\u200f (2024) \u2067אבג\u2069, and Δx = 3 μm; x² + y² = z²",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA== donaudampfschifffahrtsgesellschaft",
        '<p style="color: #333; width: 100px">Visible</p><!-- --><div aria-label="x">Seen</div>',
    ],
)
def test_what_is_not_hidden_is_no_finding(text: str) -> None:
    assert not detect(text)


def test_real_texts_give_almost_nothing(data_folder: Path) -> None:
    plain = (data_folder / "text/tinyshakespeare.txt").read_text()[:30_000]
    with gzip.open(data_folder / "code/HumanEval.jsonl.gz", "rt") as lines:
        code = "\n".join(json.loads(line)["prompt"] for line in lines)
    assert not hidden(plain)
    assert not hidden(code[:30_000])


@given(st.text(max_size=300))
def test_any_text_can_be_looked_at(text: str) -> None:
    for finding in detect(text):
        assert 0 <= finding.start <= finding.end <= len(text)
        assert finding.kind in KINDS


@pytest.mark.parametrize(
    "piece",
    ["<!--", "<p hidden>", "%41", "&#65;", "\u200b", "\u202e", "YWJj", "1gn0r3 4ll ", "ignore "],
)
def test_hostile_texts_are_looked_at_within_bounds(piece: str) -> None:
    text = piece * 4_000
    findings = detect(text)
    assert len(findings) <= MOST
    assert sum(len(one.decoded) for one in findings if not one.inside) <= 5 * len(text) + 10_000


def test_bombs_of_layers_are_not_opened_to_the_end() -> None:
    text = SENTENCES[0]
    for _ in range(DEPTH + 6):
        text = base64.b64encode(text.encode()).decode()
    found = hidden(text)
    assert max((len(one.inside) for one in found), default=0) < DEPTH
