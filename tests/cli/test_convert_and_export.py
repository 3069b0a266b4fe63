from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oneiros.model.tensor_types import TensorType
from tests.model.builders import build_gguf, tiny_architecture


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A real model file, of 2 layers and random weights."""
    return build_gguf(tmp_path / "tiny.gguf", tiny_architecture(), TensorType.F32)


def test_convert_there_and_back(oneiros: Callable[..., Any], tiny: Path) -> None:
    folder, file = tiny.with_name("folder"), tiny.with_name("back.gguf")
    assert oneiros("convert", tiny, folder).stdout == f"{folder}\n"
    assert oneiros("convert", folder, file, "--type", "q8_0").returncode == 0
    types = json.loads(oneiros("inspect", file, "--json").stdout)["types"]
    assert {total["type"] for total in types} == {"Q8_0", "F32"}
    text = "the cat and the"
    for path in (folder, file):
        tokens = json.loads(oneiros("next", path, text, "--count", 3, "--json").stdout)
        assert len(tokens) == 3


def test_convert_refuses(refused: Callable[..., str], tiny: Path) -> None:
    out = tiny.with_name("out.gguf")
    assert "No weight format is called 'q9'" in refused("convert", tiny, out, "--type", "q9")
    assert "Q6_K" in refused("convert", tiny, out, "--type", "q6_k")
    assert "exists" in refused("convert", tiny, tiny)
    assert not out.exists()


def test_export_writes_two_files_that_run(
    oneiros: Callable[..., Any], refused: Callable[..., str], tiny: Path
) -> None:
    folder = tiny.with_name("two files")
    done = oneiros("export", tiny, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.bin", "run.c"]
    compile_it = next(line.strip() for line in done.stdout.splitlines() if "gcc" in line)
    if shutil.which("gcc") is None:
        pytest.fail("gcc is needed to compile what export writes")
    relative = compile_it.replace(" -fopenmp", "")
    subprocess.run(["bash", "-c", f"{relative} && ./run model.bin -n 2 hello"], check=True)
    assert "exists: add --force" in refused("export", tiny, folder)
    assert oneiros("export", tiny, folder, "--force").returncode == 0
    assert "is a file" in refused("export", tiny, tiny)
