"""The methods of the control socket: a kernel's own, and its user's files."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from oneiros import __version__
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import ControlError, InvalidSamplingError
from oneiros.kernel.control import Method
from oneiros.kernel.control_views import event_view, process_view, shortened, tool_view
from oneiros.kernel.events import Budget
from oneiros.kernel.label import Label
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.state import STATE, ProcessState
from oneiros.kernel.tools import Tool
from oneiros.memory.pages import Page, PageKind
from oneiros.model.chat_format import Message

if TYPE_CHECKING:
    from oneiros.kernel.journal import Recorded
    from oneiros.memory.disk import Disk
    from oneiros.memory.index import Hit
    from oneiros.memory.versions import Change

_PIECE = 192 * 1024  # bytes of a file in one event
_LONGEST_MESSAGE = 1 << 20  # characters


class KernelPort(Protocol):
    """What the control socket needs of a kernel."""

    async def start(self, spec: ProcessSpec) -> int: ...
    def processes(self, *, ended: bool = False) -> list[ProcessState]: ...
    def state(self, pid: int) -> ProcessState: ...
    async def send(
        self, pid: int, text: str, *, sender: str = "user", label: Label | None = None
    ) -> None: ...
    def watch(
        self, pid: int | None = None, after: int | None = None
    ) -> AsyncGenerator[Recorded, None]: ...
    def text(self, blob: str) -> str: ...
    def message(self, page: Page) -> Message: ...
    def tools(self) -> list[Tool]: ...
    async def kill(self, pid: int) -> None: ...
    async def stop(self, pid: int) -> None: ...
    async def cont(self, pid: int) -> None: ...
    async def interrupt(self, pid: int) -> None: ...
    async def renice(self, pid: int, priority: int) -> None: ...
    async def set_budget(self, pid: int, budget: Budget) -> None: ...
    async def fork(self, pid: int) -> int: ...
    def questions(self, pid: int | None = None) -> Sequence[Any]: ...
    async def answer(
        self,
        call_id: str,
        *,
        pid: int | None = None,
        allow: bool | None = None,
        always: bool = False,
        text: str | None = None,
    ) -> None: ...
    async def replay(self, pid: int) -> int: ...
    def erase(self, pid: int, page: int | None = None) -> None: ...
    def backup(self, path: Path) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A running kernel and what is around it, as its user's commands see it."""

    kernel: KernelPort
    owner: str  # the principal that commands speak for
    model: str  # of processes that name none
    context: int  # tokens of its context
    folder: Path  # the data folder
    files: Path  # the folder of the user's files
    address: str | None  # of the model API; None: there is no server
    tools: Callable[[], Sequence[Tool]]
    disk: Callable[[str], Disk]
    search: Callable[[str, str, int], Sequence[Hit]]  # (owner, query, most hits)
    shutdown: Callable[[], None]  # begins the end
    # Held while the journal is copied: the copy would keep an erasure from overwriting the log.
    copying: asyncio.Lock = field(default_factory=asyncio.Lock)


def control_methods(system: System) -> Mapping[str, Method]:
    """All methods, by the names that clients use."""
    return process_methods(system) | file_methods(system) | system_methods(system)


def process_methods(system: System) -> dict[str, Method]:
    """What is done with processes."""
    kernel = system.kernel

    async def start(
        text: str | None = None,
        program: str = "agent",
        app: str = "assistant",
        model: str | None = None,
        title: str = "",
        priority: int = 0,
        tokens: int | None = None,
        seconds: float | None = None,
        calls: int | None = None,
        money: float | None = None,
        capabilities: list[str] | None = None,
        instructions: str | None = None,
        quarantine: bool = False,
        sampling: dict[str, Any] | None = None,
    ) -> int:
        return await kernel.start(
            ProcessSpec(
                owner=system.owner,
                program=program,
                app=app,
                model=model,
                text=text,
                title=title,
                priority=priority,
                budget=Budget(tokens=tokens, seconds=seconds, calls=calls, money=money),
                capabilities=frozenset({"*"} if capabilities is None else capabilities),
                system=instructions,
                quarantine=quarantine,
                sampling=None if sampling is None else _sampling(sampling),
            )
        )

    async def processes(ended: bool = False) -> list[dict[str, Any]]:
        return [process_view(state) for state in kernel.processes(ended=ended)]

    async def process(pid: int) -> dict[str, Any]:
        return process_view(kernel.state(pid))

    async def state(pid: int) -> Any:
        return json.loads(STATE.dump_json(kernel.state(pid)))

    async def messages(
        pid: int, longest: int = _LONGEST_MESSAGE, evicted: bool = False
    ) -> list[dict[str, Any]]:
        """The context: what the model reads, page by page; or that and all that it once read."""
        state = kernel.state(pid)
        pages = state.context
        if evicted:
            pages = tuple(sorted((*pages, *state.evicted), key=lambda page: page.id))
        return [
            {
                "id": page.id,
                "kind": str(page.kind),
                "tokens": page.tokens,
                "message": shortened(kernel.message(page), longest),
            }
            for page in pages
        ]

    async def watch(
        pid: int | None = None,
        after: int | None = None,
        longest: int = 0,
        quiet: float | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Events; and {"quiet": true} each time that none came for so many seconds."""
        async with aclosing(_with_silences(kernel.watch(pid, after), quiet)) as events:
            async for recorded in events:
                if recorded is None:
                    yield {"quiet": True}
                else:
                    yield event_view(recorded, longest, kernel.text, kernel.message)

    async def send(pid: int, text: str) -> None:
        await kernel.send(pid, text)

    async def kill(pid: int) -> None:
        await kernel.kill(pid)

    async def stop(pid: int) -> None:
        await kernel.stop(pid)

    async def cont(pid: int) -> None:
        await kernel.cont(pid)

    async def interrupt(pid: int) -> None:
        await kernel.interrupt(pid)

    async def renice(pid: int, priority: int) -> None:
        await kernel.renice(pid, priority)

    async def budget(
        pid: int,
        tokens: int | None = None,
        seconds: float | None = None,
        calls: int | None = None,
        money: float | None = None,
    ) -> None:
        await kernel.set_budget(
            pid, Budget(tokens=tokens, seconds=seconds, calls=calls, money=money)
        )

    async def fork(pid: int) -> int:
        return await kernel.fork(pid)

    async def questions(pid: int | None = None) -> list[dict[str, Any]]:
        return [asdict(question) for question in kernel.questions(pid)]

    async def answer(
        call_id: str,
        pid: int | None = None,
        allow: bool | None = None,
        always: bool = False,
        text: str | None = None,
    ) -> None:
        await kernel.answer(call_id, pid=pid, allow=allow, always=always, text=text)

    async def replay(pid: int) -> int:
        return await kernel.replay(pid)

    async def erase(pid: int, page: int | None = None) -> None:
        async with system.copying:
            kernel.erase(pid, page)

    return {
        method.__name__: method
        for method in (
            start,
            processes,
            process,
            state,
            messages,
            watch,
            send,
            kill,
            stop,
            cont,
            interrupt,
            renice,
            budget,
            fork,
            questions,
            answer,
            replay,
            erase,
        )
    }


def file_methods(system: System) -> dict[str, Method]:
    """What is done with the user's files."""

    def disk() -> Disk:
        return system.disk(system.owner)

    async def list_files(path: str = "") -> list[dict[str, Any]]:
        return [asdict(entry) for entry in await asyncio.to_thread(disk().list, path)]

    async def read(path: str) -> AsyncGenerator[dict[str, str], None]:
        data = await asyncio.to_thread(disk().read, path)
        for start in range(0, len(data), _PIECE):
            yield {"data": base64.b64encode(data[start : start + _PIECE]).decode()}

    async def search(query: str, limit: int = 10) -> list[dict[str, Any]]:
        hits = await asyncio.to_thread(system.search, system.owner, query, limit)
        return [asdict(hit) for hit in hits]

    async def history(path: str) -> list[dict[str, Any]]:
        changes = await asyncio.to_thread(disk().history, path)
        return [asdict(change) for change in changes]

    async def undo(change: int) -> dict[str, Any]:
        return asdict(await asyncio.to_thread(disk().undo, change))

    async def undo_last(pid: int) -> list[dict[str, Any]]:
        """Undo what a process's last call that changed files did."""
        state = system.kernel.state(pid)
        calls = [
            page.call_id
            for page in sorted((*state.pages, *state.evicted), key=lambda page: -page.id)
            if page.call_id is not None and page.kind in (PageKind.TOOL, PageKind.VALUE)
        ]
        changes = await asyncio.to_thread(_undo_last, disk(), calls, pid)
        return [asdict(change) for change in changes]

    return {
        "fs.list": list_files,
        "fs.read": read,
        "fs.search": search,
        "fs.history": history,
        "fs.undo": undo,
        "fs.undo_last": undo_last,
    }


def system_methods(system: System) -> dict[str, Method]:
    """What is done with the kernel itself."""

    async def info() -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "version": __version__,
            "owner": system.owner,
            "model": system.model,
            "context": system.context,
            "folder": str(system.folder),
            "files": str(system.files),
            "address": system.address,
        }

    async def tools() -> list[dict[str, Any]]:
        return [tool_view(tool) for tool in system.tools()]

    async def backup(path: str) -> None:
        target = Path(path)
        if not target.is_absolute():
            raise ControlError(f"{path}: the path of a backup is absolute.")
        async with system.copying:
            await asyncio.to_thread(system.kernel.backup, target)

    async def shutdown() -> None:
        system.shutdown()

    return {"info": info, "tools": tools, "backup": backup, "shutdown": shutdown}


async def _with_silences(
    events: AsyncGenerator[Recorded, None], seconds: float | None
) -> AsyncGenerator[Recorded | None, None]:
    """The events, and None each time that none came for so long."""
    async with aclosing(events):
        pending: asyncio.Future[Recorded] | None = None
        try:
            while True:
                pending = pending or asyncio.ensure_future(anext(events))
                done, _ = await asyncio.wait({pending}, timeout=seconds)
                if not done:
                    yield None
                    continue
                recorded, pending = pending.result(), None
                yield recorded
        except StopAsyncIteration:
            return
        finally:
            if pending is not None:
                pending.cancel()
                await asyncio.wait({pending})


def _undo_last(disk: Disk, calls: Sequence[str], pid: int) -> list[Change]:
    """Undo the first of these calls that changed something, and was not undone yet."""
    undone = (disk.undo_call(call, pid=pid) for call in calls)
    return next((changes for changes in undone if changes), [])


def _sampling(fields: Mapping[str, Any]) -> SamplingOptions:
    unknown = fields.keys() - SamplingOptions.__dataclass_fields__.keys()
    if unknown:
        raise InvalidSamplingError(f"There is no sampling option {sorted(unknown)[0]!r}.")
    lists = {"stop": tuple(fields["stop"])} if "stop" in fields else {}
    return SamplingOptions(**(dict(fields) | lists))
