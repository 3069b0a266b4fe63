"""The dialogue of `oneiros chat` and `oneiros attach`: messages, commands, replies."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneiros.cli import output
from oneiros.cli.fs import change_text, print_entries
from oneiros.cli.keyboard import history, history_file, read_message
from oneiros.cli.process_table import process_table
from oneiros.cli.turn import WatchedProcess
from oneiros.errors import OneirosError

if TYPE_CHECKING:
    from oneiros.kernel.control_client import ControlClient

HELP = """\
/files [FOLDER]  the files that the conversation works with
/tools           what the model may call
/ps              the processes
/undo            take back what the last call changed that changed files
/fork            go on in a copy of the conversation; the other one stays as it is
/model [NAME]    the model; with a name: a new conversation with that one
/system TEXT     what the model is told about its job; starts the conversation afresh
/reset           forget the conversation, but not /system
/save FILE       write the conversation as JSON
/detach          leave, and let the conversation's process live: `oneiros attach` comes back
/quit            leave (so does Ctrl-D)
Ctrl-C           stop a reply
A line that ends in \\ goes on in the next; a text between \"\"\" and \"\"\" has many lines."""

SAID = ("system", "app", "user", "assistant", "tool")  # kinds of pages that are saved

_COMMAND = re.compile(r"/[a-z]+( .*)?", re.DOTALL)


class Conversation:
    """A person and a process. The process begins with the first message."""

    def __init__(
        self,
        client: ControlClient,
        *,
        system: str | None = None,
        model: str | None = None,
        sampling: Mapping[str, object] | None = None,
        tools: bool = True,
        quarantine: bool = False,
        process: WatchedProcess | None = None,
    ) -> None:
        """Talk through a kernel.

        Args:
            client: of the kernel.
            system: what the model is told about its job; None: what the app says.
            model: None: the kernel's.
            sampling: options of SamplingOptions.
            tools: whether the model may call tools.
            quarantine: whether what others wrote stays behind handles.
            process: one to go on with; it is not ended when the person leaves.
        """
        self._client = client
        self._system = system
        self._model = model
        self._sampling = sampling
        self._tools = tools
        self._quarantine = quarantine
        self._process = process
        self._owned = process is None
        self._console = output.stdout()
        self._info = client.call("info")
        self._commands = {
            "/help": self._help,
            "/files": self._files,
            "/tools": self._list_tools,
            "/ps": self._ps,
            "/undo": self._undo,
            "/fork": self._fork,
            "/model": self._choose_model,
            "/system": self._instruct,
            "/reset": self._reset,
            "/save": self._save,
        }

    def run(self) -> None:
        """Talk until the user leaves; Ctrl-C twice at the prompt raises KeyboardInterrupt."""
        self._remark(
            f"{self._model or self._info['model']} · {self._info['context']:,} tokens of context · "
            "/help shows the commands, Ctrl-D leaves"
        )
        try:
            with history(history_file()):
                self._talk()
        finally:
            if self._owned:
                self._end_process()
        if self._process is not None:
            pid = self._process.pid
            self._remark(f"Process {pid} goes on: `oneiros attach {pid}` comes back to it.")

    def _talk(self) -> None:
        if self._process is not None:
            self._guarded(self._process.follow)
        interrupted = False
        while True:
            try:
                message = read_message(input)
            except EOFError:
                output.say()
                return
            except KeyboardInterrupt:
                output.say()
                if interrupted:
                    raise
                self._remark("Ctrl-C again or Ctrl-D leaves")
                interrupted = True
                continue
            interrupted = False
            if message.strip() == "/quit":
                return
            if message.strip() == "/detach":
                self._owned = False
                return
            self._guarded(lambda message=message: self._take(message.strip("\n")))

    def _guarded(self, action: Any) -> None:
        """Do something; errors are said, and the conversation goes on."""
        try:
            action()
        except OneirosError as error:
            self._remark(str(error), "red")

    def _take(self, message: str) -> None:
        """Obey a command or send a message."""
        line = message.strip()
        if _COMMAND.fullmatch(line):
            name, _, argument = line.partition(" ")
            if name not in self._commands:
                raise OneirosError(f"There is no command {name}: /help lists them.")
            self._commands[name](argument.strip())
        elif line:
            self._send(message)

    def _send(self, message: str) -> None:
        if self._process is not None and self._process.state.end is not None:
            self._process = None
        if self._process is not None:
            self._client.call("send", pid=self._process.pid, text=message)
        else:
            pid = self._client.call(
                "start",
                text=message,
                model=self._model,
                instructions=self._system,
                sampling=self._sampling,
                capabilities=None if self._tools else [],
                quarantine=self._quarantine,
            )
            self._process = WatchedProcess(
                self._client, pid, self._info["context"], from_start=True
            )
            self._owned = True
        self._process.follow()

    def _help(self, argument: str) -> None:
        self._remark(HELP)

    def _files(self, argument: str) -> None:
        print_entries(self._client.call("fs.list", path=argument))

    def _list_tools(self, argument: str) -> None:
        tools = self._client.call("tools") if self._tools else []
        for tool in tools:
            first = tool["description"].partition("\n")[0]
            effects = f" ({', '.join(tool['effects'])})" if tool["effects"] else ""
            self._remark(f"{tool['name']}{effects}: {first}")
        if not tools:
            self._remark("There are none.")

    def _ps(self, argument: str) -> None:
        self._console.print(process_table(self._client.call("processes")))

    def _undo(self, argument: str) -> None:
        changes = []
        if self._process is not None:
            changes = self._client.call("fs.undo_last", pid=self._process.pid)
        for change in changes:
            self._remark(change_text(change))
        if not changes:
            self._remark("No call of this conversation changed a file, or all are taken back.")

    def _fork(self, argument: str) -> None:
        if self._process is None:
            raise OneirosError("There is nothing to fork yet: say something first.")
        before = self._process.pid
        pid = self._client.call("fork", pid=before)
        self._process = WatchedProcess(self._client, pid, self._info["context"])
        self._owned = True
        self._remark(f"This is process {pid} now; `oneiros attach {before}` goes back.")

    def _choose_model(self, argument: str) -> None:
        if not argument:
            self._remark(self._model or self._info["model"])
            return
        self._begin_anew()
        self._model = argument
        self._remark(f"A new conversation with {argument}.")

    def _instruct(self, argument: str) -> None:
        self._need(argument, "/system")
        self._begin_anew()
        self._system = argument
        self._remark("A new conversation with these instructions.")

    def _reset(self, argument: str) -> None:
        self._begin_anew()
        self._remark("The conversation is forgotten.")

    def _save(self, argument: str) -> None:
        self._need(argument, "/save")
        path = Path(argument).expanduser()
        if path.exists():
            raise OneirosError(f"{path} exists: choose another name.")
        text = json.dumps(self._messages(), indent=2, ensure_ascii=False)
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise OneirosError(f"{path}: cannot be written ({error.strerror}).") from error
        self._remark(f"Saved as {path}.")

    def _messages(self) -> list[Any]:
        if self._process is None:
            return [] if self._system is None else [{"role": "system", "content": self._system}]
        pages = self._client.call("messages", pid=self._process.pid, evicted=True)
        return [page["message"] for page in pages if page["kind"] in SAID]

    def _need(self, argument: str, command: str) -> None:
        if not argument:
            raise OneirosError(f"{command} needs something behind it: /help")

    def _begin_anew(self) -> None:
        """The next message starts another process; ours ends."""
        if self._owned:
            self._end_process()
        self._process = None
        self._owned = True

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.state.end is None:
            self._guarded(lambda: self._client.call("kill", pid=process.pid))

    def _remark(self, text: str, style: str = "dim") -> None:
        self._console.print(output.printable(text), style=style, markup=False)
