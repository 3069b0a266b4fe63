"""Text out of PDF and Word files, in a process of its own.

What reads them can be led by a file to compute without end, or to take all memory. So it runs as
`python -m oneiros.memory.document_files NAME`: it reads the file from standard input, and writes
to standard output an `ExtractedText` as JSON, or {"error": why there is none}.
"""

from __future__ import annotations

import io
import json
import logging
import lzma
import re
import resource
import sys
import zipfile
import zlib
from dataclasses import asdict
from typing import TYPE_CHECKING

from oneiros.errors import DiskError
from oneiros.memory.extraction import LONGEST, PDF, ExtractedText, checked, clean, one_line
from oneiros.memory.hidden_text import hidden_mark

if TYPE_CHECKING:
    from docx.table import Table, _Cell
    from docx.text.paragraph import Paragraph
    from docx.text.run import Run
    from pypdf import PageObject

_SMALLEST = 2.5  # points of a letter that can be read
_WHITE = (255, 255, 255)
# Shading of a run, its paragraph, or the cell, row or table around it.
_GROUND = ".//w:shd | ancestor::w:tc/w:tcPr/w:shd | ancestor::w:tbl/w:tblPr/w:shd"
_MEMORY = 2 << 30  # bytes of address space
_SECONDS = 120  # of computing, should nobody be left to end this process


def document_text(path: str, data: bytes) -> ExtractedText:
    """The text of a PDF or Word file.

    Args:
        path: for errors.
        data: its content.

    Raises:
        DiskError: it is damaged, encrypted, or holds no text.
    """
    return _pdf(path, data) if data.startswith(PDF) else _docx(path, data)


def main() -> None:
    """Read one file."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    path = sys.argv[1]
    answer: dict[str, object]
    try:
        answer = asdict(document_text(path, sys.stdin.buffer.read()))
    except DiskError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": f"{path}: takes more than {_MEMORY:,} bytes of memory to read."}
    sys.stdout.write(json.dumps(answer))


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
            lines += clean(_page_text(page)).split("\n")
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
    return checked(path, extracted)


def _page_text(page: PageObject) -> str:
    """The text of a page; what is too small to be read is marked below it."""
    tiny: list[str] = []

    def visit(text: str, cm: list[float], tm: list[float], font: object, size: float) -> None:
        height = abs(size) * max(abs(tm[1]), abs(tm[3])) * max(abs(cm[1]), abs(cm[3]))
        if 0 < height < _SMALLEST and text.strip():
            tiny.append(text)

    text = page.extract_text(visitor_text=visit)
    for piece in tiny:
        text = text.replace(piece.strip(), " ", 1)
    return "\n".join(part for part in (text, hidden_mark(" ".join(tiny))) if part)


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
    text = "\n\n".join(clean(block) for block in blocks if block.strip())
    return checked(path, ExtractedText(text, "markdown", title))


def _paragraph(paragraph: Paragraph) -> str:
    name = (paragraph.style.name or "") if paragraph.style else ""
    found = re.fullmatch(r"Heading ([1-6])", name)
    level = int(found[1]) if found else 1 if name == "Title" else 0
    from docx.text.hyperlink import Hyperlink

    text = "".join(
        f" {hidden_mark(run.text)} " if _is_hidden(run, paragraph) else run.text
        for item in paragraph.iter_inner_content()
        for run in (item.runs if isinstance(item, Hyperlink) else [item])
    )
    return f"{'#' * level} {text}" if level else text


def _is_hidden(run: Run, paragraph: Paragraph) -> bool:
    """Whether a piece of text is not seen: it is not shown, tiny, or white without a ground."""
    styles = [style for style in (run.style, paragraph.style) if style is not None]
    said = [run.font, *(style.font for style in styles)]
    if next((font.hidden for font in said if font.hidden is not None), False):
        return True
    size = next((font.size for font in said if font.size is not None), None)
    if size is not None and size.pt < _SMALLEST:
        return True
    painted = next((font.color.rgb for font in said if font.color.rgb is not None), None)
    return painted == _WHITE and not paragraph._p.xpath(_GROUND)


def _table(table: Table) -> str:
    rows = (" | ".join(one_line(_cell(cell)) for cell in row.cells) for row in table.rows)
    return "\n".join(f"| {row} |" for row in rows)


def _cell(cell: _Cell) -> str:
    return " ".join(map(_paragraph, cell.paragraphs))


def _short(error: Exception) -> str:
    return one_line(str(error))[:200] or type(error).__name__


if __name__ == "__main__":
    main()
