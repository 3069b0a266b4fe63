"""Draws the figures of docs/engine.md: python docs/figures/make_figures.py

The numbers are those of the default model, SmolLM2-135M (`oneiros inspect smollm2-135m`), and of
the layouts in src/oneiros/engine/kernels/oneiros.h.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent

LAYERS, WIDTH, FFN_WIDTH, VOCABULARY = 30, 576, 1536, 49152
HEADS, KV_HEADS, HEAD_DIM = 9, 3, 64
GROUP_ROWS, BLOCK, PAGE_TOKENS, SPAN_TOKENS = 16, 32, 32, 256
BLOCKS = WIDTH // BLOCK
HEAD_PAGE_BYTES = 2 * PAGE_TOKENS * HEAD_DIM * 2

INK, SOFT = "#1f2933", "#6b7785"
STREAM, CODES, WEIGHTS, OTHER_THREAD, PAGES = "#f4c95d", "#f6e3b4", "#8fb8de", "#c5daee", "#b5d8b0"
PLAIN = "#f3f4f6"


@dataclass
class Drawing:
    width: int
    height: int
    parts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def box(
        self, x: float, y: float, width: float, height: float, text: str = "", fill: str = PLAIN
    ) -> None:
        """A rectangle with centred lines of text, the first one in ink, the others softer."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" '
            f'fill="{fill}" stroke="{INK}" stroke-width="1"/>'
        )
        lines = text.split("\n") if text else []
        top = y + height / 2 - 7.5 * (len(lines) - 1) + 4.5
        for i, line in enumerate(lines):
            colour, size = (INK, 13) if i == 0 else (SOFT, 11.5)
            self.text(x + width / 2, top + 15 * i, line, "middle", size, colour)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "start",
        size: float = 13,
        colour: str = INK,
        weight: str = "normal",
    ) -> None:
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size:g}" '
            f'fill="{colour}" font-weight="{weight}">{escape(text)}</text>'
        )

    def note(self, x: float, y: float, text: str) -> None:
        """Soft text on white, on top of everything, so that lines may pass behind it."""
        self.notes.append(
            f'<rect x="{x - 3:g}" y="{y - 12:g}" width="{6.3 * len(text):g}" height="16" '
            f'fill="white"/><text x="{x:g}" y="{y:g}" font-size="12" fill="{SOFT}">'
            f"{escape(text)}</text>"
        )

    def line(self, *points: tuple[float, float], arrow: bool = True, dash: str = "") -> None:
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        end = ' marker-end="url(#arrow)"' if arrow else ""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        colour = SOFT if dash else INK
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"'
            f"{dashes}{end}/>"
        )

    def save(self, name: str, title: str) -> None:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" '
            'font-family="Helvetica, Arial, DejaVu Sans, sans-serif">\n'
            f"<title>{escape(title)}</title>\n"
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{INK}"/>'
            "</marker></defs>\n"
            f'<rect width="{self.width}" height="{self.height}" fill="white"/>\n'
        )
        (FOLDER / name).write_text(head + "\n".join(self.parts + self.notes) + "\n</svg>\n")


def matrix(
    d: Drawing, x: float, y: float, width: float, name: str, rows: int, columns: int
) -> None:
    """Weights, shared between two threads by groups of rows."""
    d.box(x, y, width, 44, fill=WEIGHTS)
    d.box(x + width / 2, y, width / 2, 44, fill=OTHER_THREAD)
    d.text(x + width / 2, y + 19, name, "middle", 13)
    d.text(x + width / 2, y + 35, f"{rows:,} x {columns:,}", "middle", 11.5, SOFT)


def decoding_step() -> None:
    d = Drawing(1000, 750)
    stream, first, pages = 60, 150, 800
    d.text(20, 28, "One decoding step", size=16, weight="bold")
    d.note(20, 50, "SmolLM2-135M; two threads: dark and light; dashed: a barrier")
    d.box(stream - 13, 70, 26, 626, fill=STREAM)
    d.text(stream - 13, 728, f"x, float32[{WIDTH}]: the residual stream", size=12, colour=SOFT)
    d.box(110, 134, 855, 510, fill="none")
    d.text(956, 634, f"{LAYERS} layers, one after the other", "end", 12, SOFT)

    def barrier(y: float) -> None:
        d.line((120, y), (775, y), arrow=False, dash="5 4")

    def norm(y: float, text: str = "RMSNorm") -> None:
        d.line((stream + 13, y + 22), (first, y + 22))
        d.box(first, y, 90, 44, text)
        codes(first + 110, y)
        d.line((first + 90, y + 22), (first + 110, y + 22))

    def codes(x: float, y: float) -> None:
        d.box(x, y, 100, 44, f"int8 codes\na scale per {BLOCK}", CODES)

    d.line((first, 92), (stream + 13, 92))
    d.box(first, 70, 210, 44, "row of the embedding\nfor the last token", WEIGHTS)
    barrier(124)

    y = 150
    norm(y)
    d.line((first + 210, y + 22), (first + 235, y + 22))
    matrix(d, first + 235, y, 130, "q", HEADS * HEAD_DIM, WIDTH)
    matrix(d, first + 370, y, 100, "k", KV_HEADS * HEAD_DIM, WIDTH)
    matrix(d, first + 475, y, 100, "v", KV_HEADS * HEAD_DIM, WIDTH)
    barrier(y + 60)

    y = 226
    d.box(
        first + 235,
        y,
        340,
        44,
        "rotate q and k by the position\nbiases, QK-norm where a model has them",
    )
    d.line((first + 300, 194), (first + 300, y))
    d.line((first + 420, 194), (first + 420, y))
    d.line((first + 525, 194), (first + 525, y))
    d.line((first + 575, y + 22), (pages, y + 22))
    d.text(pages - 62, y + 16, "k, v", size=12)
    barrier(y + 60)
    for i in range(3):
        d.box(pages + 8 * i, y - 8 + 9 * i, 132, 98, fill=PAGES)
    d.text(pages + 82, y + 46, "KV pages", "middle", 13)
    d.text(pages + 82, y + 63, f"{PAGE_TOKENS} positions each", "middle", 11.5, SOFT)
    d.text(pages + 82, y + 78, "FP16", "middle", 11.5, SOFT)

    y = 302
    d.box(
        first + 235,
        y,
        340,
        44,
        "attention: softmax(q · keys) · values\n"
        f"one key/value head, {SPAN_TOKENS} positions at a time",
    )
    d.line((first + 300, 270), (first + 300, y))
    d.text(first + 308, 292, "q", size=12)
    d.line((pages, y + 10), (first + 575, y + 10))
    barrier(y + 60)

    y = 378
    d.box(first + 235, y, 130, 44, "merge the spans\nin their order")
    d.line((first + 300, 346), (first + 300, y))
    d.line((first + 365, y + 22), (first + 385, y + 22))
    codes(first + 385, y)
    d.line((first + 485, y + 22), (first + 505, y + 22))
    matrix(d, first + 505, y, 110, "output", WIDTH, HEADS * HEAD_DIM)
    d.line((first + 560, y + 44), (first + 560, y + 54), (stream + 15, y + 54))
    d.text(stream + 24, y + 49, "+", size=16)
    barrier(y + 64)

    y = 466
    norm(y)
    d.line((first + 210, y + 22), (first + 235, y + 22))
    matrix(d, first + 235, y, 130, "gate", FFN_WIDTH, WIDTH)
    matrix(d, first + 370, y, 130, "up", FFN_WIDTH, WIDTH)
    d.line((first + 500, y + 22), (first + 520, y + 22))
    d.box(first + 520, y, 100, 44, "silu(gate) · up")
    d.line((first + 620, y + 22), (first + 640, y + 22))
    codes(first + 640, y)
    barrier(y + 60)

    y = 548
    d.line((first + 690, 510), (first + 690, y + 22), (first + 620, y + 22))
    matrix(d, first + 490, y, 130, "down", WIDTH, FFN_WIDTH)
    d.line((first + 490, y + 22), (stream + 15, y + 22))
    d.text(stream + 24, y + 17, "+", size=16)
    barrier(y + 60)

    y = 684
    norm(y - 12)
    d.line((first + 210, y + 10), (first + 235, y + 10))
    matrix(d, first + 235, y - 12, 265, "head", VOCABULARY, WIDTH)
    d.line((first + 500, y + 10), (first + 525, y + 10))
    d.box(first + 525, y - 12, 120, 44, f"logits\nfloat32[{VOCABULARY:,}]", CODES)
    d.line((first + 645, y + 10), (first + 670, y + 10))
    d.box(first + 670, y - 12, 110, 44, "sampling\npenalties, top-k, ...")

    d.line((first + 780, y + 10), (982, y + 10), (982, 92), (first + 210, 92))
    d.note(first + 500, 96, "the next token starts the next step")
    d.save("decoding-step.svg", "One decoding step, from the last token to the next")


def packed_weights() -> None:
    d = Drawing(980, 560)
    d.text(20, 28, "Packed weights", size=16, weight="bold")
    d.note(20, 46, f"a 4-bit matrix with minima (Q4M), {WIDTH} columns")

    for i in range(6):
        d.box(
            30,
            60 + 26 * i,
            120,
            26,
            f"rows {16 * i} to {16 * i + 15}" if i < 5 else "...",
            WEIGHTS if i == 1 else PLAIN,
        )
    d.text(90, 236, f"groups of {GROUP_ROWS} rows", "middle", 12, SOFT)

    d.line((150, 86), (200, 62), arrow=False)
    d.line((150, 112), (200, 106), arrow=False)
    x = 200.0
    for i, name in enumerate(("block 0", "block 1", "block 2", "...", f"block {BLOCKS - 1}")):
        d.box(
            x,
            62,
            88,
            44,
            name + ("\n256 bytes" if name != "..." else ""),
            WEIGHTS if i == 1 else PLAIN,
        )
        x += 88
    for name in ("scales 0", "scales 1", "...", f"scales {BLOCKS - 1}"):
        d.box(x, 62, 78, 44, name + ("\n64 bytes" if name != "..." else ""), CODES)
        x += 78
    d.note(
        200,
        126,
        f"one group: the codes of {BLOCKS} blocks of {BLOCK} columns, then their scales "
        f"and minima (16 FP16 each): {BLOCKS * 320:,} bytes",
    )

    d.line((288, 106), (230, 176), arrow=False, dash="3 3")
    d.line((376, 106), (880, 176), arrow=False, dash="3 3")
    for j in range(4):
        y = 176 + 34 * j
        d.text(222, y + 21, f"vector {j}", "end", 12)
        for r in range(GROUP_ROWS):
            x = 230 + 40.6 * r
            name = "..." if 4 <= r < 15 else f"row {r}"
            if 4 < r < 15:
                name = ""
            d.box(x, y, 40.6, 34, "", WEIGHTS if (j, r) == (3, 2) else PLAIN)
            d.text(x + 20.3, y + 21, name, "middle", 11)
    d.note(
        230,
        330,
        "one block: four vectors of 64 bytes; lane r of a vector, four bytes, belongs to "
        "row r of the group",
    )

    d.line((311, 312), (231, 372), arrow=False, dash="3 3")
    d.line((352, 312), (831, 372), arrow=False, dash="3 3")
    for b in range(4):
        x = 230 + 150 * b
        d.box(x, 372, 75, 44, f"column {16 + 12 + b}\nhigh 4 bits", CODES)
        d.box(x + 75, 372, 75, 44, f"column {12 + b}\nlow 4 bits", WEIGHTS)
        d.text(x + 75, 432, f"byte {b}", "middle", 12, SOFT)
    d.note(
        230,
        456,
        "vector 3, row 2: its columns 12 to 15 in the low halves and 28 to 31 in the high "
        "halves of four bytes",
    )

    d.text(
        230,
        496,
        "With AVX-512 one instruction multiplies every lane with the same four codes "
        "of the input and adds them up:",
        size=13,
    )
    d.text(
        230,
        516,
        "16 rows move on by four columns. After eight of them a block is done, and its "
        "sums are scaled.",
        size=13,
    )
    d.save("packed-weights.svg", "How packed weights lie in memory")


def kv_page() -> None:
    d = Drawing(980, 420)
    d.text(20, 28, "A KV page", size=16, weight="bold")
    d.note(20, 46, f"keys and values of {PAGE_TOKENS} positions in all layers; SmolLM2-135M")

    d.text(30, 70, "page table of a sequence", size=13)
    x = 30.0
    for name, fill in (("page 0", PAGES), ("page 1", PAGES), ("page 2", PLAIN)):
        d.box(x, 82, 90, 32, name, fill)
        x += 90
    d.text(310, 70, "of its fork", size=13)
    x = 310.0
    for name, fill in (("page 0", PAGES), ("page 1", PAGES), ("page 2'", CODES)):
        d.box(x, 82, 90, 32, name, fill)
        x += 90
    d.note(600, 95, "Green: one page in memory, two references.")
    d.note(600, 112, "Whoever writes to a shared page copies it first.")

    d.line((120, 114), (30, 160), arrow=False, dash="3 3")
    d.line((210, 114), (930, 160), arrow=False, dash="3 3")
    x = 30.0
    names = [
        "layer 0\nhead 0",
        "layer 0\nhead 1",
        "layer 0\nhead 2",
        "layer 1\nhead 0",
        "...",
        f"layer {LAYERS - 1}\nhead {KV_HEADS - 1}",
    ]
    for i, name in enumerate(names):
        d.box(x, 160, 150, 44, name, PAGES if i == 1 else PLAIN)
        x += 150
    page = HEAD_PAGE_BYTES * KV_HEADS * LAYERS
    d.note(
        30,
        224,
        f"{LAYERS} layers x {KV_HEADS} key/value heads x {HEAD_PAGE_BYTES:,} bytes = "
        f"{page:,} bytes",
    )

    d.line((180, 204), (30, 260), arrow=False, dash="3 3")
    d.line((330, 204), (930, 260), arrow=False, dash="3 3")
    half = PAGE_TOKENS // 2
    d.box(
        30,
        260,
        225,
        60,
        f"keys of positions 0 to {half - 1}\n[{HEAD_DIM} features][{half} positions]",
        PAGES,
    )
    d.box(
        255,
        260,
        225,
        60,
        f"keys of positions {half} to {PAGE_TOKENS - 1}\n[{HEAD_DIM} features][{half} positions]",
        PAGES,
    )
    d.box(
        480,
        260,
        450,
        60,
        f"values of positions 0 to {PAGE_TOKENS - 1}\n"
        f"[{PAGE_TOKENS} positions][{HEAD_DIM} features]",
        CODES,
    )
    d.note(30, 344, "A load brings one feature of 16 keys:")
    d.note(30, 361, "16 scores grow at once.")
    d.note(480, 344, "A load brings 16 features of one value:")
    d.note(480, 361, "16 features of the output grow at once.")
    d.note(30, 396, "All numbers are FP16, two bytes each.")
    d.save("kv-page.svg", "How keys and values lie in a page")


if __name__ == "__main__":
    decoding_step()
    packed_weights()
    kv_page()
