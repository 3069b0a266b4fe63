"""The outside of a sandbox that a hostile program tries to get to: run as a program of its own.

`python -m tests.devices.escapes.host MECHANISM USER FOLDER`: USER is a number, to run Oneiros as
that user; 0 is root. Prints what the attempts came to, and what changed outside, as JSON.
"""

import asyncio
import atexit
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from oneiros.devices.sandbox.mechanism import PROGRAMS, Mechanism, python_folders
from oneiros.devices.sandbox.programs import stage

MARKER = f"oneiros-escape-{os.getpid()}"
HERE = Path(__file__).parent


def become(user: int, folder: Path) -> None:
    """Be an ordinary user from now on, who can read Python wherever it is installed."""
    project = HERE.parent.parent.parent
    stage.expose([*map(str, python_folders()), str(project), str(folder)])
    stage.become(user)


async def main(mechanism: Mechanism, folder: Path) -> None:
    os.environ["HOME"] = str(folder)
    os.environ["ONEIROS_HOME"] = str(folder / "oneiros")
    # These look at HOME and ONEIROS_HOME when they are used first.
    from oneiros.devices.sandbox.confined import Confined
    from oneiros.devices.sandbox.limits import Limits
    from oneiros.devices.sandbox.place import new_place

    secret, readable = folder / "secret", folder / "readable"
    secret.write_text("the secret")
    secret.chmod(0o600)
    readable.write_text("x")
    os.environ["SECRET_KEY"] = f"{MARKER}-environment"
    os.set_inheritable(os.open(secret, os.O_RDWR), True)
    shared = Path("/dev/shm", MARKER)
    shared.write_text("the secret")
    shared.chmod(0o666)
    atexit.register(shared.unlink)
    marked = {**os.environ, "MARKER": MARKER}
    (folder / "oneiros").mkdir()
    victim = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(100)", MARKER],
        env=marked,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    atexit.register(victim.kill)
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0" + MARKER)
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind("\0" + MARKER + "-datagrams")
    named = socket.socket(socket.AF_UNIX)
    named.bind(str(folder / "socket"))
    (folder / "socket").chmod(0o777)
    for listening in (abstract, named):
        listening.listen()
    before = state(folder, victim.pid)
    place = await asyncio.to_thread(new_place)
    shutil.copy(HERE / "attempts.py", place.files / "attempts.py")
    place.give(place.files / "attempts.py")
    target = {
        "home": str(folder),
        "secret": str(secret),
        "sandboxes": str(place.root.parent),
        "victim": victim.pid,
        "marker": MARKER,
        "programs": str(PROGRAMS),
        "mounted": mechanism is Mechanism.BUBBLEWRAP,
        "readable": str(PROGRAMS / "stage.py"),
        "tcp": tcp.getsockname()[1],
        "udp": udp.getsockname()[1],
        "socket": str(folder / "socket"),
        "inode": [secret.stat().st_dev, secret.stat().st_ino],
    }
    command = [sys.executable, "-I", "-B", "attempts.py", json.dumps(target)]
    confined = await Confined.start(mechanism, place, Limits(seconds=30), command)
    ended = await confined.wait()
    after = state(folder, victim.pid)
    place.remove()
    reached = [
        name
        for name, listening in {
            "tcp": tcp,
            "udp": udp,
            "abstract": abstract,
            "datagrams": datagrams,
            "named": named,
        }.items()
        if is_reached(listening)
    ]
    after["shared memory"] = shared.read_text()
    before["shared memory"] = "the secret"
    result = {
        "ended": [ended.reason, ended.status],
        "output": confined.take_output().text(),
        "before": before,
        "after": after,
        "reached": reached,
        "owner": os.getuid(),
    }
    print(json.dumps(result, default=str))


def state(folder: Path, victim: int) -> dict[str, object]:
    """All that a program could have changed outside."""
    status = Path(f"/proc/{victim}/stat").read_text()
    files = {
        str(path): [path.stat().st_mode, path.stat().st_mtime_ns, os.listxattr(path)]
        for path in (folder, folder / "secret", PROGRAMS / "stage.py")
    }
    return {
        "files": files,
        "secret": (folder / "secret").read_text(),
        "names": sorted(path.name for path in folder.iterdir() if path.name != "oneiros"),
        "victim lives": status.rpartition(")")[2][1] not in "ZXTt",
        "limit": resource.prlimit(victim, resource.RLIMIT_NOFILE),
        "priority": os.getpriority(os.PRIO_PROCESS, victim),
        "own priority": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": sorted(os.sched_getaffinity(victim)),
    }


def is_reached(listening: socket.socket) -> bool:
    listening.setblocking(False)
    try:
        if listening.type == socket.SOCK_DGRAM:
            listening.recv(1)
        else:
            listening.accept()
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    if sys.argv[2] != "0":
        become(int(sys.argv[2]), Path(sys.argv[3]))
    asyncio.run(main(Mechanism(sys.argv[1]), Path(sys.argv[3])))
