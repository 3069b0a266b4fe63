"""Appends to the journal of the folder that it is given, and prints what is acknowledged."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

from oneiros.kernel import events as e
from oneiros.kernel.journal import Journal
from oneiros.kernel.label import Label


def main(folder: Path) -> None:
    """Append to three processes in turn, without end; a line "PID SEQ HASH" for each append."""
    journal = Journal.open(folder)
    pids = journal.live()
    while len(pids) < 3:
        pids.append(journal.new_pid())
        started = e.Started(owner="ada", app="assistant", program="agent", model="small")
        journal.append(pids[-1], [started])
    for number in itertools.count():
        text = journal.put(f"{number} ".encode() * 200 + os.urandom(8))
        event = e.Delivered(sender="user", text=text, label=Label())
        durable = number % 50 == 0
        recorded = journal.append(pids[number % 3], [event, e.Reniced(priority=1)], durable=durable)
        os.write(1, f"{recorded[0].pid} {recorded[0].seq} {text}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
