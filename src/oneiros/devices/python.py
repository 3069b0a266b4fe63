"""The python device: an interpreter of each process's own, confined."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oneiros.devices.define import device
from oneiros.devices.sandbox.confined import Ended
from oneiros.devices.sandbox.interpreter import Reply
from oneiros.devices.sandbox.private_copy import Changes
from oneiros.devices.sandbox.workspaces import Workspaces, roll_back
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.tools import CallContext, Tool, ToolResult

NEW_INTERPRETER = "[new interpreter: no variables from earlier calls]"


def python(workspaces: Workspaces) -> Tool:
    """The tool `python`."""
    contract = Contract(
        effects=frozenset({Effect.LOCAL}),
        requested_by=("python", "code", "script", "program", "compute", "plot", "chart", "file"),
        undo=True,
        deadline=workspaces.limits.seconds + 60,  # copying files, and putting them back
    )

    @device(contract=contract, reconcile=roll_back(workspaces.disks))
    async def python(
        context: CallContext,
        code: str,
        folder: Annotated[str, Field(description="folder of files to use; default: all")] = "",
    ) -> ToolResult:
        """Run Python code. Variables stay for later calls; the last expression's value is shown.
        The user's files are in the working folder, matplotlib figures are saved there.
        """
        async with workspaces.of(context) as space:
            await space.refresh(folder)
            reply, new = await space.interpret(code)
            # What was changed by code that did not come to an end is dropped.
            changes = Changes() if reply.ended else await space.commit(context, "python")
            label = space.label
        parts = [NEW_INTERPRETER if new else "", reply.output, reply.value, reply.error]
        if reply.ended:
            parts.append(_interpreter_ended(reply.ended, workspaces))
        text = "\n".join(part.rstrip("\n") for part in (*parts, changes.told()) if part)
        if text in ("", NEW_INTERPRETER):
            text = f"{text}\n(nothing printed)".strip()
        return ToolResult(text, data=_data(reply), files=changes.written, label=label)

    return python


def _interpreter_ended(ended: Ended, workspaces: Workspaces) -> str:
    why = ended.why(workspaces.limits)
    if not why:
        why = "it sent something unexpected" if ended.reason == "end" else f"status {ended.status}"
    return (
        f"The interpreter ended: {why}. All variables are gone, and changes of files by this call "
        "were dropped."
    )


def _data(reply: Reply) -> dict[str, object]:
    return {
        "output": reply.output,
        "value": reply.value,
        "error": reply.error,
        "ended": reply.ended is not None,
    }
