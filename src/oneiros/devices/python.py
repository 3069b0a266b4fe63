"""The python device: an interpreter of each process's own, confined."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Annotated, Final

from pydantic import Field

from oneiros.devices.define import device
from oneiros.devices.sandbox.confined import Ended
from oneiros.devices.sandbox.interpreter import Reply
from oneiros.devices.sandbox.private_copy import Changes
from oneiros.devices.sandbox.workspaces import Workspaces, roll_back
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.tools import CallContext, Tool, ToolResult

# What people expect beside the standard library. Models have to know which of it is there.
_EXPECTED: Final = ("numpy", "matplotlib", "pandas")
_INSTALLED: Final = tuple(name for name in _EXPECTED if find_spec(name) is not None)

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
        code: Annotated[list[str], Field(description="its lines", min_length=1)],
        folder: Annotated[str, Field(description="folder of files to use; default: all")] = "",
    ) -> ToolResult:
        """Run Python code. Variables stay for later calls; the last expression's value is shown.
        The user's files are in the working folder, matplotlib figures are saved there.
        """
        async with workspaces.of(context) as space:
            await space.refresh(folder)
            reply, new = await space.interpret("\n".join(code))
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

    return replace(python, description=f"{python.description} {_modules()}")


def _modules() -> str:
    """What can be imported, for models."""
    missing = [name for name in _EXPECTED if name not in _INSTALLED]
    text = f"Importable: the standard library{''.join(f', {name}' for name in _INSTALLED)}"
    return f"{text}; not {', '.join(missing)}." if missing else f"{text}."


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
