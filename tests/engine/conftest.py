"""The default model, and tiny models of every kind, opened once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import oneiros
from oneiros.engine.engine import Engine
from oneiros.engine.language_model import LanguageModel
from oneiros.model.architecture import Architecture
from oneiros.model.parameters import open_parameters
from oneiros.model.tensor_types import TensorType
from tests.model.builders import build_gguf

MakeEngine = Callable[..., Engine]


@pytest.fixture(scope="session")
def model() -> LanguageModel:
    """The default model."""
    return oneiros.load("smollm2-135m")


@pytest.fixture(scope="session")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> MakeEngine:
    """Opens a tiny random model: tiny_engine(architecture, type, threads=1)."""
    files: dict[tuple[Architecture, TensorType], Path] = {}

    def make(
        architecture: Architecture,
        tensor_type: TensorType,
        *,
        threads: int = 1,
        context: int | None = None,
    ) -> Engine:
        key = (architecture, tensor_type)
        if key not in files:
            path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
            no_tokens = {"tokenizer.ggml.tokens": None}  # the engine does not ask for them
            files[key] = build_gguf(path, architecture, tensor_type, metadata=no_tokens)
        return Engine(open_parameters(files[key]), threads=threads, context=context)

    return make
