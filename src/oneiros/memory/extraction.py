"""Text out of files: PDF, Word, HTML, Markdown, code, and plain text in any encoding.

The text of a file is lines, and places in it are line numbers; of a PDF they are page numbers too.
So a citation can be looked up by whoever reads the same text.
"""

from __future__ import annotations

import bisect
import io
import logging
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from oneiros.errors import DiskError

if TYPE_CHECKING:
    from docx.table import Table
    from docx.text.paragraph import Paragraph

Form = Literal["markdown", "code", "plain"]

LONGEST = 20_000_000  # characters of text that are taken out of one file

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
        DiskError: the file is damaged, encrypted, or holds no text.
    """
    suffix = PurePosixPath(path).suffix.lower()
    if data.startswith(b"%PDF-"):
        return _pdf(path, data)
    if data.startswith(b"PK\x03\x04"):
        return _docx(path, data)
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
    return _checked(path, ExtractedText(text, form))


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


def _checked(path: str, extracted: ExtractedText) -> ExtractedText:
    if len(extracted.text) > LONGEST:
        raise DiskError(
            f"{path}: has {len(extracted.text):,} characters of text, and at most {LONGEST:,} are "
            "taken out of one file. Split it."
        )
    return extracted


def _pdf(path: str, data: bytes) -> ExtractedText:
    import pypdf
    import pypdf.errors

    # It writes what it finds odd in a file to the standard error; what matters becomes an error.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    lines: list[str] = []
    starts: list[int] = []
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DiskError(f"{path}: is encrypted. Save it without a password.")
        title = str((reader.metadata and reader.metadata.title) or "")
        for page in reader.pages:
            starts.append(len(lines) + 1)
            lines += _clean(page.extract_text()).split("\n")
            if sum(map(len, lines[starts[-1] - 1 :])) > LONGEST:
                raise DiskError(f"{path}: page {len(starts)} has too much text.")
    # Inside of a damaged file anything may go wrong, and pypdf does not wrap it.
    except (
        pypdf.errors.PyPdfError,
        zlib.error,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        NotImplementedError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise DiskError(f"{path}: is a damaged PDF file ({_short(error)}).") from error
    if not any(lines):
        raise DiskError(f"{path}: has no text, only pictures of pages.")
    extracted = ExtractedText("\n".join(lines), "plain", title, tuple(starts))
    return _checked(path, extracted)


def _docx(path: str, data: bytes) -> ExtractedText:
    import docx
    import docx.opc.exceptions
    from docx.table import Table
    from lxml import etree

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(
                item.file_size for item in archive.infolist() if item.filename.endswith("xml")
            )
            if size > 10 * LONGEST:
                raise DiskError(f"{path}: unpacks to {size:,} bytes of XML, which is too much.")
        document = docx.Document(io.BytesIO(data))
        blocks = [
            _table(item) if isinstance(item, Table) else _paragraph(item)
            for item in document.iter_inner_content()
        ]
        title = document.core_properties.title
    except (
        docx.opc.exceptions.OpcError,
        etree.LxmlError,
        lzma.LZMAError,
        zipfile.BadZipFile,
        zlib.error,
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        NotImplementedError,  # compression that Python does not know
        OSError,
        RuntimeError,  # an encrypted archive
        TypeError,
        ValueError,  # another kind of Office file
    ) as error:
        raise DiskError(
            f"{path}: is no Word file (DOCX), or a damaged one ({_short(error)})."
        ) from error
    text = "\n\n".join(_clean(block) for block in blocks if block.strip())
    return _checked(path, ExtractedText(text, "markdown", title))


def _paragraph(paragraph: Paragraph) -> str:
    name = (paragraph.style.name or "") if paragraph.style else ""
    found = re.fullmatch(r"Heading ([1-6])", name)
    level = int(found[1]) if found else 1 if name == "Title" else 0
    return f"{'#' * level} {paragraph.text}" if level else paragraph.text


def _table(table: Table) -> str:
    rows = (" | ".join(_line(cell.text) for cell in row.cells) for row in table.rows)
    return "\n".join(f"| {row} |" for row in rows)


def html_text(html: str) -> ExtractedText:
    """The readable text of a page, as Markdown: its main part where one can be told, else all."""
    import trafilatura

    text = trafilatura.extract(
        html, output_format="markdown", include_links=False, include_tables=True
    )
    # Bounded, or a page of nothing but openings of titles would take hours.
    found = re.search(r"<title[^<>]{0,200}>([^<]{1,500})<", html, re.IGNORECASE)
    title = _line(unescape(found[1])) if found else ""
    return ExtractedText(_clean(text or _plain(html)), "markdown", title)


def _plain(html: str) -> str:
    """All text of a page, where its main part cannot be told."""
    import lxml.html
    from lxml import etree

    # lxml refuses text that declares an encoding of its own.
    html = re.sub(r"^\s*<\?xml[^>]*>", "", html)
    try:
        root = lxml.html.document_fromstring(html)
    except (etree.LxmlError, ValueError):  # an empty page
        return ""
    etree.strip_elements(root, "script", "style", "noscript", "template", with_tail=False)
    return "\n".join(_lines(root))


def _lines(root: object) -> Iterator[str]:
    for text in root.itertext():  # type: ignore[attr-defined]  # an lxml element
        if line := _line(text):
            yield line


def _clean(text: str) -> str:
    """Lines without what only a page layout needs, and no run of empty ones."""
    text = _BREAK.sub("\n", text).replace("\x00", "").replace("\xad", "")
    text = "\n".join(line.rstrip() for line in re.split("[\n\x0b\x0c]", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def _line(text: str) -> str:
    return " ".join(text.split())


def _short(error: Exception) -> str:
    return _line(str(error))[:200] or type(error).__name__
