"""A corpus from raw inputs, in one folder, stage after stage.

data.json          what went in: hashes of inputs, settings, versions
documents/         what was kept, as JSON Lines
removed/           what was not, with filter and reason, where it is asked for
shards/            tokens, as `train base` reads them, once a tokenizer is named
report.md, .json   what each filter removed
work/              the stages under way; gone when the documents are done

Asked for again, it goes on where it was interrupted; what is done is not done again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from oneiros.errors import ModelFileError, TrainingError
from oneiros.model.json_text import read_object
from oneiros.model.replacement import replacing_file, replacing_folder
from oneiros.model.tokenizer import Tokenizer
from oneiros.training.data.contamination import benchmark_files
from oneiros.training.data.duplicates import find_duplicates
from oneiros.training.data.parts import PartFiles, filter_parts, json_line, read_tally
from oneiros.training.data.report import REPORT, report_values, write_report
from oneiros.training.data.settings import READING, DataSettings, versions
from oneiros.training.data.sources import InputFile, Reader, find_inputs, pinned
from oneiros.training.data.tally import Tally
from oneiros.training.documents import read_lines
from oneiros.training.shard_writer import write_shards
from oneiros.training.shards import MANIFEST, Manifest, open_shards

PIN = "data.json"
_TALLY = "tally.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """What somebody asks for."""

    inputs: tuple[Path, ...]
    output: Path
    tokenizer: Path | None = None  # none: documents, and no shards yet
    settings: DataSettings = field(default_factory=DataSettings)
    benchmarks: tuple[Path, ...] = ()  # files and folders; none: the check must be skipped
    validation: float = 0.05  # fraction of the text that is set aside
    workers: int = 1
    keep_removed: bool = False


@dataclass(frozen=True, slots=True)
class DataResult:
    """What came of it."""

    values: dict[str, Any]  # of report.json
    documents: Path
    shards: Path | None
    report: Path


@dataclass(frozen=True, slots=True)
class DataWatcher:
    """A function that is told how the work comes along: (stage, done, of)."""

    moved: Callable[[str, int, int], None] = lambda stage, done, of: None


def prepare_data(request: DataRequest, watcher: DataWatcher | None = None) -> DataResult:
    """Filter inputs into documents, and tokenise them, or go on with that.

    The same inputs, settings and versions give the same files, byte for byte, however often the
    work was interrupted.

    Raises:
        TrainingError: an input is missing, malformed (with its line) or has changed, the folder
            holds something else, or no text is left; see also `write_shards`.
        ModelFileError: something cannot be written, or the tokenizer cannot be read.
    """
    watcher = watcher or DataWatcher()
    output, settings = request.output, request.settings
    inputs = find_inputs(request.inputs)
    benchmarks = _benchmarks(request)
    tokenizer = None if request.tokenizer is None else _tokenizer(request.tokenizer)
    pin = _pin(inputs, benchmarks, settings, watcher)
    _begin(output, pin)
    documents = output / "documents"
    if not documents.is_dir():
        try:
            _make_documents(request, inputs, benchmarks, watcher)
        except OSError as error:  # of datatrove, which writes signatures by itself
            raise ModelFileError(
                f"{output}: cannot be written ({error.strerror}). What is done is kept: the same "
                "command goes on."
            ) from error
    tally = Tally.from_dict(read_object(output / _TALLY))
    shards = output / "shards"
    manifest: Manifest | None = None
    if (shards / MANIFEST).is_file():
        manifest = open_shards(shards).manifest
        if tokenizer is not None and manifest.tokenizer_sha256 != tokenizer.sha256:
            raise TrainingError(
                f"{shards}: were made with another tokenizer. Remove the folder to make them anew "
                "from the documents."
            )
    values = report_values(pin, settings, tally, manifest)
    write_report(output, values)
    if tally.kept == 0:
        raise TrainingError(_nothing_left(values, output / REPORT))
    if tokenizer is not None and manifest is None:
        manifest = write_shards(
            [documents],
            tokenizer,
            shards,
            validation=request.validation,
            progress=lambda done: watcher.moved("Tokenising", done, tally.kept_bytes),
        )
        values = report_values(pin, settings, tally, manifest)
        write_report(output, values)
    return DataResult(values, documents, shards if manifest is not None else None, output / REPORT)


def _tokenizer(path: Path) -> Tokenizer:
    # Only here: torch comes with it, and takes seconds that filtering has no need of.
    from oneiros.training.weights import open_tokenizer

    return open_tokenizer(path)


def _benchmarks(request: DataRequest) -> list[InputFile]:
    if not request.settings.has("contamination"):
        return []
    if not request.benchmarks:
        raise TrainingError(
            "Which benchmarks may the text not contain? Name their files or folder with "
            "--benchmarks, or leave the check out with --skip contamination."
        )
    return [InputFile(path, path.name) for path in benchmark_files(request.benchmarks)]


def _pin(
    inputs: list[InputFile],
    benchmarks: list[InputFile],
    settings: DataSettings,
    watcher: DataWatcher,
) -> dict[str, Any]:
    """The content of data.json: everything that the documents follow from."""
    total = sum(file.path.stat().st_size for file in inputs)
    sources, done = [], 0
    for file in inputs:
        sources.append(asdict(pinned(file)))
        done += sources[-1]["bytes"]
        watcher.moved("Hashing", done, total)
    values = {
        "inputs": sources,
        "benchmarks": [asdict(pinned(file)) for file in benchmarks],
        "settings": settings.to_dict(),
        "versions": versions(),
    }
    text = json.dumps(values, sort_keys=True)
    return {"fingerprint": hashlib.sha256(text.encode()).hexdigest(), **values}


def _begin(output: Path, pin: dict[str, Any]) -> None:
    """Make the folder, or check that it was made for the same."""
    if output.exists() and not output.is_dir():
        raise TrainingError(f"{output}: is a file; name a folder.")
    path = output / PIN
    if path.is_file():
        before = read_object(path)
        changed = [name for name in pin if name != "fingerprint" and before.get(name) != pin[name]]
        if changed:
            raise TrainingError(
                f"{output}: was begun with other {' and '.join(changed)}. Choose another folder, "
                "or remove this one."
            )
        return
    if output.is_dir() and any(output.iterdir()):
        raise TrainingError(f"{output}: holds other files. Choose another folder.")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(f"{output}: cannot be made ({error.strerror}).") from error
    with replacing_file(path) as file:
        file.write((json.dumps(pin, indent=2, ensure_ascii=False) + "\n").encode())


def _make_documents(
    request: DataRequest,
    inputs: list[InputFile],
    benchmarks: list[InputFile],
    watcher: DataWatcher,
) -> None:
    """All stages from the inputs to documents/."""
    output, settings = request.output, request.settings
    files = PartFiles(output / "work")
    files.folder.mkdir(exist_ok=True)
    reader = Reader(inputs, settings.field)
    total = sum(file.path.stat().st_size for file in inputs)
    count = filter_parts(
        reader,
        settings,
        [file.path for file in benchmarks],
        files,
        workers=request.workers,
        progress=lambda: watcher.moved("Filtering", reader.position, total),
    )
    if count == 0:
        raise TrainingError(f"{', '.join(map(str, request.inputs))}: there is no document in it.")
    tally = Tally()
    for part in range(count):
        tally.merge(read_tally(files, part))
    repeats = find_duplicates(files.signatures, files.folder / "pairs")
    ids = _ids(files, set(repeats.values()))
    with replacing_folder(output / "documents") as folder:
        removed_folder = files.folder / "removed"
        removed_folder.mkdir(exist_ok=True)
        for part in range(count):
            name = f"{part:05d}.jsonl"
            with (
                replacing_file(folder / name) as kept,
                replacing_file(removed_folder / name) as removed,
            ):
                removed.write(files.removed(part).read_bytes())
                for number, line in enumerate(_lines(files.kept(part))):
                    if (part, number) in repeats:
                        first = ids[repeats[part, number]]
                        removed.write(_repeat(tally, json.loads(line), first))
                    else:
                        kept.write(line)
            watcher.moved("Writing", part + 1, count)
        with replacing_file(output / _TALLY) as file:
            file.write(json.dumps(tally.to_dict()).encode())
        if request.keep_removed and not (output / "removed").exists():
            shutil.move(removed_folder, output / "removed")
    shutil.rmtree(files.folder, ignore_errors=True)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _ids(files: PartFiles, places: set[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """What the documents at some places are called."""
    ids = {}
    for part in sorted({part for part, _ in places}):
        for number, (_, value) in enumerate(read_lines(files.kept(part))):
            if (part, number) in places and isinstance(value, dict):
                ids[part, number] = str(value["id"])
    return ids


def _repeat(tally: Tally, document: dict[str, Any], first: str) -> bytes:
    """Count a near-duplicate as removed; gives its line among the removed documents."""
    name, reason, detail = "duplicates", "near_duplicate", f"of {first}"
    tally.remove(name, reason, document["id"], document["text"], detail)
    tally.kept -= 1
    tally.kept_bytes -= len(document["text"].encode())
    return json_line(
        {
            "id": document["id"],
            "filter": name,
            "reason": reason,
            "detail": detail,
            "text": document["text"],
        }
    )


def _nothing_left(values: dict[str, Any], report: Path) -> str:
    read = f"No text is left of {values['documents']['read']:,} documents"
    worst = max(values["filters"], key=lambda row: int(row["removed"]))
    if worst["name"] == READING:
        return f"{read}: {worst['removed']:,} hold none, see {report}."
    return (
        f"{read}: the filter {worst['name']} removed {worst['removed']:,}, see {report}. "
        f"A filter is left out with --skip {worst['name']}."
    )
