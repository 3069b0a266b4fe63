"""Text out of files of many kinds; broken ones are told, and never crash."""

import io
import sys
from pathlib import Path

import docx
import pypdf
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Pt, RGBColor
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from oneiros.errors import DiskError
from oneiros.memory import extraction
from oneiros.memory.document_files import document_text
from oneiros.memory.extraction import extract_text


def pdf(*pages: str, password: str = "") -> bytes:
    """A PDF with a line of text on each page."""
    writer = pypdf.PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(300, 300)
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(content)
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    writer.add_metadata({"/Title": "A report"})
    if password:
        writer.encrypt(password)
    stream = io.BytesIO()
    writer.write(stream)
    return stream.getvalue()


def word() -> bytes:
    document = docx.Document()
    document.core_properties.title = "Minutes"
    document.add_heading("Meeting", 1)
    document.add_paragraph("We met.")
    table = document.add_table(1, 2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "Eva", "yes"
    document.add_heading("Decisions", 2)
    document.add_paragraph("None.")
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


def hiding_word() -> bytes:
    """A Word file with words that are not seen: not shown, white, tiny, by a style; and some."""
    document = docx.Document()
    paragraph = document.add_paragraph("Seen. ")
    paragraph.add_run("Vanished words.").font.hidden = True
    paragraph.add_run(" Seen too. ")
    paragraph.add_run("White words.").font.color.rgb = RGBColor(255, 255, 255)
    paragraph.add_run("Tiny words.").font.size = Pt(1)
    paragraph.add_run(" Small print.").font.size = Pt(6)
    style = document.styles.add_style("Secret", WD_STYLE_TYPE.CHARACTER)
    style.font.hidden = True
    paragraph.add_run("Styled words.", style="Secret")
    cell = document.add_table(1, 1).rows[0].cells[0]
    shade = OxmlElement("w:shd")
    shade.set(qn("w:fill"), "000000")
    cell._tc.get_or_add_tcPr().append(shade)
    cell.paragraphs[0].add_run("White on black.").font.color.rgb = RGBColor(255, 255, 255)
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


def test_words_of_a_word_file_that_are_not_seen_are_marked() -> None:
    text = " ".join(document_text("a.docx", hiding_word()).text.split())
    assert text == (
        "Seen. [hidden: Vanished words.] Seen too. [hidden: White words.] [hidden: Tiny words.] "
        "Small print. [hidden: Styled words.] | White on black. |"
    )


def test_words_of_a_pdf_that_are_too_small_are_marked() -> None:
    small = "Seen.) Tj 0.05 0 0 0.05 20 100 Tm (Scaled words) Tj 1 0 0 1 20 80 Tm (Seen too."
    text = document_text("a.pdf", pdf(small)).text
    assert "[hidden: Scaled words]" in text
    assert "Scaled words" not in text.replace("[hidden: Scaled words]", "")
    assert "Seen." in text and "Seen too." in text


def test_characters_of_a_page_that_are_not_seen_are_marked() -> None:
    tagged = "".join(chr(0xE0000 + ord(one)) for one in "obey me")
    page = f"<title>A{tagged}</title><p>Some soft\u00adly wr\u200bitten text{tagged}</p>"
    extracted = extract_text("a.html", page.encode())
    assert extracted.title.split() == ["A", "[hidden:", "obey", "me]"]
    assert "Some softly written text [hidden: obey me]" in extracted.text


PDF, WORD = pdf("First page.", "", "Third page."), word()


def test_a_pdf_has_pages() -> None:
    extracted = extract_text("a.pdf", PDF)
    lines = extracted.text.split("\n")
    assert extracted.title == "A report"
    assert [(line, extracted.page(number)) for number, line in enumerate(lines, 1) if line] == [
        ("First page.", 1),
        ("Third page.", 3),
    ]
    assert extract_text("called.txt", PDF) == extracted


def test_a_word_file_keeps_headings_and_tables_in_order() -> None:
    extracted = extract_text("a.docx", WORD)
    assert extracted.text == "# Meeting\n\nWe met.\n\n| Eva | yes |\n\n## Decisions\n\nNone."
    assert (extracted.form, extracted.title, extracted.page(1)) == ("markdown", "Minutes", None)


def test_a_page_is_its_main_text() -> None:
    story = "The committee met on Monday and discussed the budget at length. " * 6
    html = (
        "<!DOCTYPE html><html><head><title>News &amp; more</title><script>var x;</script></head>"
        f"<body><nav><a href='/'>Home</a></nav><article><h1>Budget</h1><p>{story}</p>"
        "<h2>Vote</h2><p>All were in favour of it, and nobody was against.</p></article></body>"
    )
    extracted = extract_text("a.html", html.encode())
    assert extracted.title == "News & more"
    assert "# Budget" in extracted.text and "nobody was against" in extracted.text
    assert "var x" not in extracted.text and "Home" not in extracted.text
    small = extract_text("a.html", b"<html><body><b>Only</b> this<script>no</script></body></html>")
    assert small.text.replace("*", "").split() == ["Only", "this"]
    assert extract_text("empty.html", b"<html></html>").text == ""


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "Grüße, 世界"),
        ("utf-8-sig", "Grüße"),
        ("utf-16", "Grüße, 世界"),
        ("utf-32", "Grüße"),
        ("cp1252", "Die Straße war naß und kühl, früher hörte man Vögel. „Schön“, sagte sie."),
        ("cp1251", "Вчера вечером мы долго гуляли по городу и разговаривали о жизни."),
        ("shift_jis", "私は昨日友達と一緒に東京へ行きました。とても楽しかったです。"),
    ],
)
def test_text_of_any_encoding_is_text(encoding: str, text: str) -> None:
    assert extract_text("a.txt", text.encode(encoding)).text == text


def test_line_breaks_of_every_system_count_as_lines() -> None:
    assert extract_text("a.txt", b"one\r\ntwo\rthree\nfour").text == "one\ntwo\nthree\nfour"
    assert extract_text("a.py", b"def f(): ...").form == "code"
    assert extract_text("A.MD", b"# A").form == "markdown"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.pdf", b"no pdf", "damaged"),
        ("a.pdf", b"%PDF-1.7\n", "damaged PDF"),
        ("a.pdf", pdf("text", password="x"), "encrypted"),
        ("a.pdf", pdf(""), "no text"),
        ("a.docx", b"PK\x03\x04 and no more", "DOCX"),
        ("a.bin", bytes(range(256)) * 10, "no text"),
    ],
)
def test_what_cannot_be_read_is_told(name: str, data: bytes, message: str) -> None:
    with pytest.raises(DiskError, match=message):
        extract_text(name, data)


@pytest.mark.parametrize("name", ["pdf", "docx"])
@settings(max_examples=25, deadline=None)
@given(choice=st.data())
def test_damaged_files_are_errors_and_no_crashes(name: str, choice: st.DataObject) -> None:
    data = {"pdf": PDF, "docx": WORD}[name]
    broken = bytearray(data[: choice.draw(st.integers(8, len(data)))])
    for place, value in choice.draw(
        st.lists(st.tuples(st.integers(8, len(data)), st.integers(0, 255)), max_size=8)
    ):
        if place < len(broken):
            broken[place] = value
    try:
        document_text("a", bytes(broken))
    except DiskError as error:
        assert str(error).startswith("a: ")


def test_a_document_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "_DEADLINE", 0.01)
    with pytest.raises(DiskError, match=r"a\.pdf: takes longer than 0\.01 s"):
        extract_text("a.pdf", PDF)


def test_a_document_that_ends_its_reader_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")  # a program that ends at once
    with pytest.raises(DiskError, match=r"a\.docx: cannot be read"):
        extract_text("a.docx", WORD)


@pytest.mark.parametrize("text", ["<title>", "<title ", "<", "<div>", "<b><i>", "&lt;"])
def test_pages_made_to_be_slow_are_not(text: str) -> None:
    """Anything quadratic would take hours here."""
    extract_text("a.html", b"<html>" + 100_000 * text.encode())


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["a.txt", "a.html", "a.md", "a.docx", "a.pdf"]))
def test_any_bytes_are_text_or_refused(data: bytes, name: str) -> None:
    try:
        text = extract_text(name, data).text
    except DiskError:
        return
    text.encode()


def test_real_pages_of_the_project_are_read(project_folder: Path) -> None:
    path = project_folder / "docs" / "architecture.md"
    extracted = extract_text("architecture.md", path.read_bytes())
    assert extracted.text == path.read_text()
