"""Texts cut into chunks along their structure: headings, paragraphs, functions.

A chunk is at most as long as the embedder reads, and lies under one heading: a passage that is
about one thing is found better than one that is about two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from oneiros.memory.extraction import ExtractedText, Form

CountTokens = Callable[[Sequence[str]], list[int]]

_HEADING_TOKENS = 48  # of a chunk's tokens, for the headings above it
_CHARACTERS = 20  # of a token; a line with more of them is cut without counting
_ATX = re.compile(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_SETEXT = re.compile(r" {0,3}(=+|-{3,})\s*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
# A line that begins a definition in one of many languages; decorators and comments belong to it.
_DEFINITION = re.compile(
    r"(?:(?:export|default|public|private|protected|internal|static|async|abstract|final|pub"
    r"(?:\([a-z]+\))?|unsafe|extern|inline|virtual|override|open|sealed|data)\s+)*"
    r"(?:def|class|function|func|fn|fun|impl|struct|enum|trait|interface|module|namespace|type"
    r"|object|record|macro_rules!|sub|proc|defn|defun)\b"
    r"|(?:[A-Za-z_][\w:<>,*&\[\]]*\s+)+[*&]*[A-Za-z_]\w*\s*\([^;]*$"  # of C and its relatives
)
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|(?<=[。！？])")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a text."""

    text: str
    heading: str  # headings above it, the outermost first, with " > " between
    start: int  # its first line, from 1
    end: int  # its last line

    @property
    def whole(self) -> str:
        """The text below its headings: what is searched."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


@dataclass(frozen=True, slots=True)
class _Block:
    """Lines that belong together."""

    lines: tuple[str, ...]
    start: int
    heading: tuple[str, ...]
    heading_line: int = 0  # of the innermost one


def split_into_chunks(
    extracted: ExtractedText, count: CountTokens, longest: int, *, title: str = ""
) -> list[Chunk]:
    """Cut a text into chunks.

    Args:
        extracted: the text.
        count: the number of tokens of each of some texts, as the embedder counts them.
        longest: tokens that a chunk may have with its headings.
        title: stands above all headings.
    """
    lines = extracted.text.split("\n")
    chunks: list[Chunk] = []
    above = (title,) if title else ()
    for heading, blocks in _sections(_BLOCKS[extracted.form](lines)):
        head = _fitting(" > ".join((*above, *heading)), count, min(_HEADING_TOKENS, longest // 3))
        if heading and not head.endswith(" ".join(heading[-1].split())):
            # It is too long to stand above its chunks, and must be found all the same.
            line = blocks[0].heading_line
            blocks = [_Block((heading[-1],), line, heading, line), *blocks]
        room = longest - (count([head])[0] if head else 0)
        chunks += _packed(blocks, head, count, room)
    return chunks


def _sections(blocks: Iterator[_Block]) -> Iterator[tuple[tuple[str, ...], list[_Block]]]:
    """Blocks under one heading, together."""
    section: list[_Block] = []
    for block in blocks:
        if section and section[0].heading != block.heading:
            yield section[0].heading, section
            section = []
        section.append(block)
    if section:
        yield section[0].heading, section


def _packed(blocks: list[_Block], heading: str, count: CountTokens, room: int) -> Iterator[Chunk]:
    """As many blocks in a chunk as fit; a block that does not fit is cut."""
    pieces = [
        (text, start, end, tokens)
        for block in blocks
        for text, start, end, tokens in _pieces(block, count, room)
    ]
    taken: list[tuple[str, int, int, int]] = []
    for piece in pieces:
        if taken and sum(tokens for *_, tokens in taken) + piece[3] > room:
            yield _joined(taken, heading)
            taken = []
        taken.append(piece)
    if taken:
        yield _joined(taken, heading)


def _joined(pieces: list[tuple[str, int, int, int]], heading: str) -> Chunk:
    text, end = pieces[0][0], pieces[0][2]
    for piece in pieces[1:]:
        # Parts of one line are joined as they were; lines that were left out between are empty.
        text += (" " if piece[1] == end else "\n" * min(piece[1] - end, 2)) + piece[0]
        end = piece[2]
    return Chunk(text, heading, pieces[0][1], end)


def _pieces(block: _Block, count: CountTokens, room: int) -> Iterator[tuple[str, int, int, int]]:
    """A block as text, first line, last line and tokens; in parts where it is too long."""
    text = "\n".join(block.lines)
    (tokens,) = count([text])
    if tokens <= room:
        yield text, block.start, block.start + len(block.lines) - 1, tokens
        return
    for number, line in enumerate(block.lines, block.start):
        for part, length in _cut(line, count, room):
            yield part, number, number, length


def _cut(line: str, count: CountTokens, room: int) -> Iterator[tuple[str, int]]:
    """A line that fits, or its sentences, or its words, or its halves."""
    if not line.strip():
        return
    # A line of a megabyte is not counted again for each halving.
    if len(line) <= _CHARACTERS * room:
        (tokens,) = count([line])
        if tokens <= room:
            yield line, tokens
            return
    for separator in (_SENTENCE, re.compile(r"\s+")):
        parts = [part for part in separator.split(line) if part]
        if len(parts) > 1:
            middle = len(parts) // 2
            # Halves, not parts one by one: few counts, and parts of about the same length.
            for half in (parts[:middle], parts[middle:]):
                yield from _cut(" ".join(half), count, room)
            return
    middle = len(line) // 2
    yield from _cut(line[:middle], count, room)
    yield from _cut(line[middle:], count, room)


def _fitting(heading: str, count: CountTokens, room: int) -> str:
    """The end of a heading that fits: its innermost part says most."""
    words = heading.split()
    while words and count([" ".join(words)])[0] > room:
        words = words[len(words) // 4 + 1 :]
    return " ".join(words)


def _plain_blocks(lines: list[str]) -> Iterator[_Block]:
    yield from _paragraphs(lines, 1, ())


def _paragraphs(lines: Sequence[str], first: int, heading: tuple[str, ...]) -> Iterator[_Block]:
    """Runs of lines that are not empty."""
    taken: list[str] = []
    for number, line in enumerate([*lines, ""], first):
        if line.strip():
            taken.append(line)
        elif taken:
            yield _Block(tuple(taken), number - len(taken), heading)
            taken = []


def _markdown_blocks(lines: list[str]) -> Iterator[_Block]:
    """Paragraphs, lists, tables and fenced code under their headings."""
    headings: dict[int, str] = {}
    taken: list[str] = []
    fence = ""
    above = 0  # the line of the last heading
    empty: _Block | None = None  # the last heading, while nothing stands below it

    def block(before: int) -> Iterator[_Block]:
        nonlocal empty
        if taken:
            yield _Block(tuple(taken), before - len(taken), tuple(headings.values()), above)
            taken.clear()
            empty = None

    for number, line in enumerate(lines, 1):
        if fence:
            taken.append(line)
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        level, first = 0, number
        if found := _ATX.match(line):
            level, name = len(found[1]), found[2]
        elif len(taken) == 1 and (found := _SETEXT.match(line)):
            level, name, first = 1 if found[1][0] == "=" else 2, taken.pop().strip(), number - 1
        if level:
            yield from block(number)
            if empty and level <= max(headings):
                yield empty
            headings = {k: v for k, v in headings.items() if k < level}
            empty = _Block((name,), first, tuple(headings.values()), above)
            headings[level], above = name, first
        elif found := _FENCE.match(line):
            fence = found[1]
            taken.append(line)
        elif line.strip():
            taken.append(line)
        else:
            yield from block(number)
    yield from block(len(lines) + 1)
    if empty:
        yield empty


def _code_blocks(lines: list[str]) -> Iterator[_Block]:
    """Definitions at the outermost level, each with what stands directly above it."""
    starts = [0]
    for number, line in enumerate(lines):
        if line and not line[0].isspace() and _DEFINITION.match(line[:200]):
            start = number
            while (
                start > starts[-1]
                and lines[start - 1].strip()
                and not lines[start - 1][0].isspace()
            ):
                if lines[start - 1].rstrip()[-1] in "})];":  # the end of what is above
                    break
                start -= 1
            if start > starts[-1]:
                starts.append(start)
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        while end > start and not lines[end - 1].strip():
            end -= 1
        while start < end and not lines[start].strip():
            start += 1
        if start < end:
            yield _Block(tuple(lines[start:end]), start + 1, ())


_BLOCKS: dict[Form, Callable[[list[str]], Iterator[_Block]]] = {
    "markdown": _markdown_blocks,
    "code": _code_blocks,
    "plain": _plain_blocks,
}
