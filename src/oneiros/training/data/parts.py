"""The first stage: documents in parts of some megabytes, each filtered by itself.

A part is a run of documents that follows from the inputs alone. What is made of it is written
at once; its tally comes last and says that the part is done. Whoever is killed loses the parts
under way and no other.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

from oneiros.errors import TrainingError
from oneiros.model.json_text import read_object
from oneiros.model.replacement import replacing_file
from oneiros.training.data.contamination import read_benchmarks
from oneiros.training.data.duplicates import write_signatures
from oneiros.training.data.filters import Chain, Verdict
from oneiros.training.data.settings import DataSettings
from oneiros.training.data.sources import RawDocument
from oneiros.training.data.tally import Tally


@dataclass(frozen=True, slots=True)
class PartFiles:
    """Where the results of the parts lie."""

    folder: Path

    def kept(self, part: int) -> Path:
        """JSON Lines of what was kept: id, text, url, language."""
        return self.folder / f"{part:05d}.kept.jsonl"

    def removed(self, part: int) -> Path:
        """JSON Lines of what was removed: id, filter, reason, detail, text."""
        return self.folder / f"{part:05d}.removed.jsonl"

    def tally(self, part: int) -> Path:
        """The counts; there when the part is done."""
        return self.folder / f"{part:05d}.json"

    @property
    def signatures(self) -> Path:
        """Folder of MinHash signatures."""
        return self.folder / "signatures"


def filter_parts(
    documents: Iterable[RawDocument],
    settings: DataSettings,
    benchmarks: list[Path],
    files: PartFiles,
    *,
    workers: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> int:
    """Filter all parts that are not done yet; gives how many there are.

    Args:
        documents: all of them, in order.
        settings: which filters there are.
        benchmarks: files whose texts are looked for; none: the check is left out.
        files: where to; the folder must exist.
        workers: processes that filter.
        progress: called after each part.

    Raises:
        TrainingError: an input is malformed (its parts before that are kept), or a worker died.
        ModelFileError: a result cannot be written.
    """
    count = 0

    def numbered() -> Iterator[tuple[int, list[RawDocument]]]:
        nonlocal count
        for count, part in enumerate(_grouped(documents, settings.part_bytes), 1):
            yield count - 1, part

    missing = ((n, part) for n, part in numbered() if not files.tally(n).is_file())
    if workers == 1:
        worker = _Worker(settings, benchmarks, files)
        for number, part in missing:
            worker.filter(number, part)
            progress()
    else:
        _in_processes(missing, settings, benchmarks, files, workers, progress)
    return count


def read_tally(files: PartFiles, part: int) -> Tally:
    """What became of a part."""
    return Tally.from_dict(read_object(files.tally(part)))


class _Worker:
    """Filters parts; the lists and models that it takes are loaded with the first."""

    def __init__(self, settings: DataSettings, benchmarks: list[Path], files: PartFiles) -> None:
        self._settings, self._benchmarks, self._files = settings, benchmarks, files
        self._chain: Chain | None = None

    def filter(self, number: int, documents: list[RawDocument]) -> None:
        if self._chain is None:
            index = (
                read_benchmarks(self._benchmarks, self._settings.ngram)
                if self._benchmarks
                else None
            )
            self._chain = Chain(self._settings, index)
        tally = Tally(read=len(documents))
        kept: list[str] = []
        with (
            replacing_file(self._files.kept(number)) as kept_file,
            replacing_file(self._files.removed(number)) as removed_file,
        ):
            for raw in documents:
                verdict = self._chain.judge(raw)
                _count(tally, raw, verdict)
                if verdict.removal is None:
                    kept.append(verdict.text)
                    kept_file.write(_kept_line(raw, verdict))
                else:
                    removed_file.write(_removed_line(raw, verdict))
        if self._settings.has("duplicates"):
            write_signatures(kept, self._files.signatures, number)
        with replacing_file(self._files.tally(number)) as file:
            file.write(json.dumps(tally.to_dict()).encode())


def _grouped(documents: Iterable[RawDocument], limit: int) -> Iterator[list[RawDocument]]:
    part: list[RawDocument] = []
    size = 0
    for document in documents:
        part.append(document)
        size += len(document.text)
        if size >= limit:
            yield part
            part, size = [], 0
    if part:
        yield part


def _count(tally: Tally, raw: RawDocument, verdict: Verdict) -> None:
    if verdict.language is not None:
        tally.languages[verdict.language] += 1
    removal = verdict.removal
    if removal is not None:
        tally.remove(removal.filter, removal.reason, raw.id, verdict.text, removal.detail)
        return
    tally.kept += 1
    tally.kept_bytes += len(verdict.text.encode())
    tally.masked += verdict.masked
    tally.masked_documents += bool(verdict.masked)
    tally.lines_cut += verdict.lines_cut


def _kept_line(raw: RawDocument, verdict: Verdict) -> bytes:
    values = {"id": raw.id, "url": raw.url, "language": verdict.language, "text": verdict.text}
    return json_line({name: value for name, value in values.items() if value is not None})


def _removed_line(raw: RawDocument, verdict: Verdict) -> bytes:
    removal = verdict.removal
    assert removal is not None
    return json_line(
        {
            "id": raw.id,
            "filter": removal.filter,
            "reason": removal.reason,
            "detail": removal.detail,
            "text": verdict.text,
        }
    )


def json_line(values: dict[str, object]) -> bytes:
    """A line of JSON Lines."""
    return (json.dumps(values, ensure_ascii=False) + "\n").encode("utf-8", "replace")


_worker: _Worker | None = None
"""Of a process that filters."""


def _begin(settings: DataSettings, benchmarks: list[Path], files: PartFiles) -> None:
    """What each process does first."""
    global _worker
    _worker = _Worker(settings, benchmarks, files)
    # Ctrl-C reaches all processes of the terminal: these end without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _filter(number: int, documents: list[RawDocument]) -> None:
    assert _worker is not None
    _worker.filter(number, documents)


def _in_processes(
    parts: Iterable[tuple[int, list[RawDocument]]],
    settings: DataSettings,
    benchmarks: list[Path],
    files: PartFiles,
    workers: int,
    progress: Callable[[], None],
) -> None:
    """Spread the parts over processes, a few ahead of them in memory."""
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin, initargs=(settings, benchmarks, files)
    )
    waiting: deque[Future[None]] = deque()
    try:
        for number, part in parts:
            waiting.append(pool.submit(_filter, number, part))
            while len(waiting) > 2 * workers:
                waiting.popleft().result()
                progress()
        for future in waiting:
            future.result()
            progress()
    except BrokenProcessPool as error:
        raise TrainingError(
            "A process that filters was killed, perhaps for want of memory: ask for fewer with "
            "--workers. The same command goes on."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
