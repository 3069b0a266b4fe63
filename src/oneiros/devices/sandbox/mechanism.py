"""How programs are confined on this machine, and what they may read there.

Bubblewrap gives them namespaces: an empty file system with the system and Python mounted read-only,
no network, and no other processes. Where it is missing, or not allowed to make namespaces, Landlock
keeps them from the same things by rules. Both come with a seccomp filter and limits. Where neither
works, nothing is run.
"""

from __future__ import annotations

import functools
import marshal
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from oneiros.devices.sandbox.limits import Limits
from oneiros.devices.sandbox.place import Place
from oneiros.devices.sandbox.programs import stage
from oneiros.devices.sandbox.system_calls import seccomp_filter
from oneiros.errors import SandboxError
from oneiros.model.folders import data_folder

PROGRAMS = Path(stage.__file__).parent

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
# Of the system's settings, what programs need to be found, loaded and told the time zone.
_SETTINGS = (
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_MOUNTED = Path("/files")  # where the working folder is, in bubblewrap's namespaces


class Mechanism(StrEnum):
    """What confines programs."""

    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"


def offered() -> list[Mechanism]:
    """The mechanisms that this machine seems to have, the better one first.

    Whether one works is known when something was run with it.

    Raises:
        SandboxError: there is none; the message says what to install.
    """
    machine = platform.machine()
    if sys.platform != "linux" or seccomp_filter(machine, keep_attributes=False) is None:
        raise SandboxError(
            f"Programs can be confined on Linux on x86_64 and aarch64, and this is {sys.platform} "
            f"on {machine}. Python and the terminal are off."
        )
    found = []
    if shutil.which("bwrap"):
        found.append(Mechanism.BUBBLEWRAP)
    if stage.landlock_abi() >= stage.LANDLOCK_ABI:
        found.append(Mechanism.LANDLOCK)
    if not found:
        raise SandboxError(nothing_works("bubblewrap is not installed"))
    return found


def nothing_works(why: str) -> str:
    """The message where no mechanism works."""
    return (
        f"Programs cannot be confined here: {why}, and Landlock of Linux 6.12 or later "
        f"is not there (this kernel offers version {stage.landlock_abi()} of "
        f"{stage.LANDLOCK_ABI}). Install bubblewrap (apt install bubblewrap, dnf install "
        "bubblewrap), and allow it to make user namespaces. Until then, Python and the terminal "
        "are off."
    )


@functools.cache
def python_folders() -> tuple[Path, ...]:
    """The folders of this Python with its packages, and of the programs that run confined.

    Raises:
        SandboxError: one of them holds the user's home, or the data folder.
    """
    found: list[Path] = []
    for prefix in (sys.base_prefix, sys.prefix, PROGRAMS):
        folder = Path(prefix).absolute()
        for private in (Path.home(), data_folder()):
            if private.resolve().is_relative_to(folder.resolve()):
                raise SandboxError(
                    f"Python is installed in {folder}, in which {private} lies, and this is not "
                    "to be read by programs. Install Python, or Oneiros, elsewhere."
                )
        if not any(folder.is_relative_to(known) for known in (Path("/usr"), *found)):
            found.append(folder)
    return tuple(found)


def working_folder(mechanism: Mechanism, place: Place) -> Path:
    """Where programs find the working folder."""
    return _MOUNTED if mechanism is Mechanism.BUBBLEWRAP else place.files


def environment(mechanism: Mechanism, place: Place) -> dict[str, str]:
    """The environment of confined programs: nothing of ours is in it."""
    bubblewrap = mechanism is Mechanism.BUBBLEWRAP
    temporary = "/tmp" if bubblewrap else str(place.temporary)
    folders = [str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    return {
        "HOME": f"{temporary}/home",
        "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": f"{temporary}/home/matplotlib",
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "PATH": ":".join(folders),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": temporary,
    }


def stage_command(mechanism: Mechanism, place: Place) -> list[str]:
    """The command that starts the stage; what it takes is to follow."""
    wrapper = _bubblewrap(place) if mechanism is Mechanism.BUBBLEWRAP else []
    return [*wrapper, sys.executable, "-I", "-S", "-B", str(PROGRAMS / "stage.py")]


def stage_settings(
    mechanism: Mechanism, place: Place, limits: Limits, kept: Sequence[int]
) -> bytes:
    """The settings of the stage.

    Args:
        mechanism: what confines the program.
        place: its folders.
        limits: what it may use.
        kept: descriptors that it inherits, beside the first three.
    """
    bubblewrap = mechanism is Mechanism.BUBBLEWRAP
    own = (place.files, place.temporary, place.shared_memory)
    written = (str(_MOUNTED), "/tmp", "/dev/shm") if bubblewrap else tuple(map(str, own))
    python = [str(folder) for folder in python_folders()]
    rules = {
        "read": [*_SYSTEM, *_SETTINGS, *python],
        "write": written[:2],
        "devices": _DEVICES,
    }
    filtered = seccomp_filter(
        platform.machine(), keep_attributes=not bubblewrap and place.user is None
    )
    settings = {
        "kept": tuple(kept),
        "user": place.user,
        "exposed": python if place.user is not None and not bubblewrap else [],
        "landlock": None if bubblewrap else rules,
        "filter": filtered,
        "folder": written[0],
        "environment": environment(mechanism, place),
        "bounded": written,
        "mounted": python if bubblewrap else [],
        "memory": limits.memory,
        "disk": limits.disk,
        "entries": limits.entries,
        "limits": {
            "RLIMIT_AS": limits.address_space,
            "RLIMIT_CORE": 0,
            "RLIMIT_CPU": limits.cpu_seconds,
            "RLIMIT_FSIZE": limits.file_size,
            "RLIMIT_MEMLOCK": 65_536,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_NOFILE": limits.open_files,
            "RLIMIT_NPROC": limits.processes + _tasks_that_count(mechanism, place),
        },
    }
    data = marshal.dumps(settings)
    return len(data).to_bytes(4, "little") + data


def _tasks_that_count(mechanism: Mechanism, place: Place) -> int:
    """Threads that the limit of processes counts beside the sandbox's own.

    A user of their own has none, and in a user namespace they are counted apart since Linux 5.14.
    """
    release = tuple(int(part) for part in platform.release().split(".")[:2] if part.isdecimal())
    if place.user is not None or (mechanism is Mechanism.BUBBLEWRAP and release >= (5, 14)):
        return 1  # the stage
    count = 1
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                if process.stat().st_uid == os.getuid():
                    count += sum(1 for _ in (process / "task").iterdir())
            except OSError:
                continue  # it is no more
    return count


def _bubblewrap(place: Place) -> list[str]:
    """Bubblewrap with its arguments, as far as the command."""
    program = shutil.which("bwrap") or "bwrap"
    arguments = [program, "--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
    arguments += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    arguments += ["--unshare-cgroup-try"]
    if place.user is None:
        arguments += ["--unshare-user"]
    else:
        # Root needs no user namespace, and the stage gives root up before it starts anything.
        arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    for name in (*_SYSTEM, *_SETTINGS):
        path = Path(name)
        if path.is_symlink() and name in _SYSTEM:
            arguments += ["--symlink", str(path.readlink()), name]
        elif path.exists():
            arguments += [*_parents(path), "--ro-bind", name, name]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    for source, target in (
        (place.shared_memory, "/dev/shm"),
        (place.temporary, "/tmp"),
        (place.files, str(_MOUNTED)),
    ):
        arguments += ["--bind", str(source), target]
    if any(folder.is_relative_to("/tmp") for folder in python_folders()):
        # Whoever starts the stage has given up root's powers, and has to pass through this folder.
        place.temporary.chmod(0o711)
    for folder in python_folders():
        arguments += [*_parents(folder), "--ro-bind", str(folder), str(folder)]
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--"]


def _parents(path: Path) -> list[str]:
    """Arguments that make the folders above a path, for others to enter."""
    return [
        argument
        for parent in reversed(path.parents[:-1])
        for argument in ("--perms", "0755", "--dir", str(parent))
    ]
