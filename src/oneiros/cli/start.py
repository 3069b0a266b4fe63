"""`oneiros`: kernel and server on one data folder."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import options, output
from oneiros.errors import ControlError

if TYPE_CHECKING:
    import socket

    from oneiros.engine.worker import EngineSettings
    from oneiros.kernel.control_methods import System
    from oneiros.server.model_pool import ModelPool

EXAMPLE = "oneiros --model smollm2-135m --files ~/Documents/oneiros"
PORT = 8000

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        show_default=options.DEFAULT_MODEL,
        help="What processes think with: a name that `oneiros models` lists, or a path.",
    ),
]
Files = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        show_default="as oneiros.toml says, or files in the data folder",
        help="The files that processes work with.",
    ),
]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, show_default=str(PORT), help="Of the model API; 0: any free."),
]
NoServer = Annotated[bool, typer.Option("--no-server", help="No model API, only the kernel.")]


def start(
    *,
    model: str,
    files: Path | None,
    port: int,
    no_server: bool,
    threads: int | None,
    context: int | None,
) -> None:
    """Run until Ctrl-C, or until `oneiros shutdown`.

    Raises:
        ControlError: a kernel runs on the data folder already.
    """
    import asyncio

    from oneiros.cli import local_kernel
    from oneiros.kernel.control_client import kernel_pid
    from oneiros.model.folders import data_folder
    from oneiros.server.logs import set_up_logs

    folder = data_folder()
    if (first := kernel_pid(folder)) is not None:
        raise ControlError(
            f"A kernel runs on {folder} already (pid {first}): `oneiros chat` talks through it."
        )
    settings = local_kernel.engine_settings(model, threads, context)
    name = local_kernel.model_name(model, settings)
    set_up_logs(False)
    files = None if files is None else files.expanduser().absolute()
    if no_server:
        asyncio.run(_run_kernel(settings, name, folder, files))
        return
    from oneiros.server.lifecycle import bind

    with bind("127.0.0.1", port) as listener:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run_both(settings, name, folder, files, listener))


async def _run_kernel(
    settings: EngineSettings, name: str, folder: Path, files: Path | None
) -> None:
    import asyncio

    from oneiros.cli import local_kernel

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loading = output.stderr().status(f"Loading {output.one_line(name)}")
    loading.start()
    async with AsyncExitStack() as stack:
        stack.callback(loading.stop)
        system = await stack.enter_async_context(
            local_kernel.open_system(
                settings, name, folder=folder, files=files, shutdown=ended.set, child=True
            )
        )
        loading.stop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        _announce(system)
        await ended.wait()


async def _run_both(
    settings: EngineSettings,
    name: str,
    folder: Path,
    files: Path | None,
    listener: socket.socket,
) -> None:
    from oneiros.cli import local_kernel
    from oneiros.server.app import create_app
    from oneiros.server.keys import KeyRing, key_file
    from oneiros.server.lifecycle import address_of, serve
    from oneiros.server.mcp_endpoint import McpEndpoint
    from oneiros.server.scanning import ScanCounts
    from oneiros.server.settings import Settings
    from oneiros.server.system import boot
    from oneiros.server.system_file import read_system_file
    from oneiros.server.tool_calls import KernelCalls

    pool = _pool(name, settings)
    places = read_system_file(folder)
    address = f"{address_of(listener)}/v1"
    scans = ScanCounts()
    places = replace(places, files=files or places.files, address=address)
    async with AsyncExitStack() as stack:
        with output.stderr().status(f"Loading {output.one_line(name)}"):
            lease = await pool.lease(name, "language")
            stack.callback(lease.release)
            system = await stack.enter_async_context(
                boot(
                    places,
                    lease.language_model,
                    local_kernel.embedder(),
                    _end_this_process,
                    scans,
                )
            )
        tools = McpEndpoint(KernelCalls(system.kernel))
        stack.push_async_callback(tools.close)
        settings_of_app = Settings(host="127.0.0.1", keys=KeyRing(key_file()))
        app = create_app(pool, settings_of_app, tools, scans)
        await serve(app, listener, lambda: _announce(system), stack.aclose)


def _pool(name: str, settings: EngineSettings) -> ModelPool:
    from oneiros.cli import local_kernel
    from oneiros.model import catalog
    from oneiros.server.model_pool import ModelPool
    from oneiros.server.model_sources import embedding_source, language_source

    sources = [language_source(name, settings)]
    for known in catalog.known_models():
        if known.name == local_kernel.EMBEDDING_MODEL and known.installed_path is not None:
            sources.append(embedding_source(known.name, known.installed_path))
    return ModelPool(sources)


def _end_this_process() -> None:
    """What Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGTERM)


def _announce(system: System) -> None:
    live = len(system.kernel.processes())
    output.print_facts(
        {
            "model": f"{system.model} · {system.context:,} tokens of context",
            "data": str(system.folder),
            "files": str(system.files),
            "model API": system.address or "none",
            "processes": f"{live} go on" if live else "none yet",
        }
    )
    output.say("\nTalk with it: oneiros chat   (Ctrl-C ends)")
