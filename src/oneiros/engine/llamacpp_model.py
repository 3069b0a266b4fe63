"""Models that only llama.cpp runs: its server in this process, through the package `xllamacpp`."""

from __future__ import annotations

import importlib
import secrets
import tempfile
from pathlib import Path
from typing import Any

import httpx

from oneiros.engine.machine import usable_cores
from oneiros.engine.remote_model import RemoteModel, RetryPolicy
from oneiros.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError

_ADDRESS = "http://llama.cpp"  # a name only: requests go over a socket in the file system
_LONGEST_SILENCE = 3600.0  # seconds; nothing is sent while a prompt is read
_BATCH = 256  # tokens; a reply can only be ended between two batches of its prompt
_PROMPT_CACHE_MB = 1024  # llama.cpp would keep up to 8 GB of old prompts in memory


class LlamaCppModel(RemoteModel):
    """A GGUF file that llama.cpp runs, in this process.

    It is talked to over a Unix socket in a private folder, with a key that nobody else has; no
    port is opened. Closing a reply's iterator ends it at once, also while its prompt is read.

    Attributes:
        template: the model's chat template.
        context: tokens that a conversation may have.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        context: int | None = None,
        threads: int | None = None,
        parallel: int = 4,
    ) -> None:
        """Load a model, which blocks for as long as it takes.

        Args:
            path: a GGUF file; of a split one, its first part.
            name: what the model is called; default: the file's name.
            context: tokens that a conversation may have; default: the model's.
            threads: to compute with; default: the cores that this process may use.
            parallel: replies that are generated at once; others wait. They share the context's
                memory.

        Raises:
            UnsupportedModelError: the optional package is not installed.
            ModelNotFoundError: there is no such file.
            ModelFileError: llama.cpp cannot load it.
        """
        path = Path(path)
        library = _library(path)
        if not path.is_file():
            raise ModelNotFoundError(f"No such model file: {path}")
        # Only this user may enter the folder, and so reach the socket.
        self._folder = tempfile.TemporaryDirectory(prefix="oneiros-")
        socket, key = f"{self._folder.name}/llamacpp.sock", secrets.token_urlsafe(32)
        name = name or path.name
        threads = threads or usable_cores()
        try:
            self._server = library.Server(
                _parameters(library, path, name, socket, key, context or 0, threads, parallel)
            )
        except RuntimeError as error:
            self._folder.cleanup()
            raise ModelFileError(
                f"{path.name}: llama.cpp cannot load it ({error}) The file may be damaged, of a "
                "kind that this version does not know, or too large for the memory."
            ) from error
        super().__init__(
            f"{_ADDRESS}/v1",
            name,
            api_key=key,
            read_timeout=_LONGEST_SILENCE,
            retries=RetryPolicy(attempts=1),
            transport=httpx.AsyncHTTPTransport(uds=socket, limits=httpx.Limits()),
        )
        self.endpoint = f"llama.cpp ({name})"
        properties = _properties(socket, key)
        self.template = str(properties.get("chat_template", ""))
        self.context = int(properties["default_generation_settings"]["n_ctx"])

    async def close(self) -> None:
        """Free the model's memory. Replies that are being generated end with an error."""
        await super().close()
        self._server = None
        self._folder.cleanup()


def _library(path: Path) -> Any:
    """The package, which has no types."""
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise UnsupportedModelError(
            f"{path.name}: the optional llama.cpp engine is not installed: run "
            "`pip install 'oneiros[llamacpp]'`."
        ) from error


def _parameters(
    library: Any,
    path: Path,
    name: str,
    socket: str,
    key: str,
    context: int,
    threads: int,
    parallel: int,
) -> Any:
    parameters = library.CommonParams()
    parameters.model.path = str(path)
    parameters.model_alias = {name}
    parameters.hostnames = [socket]
    parameters.api_keys = [key]
    parameters.n_ctx = context
    parameters.n_parallel = parallel
    parameters.n_batch = parameters.n_ubatch = _BATCH
    parameters.kv_unified = True  # each reply may take all of the context that is free
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.cache_ram_mib = _PROMPT_CACHE_MB
    parameters.ui = False
    parameters.warmup = False
    parameters.verbosity = -1
    return parameters


def _properties(socket: str, key: str) -> Any:
    """What the server says of itself."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=socket)) as client:
        answer = client.get(f"{_ADDRESS}/props", headers={"Authorization": f"Bearer {key}"})
        return answer.raise_for_status().json()
