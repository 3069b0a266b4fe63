"""Benchmarks run, and print what they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "agent",
        "engine",
        "compression",
        pytest.param("memory", marks=pytest.mark.long),
        "serving",
        "tokenizer",
        "training",
    ],
)
def test_a_quick_run_prints_one_json_object(project_folder: Path, name: str) -> None:
    program = project_folder / "bench" / f"{name}.py"
    run = subprocess.run(
        [sys.executable, str(program), "--quick", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(run.stdout)
    assert result["bench"] == name
    assert result["machine"]
    assert result["rows"]
    for row in result["rows"]:
        assert set(row) == {"case", "metric", "ours", "peer", "ratio", "target", "holds"}
        assert row["ours"] > 0
