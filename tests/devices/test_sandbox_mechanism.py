"""Which mechanism is taken, and what is said where there is none."""

import asyncio
import sys
from pathlib import Path

import pytest

from oneiros.devices.sandbox import mechanism
from oneiros.devices.sandbox.mechanism import Mechanism
from oneiros.devices.sandbox.output import Output
from oneiros.devices.sandbox.place import new_place
from oneiros.devices.sandbox.programs import stage
from oneiros.errors import SandboxError
from tests.devices.programs import Desk


def broken_bubblewrap(folder: Path) -> None:
    """A bubblewrap that is not allowed to make namespaces."""
    folder.mkdir()
    program = folder / "bwrap"
    program.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create a namespace' >&2\nexit 1\n"
    )
    program.chmod(0o755)


def test_bubblewrap_comes_first() -> None:
    assert mechanism.offered() == [Mechanism.BUBBLEWRAP, Mechanism.LANDLOCK]


def test_landlock_takes_the_place_of_a_bubblewrap_that_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_bubblewrap(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert asyncio.run(Desk(tmp_path).workspaces.mechanism()) is Mechanism.LANDLOCK


def test_without_any_mechanism_nothing_runs_and_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(stage, "landlock_abi", lambda: 4)
    desk = Desk(tmp_path)
    for call in (desk.sh("touch /tmp/ran"), desk.run("1")):
        with pytest.raises(SandboxError, match=r"not installed.*apt install bubblewrap"):
            asyncio.run(call)
    broken_bubblewrap(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(SandboxError, match=r"No permissions to create a namespace.*Linux 6.12"):
        asyncio.run(desk.sh("touch /tmp/ran"))


def test_other_machines_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanism.platform, "machine", lambda: "riscv64")
    with pytest.raises(SandboxError, match=r"Linux on x86_64 and aarch64.*riscv64"):
        mechanism.offered()


def test_a_python_that_holds_the_home_is_not_shown_to_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "prefix", str(Path.home().parent))
    mechanism.python_folders.cache_clear()
    with pytest.raises(SandboxError, match="not to be read by programs"):
        mechanism.python_folders()
    mechanism.python_folders.cache_clear()


def test_folders_of_kernels_that_are_gone_are_removed() -> None:
    place = new_place()
    left = place.root.parent / f"{2**22 + 1}-left"
    (left / "files" / "deep").mkdir(parents=True)
    (left / "files" / "deep" / "file").write_text("x")
    (left / "files" / "deep").chmod(0)
    other = new_place()
    assert not left.exists()
    assert place.root.exists()
    assert place.user is None or place.user != other.user
    for one in (place, other):
        one.remove()


def test_output_keeps_the_first_and_the_last_part() -> None:
    output = Output(20)
    for _ in range(10):
        output.add(b"abcdefg")
    assert output.text() == "abcdefgabc\n[… 50 of 70 bytes are left out here …]\nefgabcdefg"
    short = Output(20)
    short.add("ä".encode() * 10)
    assert short.text() == "ä" * 10
