"""Programs that want too much, run confined: a program of its own, as any user.

`python -m tests.devices.escapes.greedy MECHANISM USER FOLDER CASE...` prints how each case ended,
as JSON. With the case "forever" a program runs until somebody ends this one.
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from oneiros.devices.sandbox.confined import Confined
from oneiros.devices.sandbox.limits import Limits
from oneiros.devices.sandbox.mechanism import Mechanism
from oneiros.devices.sandbox.place import new_place
from tests.devices.escapes.host import become

MB = 1 << 20


@dataclass
class Case:
    code: str  # Python, unless it begins with "sh:"
    limits: Limits = field(default_factory=lambda: Limits(seconds=20))


CASES = {
    "fork bomb": Case(
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        Limits(seconds=0.5),
    ),
    "count of processes": Case(
        """
import os, time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(100)
        count += 1
except OSError:
    print(count)
""",
        Limits(seconds=20, processes=20),
    ),
    "memory of one process": Case("bytearray(10 << 30)"),
    "memory of many processes": Case(
        """
import os, time
for _ in range(8):
    if os.fork() == 0:
        data = bytearray(os.urandom(1 << 20) * 40)
        time.sleep(100)
time.sleep(100)
""",
        Limits(seconds=20, memory=200 * MB),
    ),
    "memory of a process without its first thread": Case(
        """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(100,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    ),
    "output": Case("sh:head -c 100000000 /dev/zero; echo the end"),
    "hanging": Case("sh:trap '' TERM INT HUP; sleep 1000", Limits(seconds=0.3)),
    "daemons": Case(
        """
import os, signal, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if os.fork():
            os._exit(0)
        os.closerange(0, 100)
        time.sleep(1000)
print("left")
"""
    ),
    "a large file": Case(
        "open('x', 'wb').write(bytes(30 << 20))", Limits(seconds=20, file_size=20 * MB)
    ),
    "many large files": Case(
        """
for number in range(1000):
    open(str(number), 'wb').write(bytes(10 << 20))
""",
        Limits(seconds=20, disk=100 * MB),
    ),
    "deleted files": Case(
        """
import os, time
files = []
for number in range(100):
    files.append(open('x', 'wb', buffering=0))
    files[-1].write(bytes(10 << 20))
    os.unlink('x')
time.sleep(100)
""",
        Limits(seconds=20, disk=50 * MB),
    ),
    "many files": Case(
        """
for number in range(1_000_000):
    open(str(number), 'w').close()
""",
        Limits(seconds=20, entries=1_000),
    ),
    "deep folders": Case(
        """
import os
for number in range(3_000):
    os.mkdir('x' * 100)
    os.chdir('x' * 100)
print("made")
"""
    ),
    "open files": Case(
        """
files = []
try:
    while True:
        files.append(open('/dev/null'))
except OSError:
    print(len(files))
""",
        Limits(seconds=20, open_files=50),
    ),
    "processor": Case("while True: pass", Limits(seconds=20, cpu_seconds=1)),
    "forever": Case("import time\ntime.sleep(1000)", Limits(seconds=1_000)),
}


async def run(mechanism: Mechanism, name: str) -> dict[str, object]:
    case = CASES[name]
    place = new_place()
    command = [sys.executable, "-I", "-B", "-c", case.code, place.root.name]
    if case.code.startswith("sh:"):
        command = ["/bin/sh", "-c", case.code[3:], place.root.name]
    confined = await Confined.start(mechanism, place, case.limits, command)
    if name == "forever":
        print(place.root.name, flush=True)
    ended = await confined.wait()
    left = [path for path in Path("/proc").glob("[1-9]*") if place.root.name in _command(path)]
    output = confined.take_output()
    place.remove()
    return {
        "reason": ended.reason,
        "status": ended.status,
        "size": output.size,
        "output": output.text()[-1_000:],
        "kept": len(output.text()),
        "left": list(map(str, left)),
        "removed": not place.root.exists(),
    }


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""


async def main(mechanism: Mechanism, names: list[str]) -> None:
    print(json.dumps({name: await run(mechanism, name) for name in names}))


if __name__ == "__main__":
    if sys.argv[2] != "0":
        become(int(sys.argv[2]), Path(sys.argv[3]))
    os.environ["ONEIROS_HOME"] = sys.argv[3]
    asyncio.run(main(Mechanism(sys.argv[1]), sys.argv[4:]))
