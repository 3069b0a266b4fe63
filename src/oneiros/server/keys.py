"""API keys: who may ask, how much, and how urgently.

A key is 256 random bits, and its SHA-256 is what is stored. A slow password hash would protect
nothing more: it is made for secrets that can be guessed, and 2^256 cannot be tried at any speed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from oneiros.engine.requests import BACKGROUND, INTERACTIVE
from oneiros.errors import OneirosError, quoted
from oneiros.model.folders import data_folder
from oneiros.server.limits import RateLimits

PREFIX = "sk-oneiros-"
PRIORITIES = {"interactive": INTERACTIVE, "background": BACKGROUND}

_RECHECK_SECONDS = 1.0


class KeyFileError(OneirosError):
    """The file of API keys is malformed, unsafe, or lacks what was asked for."""


@dataclass(frozen=True, slots=True)
class Key:
    """What is stored of an API key."""

    id: str  # 16 hexadecimal digits; the principal's name for the engine
    name: str  # for people
    sha256: str  # of the whole key, hexadecimal
    created: int  # seconds since 1970
    priority: str = "interactive"  # the best class that its requests may have
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # of prompts and replies


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: pages and fair shares are by `id`."""

    id: str
    name: str
    priority: int = INTERACTIVE
    limits: RateLimits = field(default_factory=lambda: RateLimits(None, None))


LOCAL = Principal("local", "local")
"""Whoever uses a server on loopback that never had keys."""


def key_file() -> Path:
    return data_folder() / "keys.json"


class KeyRing:
    """The API keys of a file. Changes of the file are noticed within a second."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises KeyFileError as `read_keys`."""
        self._path = path
        self._clock = clock
        self._stamp = self._stamp_now()
        self._seen = self._stamp is not None
        self._keys: dict[str, Key] = {}
        self._principals: dict[str, Principal] = {}
        self._take(read_keys(path))
        self._checked = clock()

    @property
    def empty(self) -> bool:
        self._refresh()
        return not self._keys

    @property
    def needed(self) -> bool:
        """Whether there is or was a file of keys, even one that holds none any more.

        Who revokes the last key, or loses the file, does not want to let everybody in.
        """
        self._refresh()
        return self._seen

    def principal_of(self, secret: str) -> Principal | None:
        """Who has this key; None where nobody does. All keys are compared, in constant time."""
        self._refresh()
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for key in self._keys.values():
            if hmac.compare_digest(key.sha256, digest):
                found = self._principals[key.id]
        return found

    def _refresh(self) -> None:
        if self._clock() - self._checked < _RECHECK_SECONDS:
            return
        self._checked = self._clock()
        stamp = self._stamp_now()
        if stamp != self._stamp:
            self._seen = True  # the file was there before this change, or is there after it
            self._take(read_keys(self._path))
            self._stamp = stamp

    def _take(self, keys: list[Key]) -> None:
        """Limits of keys that stay the same keep their levels."""
        self._principals = {
            key.id: self._principals[key.id] if self._keys.get(key.id) == key else _principal(key)
            for key in keys
        }
        self._keys = {key.id: key for key in keys}

    def _stamp_now(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino


def _principal(key: Key) -> Principal:
    limits = RateLimits(key.requests_per_minute, key.tokens_per_minute)
    return Principal(f"key-{key.id}", key.name, PRIORITIES[key.priority], limits)


def read_keys(path: Path) -> list[Key]:
    """The keys of a file; none where there is no file.

    Raises:
        KeyFileError: it is malformed, or others may read or change it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read()
    except FileNotFoundError:
        return []
    if mode & 0o077:
        raise KeyFileError(f"{path} can be opened by other users: run `chmod 600 {path}`.")
    try:
        entries = json.loads(data)["keys"]
        keys = [Key(**entry) for entry in entries]
        if not all(key.priority in PRIORITIES for key in keys):
            raise ValueError("an unknown priority")
    except (ValueError, TypeError, KeyError) as error:
        raise KeyFileError(
            f"{path} is damaged ({error}): restore it, or delete it and create new keys."
        ) from error
    return keys


def create_key(
    path: Path,
    name: str,
    *,
    priority: str = "interactive",
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> str:
    """Add a key and return it: the only time that it can be seen.

    Raises:
        KeyFileError: the name is taken or unusable, or as `read_keys`.
    """
    if not name or not name.isprintable() or len(name) > 100:
        raise KeyFileError("A key's name has 1 to 100 printable characters.")
    secret = PREFIX + secrets.token_urlsafe(32)
    key = Key(
        id=secrets.token_hex(8),
        name=name,
        sha256=hashlib.sha256(secret.encode()).hexdigest(),
        created=int(time.time()),
        priority=priority,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    with _locked(path):
        keys = read_keys(path)
        if any(other.name == name for other in keys):
            raise KeyFileError(f"There is a key named {quoted(name)} already: choose another name.")
        _write_keys(path, [*keys, key])
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Remove a key by its name or id; running servers refuse it within a second.

    Raises:
        KeyFileError: there is none of that name, or as `read_keys`.
    """
    with _locked(path):
        keys = read_keys(path)
        left = [key for key in keys if name not in (key.name, key.id)]
        if len(left) == len(keys):
            raise KeyFileError(f"There is no key named {quoted(name)}: see `oneiros keys list`.")
        _write_keys(path, left)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_keys(path: Path, keys: list[Key]) -> None:
    """Replace the file; nobody else can read it at any moment."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"keys": [asdict(key) for key in keys]}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
