"""The terminal device: shell commands, confined."""

from __future__ import annotations

import shutil
from typing import Annotated

from pydantic import Field

from oneiros.devices.define import device
from oneiros.devices.sandbox.private_copy import Changes
from oneiros.devices.sandbox.workspaces import Workspaces, roll_back
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult

_LONGEST = 100_000  # bytes of a command; the system takes a little more


def terminal(workspaces: Workspaces) -> Tool:
    """The tool `terminal`."""
    contract = Contract(
        effects=frozenset({Effect.LOCAL}),
        requested_by=("terminal", "shell", "bash", "command", "run", "script", "program", "file"),
        undo=True,
        deadline=workspaces.limits.seconds + 60,  # copying files, and putting them back
    )

    @device(contract=contract, reconcile=roll_back(workspaces.disks))
    async def terminal(
        context: CallContext,
        command: str,
        folder: Annotated[str, Field(description="folder of files to use; default: all")] = "",
    ) -> ToolResult:
        """Run a bash command. The user's files are in the working folder; there is no network."""
        if len(command.encode(errors="replace")) > _LONGEST or "\0" in command:
            raise ToolError(
                f"A command has at most {_LONGEST:,} bytes, and no null characters. Write a file, "
                "and run that."
            )
        async with workspaces.of(context) as space:
            await space.refresh(folder)
            ended, output = await space.run([_shell(), "-c", command])
            # What was changed by a command that did not come to an end is dropped.
            stopped = ended.reason != "exit"
            changes = Changes() if stopped else await space.commit(context, "terminal")
            label = space.label
        parts = [output.rstrip("\n")]
        if stopped:
            why = ended.why(workspaces.limits)
            parts.append(f"The command was ended: {why}. Its changes of files were dropped.")
        elif ended.status:
            parts.append(f"Exit status {ended.status}.")
        parts.append(changes.told())
        text = "\n".join(part for part in parts if part) or "(nothing printed)"
        data = {"output": output, "status": ended.status, "ended": stopped}
        return ToolResult(text, data=data, files=changes.written, label=label)

    return terminal


def _shell() -> str:
    return shutil.which("bash", path="/usr/bin:/bin") or "/bin/sh"
