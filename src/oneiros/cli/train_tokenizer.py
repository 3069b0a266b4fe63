"""`oneiros train tokenizer`: a vocabulary from text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from oneiros.cli import options, output
from oneiros.cli.train_extra import train_extra

EXAMPLE = "oneiros train tokenizer book.txt --vocabulary 4096 --output tokenizer"

# How many characters of the text the summary measures.
_SAMPLE = 1_000_000


def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            help='Text files, JSON Lines with "text", or folders of them.',
            show_default=False,
        ),
    ],
    folder: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="The folder to write.", show_default=False
        ),
    ],
    vocabulary: Annotated[
        int, typer.Option(metavar="TOKENS", help="Tokens in all: 256 bytes, special ones, merges.")
    ] = 4096,
    json: options.Json = False,
) -> None:
    """Learn a byte-level BPE vocabulary from text.

    Writes a folder with tokenizer.json, its settings and a chat template.
    """
    from oneiros.model.replacement import refuse_existing

    with train_extra():
        from oneiros.training.documents import find_files, read_documents
        from oneiros.training.tokenizer import (
            TokenizerConfig,
            bytes_per_token,
            save_tokenizer,
            train_tokenizer,
        )
    config = TokenizerConfig(vocabulary)
    refuse_existing(folder)
    files = find_files(inputs)
    begun = time.perf_counter()
    with output.byte_progress("Reading") as advance:
        documents = _watched(files, read_documents, advance)
        tokenizer = train_tokenizer(documents, config)
    seconds = time.perf_counter() - begun
    save_tokenizer(tokenizer, folder)
    texts = (text for file in files for text in read_documents(file))
    ratio = bytes_per_token(tokenizer, texts, _SAMPLE)
    size = sum(file.stat().st_size for file in files)
    special = len(tokenizer.added_tokens)
    if json:
        output.write_json(
            {
                "path": str(folder),
                "vocabulary": tokenizer.vocabulary_size,
                "merges": len(tokenizer.vocabulary.merges),
                "special_tokens": dict(tokenizer.added_tokens),
                "sha256": tokenizer.sha256,
                "input_bytes": size,
                "bytes_per_token": round(ratio, 4),
                "seconds": round(seconds, 3),
            }
        )
        return
    merges = len(tokenizer.vocabulary.merges)
    output.print_facts(
        {
            "tokenizer": str(folder),
            "tokens": f"{tokenizer.vocabulary_size:,}: 256 bytes, {merges:,} merges, "
            f"{special} special",
            "text": f"{output.bytes_text(size)} in {seconds:.1f} s, {ratio:.2f} bytes per token",
        }
    )


def _watched(
    files: list[Path],
    read: Callable[[Path], Iterator[str]],
    advance: Callable[[int, int, str], None],
) -> Iterator[str]:
    """The documents of files, with the bar moved after each file."""
    total, done = sum(file.stat().st_size for file in files), 0
    for file in files:
        yield from read(file)
        done += file.stat().st_size
        advance(done, total, "")
