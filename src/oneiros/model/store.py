"""The models on this machine: a content-addressed folder.

    models/sha256-<hex>/<file name>     a complete model; its hash was checked before it got there
    models/partial/<hex>/               what an interrupted pull left, to go on from
    models/hub.json                     models from the hub that the catalog does not know

The address of a model of one file is the file's SHA-256; of several, the SHA-256 of their names and
hashes. A model that is named twice is stored once.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from oneiros.errors import DownloadError
from oneiros.model.folders import data_folder
from oneiros.model.sources import ModelFile


def models_folder() -> Path:
    """The folder that holds all models. It may not exist yet."""
    return data_folder() / "models"


def content_address(files: tuple[ModelFile, ...]) -> str:
    """The hexadecimal name under which these files are stored together."""
    if len(files) == 1:
        return files[0].sha256
    lines = "".join(f"{file.sha256}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def installed_path(files: tuple[ModelFile, ...]) -> Path | None:
    """Where a pulled model lies: its file, or its folder if it has several. None: not here."""
    folder = models_folder() / f"sha256-{content_address(files)}"
    for file in files:
        path = folder / file.name
        if not path.is_file() or path.stat().st_size != file.bytes:
            return None
    return folder / files[0].name if len(files) == 1 else folder


def partial_folder(files: tuple[ModelFile, ...]) -> Path:
    """The folder in which a pull of these files works; made if need be."""
    folder = models_folder() / "partial" / content_address(files)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def install(files: tuple[ModelFile, ...], complete: Path) -> Path:
    """Move a folder of complete, checked files to its place in one step, and clean up after it."""
    target = models_folder() / f"sha256-{content_address(files)}"
    if target.exists():  # a copy that somebody damaged, else there was nothing to pull
        shutil.rmtree(target)
    complete.rename(target)
    _sync_folder(target.parent)
    shutil.rmtree(partial_folder(files), ignore_errors=True)
    path = installed_path(files)
    assert path is not None
    return path


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of that name against other processes and threads.

    `waiting` is called once if somebody else holds it. The lock ends with its process, also when
    that is killed; its file stays, since removing it would let two holders in.
    """
    folder = models_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, slots=True)
class HubRecord:
    """A hub file that was pulled by its address: what it was the first time."""

    name: str  # "hf:owner/repository/path/file.gguf"
    bytes: int
    sha256: str


def hub_records() -> dict[str, HubRecord]:
    """All models that were pulled by their hub address, by that address."""
    path = models_folder() / "hub.json"
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text())
        return {name: HubRecord(name, **entry) for name, entry in entries.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DownloadError(
            f"{path} is damaged ({error}). Delete it and pull the models named hf:... again; "
            "files that are already here are not fetched twice."
        ) from error


def record_hub_file(record: HubRecord) -> None:
    """Remember what a hub address held, so that it may not silently become another file."""
    with locked("hub"):
        records = {**hub_records(), record.name: record}
        entries = {
            name: {"bytes": entry.bytes, "sha256": entry.sha256}
            for name, entry in sorted(records.items())
        }
        path = models_folder() / "hub.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(entries, indent=2) + "\n")
        temporary.replace(path)
