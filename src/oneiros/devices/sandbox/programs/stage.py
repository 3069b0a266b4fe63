"""The stage: a program that confines another one, watches over it, and ends all that it started.

It runs by itself (`python -I -S stage.py READ WRITE COMMAND...`), in front of anything that is not
trusted: in the namespaces that bubblewrap made, as their first process, or as it is. It gives up
root, starts the command in a child that confines itself by limits, Landlock and seccomp, and then
obeys whoever started it over two pipes:

    reads   the settings; after "started", as often as wanted, "pause" (end all but the command,
            which then stands still), "go" (go on), and "end"
    writes  "started", "paused", "failed MESSAGE", "ended REASON STATUS"

Whoever started it is gone when the first pipe closes; that is an "end" too. Nothing of Oneiros is
imported, and little of Python (no json, signal, typing, pathlib): it starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import select
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing it takes longer than all the rest
    from typing import Any

    Settings = dict[str, Any]  # as `mechanism.py` makes them

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_libc.mount.argtypes = (*(ctypes.c_char_p,) * 3, ctypes.c_ulong, ctypes.c_char_p)

_PDEATHSIG, _DUMPABLE, _SECCOMP, _SUBREAPER, _NO_NEW_PRIVILEGES = 1, 4, 22, 36, 38
_FILTER = 2
_NEW_MOUNTS, _BIND, _RECURSIVE, _PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000

# Landlock (linux/landlock.h): its system calls have the same numbers everywhere.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER = 1, 2, 4, 8
_TRUNCATE = 1 << 14
_MAKE_DEVICES = 1 << 6 | 1 << 9 | 1 << 11  # character devices, sockets, block devices
_ALL_FILES = (1 << 16) - 1  # of ABI 5 and later
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _EXECUTE | _READ_FILE | _READ_FOLDER
_CONNECTIONS = 3  # binding and connecting TCP
_SCOPES = 3  # abstract sockets, signals
LANDLOCK_ABI = 6  # what the confinement below needs: with its scopes

_KILL, _STOP, _CONTINUE = 9, 19, 18  # signals, on x86 and ARM

_TICK = 0.2  # seconds between two looks at what the program uses


class Failure(Exception):
    """The program cannot be confined, or not be started."""


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise Failure(f"{what}: {os.strerror(number)}")
    return result


def landlock_abi() -> int:
    """The version of Landlock that this kernel offers; 0: none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))))


# Before: what only root can do


def _hidden_ancestor(path: str) -> str | None:
    """The topmost folder above a path that other users may not enter; None: there is none."""
    parts = path.split("/")
    for depth in range(2, len(parts)):
        folder = "/".join(parts[:depth])
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            return folder
    return None


def expose(paths: list[str]) -> None:
    """Give this process mounts of its own, in which every user can reach these folders.

    What else lies in a folder that was closed to others is not there.
    """
    hidden: dict[str, list[str]] = {}
    for path in paths:
        folder = _hidden_ancestor(path)
        if folder is not None:
            hidden.setdefault(folder, []).append(path)
    if not hidden:
        return
    _checked(_libc.unshare(_NEW_MOUNTS), f"other users may not enter {', '.join(hidden)}")
    _mount(None, "/", _RECURSIVE | _PRIVATE)
    opened = {path: os.open(path, os.O_PATH) for inner in hidden.values() for path in inner}
    for folder in hidden:
        _checked(_libc.mount(b"none", folder.encode(), b"tmpfs", 0, b"mode=0755"), folder)
    for path, descriptor in opened.items():
        os.makedirs(path, exist_ok=True)
        _mount(f"/proc/self/fd/{descriptor}", path, _BIND)
        os.close(descriptor)


def _mount(source: str | None, target: str, flags: int) -> None:
    _checked(
        _libc.mount(source and source.encode(), target.encode(), None, flags, None),
        f"mount {target}",
    )


def become(user: int) -> None:
    """Be another user for good; root does not count against any limit."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


# The child: confine itself


def _confine(settings: Settings) -> None:
    limits = settings["limits"]
    for name, value in limits.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))
    os.umask(0o077)
    if settings["landlock"] is not None:
        _landlock(**settings["landlock"])
    _seccomp(settings["filter"])


def _landlock(read: list[str], write: list[str], devices: list[str]) -> None:
    class Ruleset(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("files", "net", "scoped")]

    class Beneath(ctypes.Structure):
        _pack_ = 1
        _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]

    rules = Ruleset(_ALL_FILES, _CONNECTIONS, _SCOPES)
    size = ctypes.c_size_t(ctypes.sizeof(rules))
    ruleset = _libc.syscall(_CREATE_RULESET, ctypes.byref(rules), size, ctypes.c_uint(0))
    _checked(ruleset, "Landlock")
    allowed = [(path, _READ) for path in read]
    allowed += [(path, _ALL_FILES & ~_MAKE_DEVICES & ~(1 << 15)) for path in write]
    allowed += [(path, _READ_FILE | _WRITE_FILE) for path in devices]
    for path, rights in allowed:
        try:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            rights &= _ON_FILES
        rule = Beneath(rights, parent)
        added = _libc.syscall(
            _ADD_RULE, ctypes.c_int(ruleset), 1, ctypes.byref(rule), ctypes.c_uint(0)
        )
        _checked(added, f"Landlock: {path}")
        os.close(parent)
    _checked(_libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0)), "Landlock")
    os.close(ruleset)


def _seccomp(instructions: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    program = Program(len(instructions) // 8, instructions)
    address = ctypes.addressof(program)
    _checked(_libc.prctl(_SECCOMP, _FILTER, address, 0, 0), "seccomp")


def _start(settings: Settings, command: list[str]) -> int:
    """Start the command in a child; its pid."""
    failure_read, failure_write = os.pipe()
    child = os.fork()
    if child:
        os.close(failure_write)
        with open(failure_read, "rb") as pipe:
            message = pipe.read()
        if message:
            os.waitpid(child, 0)
            raise Failure(message.decode())
        return child
    try:
        _libc.prctl(_PDEATHSIG, _KILL, 0, 0, 0)
        _libc.prctl(_DUMPABLE, 1, 0, 0, 0)  # to be allowed the next lines
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        os.setpgid(0, 0)
        os.chdir(settings["folder"])
        _close_all_but(failure_write, *settings["kept"])
        for descriptor in settings["kept"]:
            os.set_inheritable(descriptor, True)
        _confine(settings)
        os.execve(command[0], command, settings["environment"])
    except (OSError, ValueError, Failure) as error:
        os.write(failure_write, f"{command[0]}: {error}".encode())
    finally:
        os._exit(127)


def _close_all_but(*kept: int) -> None:
    last = 2
    for descriptor in sorted(kept):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


# The parent: watch


class _Process:
    def __init__(self, parent: int, alive: bool, memory: int | None) -> None:
        self.parent = parent
        self.alive = alive  # whether a thread of it is left
        self.memory = memory  # bytes in use by it alone; None: it hides them


def _processes() -> dict[int, _Process]:
    """All processes that this one started, in any generation.

    Orphans become children of this process, so that none is missed.
    """
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The name before the ")" may hold anything.
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue  # it is no more
    found = {}
    generation = {os.getpid()}
    while generation:
        generation = {pid for pid, parent in parents.items() if parent in generation}
        for pid in generation:
            try:
                with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
                    found[pid] = _process(file.read())
            except OSError:
                continue
    return found


def _process(status: str) -> _Process:
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    dead = lines["State"].split()[0] in "ZX"
    # The first thread may end before the others: then the process shows no memory.
    alive = not dead or int(lines.get("Threads", 1)) > 1
    kilobytes = [int(lines.get(key, "0").split()[0]) for key in ("RssAnon", "RssShmem")]
    return _Process(int(lines["PPid"]), alive, None if dead and alive else 1024 * sum(kilobytes))


def _end(spared: int) -> None:
    """End all processes that this one started, but for one, which has to stand still."""
    while left := _living(spared).keys() - {spared}:
        for pid in left:
            try:
                # It may be starting more of them: these would not be in the list.
                resource.prlimit(pid, resource.RLIMIT_NPROC, (0, 0))
                os.kill(pid, _KILL)
            except (ProcessLookupError, PermissionError):
                pass


def _living(spared: int) -> dict[int, _Process]:
    """The processes that this one started and that live.

    Those that ended and have no other parent any more are cleared away, but for one.
    """
    processes = _processes()
    for pid, process in processes.items():
        if process.parent == os.getpid() and not process.alive and pid != spared:
            os.waitpid(pid, os.WNOHANG)
    return {pid: process for pid, process in processes.items() if process.alive}


def _size_of(folders: list[str], most: int, others: list[str]) -> tuple[int, int]:
    """Bytes of all that is below folders, and the number; it stops when there are too many.

    What is below `others` is not counted: it is mounted there, and cannot be written.
    """
    size = count = 0
    waiting = list(folders)
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    count += 1
                    if count > most:
                        return size, count
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path not in others:
                            waiting.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        except OSError:  # a path that is too long
            return size, most + 1
    return size, count


def _free(folder: str) -> int:
    """Bytes that are free where a folder lies."""
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize


class _Watch:
    """One command, from its start to its end."""

    def __init__(self, settings: Settings, child: int, commands: int, reports: int) -> None:
        self.settings = settings
        self.child = child
        self.commands = commands
        self.reports = reports
        self.paused = False
        self.next_look = 0.0
        self.free_at_first = _free(settings["bounded"][0])

    def report(self, text: str) -> None:
        """Tell whoever started the stage."""
        os.write(self.reports, f"{text}\n".encode())

    def run(self) -> str:
        """Obey until the end; says why it came."""
        ended = os.pidfd_open(self.child)
        poll = select.poll()
        for descriptor in (self.commands, ended):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = {number for number, _ in poll.poll(None if self.paused else 1000 * _TICK)}
            if ended in ready:
                return "exit"
            if self.commands in ready and not self.obey():
                return "end"
            if not ready and (reason := self.excess()):
                return reason

    def obey(self) -> bool:
        """Do what is asked; false: to end."""
        asked = os.read(self.commands, 4096)
        for command in asked.split():
            if command == b"pause":
                os.kill(self.child, _STOP)
                _end(self.child)
                self.paused = True
                self.report("paused")
            elif command == b"go":
                self.paused = False
                os.kill(self.child, _CONTINUE)
            else:
                return False
        return bool(asked)

    def excess(self) -> str | None:
        """What the program uses too much of, if anything."""
        used = [process.memory for process in _living(self.child).values()]
        known = [memory for memory in used if memory is not None]
        if len(known) < len(used) or sum(known) > self.settings["memory"]:
            return "memory"
        before = time.monotonic()
        if before < self.next_look:
            return None
        bounded = self.settings["bounded"]
        size, count = _size_of(bounded, self.settings["entries"], self.settings["mounted"])
        now = time.monotonic()
        self.next_look = now + max(0.5, 10 * (now - before))
        # Files that were deleted and are still open are found only by what they take away.
        gone = self.free_at_first - _free(bounded[0])
        if size > self.settings["disk"] or gone > 4 * self.settings["disk"]:
            return "disk"
        return "entries" if count > self.settings["entries"] else None


def main(commands: int, reports: int, command: list[str]) -> None:
    """Confine a command, watch it, and end it."""
    os.umask(0o022)
    settings = marshal.loads(_received(commands))
    try:
        if settings["exposed"]:
            expose(settings["exposed"])
        if settings["user"] is not None:
            become(settings["user"])
        if 0 in os.getresuid() + os.getresgid():
            raise Failure("root may not run anything here")
        _checked(_libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")
        _checked(_libc.prctl(_DUMPABLE, 0, 0, 0, 0), "prctl")
        _checked(_libc.prctl(_SUBREAPER, 1, 0, 0, 0), "prctl")
        child = _start(settings, command)
    except (Failure, OSError) as error:
        os.write(reports, " ".join(f"failed {error}".split()).encode() + b"\n")
        return
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for descriptor in settings["kept"]:
        os.close(descriptor)
    watch = _Watch(settings, child, commands, reports)
    watch.report("started")
    reason = watch.run()
    os.kill(child, _KILL)
    status = os.waitpid(child, 0)[1]
    _end(0)
    watch.report(f"ended {reason} {os.waitstatus_to_exitcode(status)}")
    os._exit(0)  # nothing is left to clean up


def _received(descriptor: int) -> bytes:
    """What comes first: a length of four bytes, and so much."""
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            sys.exit("whoever started the sandbox is gone")
        data += piece
    return data[4:]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
