"""`oneiros unzip`: restore a file that `oneiros zip` compressed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from oneiros.cli import inputs, options, output
from oneiros.cli.zip_file import SUFFIX
from oneiros.errors import OneirosError

EXAMPLE = "oneiros unzip book.onz -o book.txt"


def command(
    file: Annotated[
        Path,
        typer.Argument(metavar="IN", help="A file made by `oneiros zip`.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            show_default=f"IN without {SUFFIX}",
            help="The file to write.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="the one that the file names",
            help="The model that it was compressed with.",
        ),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
    threads: options.Threads = None,
) -> None:
    """Restore a file that zip compressed.

    The result is checked before it is written.
    """
    from oneiros.compression.codec import Progress, decompress
    from oneiros.compression.container import unpack
    from oneiros.model.replacement import replacing_file

    destination = out if out is not None else _without_suffix(file)
    compressed = inputs.read_bytes(file)
    header, _ = unpack(compressed)
    inputs.check_output(destination, force)
    language_model = inputs.load_model(
        model if model is not None else model_of(header.model_sha256, header.model_name),
        threads=threads,
        context=header.window,
    )
    tokens = 0
    begun = time.perf_counter()
    with output.byte_progress("Unzipping") as advance:

        def report(now: Progress) -> None:
            nonlocal tokens
            tokens = now.tokens
            speed = tokens / (time.perf_counter() - begun)
            advance(now.content_bytes, header.content_bytes, f"{speed:,.0f} tokens/s")

        content = decompress(compressed, language_model, report)
    seconds = time.perf_counter() - begun
    with replacing_file(destination) as writer:
        writer.write(content)

    if json:
        output.write_json(
            {
                "file": str(file),
                "output": str(destination),
                "model": language_model.name,
                "bytes": len(content),
                "compressed_bytes": len(compressed),
                "tokens": tokens,
                "seconds": seconds,
                "tokens_per_second": tokens / seconds,
            }
        )
    else:
        output.say(f"{destination}: {len(content):,} bytes, {tokens / seconds:,.0f} tokens/s")


def model_of(sha256: str, name: str) -> str:
    """The catalog's name of the model with this hash.

    Raises OneirosError where the catalog has none: then --model must say where it is.
    """
    from oneiros.model.catalog import known_models

    for known in known_models():
        if known.sha256 == sha256:
            return known.name
    raise OneirosError(
        f"The file was compressed with the model {output.one_line(name)} (SHA-256 {sha256}), "
        "which is not in the catalog: say where it is with --model."
    )


def _without_suffix(file: Path) -> Path:
    if file.suffix != SUFFIX or not file.stem:
        raise OneirosError(f"{file} does not end in {SUFFIX}: name the file to write with -o.")
    return file.with_suffix("")
