"""The set-up: what is pinned, what is built, what a second run costs."""

import os
import re
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def pins(path: Path) -> dict[str, str]:
    """Name to version of a lock file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


@pytest.fixture(scope="module")
def locks(project_folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in (project_folder / "requirements").glob("*.txt")}


def test_lock_files_hold_exact_versions_and_nothing_else(locks: dict[str, Path]) -> None:
    assert {"build", "dev", "peers", "runtime", "train", "train-constraints"} <= set(locks)
    for path in locks.values():
        for line in path.read_text().splitlines():
            assert re.fullmatch(r"#.*|[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line), f"{path.name}: {line}"
            assert "://" not in line


def test_no_package_is_pinned_twice(locks: dict[str, Path]) -> None:
    seen: dict[str, str] = {}
    for name in ("build", "dev", "runtime", "train", "train-constraints"):
        for package in pins(locks[name]):
            assert package not in seen, f"{package} is in {name} and {seen[package]}"
            seen[package] = name


def test_every_dependency_is_locked_to_a_version_that_it_allows(
    project_folder: Path, locks: dict[str, Path]
) -> None:
    project = tomllib.loads((project_folder / "pyproject.toml").read_text())
    runtime = pins(locks["runtime"])
    for line in project["project"]["dependencies"]:
        requirement = Requirement(line)
        assert runtime[canonicalize_name(requirement.name)] in requirement.specifier
    training = runtime | pins(locks["train"]) | pins(locks["train-constraints"])
    for line in project["project"]["optional-dependencies"]["train"]:
        requirement = Requirement(line)
        assert training[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_runtime_needs_no_torch(locks: dict[str, Path]) -> None:
    assert not {"torch", "transformers", "llama-cpp-python"} & set(pins(locks["runtime"]))


def test_what_is_installed_is_what_is_locked(locks: dict[str, Path]) -> None:
    from importlib.metadata import version

    for name in ("build", "dev", "runtime", "train", "train-constraints"):
        for package, locked in pins(locks[name]).items():
            # Builds of torch for one kind of machine say so: 2.13.0+cpu.
            assert version(package).split("+")[0] == locked, package


def test_a_second_setup_takes_under_two_seconds(project_folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    command = ["make", "--no-print-directory", "setup"]
    times = []
    for _ in range(2):  # the first one may have something to build
        start = time.perf_counter()
        subprocess.run(command, cwd=project_folder, env=environment, check=True)
        times.append(time.perf_counter() - start)
    assert times[1] < 2


def test_an_environment_is_refused_clearly_where_python_is_too_old(
    project_folder: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2"\n[ "$1" = -V ]\n')
    old.chmod(0o755)
    result = make_environment(project_folder, tmp_path, old)
    assert result.returncode == 1
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "3.9.2" in result.stderr


def test_an_environment_is_refused_clearly_where_nothing_can_install_pip(
    project_folder: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare-python"
    # Like Debian's python3 without python3-venv and python3-pip: neither module can be imported.
    bare.write_text(
        '#!/bin/sh\ncase "$2" in *ensurepip* | *"import pip"*) exit 1 ;; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    bare.chmod(0o755)
    result = make_environment(project_folder, tmp_path, bare)
    assert result.returncode == 1
    assert "apt install python3-venv" in result.stderr


def make_environment(project: Path, folder: Path, python: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(project / "requirements" / "make-venv.sh"), str(folder / "venv")],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
    )


@pytest.mark.long
def test_the_wheel_serves_every_python_and_carries_the_kernels(
    project_folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(project_folder)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert "-py3-none-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert "oneiros/engine/_kernels.so" in names
    assert "oneiros/model/catalog.py" in names
    assert "oneiros/model/run.c" in names
    assert not [name for name in names if "/kernels/" in name or name.startswith("tests")]
