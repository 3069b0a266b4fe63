"""The folders that belong to one sandbox: the only ones that its programs can write."""

from __future__ import annotations

import os
import pwd
import secrets
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from oneiros.errors import SandboxError
from oneiros.model.folders import cache_folder

# Users that programs run as when Oneiros runs as root: below 65,536, which is all that containers
# have, and not among those that distributions and systemd give out.
_USERS = range(50_000, 60_000)


@dataclass(frozen=True, slots=True)
class Place:
    """A folder on this machine, and the user whose it is."""

    root: Path
    user: int | None  # to be; None: the one who runs Oneiros

    @property
    def files(self) -> Path:
        """The working folder."""
        return self.root / "files"

    @property
    def temporary(self) -> Path:
        """What is /tmp to programs."""
        return self.root / "tmp"

    @property
    def shared_memory(self) -> Path:
        """What is /dev/shm to programs."""
        return self.root / "shm"

    def give(self, path: Path | int) -> None:
        """Make a file or folder the sandbox's own."""
        if self.user is not None:
            os.chown(path, self.user, self.user)

    def remove(self) -> None:
        """Remove it all, whatever programs made there. Those have to have ended."""
        remove_tree(self.root)


def new_place() -> Place:
    """Folders for a sandbox; those of kernels that are gone are removed.

    Raises:
        SandboxError: they cannot be made.
    """
    try:
        base = _base()
        for folder in base.iterdir():
            if not Path("/proc", folder.name.partition("-")[0]).exists():
                remove_tree(folder)
        root = Path(tempfile.mkdtemp(dir=base, prefix=f"{os.getpid()}-"))
        place = Place(root, _free_user() if os.geteuid() == 0 else None)
        root.chmod(0o711)
        for folder in (place.files, place.temporary, place.shared_memory):
            folder.mkdir(mode=0o700)
            place.give(folder)
        home = place.temporary / "home"
        home.mkdir(mode=0o700)
        place.give(home)
    except OSError as error:
        raise SandboxError(f"A folder for the sandbox cannot be made ({error}).") from error
    return place


def _base() -> Path:
    """The folder of all sandboxes. Root's has to be where other users may go."""
    if os.geteuid() != 0:
        base = cache_folder() / "sandboxes"
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        return base
    base = Path("/var/tmp/oneiros-sandboxes")
    with suppress(FileExistsError):
        base.mkdir(mode=0o711)
    status = base.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        raise SandboxError(f"{base}: is not root's own folder. Remove it, and try again.")
    return base


def _free_user() -> int:
    """A user whom nobody is: their own limits, and nobody else's processes and files."""
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with suppress(FileNotFoundError):
                taken.add(process.stat().st_uid)
    for place in _base().glob("*/files"):
        with suppress(FileNotFoundError):
            taken.add(place.stat().st_uid)
    free = [user for user in _USERS if user not in taken]
    if not free:
        raise SandboxError(f"All users from {_USERS[0]} to {_USERS[-1]} are in use.")
    return secrets.choice(free)


def remove_tree(root: Path) -> None:
    """Remove a folder, however deep, and whatever the permissions in it."""
    empty(root)
    root.rmdir()


def empty(root: Path) -> None:
    """Remove all that is in a folder.

    Folders are moved up before they are looked into, so that no path gets long.
    """
    root.chmod(0o700)
    waiting = [Path(child.path) for child in os.scandir(root)]
    while waiting:
        path = waiting.pop()
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            continue
        path.chmod(0o700)
        for child in os.scandir(path):
            if child.is_dir(follow_symlinks=False):
                inner = root / f".{secrets.token_hex(8)}"
                Path(child.path).chmod(0o700)
                Path(child.path).rename(inner)
                waiting.append(inner)
            else:
                Path(child.path).unlink()
        path.rmdir()
