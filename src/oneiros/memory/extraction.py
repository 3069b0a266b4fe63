"""Text out of files: PDF, Word, HTML, Markdown, code, and plain text in any encoding.

The text of a file is lines, and places in it are line numbers; of a PDF they are page numbers too.
So a citation can be looked up by whoever reads the same text.
"""

from __future__ import annotations

import bisect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import PurePosixPath
from typing import Literal

from oneiros.errors import DiskError
from oneiros.memory.hidden_html import mark_hidden
from oneiros.memory.hidden_text import from_markdown, marked

Form = Literal["markdown", "code", "plain"]

LONGEST = 20_000_000  # characters of text that are taken out of one file
PDF, ZIP = b"%PDF-", b"PK\x03\x04"  # how such files begin; a DOCX is a ZIP archive
_DEADLINE = 60.0  # seconds for a PDF or Word file

_MARKDOWN = {".md", ".markdown", ".mdx", ".rst"}
_HTML = {".html", ".htm", ".xhtml"}
_CODE = re.compile(
    r"bash|c|cc|clj|cpp|cs|css|cu|cxx|dart|el|erl|ex|exs|go|h|hpp|hs|java|jl|js|jsx|kt|lisp|lua|m"
    r"|mjs|ml|php|pl|proto|ps1|py|pyi|pyx|r|rb|rs|scala|scss|sh|sql|svelte|swift|tcl|tf|toml|ts"
    r"|tsx|vue|zig|zsh"
)
# What a text may hold of characters below space, beside tab, line and page breaks.
_MOST_CONTROLS = 0.005
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
# Line breaks of any system. Others of Unicode's, which str.splitlines() takes as well, no editor
# counts as lines.
_BREAK = re.compile("\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class ExtractedText:
    """The text of a file."""

    text: str  # lines end in "\n"; the first is line 1
    form: Form  # how its structure shows
    title: str = ""  # as the file says; "": it does not
    page_starts: tuple[int, ...] = ()  # of a PDF: the line that each page starts with

    def page(self, line: int) -> int | None:
        """The page that a line is on, from 1; None: the file has none."""
        return bisect.bisect_right(self.page_starts, line) or None


def extract_text(path: str, data: bytes) -> ExtractedText:
    """The text of a file.

    Args:
        path: its name says what it is, where the content does not.
        data: its content.

    Raises:
        DiskError: the file is damaged, encrypted, or holds no text, or reading it takes too long.
    """
    suffix = PurePosixPath(path).suffix.lower()
    if data.startswith((PDF, ZIP)):
        return _document(path, data)
    if suffix in (".pdf", ".docx"):
        raise DiskError(
            f"{path}: is damaged: it does not begin as a {suffix[1:].upper()} file does."
        )
    text = decode_text(path, data)
    if suffix in _HTML or re.match(r"\s*(<!doctype html|<html)\b", text[:1000], re.IGNORECASE):
        return html_text(text)
    text = _BREAK.sub("\n", text)
    form: Form = (
        "markdown" if suffix in _MARKDOWN else "code" if _CODE.fullmatch(suffix[1:]) else "plain"
    )
    return checked(path, ExtractedText(text, form))


def decode_text(path: str, data: bytes) -> str:
    """The text of bytes in whatever encoding.

    A byte order mark decides; then UTF-8 does if the bytes are that; then the encoding in which
    they look most like text.

    Raises:
        DiskError: they are no text.
    """
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe\x00\x00", "utf-32"),
        (b"\x00\x00\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = _guessed(data)
    if len(_CONTROLS.findall(text)) > _MOST_CONTROLS * len(text):
        raise DiskError(f"{path}: holds no text, but something else that cannot be read here.")
    return text


def _guessed(data: bytes) -> str:
    import charset_normalizer

    best = charset_normalizer.from_bytes(data[:1_000_000]).best()
    if best is None:
        return data.decode("latin-1")
    return data.decode(best.encoding, errors="replace")


def checked(path: str, extracted: ExtractedText) -> ExtractedText:
    """The same text. Raises DiskError: it is too long."""
    if len(extracted.text) > LONGEST:
        raise DiskError(
            f"{path}: has {len(extracted.text):,} characters of text, and at most {LONGEST:,} are "
            "taken out of one file. Split it."
        )
    return extracted


def _document(path: str, data: bytes) -> ExtractedText:
    """The text of a PDF or Word file, by a process of its own (`document_files.py`)."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "oneiros.memory.document_files", path],
            input=data,
            capture_output=True,
            timeout=_DEADLINE,
            start_new_session=True,
            check=False,
        )
        read = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise DiskError(
            f"{path}: takes longer than {_DEADLINE:g} s to read. Save it anew, or as plain text."
        ) from error
    except (OSError, ValueError) as error:  # killed: at a limit of memory, say
        raise DiskError(f"{path}: cannot be read: what reads it broke off.") from error
    if "error" in read:
        raise DiskError(read["error"])
    read["text"], read["title"] = marked(read["text"]), marked(read["title"])
    return ExtractedText(**read | {"page_starts": tuple(read["page_starts"])})


def html_text(html: str) -> ExtractedText:
    """The readable text of a page, as Markdown: its main part where one can be told, else all.

    What people do not see of it is marked (`hidden_html.py`).
    """
    import lxml.html
    import trafilatura
    from lxml import etree

    # Bounded, or a page of nothing but openings of titles would take hours.
    found = re.search(r"<title[^<>]{0,200}>([^<]{1,500})<", html, re.IGNORECASE)
    title = one_line(unescape(found[1])) if found else ""
    # lxml refuses text that declares an encoding of its own.
    html = re.sub(r"^\s*<\?xml[^>]*>", "", html)
    try:
        root = lxml.html.document_fromstring(html)
    except (etree.LxmlError, ValueError):  # an empty page
        return ExtractedText("", "markdown", title)
    hidden = mark_hidden(root)
    text = trafilatura.extract(
        root, output_format="markdown", include_links=False, include_tables=True
    )
    if not text:  # its main part cannot be told
        etree.strip_elements(root, "script", "style", with_tail=False)
        text = "\n".join(_lines(root))
    text = "\n\n".join(part for part in (from_markdown(text), hidden) if part)
    return ExtractedText(marked(clean(text)), "markdown", marked(title).strip())


def _lines(root: object) -> Iterator[str]:
    for text in root.itertext():  # type: ignore[attr-defined]  # an lxml element
        if line := one_line(text):
            yield line


def clean(text: str) -> str:
    """Lines without what only a page layout needs, and no run of empty ones."""
    text = _BREAK.sub("\n", text).replace("\x00", "").replace("\xad", "")
    text = "\n".join(line.rstrip() for line in re.split("[\n\x0b\x0c]", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def one_line(text: str) -> str:
    """The text without line breaks, and with single spaces."""
    return " ".join(text.split())
