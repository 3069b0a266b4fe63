"""`oneiros serve`: the OpenAI-compatible server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import inputs, options, output
from oneiros.errors import OneirosError

if TYPE_CHECKING:
    import socket

    from oneiros.server.model_pool import ModelPool, ModelSource
    from oneiros.server.settings import Settings

EXAMPLE = "oneiros serve --model smollm2-135m --port 8000"

EMBEDDING_MODEL = "all-minilm-l6-v2"
ENDED_AT_ONCE = 130

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(k|M|G|Ki|Mi|Gi|)B?")
_ACCESS = "Access"
_MEMORY = "Memory"
_SHARE_FOR_MODELS = 0.8


def size_in_bytes(text: str) -> int:
    """Bytes of a size such as "500M", "2G" or "1.5GiB"."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size: write 500M, 2G or 1.5GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def command(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            show_default=options.DEFAULT_MODEL,
            help="A name that `oneiros models` lists, or a path; may be given several times. "
            "The first is loaded at once, others when they are asked for.",
        ),
    ] = None,
    adapter: options.Adapter = None,
    embedding_model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default=f"{EMBEDDING_MODEL}, if it is here",
            help="What /v1/embeddings uses.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    json: Annotated[bool, typer.Option("--json", help="Log lines as JSON.")] = False,
    threads: options.Threads = None,
    context: options.Context = None,
    max_batch: Annotated[
        int,
        typer.Option(min=1, help="Replies that are computed together.", rich_help_panel=_MEMORY),
    ] = 32,
    max_waiting: Annotated[
        int,
        typer.Option(
            min=1,
            help="Requests that may wait; more are refused with a 429.",
            rich_help_panel=_MEMORY,
        ),
    ] = 512,
    kv_memory: Annotated[
        int | None,
        typer.Option(
            metavar="SIZE",
            parser=size_in_bytes,
            show_default="a quarter of what is free",
            help="Memory for the keys and values of one model.",
            rich_help_panel=_MEMORY,
        ),
    ] = None,
    kv_disk: Annotated[
        int | None,
        typer.Option(
            metavar="SIZE",
            parser=size_in_bytes,
            show_default="a tenth of what is free",
            help="The same on disk, where they outlive a restart; 0: none.",
            rich_help_panel=_MEMORY,
        ),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            metavar="SIZE",
            parser=size_in_bytes,
            show_default="80 % of what is free",
            help="What all loaded models may take; idle ones are unloaded for others.",
            rich_help_panel=_MEMORY,
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A further name that clients use for this machine; may be given several times.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="A web page's origin (https://example.org) that may use this server; may be "
            "given several times.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    public_system_prompt: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A system prompt that is no secret: once read, it is read for all keys. May be "
            "given several times.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
) -> None:
    """Serve models through OpenAI's API.

    On this machine nobody needs a key until the first one is made (`oneiros keys create`). Other
    machines always need one. Ctrl-C lets running replies finish, for a minute at most; a second
    one ends at once."""
    from oneiros.engine.worker import EngineSettings
    from oneiros.server.keys import KeyRing, key_file
    from oneiros.server.lifecycle import bind
    from oneiros.server.logs import set_up_logs
    from oneiros.server.model_sources import language_source
    from oneiros.server.settings import Settings

    names = model or [options.DEFAULT_MODEL]
    if adapter is not None and len(names) > 1:
        raise OneirosError("--adapter belongs to one model, and several are served: name one.")
    keys = KeyRing(key_file())
    settings = Settings(
        host=host,
        allowed_hosts=frozenset(name.lower() for name in allowed_host or ()),
        allowed_origins=frozenset(map(_origin, allowed_origin or ())),
        keys=keys,
        public_prompts=tuple(map(inputs.read_text, public_system_prompt or ())),
    )
    if not settings.on_loopback and keys.empty:
        raise OneirosError(
            f"Other machines can reach {host}, and there are no API keys: make one with "
            "`oneiros keys create NAME`, or leave --host out."
        )
    with bind(host, port) as listener:
        sources: list[ModelSource] = []
        for name in names:
            path = inputs.model_path(name)
            engine = EngineSettings(
                path=str(path),
                threads=threads,
                context=context,
                kv_memory=kv_memory,
                kv_disk=kv_disk,
                max_batch=max_batch,
                max_waiting=max_waiting,
                adapter=None if adapter is None else str(adapter.expanduser().absolute()),
            )
            served_name = path.stem if Path(name).exists() else name
            if any(source.name == served_name for source in sources):
                raise OneirosError(f"Two models are called {served_name}: name each once.")
            sources.append(language_source(served_name, engine))
        sources += _embedding_sources(embedding_model)
        set_up_logs(json)
        finished = _serve(sources, memory, settings, listener, json)
    if not finished:
        raise typer.Exit(ENDED_AT_ONCE)


def _origin(text: str) -> str:
    """An origin as browsers send it."""
    match = re.fullmatch(r"(https?://[^/\s]+)/?", text.lower())
    if match is None:
        raise OneirosError(f"--allowed-origin {text}: write it as https://example.org")
    return match[1]


def _embedding_sources(name: str | None) -> list[ModelSource]:
    """The embedding model that was asked for, or the known one if it is on this machine."""
    from oneiros.model import catalog
    from oneiros.server.model_sources import embedding_source

    if name is None:
        known = {model.name: model.installed_path for model in catalog.known_models()}
        path = known[EMBEDDING_MODEL]
        return [] if path is None else [embedding_source(EMBEDDING_MODEL, path)]
    path = catalog.resolve(name)
    if not path.is_dir():
        raise OneirosError(f"{name} is no embedding model: {EMBEDDING_MODEL} is one.")
    return [embedding_source(path.name if Path(name).exists() else name, path)]


def _serve(
    sources: list[ModelSource],
    memory: int | None,
    settings: Settings,
    listener: socket.socket,
    as_json: bool,
) -> bool:
    """Whether all running replies were finished when the end came."""
    import asyncio

    import uvloop

    from oneiros.engine.machine import usable_memory
    from oneiros.server.app import create_app
    from oneiros.server.lifecycle import address_of, serve
    from oneiros.server.model_pool import ModelPool

    if memory is None and (free := usable_memory()) is not None:
        memory = int(free * _SHARE_FOR_MODELS)
    # One model is no choice: it is loaded if it can be, and says what it lacks if not.
    pool = ModelPool(sources, memory if len(sources) > 1 else None)
    app = create_app(pool, settings)

    async def run() -> bool:
        with output.stderr().status(f"Loading {output.one_line(sources[0].name)}"):
            (await pool.lease(sources[0].name, "language")).release()
        return await serve(app, listener, lambda: _announce(pool, address_of(listener), as_json))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def _announce(pool: ModelPool, address: str, as_json: bool) -> None:
    import json
    import shlex

    names = [source.name for source in pool.sources]
    if as_json:
        output.write_json_line({"address": address, "models": names})
        return
    question = {"model": names[0], "messages": [{"role": "user", "content": "Hello!"}]}
    output.say(f"{', '.join(map(output.one_line, names))} at {address}/v1   (Ctrl-C ends)\n")
    output.say(
        f"curl {address}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(question))}\n"
    )
