"""The dialogue of `oneiros chat` on a terminal: prompts, commands, replies, interruptions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from oneiros.cli import generating, output
from oneiros.errors import ContextLengthError, OneirosError

if TYPE_CHECKING:
    from oneiros.engine.language_model import Generation, LanguageModel
    from oneiros.engine.sampling import SamplingOptions

HELP = """\
/system TEXT   what the model is told about its job; starts the conversation afresh
/reset         forget the conversation, but not /system
/save FILE     write the conversation as JSON
/quit          leave (so does Ctrl-D)
Ctrl-C         stop a reply
A line that ends in \\ goes on in the next; a text between \"\"\" and \"\"\" has many lines."""

PROMPT = "> "
MORE = ". "
FENCE = '"""'

_COMMAND = re.compile(r"/[a-z]+( .*)?", re.DOTALL)
_HISTORY_LINES = 1000


class Conversation:
    def __init__(
        self, model: LanguageModel, options: SamplingOptions, system: str | None = None
    ) -> None:
        self._model = model
        self._options = options
        self._system = system
        self._chat = model.chat(system=system)
        self._console = output.stdout()

    def run(self) -> None:
        """Talk until the user leaves; Ctrl-C twice at the prompt raises KeyboardInterrupt."""
        self._remark(
            f"{self._model.name} · {self._model.context:,} tokens of context · "
            "/help shows the commands, Ctrl-D leaves"
        )
        with history(history_file()):
            interrupted = False
            while True:
                try:
                    message = read_message(input)
                except EOFError:
                    print()
                    return
                except KeyboardInterrupt:
                    print()
                    if interrupted:
                        raise
                    self._remark("Ctrl-C again or Ctrl-D leaves")
                    interrupted = True
                    continue
                interrupted = False
                if message.strip() == "/quit":
                    return
                self._take(message.strip("\n"))

    def _take(self, message: str) -> None:
        """Obey a command or answer a message; errors are said, and the conversation goes on."""
        try:
            if _COMMAND.fullmatch(message.strip()):
                self._obey(message.strip())
            elif message.strip():
                self._reply(message)
        except ContextLengthError as error:
            self._remark(f"{error} /reset starts afresh.", "red")
        except OneirosError as error:
            self._remark(str(error), "red")

    def _obey(self, line: str) -> None:
        command, _, argument = line.partition(" ")
        argument = argument.strip()
        if command == "/help":
            self._remark(HELP)
        elif command == "/reset":
            self._chat = self._model.chat(system=self._system)
            self._remark("The conversation is forgotten.")
        elif command == "/system" and argument:
            self._system = argument
            self._chat = self._model.chat(system=argument)
            self._remark("A new conversation with these instructions.")
        elif command == "/save" and argument:
            self._save(Path(argument).expanduser())
        elif command in ("/system", "/save"):
            self._remark(f"{command} needs something behind it: /help", "red")
        else:
            self._remark(f"There is no command {command}: /help lists them.", "red")

    def _reply(self, message: str) -> None:
        generation = self._chat.send(message, self._options)
        with generating.ctrl_c(generation.cancel):
            generating.show(generation)
        self._remark(generating.statistics_line(generation) + self._ending(generation) + "\n")

    def _ending(self, generation: Generation) -> str:
        """Why a reply ended, where it did not simply come to its end."""
        if generation.finish_reason == "cancelled":
            return " · stopped"
        if generation.finish_reason != "length":
            return ""
        if generation.context_full:
            return f" · context of {self._model.context:,} tokens is full: /reset starts afresh"
        return " · cut at --max-tokens"

    def _save(self, path: Path) -> None:
        if path.exists():
            raise OneirosError(f"{path} exists: choose another name.")
        text = json.dumps(list(self._chat.messages), indent=2, ensure_ascii=False)
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise OneirosError(f"{path}: cannot be written ({error.strerror}).") from error
        self._remark(f"Saved as {path}.")

    def _remark(self, text: str, style: str = "dim") -> None:
        self._console.print(output.printable(text), style=style, markup=False)


def read_message(ask: Callable[[str], str]) -> str:
    """One message: a line, lines that all but the last end in a backslash, or a \"\"\" block."""
    line = ask(PROMPT)
    if line.lstrip().startswith(FENCE):
        return _read_block(line.lstrip().removeprefix(FENCE), ask)
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1].removesuffix("\\")
        lines.append(ask(MORE))
    return "\n".join(lines)


def _read_block(line: str, ask: Callable[[str], str]) -> str:
    lines = [line]
    while not lines[-1].rstrip().endswith(FENCE):
        lines.append(ask(MORE))
    lines[-1] = lines[-1].rstrip().removesuffix(FENCE)
    return "\n".join(lines).strip("\n")


def history_file() -> Path:
    from oneiros.model.folders import data_folder

    return data_folder() / "chat-history"


@contextmanager
def history(path: Path) -> Iterator[None]:
    """Inside the block lines can be edited and recalled, also from earlier conversations."""
    try:
        import readline
    except ImportError:  # some builds of Python lack it; then lines are plain
        yield
        return
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # what was said to a model is nobody else's business
            readline.write_history_file(path)
