"""`oneiros zip` and `oneiros unzip`, each in a process of its own."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEXT = "To be, or not to be, that is the question:\n" * 2
MIXED = (
    TEXT.encode()
    + b"\r\n\x00\x04\xff\xc3 caf\xe9 "
    + "日本語 🙂".encode()
    + random.Random(1).randbytes(500)
)


@pytest.fixture(scope="module")
def zipped(
    oneiros: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A file, and what zip made of it."""
    folder = tmp_path_factory.mktemp("zip")
    file = folder / "poem.txt"
    file.write_text(TEXT, encoding="utf-8")
    assert oneiros("zip", file).returncode == 0
    return file, folder / "poem.txt.onz"


@pytest.mark.parametrize("content", [MIXED, b""], ids=["mixed", "empty"])
def test_a_new_process_restores_every_byte(
    oneiros: Callable[..., Any], tmp_path: Path, content: bytes
) -> None:
    file, packed, restored = (tmp_path / name for name in ("in", "packed", "out"))
    file.write_bytes(content)
    told = json.loads(oneiros("zip", file, "-o", packed, "--json").stdout)
    assert told["bytes"] == len(content)
    assert told["compressed_bytes"] == packed.stat().st_size
    told = json.loads(oneiros("unzip", packed, "-o", restored, "--json").stdout)
    assert told["model"] == "smollm2-135m"
    assert restored.read_bytes() == content


def test_names_are_made_up_where_none_are_given(
    oneiros: Callable[..., Any], refused: Callable[..., str], zipped: tuple[Path, Path]
) -> None:
    file, packed = zipped
    assert f"{file} exists: add --force" in refused("unzip", packed)
    file.write_text("something else", encoding="utf-8")
    done = oneiros("unzip", packed, "--force")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{file}: {len(TEXT):,} bytes")
    assert file.read_text(encoding="utf-8") == TEXT
    assert "exists: add --force" in refused("zip", file)
    assert "does not end in .onz" in refused("unzip", file.rename(file.with_suffix(".zip")))


def test_damage_is_refused_and_nothing_written(
    refused: Callable[..., str], zipped: tuple[Path, Path], tmp_path: Path
) -> None:
    good = zipped[1].read_bytes()
    flipped = bytearray(good)
    flipped[-5] ^= 1
    out = tmp_path / "out"
    for damaged, word in (
        (bytes(flipped), "checksum"),
        (good[:-1], "incomplete"),
        (good[:20], "incomplete"),
        (b"PK\x03\x04", "no file that `oneiros zip` wrote"),
        (b"", "no file that `oneiros zip` wrote"),
    ):
        packed = tmp_path / "damaged.onz"
        packed.write_bytes(damaged)
        assert word in refused("unzip", packed, "-o", out)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.onz"]


def test_another_instruction_path_is_refused(
    oneiros: Callable[..., Any], refused: Callable[..., str], tmp_path: Path
) -> None:
    file, packed, out = (tmp_path / name for name in ("in", "packed", "out"))
    file.write_bytes(b"ab")
    portable, avx2 = ({"ONEIROS_INSTRUCTIONS": name} for name in ("portable", "avx2"))
    assert oneiros("zip", file, "-o", packed, env=portable).returncode == 0
    message = refused("unzip", packed, "-o", out, env=avx2)
    assert "Set ONEIROS_INSTRUCTIONS to portable" in message
    assert not out.exists()
    assert oneiros("unzip", packed, "-o", out, env=portable).returncode == 0
    assert out.read_bytes() == b"ab"


def test_another_model_is_refused(
    refused: Callable[..., str],
    zipped: tuple[Path, Path],
    default_model_path: Path,
    tmp_path: Path,
) -> None:
    other = tmp_path / "other.gguf"
    shutil.copy(default_model_path, other)
    with other.open("r+b") as file:
        file.seek(-1000, 2)
        file.write(b"\x00\x01")
    home = {"ONEIROS_HOME": str(tmp_path)}  # where its packed weights go
    message = refused("unzip", zipped[1], "-o", tmp_path / "out", "--model", other, env=home)
    assert "compressed with the model smollm2-135m" in message
    assert "--model" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["zip", "unzip"])
def test_inputs_that_are_no_files_are_refused(
    refused: Callable[..., str], tmp_path: Path, command: str
) -> None:
    assert "no such file" in refused(command, tmp_path / "missing.onz")
    assert "is a folder" in refused(command, tmp_path, "-o", tmp_path / "out")
    (tmp_path / "file").touch()
    assert "no such folder" in refused("zip", tmp_path / "file", "-o", tmp_path / "no" / "out")


def test_what_one_vector_path_wrote_another_reads(
    oneiros: Callable[..., Any], zipped: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for path in ("avx2", None):  # None: the best that this processor has
        env = {"ONEIROS_INSTRUCTIONS": path} if path else {}
        assert oneiros("unzip", zipped[1], "-o", out, "--force", env=env).returncode == 0
        assert out.read_text(encoding="utf-8") == TEXT
