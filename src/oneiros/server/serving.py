"""What all endpoints share: the models, the settings, the metrics, and who is asking."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

from starlette.requests import Request

from oneiros.engine.local_model import LocalModel
from oneiros.server.generating import Caller
from oneiros.server.keys import LOCAL
from oneiros.server.metrics import Metrics
from oneiros.server.model_pool import ModelPool
from oneiros.server.public_prompts import PublicPrompts
from oneiros.server.settings import Settings


@dataclass(slots=True)
class Serving:
    """The state of one app."""

    models: ModelPool
    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    running: int = 0  # requests that are being answered
    draining: bool = False  # the server is about to end: no new requests
    embedding: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while texts are embedded
    embeddings_waiting: int = 0  # requests that wait for it
    _public: dict[str, PublicPrompts] = field(default_factory=dict)

    def public_prompts(self, model: LocalModel) -> PublicPrompts:
        """The public beginnings of this model's prompts; computed once."""
        if model.name not in self._public:
            self._public[model.name] = PublicPrompts(model, self.settings.public_prompts)
        return self._public[model.name]


def serving_of(request: Request) -> Serving:
    return cast(Serving, request.app.state.serving)


def caller_of(request: Request) -> Caller:
    principal = request.scope.get("state", {}).get("principal", LOCAL)
    serving = serving_of(request)
    return Caller(principal, serving.metrics, time.perf_counter(), serving.models.suspect)


def priority_of(caller: Caller, asked: int | None) -> int:
    """The priority of a request: at best that of the key's class."""
    return max(caller.principal.priority, asked or 0)
