"""Every change to the code that decides fails a test, or is argued to change nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.equivalent import EQUIVALENT
from tests.security.mutants import TESTS, source_of
from tests.security.mutations import mutants_of, mutated

# Mutants of each module that the default tests try; ONEIROS_SEED says which.
SAMPLES = {
    "kernel.policy": 3,
    "kernel.anchoring": 3,
    "kernel.flows": 3,
    "kernel.label": 2,
    "kernel.readings": 2,
}


@pytest.mark.parametrize("module", SAMPLES)
def test_tests_notice_what_changes_a_decision(module: str, project_folder: Path) -> None:
    seed = os.environ.get("ONEIROS_SEED", "0")
    assert survivors(project_folder, module, str(SAMPLES[module]), seed) == []


@pytest.mark.long
@pytest.mark.parametrize("module", SAMPLES)
def test_tests_notice_every_change_to_a_decision(module: str, project_folder: Path) -> None:
    assert survivors(project_folder, module) == []


def survivors(folder: Path, module: str, *sample: str) -> list[str]:
    """Mutants that no test notices, and about which nothing is argued."""
    command = [sys.executable, "-m", "tests.security.mutants", module, *sample]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    verdicts = [line.split("\t") for line in run.stderr.splitlines() if "\t" in line]
    assert run.returncode == 0 and verdicts, run.stderr
    left = [name for verdict, name in verdicts if verdict == "survived"]
    return [name for name in left if name not in EQUIVALENT]


def test_what_is_argued_about_is_there() -> None:
    names = {mutant.name for module in TESTS for mutant in mutants_of(source_of(module), module)}
    assert [name for name in EQUIVALENT if name not in names] == []


@pytest.mark.parametrize("module", SAMPLES)
def test_mutants_are_modules_of_their_own(module: str) -> None:
    source = source_of(module)
    mutants = mutants_of(source, module)
    assert len({mutant.name for mutant in mutants}) == len(mutants) > 50
    for mutant in mutants[::40]:
        compile(mutated(source, mutant), module, "exec")
