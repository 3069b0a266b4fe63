from __future__ import annotations

from pathlib import Path

import pytest

from oneiros.cli import inputs
from oneiros.errors import OneirosError


def test_text_that_is_not_utf8_is_refused_with_the_place() -> None:
    with pytest.raises(OneirosError, match=r"a\.txt is not UTF-8 text: byte 0xe9 at offset 3"):
        inputs.as_text("caf\xe9".encode("latin-1"), "a.txt")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(OneirosError, match="no such file"):
        inputs.read_bytes(tmp_path / "missing")
    with pytest.raises(OneirosError, match="is a folder"):
        inputs.read_bytes(tmp_path)


def test_outputs_are_not_overwritten_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "out"
    inputs.check_output(path, force=False)
    path.touch()
    inputs.check_output(path, force=True)
    with pytest.raises(OneirosError, match="--force"):
        inputs.check_output(path, force=False)


@pytest.mark.parametrize("force", [False, True])
def test_outputs_that_are_no_files_are_refused(tmp_path: Path, force: bool) -> None:
    for path in (tmp_path, Path("/dev/null"), tmp_path / "missing" / "out"):
        with pytest.raises(OneirosError):
            inputs.check_output(path, force)
