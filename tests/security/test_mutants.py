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

# Mutants of each module that the long tests try; ONEIROS_MUTANTS and ONEIROS_SEED say otherwise.
SAMPLES = {
    "kernel.policy": 3,
    "kernel.anchoring": 3,
    "kernel.flows": 3,
    "kernel.label": 2,
    "kernel.readings": 2,
}


@pytest.mark.long
@pytest.mark.parametrize("module", SAMPLES)
def test_tests_notice_what_changes_a_decision(module: str, project_folder: Path) -> None:
    size = os.environ.get("ONEIROS_MUTANTS", str(SAMPLES[module]))
    seed = os.environ.get("ONEIROS_SEED", "0")
    command = [sys.executable, "-m", "tests.security.mutants", module, size, seed]
    run = subprocess.run(command, cwd=project_folder, capture_output=True, text=True, check=False)
    verdicts = [line.split("\t") for line in run.stderr.splitlines() if "\t" in line]
    assert run.returncode == 0 and verdicts, run.stderr
    survivors = [name for verdict, name in verdicts if verdict == "survived"]
    assert [name for name in survivors if name not in EQUIVALENT] == []


@pytest.mark.long
def test_what_is_argued_about_is_there() -> None:
    names = {mutant.name for module in TESTS for mutant in mutants_of(source_of(module), module)}
    assert [name for name in EQUIVALENT if name not in names] == []


@pytest.mark.long
@pytest.mark.parametrize("module", SAMPLES)
def test_mutants_are_modules_of_their_own(module: str) -> None:
    source = source_of(module)
    mutants = mutants_of(source, module)
    assert len({mutant.name for mutant in mutants}) == len(mutants) > 50
    for mutant in mutants[::40]:
        compile(mutated(source, mutant), module, "exec")
