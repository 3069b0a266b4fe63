"""`oneiros scan`: what is hidden in a text."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import inputs, options, output

if TYPE_CHECKING:
    from oneiros.detection.findings import Finding

EXAMPLE = "oneiros scan page.html"

_SHOWN = 80  # characters of what was decoded


def command(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A UTF-8 text; -: standard input.")
    ] = "-",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="none: only what is hidden",
            help="Also look for stretches that this model finds far less likely than text is.",
        ),
    ] = None,
    json: options.Json = False,
    threads: options.Threads = None,
) -> None:
    """Look for hidden payloads and for phrases that tell an assistant what to do.

    Encodings, other spellings, invisible characters and hidden markup are decoded, until nothing
    more comes of it. What is found is a hint for people: an attacker can evade it, and no
    permission depends on it.
    """
    from oneiros.detection.detect import detect
    from oneiros.detection.surprise import surprising_text

    text = inputs.read_text_or_stdin(file)
    findings = detect(text)
    if model is not None:
        language_model = inputs.load_model(model, threads=threads)
        findings += surprising_text(language_model, text)
    if json:
        output.write_json({"file": file, "findings": [asdict(finding) for finding in findings]})
    elif findings:
        _print_table(text, findings)
    else:
        output.say("nothing found")


def _print_table(text: str, findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("line", "kind", "phrases", "says"):
        table.add_column(heading, justify="right" if heading in ("line", "phrases") else "left")
    line, place = 1, 0
    for finding in sorted(findings, key=lambda finding: finding.start):
        line += text.count("\n", place, finding.start)
        place = finding.start
        says = output.one_line(finding.decoded[:_SHOWN])
        table.add_row(
            str(line),
            " > ".join((*finding.inside, finding.kind)),
            str(finding.instructions or ""),
            Text(says + ("…" if len(finding.decoded) > _SHOWN else "")),
        )
    output.stdout().print(table)
