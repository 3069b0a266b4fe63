"""Models by name: loaded when they are first asked for, unloaded when another needs the memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from oneiros.engine.embedding import Embedder
from oneiros.engine.local_model import LocalModel
from oneiros.errors import EngineFailedError, NotEnoughMemoryError
from oneiros.server.errors import ApiError

_RESTART_SECONDS = 5.0
"""In which an engine that is being restarted answers again; one that does not is given up."""

_RECHECK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that can be served."""

    name: str
    kind: Literal["language", "embedding"]
    load: Callable[[], Awaitable[LocalModel | Embedder]]
    size: int = 0  # bytes of memory that it takes when loaded, caches included


@dataclass(slots=True)
class _Place:
    source: ModelSource
    loaded: LocalModel | Embedder | None = None
    counted: bool = False  # its size is taken from the budget: it is loaded, or about to be
    users: int = 0
    used_at: float = 0.0
    suspect: bool = False  # its engine failed: it is asked whether it lives before it is used
    loading: asyncio.Task[None] | None = None


class Lease:
    """The right to use a loaded model until `release`, which may be called again."""

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._held = True
        place.users += 1

    @property
    def language_model(self) -> LocalModel:
        assert isinstance(self._place.loaded, LocalModel)
        return self._place.loaded

    @property
    def embedder(self) -> Embedder:
        assert isinstance(self._place.loaded, Embedder)
        return self._place.loaded

    def release(self) -> None:
        if self._held:
            self._held = False
            self._place.users -= 1
            self._place.used_at = time.monotonic()


class ModelPool:
    """The models of a server, of which some are loaded."""

    def __init__(self, sources: Sequence[ModelSource], budget: int | None = None) -> None:
        """`budget`: bytes that the loaded models may take together; None: any number."""
        self.created = int(time.time())
        self._places = {source.name: _Place(source) for source in sources}
        self._budget = budget
        self._making_room = asyncio.Lock()

    @property
    def sources(self) -> list[ModelSource]:
        return [place.source for place in self._places.values()]

    @property
    def language_models(self) -> list[LocalModel]:
        """Those that are loaded now."""
        loaded = [place.loaded for place in self._places.values()]
        return [model for model in loaded if isinstance(model, LocalModel)]

    def find(self, name: str, kind: Literal["language", "embedding"] | None = None) -> ModelSource:
        """The source of that name.

        Raises:
            ApiError: 404, there is none; 400, it is of another kind.
        """
        place = self._places.get(name)
        if place is None:
            known = ", ".join(self._places)
            raise ApiError(
                404,
                f"The model {name[:100]!r} is not served here; these are: {known}.",
                param="model",
                code="model_not_found",
            )
        if kind is not None and place.source.kind != kind:
            message = f"{name} is a model for {_PURPOSES[place.source.kind]}."
            raise ApiError(400, message, param="model", code="wrong_kind_of_model")
        return place.source

    async def lease(self, name: str, kind: Literal["language", "embedding"]) -> Lease:
        """A loaded model, loading it first where it is not; it stays until it is released.

        Raises:
            ApiError: as `find`, or 503, the memory is taken by models in use.
            OneirosError: it cannot be loaded.
        """
        place = self._places[self.find(name, kind).name]
        while place.loaded is None or place.suspect:
            if place.loading is None:
                prepare = self._load if place.loaded is None else self._check
                place.loading = asyncio.create_task(prepare(place))
            # It goes on where whoever asked first goes away: others may wait for it too.
            await asyncio.shield(place.loading)
        return Lease(place)

    def suspect(self, model: LocalModel) -> None:
        """Note that an engine failed: if it does not recover, it is loaded anew when asked for."""
        for place in self._places.values():
            if place.loaded is model:
                place.suspect = True

    async def close(self) -> None:
        """Unload all."""
        for place in self._places.values():
            if place.loading is not None:
                place.loading.cancel()
                await asyncio.wait([place.loading])
            await _unload(place)

    async def _load(self, place: _Place) -> None:
        try:
            async with self._making_room:
                await self._make_room(place)
                place.counted = True
            place.loaded = await place.source.load()
        finally:
            place.counted = place.loaded is not None
            place.loading = None

    async def _check(self, place: _Place) -> None:
        """Find out whether an engine that failed answers again, and unload it if not."""
        try:
            patience = time.monotonic() + _RESTART_SECONDS
            while isinstance(model := place.loaded, LocalModel):
                try:
                    await model.service.statistics()
                except EngineFailedError:
                    # Whoever uses it still may yet get an answer, or an error of its own.
                    if time.monotonic() > patience and not place.users:
                        await _unload(place)
                    else:
                        await asyncio.sleep(_RECHECK_SECONDS)
                else:
                    place.suspect = False
                    return
        finally:
            place.loading = None

    async def _make_room(self, wanted: _Place) -> None:
        if self._budget is None:
            return
        if wanted.source.size > self._budget:
            raise NotEnoughMemoryError(
                f"{wanted.source.name} takes {wanted.source.size / 2**30:.1f} GiB, and all models "
                f"together may take {self._budget / 2**30:.1f}: start the server with more "
                "--memory or a smaller --context."
            )
        while self._taken() + wanted.source.size > self._budget:
            idle = [p for p in self._places.values() if p.loaded is not None and not p.users]
            if not idle:
                raise ApiError(
                    503,
                    f"{wanted.source.name} does not fit beside the models that are busy now.",
                    code="models_busy",
                    headers={"Retry-After": "5"},
                )
            await _unload(min(idle, key=lambda p: p.used_at))

    def _taken(self) -> int:
        return sum(place.source.size for place in self._places.values() if place.counted)


_PURPOSES = {"language": "chats and completions", "embedding": "embeddings"}


async def _unload(place: _Place) -> None:
    model, place.loaded, place.suspect = place.loaded, None, False
    if isinstance(model, LocalModel):
        await model.service.close()
    place.counted = False
