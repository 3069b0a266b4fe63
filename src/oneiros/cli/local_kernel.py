"""A kernel in this process: for `oneiros`, and for a chat where none runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from oneiros.cli import inputs, output
from oneiros.errors import ControlError

if TYPE_CHECKING:
    from oneiros.engine.embedding import Embedder
    from oneiros.engine.worker import EngineSettings
    from oneiros.kernel.control_methods import System

EMBEDDING_MODEL = "all-minilm-l6-v2"


def engine_settings(
    model: str, threads: int | None, context: int | None, adapter: Path | None = None
) -> EngineSettings:
    """What loads a model by name or path; the default model is fetched."""
    from oneiros.engine.worker import EngineSettings

    return EngineSettings(
        path=str(inputs.model_path(model)),
        threads=threads,
        context=context,
        adapter=None if adapter is None else str(adapter.expanduser().absolute()),
    )


def model_name(model: str, settings: EngineSettings) -> str:
    """What a model is called that was given by name or path."""
    return Path(settings.path).stem if Path(model).exists() else model


def embedder() -> Callable[[], Embedder] | None:
    """Loads what search by meaning needs; None: it is not on this machine."""
    from oneiros.engine.embedding import load_embedder
    from oneiros.model import catalog

    known = {model.name: model.installed_path for model in catalog.known_models()}
    path = known[EMBEDDING_MODEL]
    # One thread: the language model needs the cores.
    return None if path is None else lambda: load_embedder(path, threads=1)


@asynccontextmanager
async def open_system(
    settings: EngineSettings,
    name: str,
    *,
    folder: Path,
    files: Path | None,
    shutdown: Callable[[], None],
    child: bool,
) -> AsyncGenerator[System, None]:
    """A system with one model and no server, until the block ends.

    Args:
        settings: load the model.
        name: what it is called.
        folder: of the data.
        files: the user's files; None: as `oneiros.toml` says.
        shutdown: called when a client asks for the end.
        child: whether the engine gets a process of its own.
    """
    from oneiros.engine.local_model import start_local_model
    from oneiros.server.system import boot
    from oneiros.server.system_file import read_system_file

    places = read_system_file(folder)
    places = replace(places, files=files or places.files)
    model = await start_local_model(settings, name, child=child)
    try:
        async with boot(places, model, embedder(), shutdown) as system:
            yield system
    finally:
        await model.service.close()


@contextmanager
def kernel_here(
    model: str,
    *,
    threads: int | None = None,
    context: int | None = None,
    adapter: Path | None = None,
) -> Iterator[None]:
    """A kernel on the data folder, in a thread of this process, until the block ends."""
    from oneiros.model.folders import data_folder

    settings = engine_settings(model, threads, context, adapter)
    started: Future[Callable[[], None]] = Future()

    async def run() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with open_system(
            settings,
            model_name(model, settings),
            folder=data_folder(),
            files=None,
            shutdown=_refuse,
            child=False,
        ):
            started.set_result(lambda: _set(loop, ended))
            await ended.wait()

    def thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    running = threading.Thread(target=thread, name="kernel")
    running.start()
    try:
        with output.stderr().status(f"Loading {output.one_line(model)}"):
            end = started.result()
    except BaseException:  # Ctrl-C too, while it loads
        started.add_done_callback(_end)
        running.join()
        raise
    try:
        yield
    finally:
        end()
        running.join()


def _end(started: Future[Callable[[], None]]) -> None:
    """End a kernel as soon as it has started; one that failed has ended."""
    if started.exception() is None:
        started.result()()


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)


def _refuse() -> None:
    raise ControlError("This kernel belongs to a chat, and ends with it: leave the chat.")
