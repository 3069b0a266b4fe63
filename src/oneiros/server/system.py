"""A running system on one data folder: journal, disk, index, tools, kernel, control socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from oneiros.apps import one_call
from oneiros.apps.agent import Agent
from oneiros.apps.inspection import Inspection
from oneiros.apps.prompts import HANDLES, SYSTEM
from oneiros.devices.calculator import calculator
from oneiros.devices.chromium import Chromium, interactive_browser
from oneiros.devices.clock import Timer, Timers, clock
from oneiros.devices.egress import SYSTEM_FILE, Egress, SiteList
from oneiros.devices.files import files as file_tools
from oneiros.devices.find import find
from oneiros.devices.human import human
from oneiros.devices.mcp_client import McpServers
from oneiros.devices.memory import memory
from oneiros.devices.models import OtherModel, models
from oneiros.devices.processes import processes
from oneiros.devices.python import python
from oneiros.devices.quarantine import quarantine
from oneiros.devices.sandbox.workspaces import Workspaces
from oneiros.devices.search import FetchedPages, SearchProvider, SearXNG
from oneiros.devices.search import search as search_web
from oneiros.devices.terminal import terminal
from oneiros.devices.web import Browser, web
from oneiros.engine.embedding import Embedder
from oneiros.engine.local_model import LocalModel
from oneiros.engine.remote_model import RemoteModel
from oneiros.errors import ContextLengthError, OneirosError, ProcessError
from oneiros.kernel.control import ControlServer
from oneiros.kernel.control_methods import System, control_methods
from oneiros.kernel.generating import room
from oneiros.kernel.journal import Journal
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.models import OpenModels
from oneiros.kernel.program import Program
from oneiros.kernel.quarantine import PROGRAM as INSPECTION
from oneiros.kernel.spec import AppRules
from oneiros.kernel.state import ProcessState
from oneiros.kernel.tools import Tool
from oneiros.memory.disk import Disk
from oneiros.memory.index import Hit, Index
from oneiros.memory.indexing import sync_before_search, sync_disk
from oneiros.memory.recall import ContextMemory
from oneiros.server.scanning import ScanCounts, scanning
from oneiros.server.tool_calls import KernelCalls, call_methods

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)
OWNER = "local"  # the principal of whoever may open the control socket
ASSISTANT = "assistant"  # the app of processes that ask for none
_INDEX_EVERY = 30.0  # seconds between looks at what changed in the files
_LEAST_ROOM = 64  # tokens beside the system prompt, for a short message


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemSettings:
    """Where a system lives, and what it may use."""

    folder: Path  # of its data
    files: Path | None = None  # the user's files; None: a folder in the data folder
    address: str | None = None  # of the model API, where there is one
    others: tuple[OtherModel, ...] = ()  # models at endpoints
    programs: Mapping[str, Program] = field(default_factory=dict)  # beside the assistant's
    prompts: Mapping[str, str] = field(default_factory=dict)  # system prompts by app
    apps: Mapping[str, AppRules] = field(default_factory=dict)
    mcp: bool = True  # whether the servers of mcp.json are used
    searxng: str | None = None  # address of a SearXNG that searches the web


@asynccontextmanager
async def boot(
    settings: SystemSettings,
    model: LocalModel | RemoteModel,
    embedder: Callable[[], Embedder] | None,
    shutdown: Callable[[], None] = lambda: None,
    scans: ScanCounts | None = None,
) -> AsyncGenerator[System, None]:
    """Start a system; its processes go on where they were. It ends with the `async with`.

    Args:
        settings: where it lives.
        model: what processes think with that name no other one.
        embedder: loads what search by meaning needs; None: search by words only.
        shutdown: called when a client of the control socket asks for the end.
        scans: counts what detectors see in what calls bring; None: it is only logged.

    Raises:
        JournalError: another system runs on the folder, or its journal cannot be read.
        ContextLengthError: the model's context is too small for an assistant.
        OneirosError: something else in the folder is damaged.
    """
    folder = settings.folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = settings.files or folder / "files"
    async with AsyncExitStack() as stack:
        journal = Journal.open(folder / "journal")
        stack.callback(journal.close)
        if journal.recovered:
            _log.warning("%s", journal.recovered)
        index = Index(folder / "index", embedder)
        stack.callback(index.close)
        disks = Disks(files, folder / "disk")
        stack.callback(disks.close)

        def lookup(pid: int) -> ProcessState | None:
            try:
                return kernel.state(pid)
            except ProcessError:
                return None

        remembered = ContextMemory(disks.of, index, lookup)
        stack.callback(remembered.close)
        own: dict[str, Tool] = {}
        servers = McpServers(folder, files=disks.of, reserved=own) if settings.mcp else None
        if servers is not None:
            stack.push_async_callback(servers.close)
        sites = folder / SYSTEM_FILE
        egress = Egress(SiteList(sites), where=str(sites))
        chromium = Chromium(egress, disks.of) if interactive_browser() else None
        if chromium is not None:
            stack.push_async_callback(chromium.close)
        workspaces = Workspaces(disks.of)
        stack.push_async_callback(workspaces.close)

        def tools() -> Mapping[str, Tool]:
            return own if servers is None else {**servers.tools(), **own}

        name = model.name
        others = settings.others
        for other in others:
            stack.push_async_callback(other.model.close)
        open_models = OpenModels(
            {name: model} | {other.name: other.model for other in others},
            name,
            {one.name: (one.price.prompt, one.price.reply) for one in others if one.price},
        )
        closing: set[asyncio.Task[None]] = set()

        def ended(pid: int) -> None:
            """What the sandbox and the browser have of a process goes with it."""
            task = asyncio.create_task(_forget(pid, workspaces, chromium))
            closing.add(task)
            task.add_done_callback(closing.discard)

        _check_room(open_models)
        kernel = Kernel(
            journal,
            open_models,
            tools,
            {
                "agent": Agent(),
                one_call.NAME: one_call.OneCall(),
                INSPECTION: Inspection(),
                **settings.programs,
            },
            remembered,
            {ASSISTANT: SYSTEM, **settings.prompts},
            ended=ended,
            apps=settings.apps,
            about_handles=HANDLES,
        )
        stack.push_async_callback(kernel.close)

        async def deliver(timer: Timer) -> None:
            once = f"timer {timer.call_id}"
            await kernel.send(timer.pid, timer.text, sender="timer", label=timer.label, once=once)

        timers = Timers(folder / "timers.json", deliver)
        for tool in [
            calculator(),
            *clock(timers),
            human(),
            *processes(kernel),
            *quarantine(kernel),
            *models(others),
            *memory(disks.of, remembered),
            *file_tools(disks.of),
            find(disks.of, index),
            python(workspaces),
            terminal(workspaces),
            *_search(index, egress, settings.searxng),
            *(chromium.tools() if chromium else ()),
        ]:
            own[tool.name] = tool

        def search(owner: str, query: str, limit: int) -> Sequence[Hit]:
            sync_before_search(index, disks.of(owner))
            return index.search(query, owner, limit=limit)

        system = System(
            kernel=kernel,
            owner=OWNER,
            model=name,
            context=open_models.context(name),
            folder=folder,
            files=files,
            address=settings.address,
            tools=kernel.tools,
            disk=disks.of,
            search=search,
            shutdown=shutdown,
        )
        await stack.enter_async_context(scanning(kernel, scans or ScanCounts()))
        await kernel.resume()
        for work in (timers.run(), _keep_indexed(index, disks.of(OWNER))):
            task = asyncio.create_task(work)
            stack.push_async_callback(_ended, task)
        if servers is not None:
            task = asyncio.create_task(servers.discover())
            stack.push_async_callback(_ended, task)
        methods = {**control_methods(system), **call_methods(KernelCalls(kernel), OWNER)}
        control = await ControlServer.open(folder, methods)
        stack.push_async_callback(control.close)
        yield system


def _check_room(models: OpenModels) -> None:
    """Refuse a context in which no process could say anything."""
    name = models.default
    context, prompt = models.context(name), models.count(name, SYSTEM)
    limit = room(context).limit
    if limit < prompt + _LEAST_ROOM:
        raise ContextLengthError(
            f"A context of {context:,} tokens is too small for processes: {limit:,} of them are "
            f"for what they read, and the system prompt alone takes {prompt:,}. Choose a larger "
            "one (--context 1024, say), or a model that has one."
        )


def _search(index: Index, egress: Egress, searxng: str | None) -> list[Tool]:
    """Pages of the web as text, and the search for them."""
    fetched = FetchedPages(index)
    providers: list[SearchProvider] = [fetched]
    if searxng is not None:
        providers.append(SearXNG(searxng))
    return [web(Browser(egress, fetched.remember)), search_web(providers)]


class Disks:
    """The disks of principals, opened when they are first needed."""

    def __init__(self, files: Path, store: Path) -> None:
        """The local user's files are `files` itself; others have folders in `store`."""
        self._files = files
        self._store = store
        self._disks: dict[str, Disk] = {}

    def of(self, owner: str) -> Disk:
        """The disk of a principal."""
        if owner not in self._disks:
            root = self._files if owner == OWNER else self._store / "files" / owner
            self._disks[owner] = Disk(root, self._store / "versions" / owner, owner)
        return self._disks[owner]

    def close(self) -> None:
        """Close all."""
        for disk in self._disks.values():
            disk.close()


async def _forget(pid: int, workspaces: Workspaces, chromium: Chromium | None) -> None:
    await workspaces.forget(pid)
    if chromium is not None:
        await chromium.forget(pid)


async def _keep_indexed(index: Index, disk: Disk) -> None:
    """Index what changed among the files, from time to time; cancelled, it leaves the databases."""
    ending = threading.Event()
    while True:
        work = asyncio.ensure_future(
            asyncio.to_thread(sync_disk, index, disk, stopped=ending.is_set)
        )
        try:
            synced = await asyncio.shield(work)
        except asyncio.CancelledError:
            ending.set()
            await asyncio.wait({work})  # a thread goes on: the databases are closed next
            raise
        except OneirosError as error:
            _log.error("Files are not indexed, which is tried again: %s", error)
        else:
            for path, problem in synced.problems.items():
                _log.info("%s cannot be searched: %s", path, problem)
        await asyncio.sleep(_INDEX_EVERY)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, OneirosError):
        await task
