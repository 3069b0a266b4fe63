"""`oneiros zip`: compress a file with a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from oneiros.cli import inputs, options, output

EXAMPLE = "oneiros zip book.txt -o book.onz"

SUFFIX = ".onz"


def command(
    file: Annotated[Path, typer.Argument(metavar="IN", help="Any file.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="OUT", show_default="IN.onz", help="The file to write."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="The model that predicts; unzip needs it too.")
    ] = options.DEFAULT_MODEL,
    force: options.Force = False,
    json: options.Json = False,
    threads: options.Threads = None,
) -> None:
    """Compress a file with a model, without loss.

    What the model predicts well takes few bits. Made for text in a language that the model
    knows, where it beats general compressors by far; other data hardly grow. It is slow:
    thousands of tokens a second, and hundreds to unzip.
    """
    from oneiros.compression.codec import WINDOW, Progress, compress
    from oneiros.model.parameters import open_parameters
    from oneiros.model.replacement import replacing_file

    destination = out if out is not None else file.with_name(file.name + SUFFIX)
    data = inputs.read_bytes(file)
    inputs.check_output(destination, force)
    longest = open_parameters(inputs.model_path(model)).architecture.context
    language_model = inputs.load_model(model, threads=threads, context=min(WINDOW, longest))
    tokens = 0
    begun = time.perf_counter()
    with output.byte_progress("Zipping") as advance:

        def report(now: Progress) -> None:
            nonlocal tokens
            tokens = now.tokens
            ratio = now.content_bytes / max(1, now.compressed_bytes)
            speed = tokens / (time.perf_counter() - begun)
            advance(now.content_bytes, len(data), f"{ratio:.2f} to 1, {speed:,.0f} tokens/s")

        compressed = compress(data, language_model, report)
    seconds = time.perf_counter() - begun
    with replacing_file(destination) as writer:
        writer.write(compressed)

    ratio = len(data) / len(compressed)
    if json:
        output.write_json(
            {
                "file": str(file),
                "output": str(destination),
                "model": language_model.name,
                "bytes": len(data),
                "compressed_bytes": len(compressed),
                "ratio": ratio,
                "tokens": tokens,
                "seconds": seconds,
                "tokens_per_second": tokens / seconds,
            }
        )
    else:
        output.say(
            f"{destination}: {len(data):,} -> {len(compressed):,} bytes, {ratio:.2f} to 1, "
            f"{tokens / seconds:,.0f} tokens/s"
        )
