"""Who guesses at private things, and is told whether it was right, has read them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import cast

import pytest

from oneiros.devices.files import files
from oneiros.devices.memory import memory
from oneiros.kernel.contract import Contract
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.label import Label
from oneiros.kernel.spec import ProcessSpec
from oneiros.memory.disk import Disk
from oneiros.memory.recall import ContextMemory
from tests.kernel.running import Calls, running, tool, until

OWN = Label.of("user", readers=["me"])
SEARCH = Contract(sinks=("web:engine.example",), origins=("web:engine.example",))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("edit_file", {"path": "pin.txt", "old": "PIN 46", "new": "PIN 46 "}),
        ("edit_file", {"path": "pin.txt", "old": "PIN 47", "new": "PIN 47 "}),
        ("write_file", {"path": "pin.txt", "text": "The PIN 463820"}),
        ("write_file", {"path": "pin-2.txt", "text": ""}),
        ("move_file", {"path": "other.txt", "to": "pin.txt"}),
        ("delete_file", {"path": "pin-463820.txt"}),
        ("remember", {"fact": "The PIN is 463820"}),
        ("forget", {"path": "any"}),
    ],
)
def test_a_guess_is_a_reading(tmp_path: Path, name: str, arguments: dict[str, object]) -> None:
    async def search(arguments, context):
        return "Nothing."

    async def main() -> None:
        disk = Disk(tmp_path / "files", tmp_path / "store", "me")
        disk.write("pin.txt", b"The PIN 463820", call_id="0", label=OWN)
        disk.write("memory/the-pin-is-463820.md", b"The PIN is 463820\n", call_id="0", label=OWN)
        kept = {"me": disk}.__getitem__
        tools = [
            *files(kept),
            *memory(kept, cast(ContextMemory, None)),
            tool("search", search, SEARCH),
        ]
        told = [(name, arguments), ("search", {"query": "it was right"})]
        programs = {"calls": Calls([(one, json.dumps(given)) for one, given in told])}
        async with running(tmp_path, *tools, programs=programs) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", program="calls", text="Go on."))
            await until(kernel, lambda: stopped(kernel, pid))
            (question,) = kernel.questions(pid)
            assert "private" in question.text
        disk.close()

    asyncio.run(main())


def stopped(kernel: Kernel, pid: int) -> bool:
    return bool(kernel.questions(pid)) or kernel.state(pid).end is not None
