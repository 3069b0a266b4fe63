"""Text of others made safe to look at: on a terminal, in a question, in a browser.

What a model, a page, a file name or a server says is shown, and must not control what shows it. A
terminal obeys escape sequences: it can be made to change its title, to fill the clipboard, to hide
text and to answer as if the user had typed. Characters that are not seen can carry messages, and
those that turn the direction of text around show another text than there is. Addresses can be
written so that they look like others (Unicode Technical Report 36).

Nothing is taken away: what cannot be shown as it is stands there as a sign, such as `␛` or
`<U+202E>`, and what is said about an address stands behind it in brackets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Final
from unicodedata import name, normalize

# What is shown as a sign. Control characters other than line end and tab, half surrogate pairs,
# and all that Unicode calls "default ignorable" or gives the categories Cf, Zl and Zp: without
# those of Cf that are seen (U+0600 and the like), and with the blanks that are letters.
_UNSEEN: Final = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0"
    r"\ufff0-\ufffb\ufffe\uffff\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff"
)
# Characters that variation selectors and joiners make pictures of (Extended_Pictographic of
# Unicode 15, with the skin tones; a few unassigned ones are among them).
_PICTURE: Final = (
    r"\xa9\xae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf"
    r"\u23e9-\u23f3\u23f8-\u23fa\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u27bf\u2934"
    r"\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001f1e5"
    r"\U0001f200-\U0001faff"
)
# Letters of scripts in which joiners belong to the spelling: Arabic to Sinhala, Myanmar, Khmer,
# Mongolian.
_JOINING: Final = (
    r"\u0620-\u065f\u066e-\u06d3\u06fa-\u06ff\u0710-\u074f\u0750-\u077f\u07ca-\u07fa\u0840-\u085b"
    r"\u08a0-\u08e1\u0900-\u0dff\u1000-\u109f\u1780-\u17b3\u17b6-\u17d3\u1820-\u18aa"
)
_SIGN: Final = re.compile(
    # Kept: a picture's style, a keycap, a joined picture, one joiner between two letters.
    rf"(?P<kept>(?<=[{_PICTURE}])[\ufe0e\ufe0f]|(?<=[0-9#*])\ufe0f(?=\u20e3)"
    rf"|(?:(?<=[{_PICTURE}])|(?<=[{_PICTURE}]\ufe0f))\u200d(?=[{_PICTURE}])"
    rf"|(?<=[{_JOINING}])[\u200c\u200d](?=[{_JOINING}])|\r(?=\n))"
    rf"|[{_UNSEEN}]"
)
_CONTEXT: Final = 2  # characters that come before one and decide about it
_UNDECIDED: Final = "\r\u200c\u200d\ufe0f"  # those whose fate the next character decides


def visible(text: str) -> str:
    """The text with signs for what is not seen and for what a terminal obeys.

    Line ends and tabs stay. So do joiners and variation selectors where they belong to a picture
    or to the spelling of a word; "\\r\\n" becomes "\\n".
    """
    return _SIGN.sub(_sign, text)


def json_visible(text: str) -> str:
    """JSON with escapes for the same characters: it means what it meant before."""
    return _SIGN.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    if found["kept"] is not None:
        return found[0]
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2))


def replaced(text: str, replace: Callable[[str], str]) -> str:
    """The text with something else for each run of the characters that `visible` shows as signs."""
    parts = []
    run = ""
    begin = 0
    for found in _SIGN.finditer(text):
        if found.start() > begin or found["kept"] is not None:
            parts += [replace(run) if run else "", text[begin : found.start()]]
            run = ""
        if found["kept"] is None:
            run += found[0]
        else:
            parts.append(_sign(found))
        begin = found.end()
    return "".join([*parts, replace(run) if run else "", text[begin:]])


def _sign(found: re.Match[str]) -> str:
    character = found[0]
    if found["kept"] is not None:
        return "" if character == "\r" else character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def shown(text: str) -> str:
    """A whole text as `Rendering` shows it."""
    rendering = Rendering()
    return rendering.add(text) + rendering.end()


class Rendering:
    """A text that comes in pieces, as it can be shown.

    However it is cut, the pieces together show the same. Links are not turned into anything: they
    stand there with their whole address, and behind one that looks like another it is said where
    it leads to.
    """

    def __init__(self) -> None:
        self._before = ""  # the last characters that were decided about
        self._held = ""  # one that is not decided about yet
        self._remarks = (
            _Remarks(_MARKDOWN, _markdown_remark, _open_link, closed=True),
            _Remarks(_ANCHOR, _anchor_remark, _open_link, closed=True),
            _Remarks(_WORD, _word_remark, _open_word, closed=False),
        )

    def add(self, piece: str) -> str:
        """The next piece; of what it ends in, a character may be shown later."""
        piece = self._held + piece
        cut = len(piece) - (piece[-1:] in _UNDECIDED and piece != "")
        self._held = piece[cut:]
        return self._remarked(self._decided(piece[:cut], self._held))

    def end(self) -> str:
        """What is still to be shown when the text has ended. A new one may begin."""
        held, self._held = self._held, ""
        rest = self._remarked(self._decided(held, ""))
        # A line end ends all that a remark could be made on, and what decides about characters.
        self._before = ""
        return rest + self._remarked("\n")[:-1]

    def _decided(self, piece: str, after: str) -> str:
        text = self._before + piece
        begin, self._before = len(self._before), text[-_CONTEXT:]
        text += after
        parts = []
        for found in _SIGN.finditer(text, begin):
            if found.start() >= len(text) - len(after):
                break
            parts += [text[begin : found.start()], _sign(found)]
            begin = found.end()
        return "".join([*parts, text[begin : len(text) - len(after)]])

    def _remarked(self, piece: str) -> str:
        parts = []
        begin = 0
        for place, remark in sorted(one for each in self._remarks for one in each.add(piece)):
            parts += [piece[begin:place], f" [{remark}]"]
            begin = place
        return "".join([*parts, piece[begin:]])


_LONGEST: Final = 4_096  # characters of one link or address
_APART: Final = r"\s<>()\[\]{}\"'`|,;\u2420-\u2421\u2400-\u241f"  # what no address holds
_WORD: Final = re.compile(rf"[^{_APART}]++")
_LAST_BREAK: Final = re.compile(rf"[{_APART}](?=[^{_APART}]*\Z)")
_MARKDOWN: Final = re.compile(
    r"\[(?P<text>[^\[\]\n]*)\]+\((?P<target>[^()\n]*(?:\([^()\n]*\)[^()\n]*)*)\)"
)
_ANCHOR: Final = re.compile(
    r"<a\b(?P<tag>[^<>\n]*)>(?P<text>[^<\n]*(?:<(?!/?a\b)[^<\n]*){0,50})</a\s*>", re.IGNORECASE
)
_HREF: Final = re.compile(
    r"""\bhref\s*=\s*("(?P<a>[^"]*)"|'(?P<b>[^']*)'|(?P<c>[^\s"'>]+))""", re.I
)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*:[/\\]{2}", re.IGNORECASE)
# A name with a dot whose last label is letters.
_HOST: Final = re.compile(r"(?:[\w-]+[.\u3002\uff0e\uff61])+[^\W\d_][\w-]+")


def _open_word(text: str) -> int:
    """Where the address begins that a text may end in."""
    found = _LAST_BREAK.search(text)
    return found.end() if found else 0


def _open_link(text: str) -> int:
    """Where the link begins that a text may end in: on its last line."""
    line = text.rfind("\n") + 1
    found = re.compile(r"\[|<").search(text, line)
    return found.start() if found else len(text)


class _Remarks:
    """What there is to say about a text that comes in pieces, and where."""

    def __init__(
        self,
        pattern: re.Pattern[str],
        remark: Callable[[re.Match[str]], str | None],
        open_at: Callable[[str], int],
        *,
        closed: bool,
    ) -> None:
        """Look for a pattern.

        Args:
            pattern: of what there may be something to say about.
            remark: says it; None: there is nothing to say.
            open_at: where an occurrence may begin that the text does not end.
            closed: whether the pattern itself says where an occurrence ends; otherwise the next
                character does.
        """
        self._pattern = pattern
        self._remark = remark
        self._open_at = open_at
        self._closed = closed
        self._open = ""  # the end of the text so far, in which an occurrence may have begun

    def add(self, piece: str) -> list[tuple[int, str]]:
        """Take the next piece: places in it, and remarks to be put there."""
        text = self._open + piece
        before = len(self._open)
        remarks = []
        end = 0
        for found in self._pattern.finditer(text):
            if not self._closed and found.end() == len(text):
                break
            end = found.end()
            if remark := self._remark(found):
                remarks.append((end - before, remark))
        rest = text[end:][-_LONGEST:]
        self._open = rest[self._open_at(rest) :]
        return remarks


def _word_remark(found: re.Match[str]) -> str | None:
    """Which host an address names, where it does not look like it."""
    word = found[0].rstrip(".:!?")
    if word.isascii() and "@" not in word:
        return None
    scheme = _SCHEME.search(word)
    if scheme is not None:
        authority = _authority(word[scheme.end() :])
        host = _host(authority)
        return f"leads to {host}" if "@" in authority or not authority.isascii() else None
    hosts = [name for name in _HOST.findall(word) if not name.isascii()]
    mixed = [name for name in hosts if any(map(_is_mixed, name.split(".")))]
    return f"that is {', '.join(map(_ascii, mixed))}" if mixed else None


def _markdown_remark(found: re.Match[str]) -> str | None:
    target = found["target"].strip().removeprefix("<")
    return _link_remark(found["text"], target.partition(" ")[0].removesuffix(">"))


def _anchor_remark(found: re.Match[str]) -> str | None:
    href = _HREF.search(found["tag"])
    if href is None:
        return None
    written = href["a"] or href["b"] or href["c"] or ""
    target = unescape(written)
    if target != written and "&" not in target:
        return f"leads to {target}"
    return _link_remark(unescape(re.sub("<[^<>]*>", "", found["text"])), target)


def _link_remark(text: str, target: str) -> str | None:
    """Where a link leads to whose text names another host."""
    scheme = re.match(r"(?:[a-z][a-z0-9+.-]*:)?[/\\]{2}", target, re.IGNORECASE)
    if scheme is None:
        return None
    host = _host(_authority(target[scheme.end() :]))
    named = [_ascii(name).removeprefix("www.") for name in _HOST.findall(text)]
    return f"leads to {host}" if named and host.removeprefix("www.") not in named else None


def _authority(text: str) -> str:
    """What an address has between "//" and its path. Browsers take "\\" for "/"."""
    return re.split(r"[/\\?#]", text, maxsplit=1)[0]


def _host(authority: str) -> str:
    """The host of "name:password@host:port", in ASCII."""
    return _ascii(re.sub(r":\d*\Z", "", authority.rpartition("@")[2]))


def _ascii(host: str) -> str:
    """A host as it is looked up: labels with other letters in Punycode (RFC 5891)."""
    plain = normalize("NFKC", host).lower().replace("\u3002", ".")
    return ".".join(
        label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")
        for label in plain.split(".")
    )


def _is_mixed(label: str) -> bool:
    """Whether a label has letters of Latin and of a script that looks like it."""
    scripts = {name(letter, "").partition(" ")[0] for letter in label if letter.isalpha()}
    return "LATIN" in scripts and bool(scripts & _ALIKE)


_ALIKE: Final = frozenset({"ARMENIAN", "CHEROKEE", "COPTIC", "CYRILLIC", "FULLWIDTH", "GREEK"})
