"""Programs that want too much, or would stay: bounded, and all of their processes ended."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oneiros.devices.sandbox.mechanism import offered
from tests.devices.escapes.greedy import CASES

# Who is not root cannot become it to try.
USERS = ["0", "31415"] if os.geteuid() == 0 else ["0"]
# Those that take seconds to use too much.
SLOW = {
    "deep folders": "entries",
    "deleted files": "disk",
    "many files": "entries",
    "many large files": "disk",
    "memory of many processes": "memory",
    "processor": "exit",
}
QUICK = [name for name in CASES if name not in {*SLOW, "forever"}]

Results = dict[str, dict[str, Any]]
ALL = [
    pytest.param((mechanism.value, user), id=f"{mechanism}-{user}")
    for mechanism in offered()
    for user in USERS
]
# Each mechanism once: as this user, and as an ordinary one, of whom more could be reached.
SOME = [
    pytest.param((mechanism.value, user), id=f"{mechanism}-{user}")
    for mechanism, user in zip(offered(), (USERS[0], USERS[-1]), strict=False)
]


def command(mechanism: str, user: str, folder: str, *names: str) -> list[str]:
    os.chown(folder, int(user) or os.geteuid(), int(user) or os.getegid())
    program = "tests.devices.escapes.greedy"
    return [sys.executable, "-m", program, mechanism, user, folder, *names]


def run(project: Path, mechanism: str, user: str, *names: str) -> Results:
    with tempfile.TemporaryDirectory(prefix="oneiros-home-") as folder:
        run = subprocess.run(
            command(mechanism, user, folder, *names),
            cwd=project,
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert run.returncode == 0, run.stderr
    results: Results = json.loads(run.stdout)
    return results


@pytest.fixture(scope="module", params=SOME)
def results(request: pytest.FixtureRequest, project_folder: Path) -> Results:
    """How all quick cases ended."""
    return run(project_folder, *request.param, *QUICK)


def test_no_process_is_left_and_all_files_can_be_removed(results: Results) -> None:
    for name, result in results.items():
        assert not result["left"], name
        assert result["removed"], name


def test_a_fork_bomb_is_ended_after_its_time(results: Results) -> None:
    assert results["fork bomb"]["reason"] == "time"


def test_processes_are_counted(results: Results) -> None:
    assert 1 <= int(results["count of processes"]["output"]) <= 20


def test_a_process_gets_no_more_memory_than_it_may_have(results: Results) -> None:
    assert "MemoryError" in results["memory of one process"]["output"]


def test_a_process_that_hides_its_memory_is_ended(results: Results) -> None:
    assert results["memory of a process without its first thread"]["reason"] == "memory"


def test_of_much_output_the_first_and_the_last_part_are_kept(results: Results) -> None:
    result = results["output"]
    assert (result["reason"], result["status"]) == ("exit", 0)
    assert result["size"] == 100_000_008
    assert result["kept"] < 250_000
    assert result["output"].endswith("the end\n")


def test_a_program_that_hangs_and_ignores_signals_is_ended(results: Results) -> None:
    assert results["hanging"]["reason"] == "time"


def test_daemons_end_with_the_program_that_left_them(results: Results) -> None:
    assert results["daemons"]["reason"] == "exit"
    assert results["daemons"]["output"] == "left\n"


def test_files_have_a_largest_size(results: Results) -> None:
    assert results["a large file"]["reason"] == "exit"
    assert "File too large" in results["a large file"]["output"]


def test_open_files_are_counted(results: Results) -> None:
    assert int(results["open files"]["output"]) < 50


@pytest.mark.long
@pytest.mark.parametrize("sandbox", ALL)
def test_everything_that_is_too_much_is_noticed(
    project_folder: Path, sandbox: tuple[str, str]
) -> None:
    results = run(project_folder, *sandbox, *QUICK, *SLOW)
    assert {name: results[name]["reason"] for name in SLOW} == SLOW
    assert results["processor"]["status"] < 0
    assert results["fork bomb"]["reason"] == results["hanging"]["reason"] == "time"
    assert all(result["removed"] and not result["left"] for result in results.values())


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="oneiros-home-") as name:
        yield name


@pytest.mark.parametrize("sandbox", ALL)
def test_programs_end_when_oneiros_is_killed(
    project_folder: Path, sandbox: tuple[str, str], folder: str
) -> None:
    oneiros = subprocess.Popen(
        command(*sandbox, folder, "forever"),
        cwd=project_folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert oneiros.stdout is not None
    with oneiros.stdout as stdout:
        name = stdout.readline().strip()
    assert name and processes_of(name)
    oneiros.kill()
    oneiros.wait()
    deadline = time.monotonic() + 20
    while processes_of(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_of(name)


def processes_of(name: str) -> list[Path]:
    found = []
    for process in Path("/proc").glob("[1-9]*"):
        try:
            if name in (process / "cmdline").read_text(errors="replace"):
                found.append(process)
        except OSError:
            continue  # it ended meanwhile
    return found
