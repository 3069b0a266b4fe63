"""A model served on this machine: its engine, and what is needed to talk to it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from oneiros.engine.process import EngineProcess
from oneiros.engine.service import EngineService, ThreadedEngine
from oneiros.engine.spool import new_spool
from oneiros.engine.worker import (
    EngineSettings,
    open_engine,
    open_store,
    scheduler_settings,
)
from oneiros.model.chat_format import ChatFormat, load_chat_format
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that answers, and the formats that it speaks."""

    name: str
    tokenizer: Tokenizer
    chat_format: ChatFormat | None  # None: a base model
    end_ids: frozenset[int]  # tokens that end a reply
    context: int  # tokens that prompt and reply may take together
    service: EngineService
    sha256: str  # of the model's files


async def start_local_model(
    settings: EngineSettings, name: str | None = None, *, child: bool = True
) -> LocalModel:
    """Load a model and serve it.

    Args:
        settings: the model's path and its share of the machine.
        name: what it is called; default: its file's name.
        child: whether the engine gets a process of its own, as in a server, or a thread of this
            one.

    Raises:
        OneirosError: the model cannot be loaded; see `Engine` and `EngineProcess.start`.
        OSError: the folder for keys and values cannot be made.
    """
    path = Path(settings.path)
    parameters = await asyncio.to_thread(open_parameters, path)
    tokenizer = await asyncio.to_thread(load_tokenizer, parameters)
    chat_format = load_chat_format(parameters, tokenizer)
    service: EngineService
    if child:
        service = process = await EngineProcess.start(settings)
        context, sha256 = process.context, process.model_sha256
    else:
        service, context, sha256 = await asyncio.to_thread(_threaded, settings)
    return LocalModel(
        name=name or path.stem,
        tokenizer=tokenizer,
        chat_format=chat_format,
        end_ids=tokenizer.end_ids | (chat_format.stop_ids if chat_format else frozenset()),
        context=context,
        service=service,
        sha256=sha256,
    )


def _threaded(settings: EngineSettings) -> tuple[ThreadedEngine, int, str]:
    engine, compiler = open_engine(settings)
    store = open_store(engine, settings)
    serving = scheduler_settings(engine, settings, new_spool())
    service = ThreadedEngine(engine, compiler, store, serving)
    return service, engine.context, engine.model_sha256
