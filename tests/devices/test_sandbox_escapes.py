"""A hostile program gets nowhere: each mechanism, started by root and by an ordinary user."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oneiros.devices.sandbox.mechanism import offered
from tests.devices.escapes import host

ATTEMPTS = re.findall(
    r"@attempt\ndef (\w+)", (Path(host.__file__).parent / "attempts.py").read_text()
)
# Who is not root cannot become it to try.
USERS = ["0", "31415"] if os.geteuid() == 0 else [str(os.geteuid())]

# Whether these were stopped is seen outside: a call may seem to work, or reach only the sandbox.
SEEN_OUTSIDE = {
    "change_the_mode_of_a_secret",
    "change_the_mode_of_the_home",
    "change_the_times_of_a_secret",
    "change_an_attribute_of_a_secret",
    "change_the_mode_of_a_readable_file",
    "signal_another_process",
    "signal_all_processes",
    "signal_by_descriptor",
}


@pytest.fixture(
    scope="module",
    params=[(mechanism.value, user) for mechanism in offered() for user in USERS],
    ids=lambda param: f"{param[0]}-{'root' if param[1] == '0' else 'ordinary-user'}",
)
def result(request: pytest.FixtureRequest, project_folder: Path) -> Iterator[dict[str, Any]]:
    """What came of all attempts."""
    mechanism, user = request.param
    with tempfile.TemporaryDirectory(prefix="oneiros-home-") as name:
        folder = Path(name)
        os.chown(folder, int(user), int(user))
        command = [sys.executable, "-m", "tests.devices.escapes.host", mechanism, user, name]
        run = subprocess.run(
            command if user == "0" or os.geteuid() == 0 else [*command[:4], "0", name],
            cwd=project_folder,
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert run.returncode == 0, run.stderr
    yield json.loads(run.stdout)


@pytest.fixture(scope="module")
def outcomes(result: dict[str, Any]) -> dict[str, Any]:
    assert result["ended"] == ["exit", 0], result["output"]
    outcomes: dict[str, Any] = json.loads(result["output"])
    return outcomes


@pytest.mark.parametrize("attempt", [name for name in ATTEMPTS if name not in SEEN_OUTSIDE])
def test_an_attempt_to_get_out_is_stopped(outcomes: dict[str, Any], attempt: str) -> None:
    assert isinstance(outcomes[attempt], dict) and "stopped" in outcomes[attempt]


def test_nothing_outside_has_changed(result: dict[str, Any]) -> None:
    assert result["after"] == result["before"]
    assert result["after"]["secret"] == "the secret"
    assert result["after"]["victim lives"]


def test_nothing_came_over_the_network_or_sockets(result: dict[str, Any]) -> None:
    assert result["reached"] == []


def test_root_is_never_there_and_programs_of_root_are_somebody_else(
    result: dict[str, Any], outcomes: dict[str, Any]
) -> None:
    assert 0 not in outcomes["user"]
    assert len(set(outcomes["user"])) == 1
    if result["owner"] == 0:
        assert outcomes["user"][0] >= 1_000
