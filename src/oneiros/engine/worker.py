"""The engine's process: `python -m oneiros.engine.worker FD`, started by `EngineProcess`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from oneiros.engine.constraint import ConstraintCompiler
from oneiros.engine.engine import Engine
from oneiros.engine.library import PAGE_TOKENS
from oneiros.engine.machine import usable_memory
from oneiros.engine.page_store import PageStore
from oneiros.engine.prefix_cache import page_folder
from oneiros.engine.protocol import answers_to_json, line, request_from_json
from oneiros.engine.scheduler import Answers, Scheduler, SchedulerSettings
from oneiros.errors import OneirosError
from oneiros.model.adapter import open_adapter
from oneiros.model.chat_format import load_chat_format
from oneiros.model.folders import cache_folder
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import load_tokenizer

_LONGEST_END = 15.0  # seconds
_UNUSED_DAYS = 14
_LARGEST_DEFAULT_KV = 4 << 30
_LARGEST_DEFAULT_STORE = 4 << 30


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What to serve, and with how much of the machine."""

    path: str  # the model's file or folder
    threads: int | None = None  # default: the cores that the process may use
    context: int | None = None  # tokens; default: the model's own
    kv_memory: int | None = None  # bytes; default: a quarter of what is free, 4 GiB at most
    kv_disk: int | None = None  # bytes; default: a tenth of what is free, 4 GiB at most; 0: none
    max_batch: int = 32
    max_waiting: int = 512
    adapter: str | None = None  # the folder of one that is added to the model


def open_engine(settings: EngineSettings) -> tuple[Engine, ConstraintCompiler]:
    """Load the model of some settings; raises as `Engine`."""
    parameters = open_parameters(Path(settings.path))
    tokenizer = load_tokenizer(parameters)
    chat_format = load_chat_format(parameters, tokenizer)
    engine = Engine(
        parameters,
        adapter=None
        if settings.adapter is None
        else open_adapter(Path(settings.adapter), parameters),
        threads=settings.threads,
        context=settings.context,
        cache=cache_folder() / "packed",
    )
    end_ids = tokenizer.end_ids | (chat_format.stop_ids if chat_format else frozenset())
    return engine, ConstraintCompiler(tokenizer, engine.vocabulary, end_ids)


def open_store(engine: Engine, settings: EngineSettings) -> PageStore | None:
    """The pages on disk that an engine may use; raises OSError."""
    limit = settings.kv_disk
    if limit == 0:
        return None
    folder = page_folder(cache_folder() / "kv", engine)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for other in folder.parent.iterdir():  # of models and kernels that are not used any more
        if other != folder and time.time() - other.stat().st_mtime > _UNUSED_DAYS * 86400:
            shutil.rmtree(other, ignore_errors=True)
    if limit is None:
        limit = min(_LARGEST_DEFAULT_STORE, shutil.disk_usage(folder).free // 10)
    return PageStore(folder, engine.pool.page_bytes, limit)


def scheduler_settings(engine: Engine, settings: EngineSettings, spool: Path) -> SchedulerSettings:
    """How much one engine serves at once."""
    one_context = (-(-engine.context // PAGE_TOKENS) + 1) * engine.pool.page_bytes
    free = usable_memory() or _LARGEST_DEFAULT_KV
    default = max(one_context, min(free // 4, _LARGEST_DEFAULT_KV))
    return SchedulerSettings(
        kv_memory=default if settings.kv_memory is None else settings.kv_memory,
        spool=spool,
        max_batch=settings.max_batch,
        max_waiting=settings.max_waiting,
    )


def serve(connection: socket.socket) -> None:
    """Serve the process at the other end, until it says so or is gone."""
    lock = threading.Lock()  # of the scheduler's thread and the one that reads

    def send(message: object) -> None:
        with lock:
            connection.sendall(line(message))

    def emit(answers: Answers) -> None:
        send(answers_to_json(answers))

    commands = connection.makefile("rb")
    first = json.loads(commands.readline())
    settings = EngineSettings(**first["settings"])
    try:
        engine, compiler = open_engine(settings)
        store = open_store(engine, settings)
        serving = scheduler_settings(engine, settings, Path(first["spool"]))
        scheduler = Scheduler(engine, compiler, store, serving, emit)
    except (OneirosError, OSError) as error:
        send({"failed": str(error)})
        return
    try:
        send({"ready": {"context": engine.context, "model_sha256": engine.model_sha256}})
    except BrokenPipeError:  # who wanted the model is gone
        return
    reader = threading.Thread(
        target=_obey, args=(commands, scheduler, send), name="oneiros-commands", daemon=True
    )
    reader.start()
    with suppress(BrokenPipeError):  # nobody is left to answer
        scheduler.run()


def _obey(commands: IO[bytes], scheduler: Scheduler, send: Callable[[object], None]) -> None:
    """Pass on what the other process asks for; its end is the end of this one."""
    for text in commands:
        command = json.loads(text)
        match command["op"]:
            case "generate":
                request = request_from_json(command["request"])
                scheduler.submit(command["number"], request, command["resumed"])
            case "cancel":
                scheduler.cancel(command["number"])
            case "statistics":
                send({"statistics": asdict(scheduler.statistics())})
            case "close":
                break
    # Even where a thread hangs in foreign code, the engine does not outlive its server.
    patience = threading.Timer(_LONGEST_END, os._exit, (1,))
    patience.daemon = True
    patience.start()
    scheduler.close()


def main() -> None:
    """Serve on the socket whose number is the only argument."""
    # Ctrl-C in a terminal reaches every process of it; the server decides when the engine ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 1
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
        status = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        # Not by an ordinary exit, which would wait for threads: the one that reads never ends, and
        # a failed engine must not linger.
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
