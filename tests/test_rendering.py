"""Text of others, as it is shown: nothing is hidden, obeyed or taken for what it is not."""

from __future__ import annotations

import json
import re
import unicodedata
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.rendering import Rendering, json_visible, shown, visible

# Cf that is seen: signs of numbers and verses.
SEEN = {*range(0x600, 0x606), 0x6DD, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
JOINERS = {0x200C, 0x200D, 0xFE0E, 0xFE0F}
IGNORABLE = {
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE1000),
}


def is_forbidden(character: str) -> bool:
    code = ord(character)
    category = unicodedata.category(character)
    return (
        (category in ("Cc", "Cf", "Zl", "Zp", "Cs") and character not in "\n\t")
        or code in IGNORABLE
    ) and code not in SEEN


FORBIDDEN = [code for code in range(0x110000) if is_forbidden(chr(code))]
hostile = st.lists(
    st.one_of(
        st.sampled_from(FORBIDDEN).map(chr),
        st.characters(),
        st.sampled_from([*"❤👨👩🏽#1a\u20e3ن\n\r\u200d\ufe0f\x1b[", "](", "https://", "<a href="]),
        st.sampled_from(["[https://a.example](https://b.example)", "https://u@pаypal.com/ "]),
    )
).map("".join)


def test_each_character_that_is_not_seen_is_shown_as_a_sign() -> None:
    for code in FORBIDDEN:
        sign = visible(f"a{chr(code)}b")
        assert sign.startswith("a") and sign.endswith("b") and len(sign) > 2, hex(code)
        assert not any(map(is_forbidden, sign))


@given(hostile)
def test_nothing_shown_controls_a_terminal_or_hides(text: str) -> None:
    for result in (visible(text), shown(text)):
        for before, character, after in zip(" " + result, result, result[1:] + " ", strict=False):
            if ord(character) in JOINERS:  # kept where they belong to what is seen
                assert not before.isspace()
                assert ord(character) >= 0xFE0E or not after.isspace()
            else:
                assert not is_forbidden(character), hex(ord(character))


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Cn", "Zl", "Zp"])))
def test_what_is_seen_is_kept(text: str) -> None:
    text = "".join(one for one in text if not is_forbidden(one) and one != "\u2800")
    assert visible(text) == text
    remaining = iter(shown(text))
    assert all(one in remaining for one in text)  # in this order: only remarks are added


@given(hostile, st.lists(st.integers(0, 12)))
def test_the_pieces_of_a_text_show_what_the_whole_shows(text: str, lengths: list[int]) -> None:
    cuts = [0, *accumulate(lengths), len(text) + sum(lengths)]
    rendering = Rendering()
    pieces = [rendering.add(text[a:b]) for a, b in pairwise(cuts)]
    assert "".join([*pieces, rendering.end()]) == shown(text)


@given(hostile)
def test_json_means_the_same_and_has_no_such_characters(text: str) -> None:
    text = json.loads(json.dumps(text))  # where two halves of a pair meet, they are one
    plain = json.dumps({"text": text}, ensure_ascii=False)
    assert json.loads(json_visible(plain)) == {"text": text}
    assert not any(is_forbidden(one) for one in json_visible(plain) if ord(one) not in JOINERS)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("Größe:\t10 µm\n日本 🙂 ½", None),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x1b]52;c;ZXZpbA==\x1b\\", "␛]52;c;ZXZpbA==␛\\"),
        ("\x1b]8;;https://e.example\x1b\\bank\x1b]8;;\x1b\\", None),
        ("\x9b31m red\x7f\x08", "<U+009B>31m red␡␈"),
        ("good\rbad", "good␍bad"),
        ("line\r\nline\r\n", "line\nline\n"),
        ("rm\u200b -rf \u202egpj.exe", "rm<U+200B> -rf <U+202E>gpj.exe"),
        ("tag\U000e0041\U000e007f", "tag<U+E0041><U+E007F>"),
        ("a\u00adb\u2028c\ufeff", "a<U+00AD>b<U+2028>c<U+FEFF>"),
        ("نامه\u200cها क्\u200dष", None),
        ("a\u200db\u200cc", "a<U+200D>b<U+200C>c"),
        ("👨\u200d👩\u200d👧 ❤\ufe0f 👩🏽\u200d⚕\ufe0f 1\ufe0f\u20e3 🏳\ufe0f\u200d🌈", None),
        ("a\ufe0f 1\ufe0f", "a<U+FE0F> 1<U+FE0F>"),
        ("👨\u200d\u200d👩", "👨<U+200D><U+200D>👩"),
        ("half \ud83d", "half <U+D83D>"),
    ],
)
def test_signs(text: str, result: str | None) -> None:
    if result is None and "\x1b" not in text:
        result = text
    assert result is None or visible(text) == result
    assert "\x1b" not in visible(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[https://bank.example](https://evil.example/x)", "leads to evil.example"),
        ("[Log in at bank.example](https://evil.example)", "leads to evil.example"),
        ('[[www.bank.example]](<http://evil.example> "t")', "leads to evil.example"),
        ("[bank.example](https://bank.example@evil.example/)", "leads to evil.example"),
        ("[bank.example](https://evil.example\\@bank.example/)", "leads to evil.example"),
        ("[bank.example](//evil.example:8080/)", "leads to evil.example"),
        ('<a href="https://evil.example">bank.example</a>', "leads to evil.example"),
        ("<A class=x HREF=https://evil.example><b>bank.example</b></A>", "leads to evil.example"),
        ('<a href="&#104;ttps://evil.example">here</a>', "leads to https://evil.example"),
        ("https://bank.example@evil.example/login", "leads to evil.example"),
        ("https://pаypal.com/", "leads to xn--pypal-4ve.com"),
        ("https://аррӏе.com/", "leads to xn--80ak6aa92e.com"),
        ("https://ｅvil。example/", "leads to evil.example"),
        ("write to ann@pаypal.com", "that is xn--pypal-4ve.com"),
        ("https://bücher.example", "leads to xn--bcher-kva.example"),
    ],
)
def test_addresses_that_look_like_others_are_marked(text: str, said: str) -> None:
    result = shown(f"see {text}, and more")
    assert re.sub(r" \[(?:leads to|that is) [^\]]*\]", "", result) == f"see {text}, and more"
    assert f"[{said}]" in result
    assert result.endswith(", and more")
    assert f"[{said}]" in shown(text)


@pytest.mark.parametrize(
    "text",
    [
        "[the bank](https://bank.example/x) and [bank.example](https://www.bank.example/y)",
        "[notes](notes.md), [README.md](README.md), [1], x[0](y), f(a)[b]",
        "https://bank.example/a@b https://bank.example/ü ann@bank.example",
        '<a href="/x">bank.example</a> <a name=x>bank.example</a> a < b',
        "Größe.Die Γαλαξίας.txt",
    ],
)
def test_honest_links_and_other_texts_have_no_remarks(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize("part", ["[", "[a](", "<a ", "<a>", "ü.b@", "[a](()", "\u200d", "]"])
def test_long_texts_of_half_links_are_shown(part: str) -> None:
    assert len(shown(part * 20_000)) >= 20_000
