from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.cli.next_tokens import bar
from oneiros.cli.output import bytes_text, one_line, printable


@given(st.text())
def test_nothing_printable_controls_a_terminal(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    for character in shown:
        assert character in "\n\t" or not (ord(character) < 32 or 0x7F <= ord(character) < 0xA0)


def test_ordinary_text_is_printed_as_it_is() -> None:
    assert printable("Größe:\t10 µm\n日本 🙂") == "Größe:\t10 µm\n日本 🙂"


def test_escape_sequences_are_shown_and_not_sent() -> None:
    assert printable("\x1b]0;title\x07\r\x9b31m") == "␛]0;title␇␍�31m"


def test_nothing_is_hidden_or_shown_in_another_order() -> None:
    assert printable("rm\u200b -rf\ufeff \u202egpj.exe\u2066\U000e0041") == "rm� -rf� �gpj.exe��"
    assert printable("نامه\u200cها 👨\u200d👩") == "نامه\u200cها 👨\u200d👩"


@pytest.mark.parametrize(
    ("text", "shown"),
    [(" the", "␣the"), ("a b ", "a b␣"), ("  ", "␣␣"), ("", ""), ("\n\t", "⏎→"), (" \n", "␣⏎")],
)
def test_a_token_is_shown_on_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown


@given(st.floats(0, 1), st.integers(1, 50))
def test_bars_are_as_long_as_their_share(share: float, width: int) -> None:
    shown = bar(share, width)
    assert abs(len(shown) - share * width) <= 1
    assert set(shown) <= set("█▏▎▍▌▋▊▉")


def test_bytes_for_people() -> None:
    assert [bytes_text(n) for n in (0, 999, 1000, 98_362_432, 1_117_320_768)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "98.4 MB",
        "1.1 GB",
    ]
