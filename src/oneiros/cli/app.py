"""`oneiros`: the commands put together, and how errors end."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from traceback import format_exception
from types import TracebackType
from typing import Annotated, NoReturn, Protocol, TextIO

import typer

from oneiros import __version__
from oneiros.cli import (
    attach,
    chat,
    complete,
    convert,
    embed,
    eval,
    export,
    fs,
    inspect,
    keys,
    logs,
    mcp,
    models,
    next_tokens,
    options,
    output,
    ps,
    pull,
    questions,
    run,
    scan,
    score,
    serve,
    signals,
    start,
    strace,
    tokenize,
    tools,
    top,
    train,
    unzip,
    zip_file,
)
from oneiros.errors import OneirosError

FAILURE = 1
NO_MEMORY = "Not enough memory. Choose a smaller context (--context) or a smaller model."
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class Command(Protocol):
    """What every command module has."""

    EXAMPLE: str  # a command line, shown below its --help

    @property
    def command(self) -> Callable[..., None]: ...


app = typer.Typer(
    name="oneiros",
    epilog=f"Start with: oneiros chat    or    {start.EXAMPLE}",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Command] = {
    "chat": chat,
    "run": run,
    "complete": complete,
    "next": next_tokens,
    "models": models,
    "pull": pull,
    "serve": serve,
    "inspect": inspect,
    "tokenize": tokenize,
    "score": score,
    "scan": scan,
    "eval": eval,
    "embed": embed,
    "convert": convert,
    "export": export,
    "zip": zip_file,
    "unzip": unzip,
    "ps": ps,
    "top": top,
    "strace": strace,
    "logs": logs,
    "attach": attach,
    **signals.SIGNALS,
    **questions.QUESTIONS,
}
for _name, _module in COMMANDS.items():
    app.command(_name, epilog=f"Example: {_module.EXAMPLE}")(_module.command)
app.add_typer(fs.app, name="fs")
app.add_typer(keys.app, name="keys")
app.add_typer(mcp.app, name="mcp")
app.add_typer(tools.app, name="tools")
app.add_typer(train.app, name="train")


def show_version(wanted: bool) -> None:
    if wanted:
        output.say(f"oneiros {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def oneiros(
    invocation: typer.Context,
    model: start.Model = None,
    files: start.Files = None,
    port: start.Port = None,
    no_server: start.NoServer = False,
    threads: options.Threads = None,
    context: options.Context = None,
    version: Annotated[
        bool,
        typer.Option("--version", help="Say the version.", callback=show_version, is_eager=True),
    ] = False,
) -> None:
    """Run language models on this machine.

    Without a command: start the kernel, and the server of the model API, on the data folder."""
    given = [model, files, port, threads, context]
    if invocation.invoked_subcommand is None:
        start.start(
            model=model or options.DEFAULT_MODEL,
            files=files,
            port=start.PORT if port is None else port,
            no_server=no_server,
            threads=threads,
            context=context,
        )
    elif no_server or any(value is not None for value in given):
        raise typer.BadParameter(
            f"write options behind {invocation.invoked_subcommand}, not before"
        )


def main() -> None:
    """Run a command. Exit codes: 0 done, 1 an error (said in one paragraph on standard error),
    2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail_to_encode(stream)
    try:
        app()
    except OneirosError as error:
        _fail(str(error))
    except MemoryError:
        _fail(NO_MEMORY)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            _fail(NO_MEMORY)
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        sys.excepthook = _show_traceback  # of a programming mistake; Typer put its own there


def _never_fail_to_encode(stream: TextIO) -> None:
    """A terminal that cannot show a character gets a question mark, not a traceback."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def _show_traceback(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """What an exception says may be the words of others."""
    output.warn("".join(format_exception(kind, error, traceback)).rstrip("\n"))


def _fail(message: str) -> NoReturn:
    output.warn(f"oneiros: {message}")
    sys.exit(FAILURE)
