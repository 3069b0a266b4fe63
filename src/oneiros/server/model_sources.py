"""Where the models of a server come from, and what they take when they are loaded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from oneiros.engine.embedding import Embedder, load_embedder
from oneiros.engine.local_model import LocalModel, start_local_model
from oneiros.engine.machine import usable_memory
from oneiros.engine.memory import memory_needed
from oneiros.engine.worker import EngineSettings
from oneiros.model.adapter import open_adapter
from oneiros.model.parameters import open_parameters
from oneiros.server.model_pool import ModelSource

_INTERPRETER = 150 << 20
"""Bytes that an engine's process takes besides the model: Python, NumPy, the tokenizer."""

_SHARE_OF_FREE = 4
_LARGEST_CACHE = 4 << 30


def language_source(name: str, settings: EngineSettings) -> ModelSource:
    """A language model, served by a process of its own.

    Raises:
        ModelFileError: the file is no model that runs here.
    """
    parameters = open_parameters(Path(settings.path))
    added = None if settings.adapter is None else open_adapter(Path(settings.adapter), parameters)
    needed = memory_needed(parameters, settings.context, added)
    if settings.kv_memory is None:
        # Said here rather than left to the process, so that it is the number that is counted.
        free = usable_memory() or _LARGEST_CACHE
        cache = max(2 * needed.kv_cache, min(free // _SHARE_OF_FREE, _LARGEST_CACHE))
        settings = replace(settings, kv_memory=cache)
    size = needed.weights + needed.workspace + (settings.kv_memory or 0) + _INTERPRETER

    async def load() -> LocalModel:
        return await start_local_model(settings, name)

    return ModelSource(name, "language", load, size)


def embedding_source(name: str, path: Path) -> ModelSource:
    """An embedding model, which runs in the server's process."""

    async def load() -> Embedder:
        # One thread: the language models need the cores.
        return await asyncio.to_thread(load_embedder, path, threads=1)

    size = 2 * sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return ModelSource(name, "embedding", load, size)
