"""A server in this process, with an engine that says what a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from oneiros.engine.local_model import LocalModel
from oneiros.model.chat_format import load_chat_format
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import Tokenizer, load_tokenizer
from oneiros.server.app import create_app
from oneiros.server.model_pool import ModelPool, ModelSource
from oneiros.server.settings import Settings
from tests.server.fakes import FakeService

NAME = "fake"


@dataclass(frozen=True, slots=True)
class FakeServer:
    """The app, its engine, and a client."""

    app: FastAPI
    service: FakeService
    tokenizer: Tokenizer

    def says(self, text: str) -> None:
        self.service.ids = self.tokenizer.encode_parts([text], opens=False)

    def client(self, **options: object) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost", **options)


@pytest.fixture(scope="session")
def model_parts(default_model_path: Path) -> LocalModel:
    """The default model's tokenizer and chat format, without its engine."""
    parameters = open_parameters(default_model_path)
    tokenizer = load_tokenizer(parameters)
    chat_format = load_chat_format(parameters, tokenizer)
    return LocalModel(
        NAME, tokenizer, chat_format, tokenizer.end_ids, 2048, FakeService(), "0" * 64
    )


def fake_server(parts: LocalModel, settings: Settings | None = None) -> FakeServer:
    service = FakeService()
    model = LocalModel(
        NAME,
        parts.tokenizer,
        parts.chat_format,
        parts.end_ids,
        parts.context,
        service,
        parts.sha256,
    )

    async def load() -> LocalModel:
        return model

    pool = ModelPool([ModelSource(NAME, "language", load)])
    server = FakeServer(create_app(pool, settings or Settings()), service, parts.tokenizer)
    server.says("Hello there, friend.")
    return server


@pytest.fixture
def server(model_parts: LocalModel) -> Iterator[FakeServer]:
    yield fake_server(model_parts)


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
