"""Raw documents from files: text, JSON Lines, Parquet, HTML and WARC.

What a format promises and a file does not keep is an error with its place. What is merely no
document (a picture in a crawl, a page that was not found) comes through with a fault, and is
counted.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from oneiros.errors import TrainingError, quoted
from oneiros.training.documents import Source, source_of

_PAGES = ("text/html", "application/xhtml+xml")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file and what it is called in reports and ids."""

    path: Path
    name: str  # below the folder that was given, or the file's own


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document as it was found."""

    id: str  # the file's name and the place in it
    text: str  # plain, or HTML
    url: str | None = None
    page: bool = False  # whether it was a web page
    html: bool = False  # whether the text is HTML still
    fault: str | None = None  # why it is no document


def find_inputs(inputs: Sequence[Path]) -> list[InputFile]:
    """The files that are meant: a folder stands for every file of a known format below it.

    Raises:
        TrainingError: an input does not exist or has an unknown format, a folder holds nothing
            to read, or two files would have the same name.
    """
    found: list[InputFile] = []
    for path in inputs:
        if path.is_dir():
            below = [
                InputFile(file, file.relative_to(path).as_posix())
                for file in sorted(path.rglob("*"))
                if file.is_file() and _format(file) is not None
            ]
            if not below:
                raise TrainingError(f"{path}: holds no file of a known format ({_known()}).")
            found += below
        elif not path.exists():
            raise TrainingError(f"{path}: no such file or folder.")
        elif _format(path) is None:
            raise TrainingError(f"{path}: has an unknown format. What can be read: {_known()}.")
        else:
            found.append(InputFile(path, path.name))
    names = Counter(file.name for file in found)
    for file in found:
        if names[file.name] > 1:
            raise TrainingError(
                f"{file.path}: another input is called {file.name} too. Name the folder above both."
            )
    return found


def pinned(file: InputFile) -> Source:
    """Size and SHA-256 of a file, under its name.

    Raises:
        TrainingError: it cannot be read.
    """
    source = source_of(file.path)
    return Source(file.name, source.bytes, source.sha256)


class Reader:
    """The raw documents of files, in order.

    Attributes:
        position: bytes of the files that are read.
    """

    def __init__(self, files: Sequence[InputFile], field: str) -> None:
        self._files, self._field = files, field
        self._before = 0
        self._open: BinaryIO | None = None
        self.position = 0

    def __iter__(self) -> Iterator[RawDocument]:
        """Read all files.

        Raises:
            TrainingError: a file cannot be read, or breaks its format; says where.
        """
        for file in self._files:
            read = _format(file.path)
            if read is None:
                raise TrainingError(f"{file.path}: has an unknown format.")
            try:
                with file.path.open("rb") as opened:
                    for document in read(opened, file, self._field):
                        self.position = max(self.position, self._before + opened.tell())
                        yield document
                self._before += file.path.stat().st_size
            except OSError as error:
                reason = error.strerror or str(error)
                raise TrainingError(f"{file.path}: cannot be read ({reason}).") from error
            self.position = self._before


def _text(file: BinaryIO, source: InputFile, field: str) -> Iterator[RawDocument]:
    yield RawDocument(source.name, _decoded(file.read(), str(source.path)))


def _lines(file: BinaryIO, source: InputFile, field: str) -> Iterator[RawDocument]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"{source.path}, line {number:,}"
        try:
            value = json.loads(_decoded(line, where))
        except (json.JSONDecodeError, RecursionError) as error:
            raise TrainingError(f"{where}: is not JSON ({error}).") from error
        text = value.get(field) if isinstance(value, dict) else None
        if not isinstance(text, str):
            keys = f" ({', '.join(map(quoted, value))[:200]})" if isinstance(value, dict) else ""
            raise TrainingError(
                f'{where}: is not an object with a string under "{field}"{keys}. Is the text '
                "under another key? Name it with --field."
            )
        yield RawDocument(f"{source.name}:{number}", text, _url_of(value))


def _zipped_lines(file: BinaryIO, source: InputFile, field: str) -> Iterator[RawDocument]:
    try:
        with gzip.open(file) as unzipped:
            yield from _lines(unzipped, source, field)  # type: ignore[arg-type]  # reads bytes too
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TrainingError(f"{source.path}: is a damaged gzip file ({error}).") from error


def _parquet(file: BinaryIO, source: InputFile, field: str) -> Iterator[RawDocument]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        columns = table.schema_arrow.names
        if field not in columns:
            raise TrainingError(
                f'{source.path}: has no column "{field}" ({", ".join(columns)[:200]}). Name the '
                "column of the text with --field."
            )
        wanted = [name for name in (field, "url") if name in columns]
        number = 0
        for batch in table.iter_batches(batch_size=256, columns=wanted):
            for row in batch.to_pylist():
                number += 1
                if not isinstance(row[field], str | None):
                    raise TrainingError(
                        f'{source.path}, row {number:,}: what is under "{field}" is no text.'
                    )
                yield RawDocument(f"{source.name}:{number}", row[field] or "", _url_of(row))
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise TrainingError(f"{source.path}: is a damaged Parquet file ({error}).") from error


def _html(file: BinaryIO, source: InputFile, field: str) -> Iterator[RawDocument]:
    yield _page(source.name, file.read(), None)


def _warc(file: BinaryIO, source: InputFile, field: str) -> Iterator[RawDocument]:
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    number = 0
    try:
        for number, record in enumerate(ArchiveIterator(file), 1):  # for the error
            if record.rec_type in ("response", "conversion"):
                yield _record(record, f"{source.name}:{number}")
    except (ArchiveLoadFailed, EOFError, zlib.error, ValueError) as error:
        raise TrainingError(
            f"{source.path}, record {number + 1:,}: is damaged ({error}). The file may have been "
            "cut short: fetch it again."
        ) from error


def _record(record: Any, place: str) -> RawDocument:
    url = record.rec_headers.get_header("WARC-Target-URI")
    content = record.content_stream().read()
    record.raw_stream.read()
    if record.raw_stream.limit > 0:
        raise EOFError(f"{record.raw_stream.limit:,} bytes are missing at its end")
    if record.rec_type == "conversion":  # of a WET file: text that was extracted already
        return RawDocument(place, content.decode("utf-8", "replace"), url, page=True)
    status = record.http_headers.get_statuscode() if record.http_headers else "200"
    if status != "200":
        return RawDocument(place, "", url, fault=f"status_{status}")
    kind = record.http_headers.get_header("Content-Type", "") if record.http_headers else ""
    kind = kind.partition(";")[0].strip().lower()
    if kind and kind not in _PAGES:
        return RawDocument(place, "", url, fault="not_html")
    return _page(place, content, url)


def _page(place: str, content: bytes, url: str | None) -> RawDocument:
    from trafilatura.utils import decode_file

    return RawDocument(place, decode_file(content), url, page=True, html=True)


Read = Callable[[BinaryIO, InputFile, str], Iterator[RawDocument]]

_FORMATS: dict[str, Read] = {
    ".txt": _text,
    ".md": _text,
    ".jsonl": _lines,
    ".jsonl.gz": _zipped_lines,
    ".parquet": _parquet,
    ".html": _html,
    ".htm": _html,
    ".warc": _warc,
    ".warc.gz": _warc,
    ".warc.wet.gz": _warc,
}


def _format(path: Path) -> Read | None:
    name = path.name.lower()
    return next((read for suffix, read in _FORMATS.items() if name.endswith(suffix)), None)


def _known() -> str:
    return ", ".join(_FORMATS)


def _url_of(values: dict[str, Any]) -> str | None:
    """The address of a document; datatrove and others keep it among the "metadata"."""
    metadata = values.get("metadata")
    for place in (values, metadata if isinstance(metadata, dict) else {}):
        if isinstance(place.get("url"), str):
            return str(place["url"])
    return None


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TrainingError(
            f"{where}: is not UTF-8 (byte {data[error.start]:#04x} at offset {error.start:,}). "
            "Convert it first, for example with `iconv -f LATIN1 -t UTF-8`."
        ) from error
