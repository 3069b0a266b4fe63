"""SIGKILL at any moment: nothing is lost, and nothing happens twice."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections import Counter
from pathlib import Path

import pytest

from oneiros.kernel.events import CallEnded, CallIntended
from oneiros.kernel.journal import Journal
from oneiros.memory.disk import Disk
from tests.kernel import crashing
from tests.kernel.running import Calls, running


def kill_at_random(folder: Path, kills: int, seed: int) -> int:
    """Run a kernel until its processes have ended, killing it on the way; says how often."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kernel.crashing"])
    moments = random.Random(seed)
    killed = 0
    while True:
        child = context.Process(target=crashing.run, args=(folder,))
        child.start()
        if killed < kills:
            child.join(0.05 + moments.random() * 0.1)
        else:
            child.join(60)
        if child.exitcode is not None:
            assert child.exitcode == 0
            return killed
        child.kill()
        child.join()
        killed += 1


def check(folder: Path) -> Counter[str]:
    """Each effect happened once, or its outcome was reported as unknown; says what was reported."""
    connection = crashing.rows(folder)
    values = Counter(value for (value,) in connection.execute("SELECT value FROM row"))
    disk = Disk(folder / "files", folder / "store", "me")
    outcomes: Counter[str] = Counter()
    journal = Journal.open(folder / "journal")
    pids = journal.pids()
    assert len(pids) == crashing.PROCESSES
    for pid in pids:
        intended, ended = {}, {}
        for recorded in journal.events(pid):
            match recorded.event:
                case CallIntended() as event:
                    intended[event.call_id] = event
                case CallEnded() as event:
                    assert event.call_id not in ended
                    ended[event.call_id] = event.outcome
        assert len(intended) == crashing.CALLS and intended.keys() == ended.keys()
        number = int(journal.state(pid).program.removeprefix("work-"))
        for n, (name, _) in enumerate(crashing.requests(number)):
            call_id, value = f"{pid}.{n + 1}", f"{number}-{n}"
            outcome = ended[call_id]
            outcomes[f"{name} {outcome}"] += 1
            if name == "write":
                assert outcome == "done"
                assert disk.read(f"{pid}/{value}.txt") == value.encode()
                assert len(disk.changes(call_id)) == 1
            elif outcome == "done":
                assert values[value] == 1
            else:
                assert outcome == "unknown" and values[value] <= 1
    journal.close()
    disk.close()
    connection.close()
    return outcomes


async def replay_all(folder: Path) -> None:
    programs = {f"work-{n}": Calls(crashing.requests(n)) for n in range(crashing.PROCESSES)}
    async with running(folder / "journal", programs=programs) as kernel:
        for state in kernel.processes(ended=True):
            assert await kernel.replay(state.pid) == state.seq


@pytest.mark.parametrize(
    ("kills", "seed"), [(20, 1), *(pytest.param(200, n, marks=pytest.mark.long) for n in range(5))]
)
def test_processes_go_on_after_every_kill(tmp_path: Path, kills: int, seed: int) -> None:
    assert kill_at_random(tmp_path, kills, seed) > 0
    outcomes = check(tmp_path)
    assert outcomes["write done"] == crashing.PROCESSES * crashing.CALLS / 2
    asyncio.run(replay_all(tmp_path))
