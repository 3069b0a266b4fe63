"""An engine in a process of its own: neither can bring the other down."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from oneiros.engine.protocol import (
    LONGEST_LINE,
    answers_from_json,
    line,
    request_to_json,
    statistics_from_json,
)
from oneiros.engine.requests import (
    EngineStatistics,
    Finished,
    GenerationRequest,
    Output,
    PromptRead,
    Tokens,
)
from oneiros.engine.service import Streams
from oneiros.engine.spool import new_spool
from oneiros.engine.worker import EngineSettings
from oneiros.errors import EngineFailedError, OneirosError

_log = logging.getLogger("oneiros.engine")

_MOST_FAILURES = 5  # within _FAILURE_WINDOW seconds; then the engine is given up
_FAILURE_WINDOW = 60.0
_MOST_FAILURES_OF_REQUEST = 3  # with the same request under way, which may be the reason
_REQUEST_GIVEN_UP = (
    f"The engine's process ended {_MOST_FAILURES_OF_REQUEST} times while it worked on this "
    "request, which is not tried again."
)
_PATIENCE = 10.0  # seconds in which an engine that lives answers
_LONGEST_CLOSE = 20.0
_LONGEST_STALL = 60.0
_FIRST_PAUSE = 0.25  # seconds, doubled with every failure


@dataclass(slots=True)
class _Progress:
    """What is known of a request, to go on elsewhere with it."""

    request: GenerationRequest
    generated: list[int] = field(default_factory=list)
    read: bool = False  # whether it was said that the prompt was read
    failures: int = 0


class EngineProcess(Streams):
    """Runs an engine in a child process, and a new one when that dies.

    Requests under way go on where they were: prompts and what was generated are here, keys and
    values in the page store as far as it has them.
    """

    def __init__(self, settings: EngineSettings) -> None:
        """Nothing is started yet; raises OSError if there is no folder to write to."""
        super().__init__()
        self._settings = settings
        self._spool = new_spool()
        self._progress: dict[int, _Progress] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None
        self._failures: deque[float] = deque()
        self._questions: deque[asyncio.Future[EngineStatistics]] = deque()
        self._restarts = 0
        self._closing = False
        self._given_up: EngineFailedError | None = None
        self.context = 0  # tokens, once it has started
        self.model_sha256 = ""

    @classmethod
    async def start(cls, settings: EngineSettings) -> EngineProcess:
        """Start the process and load the model.

        Raises:
            EngineFailedError: the model cannot be loaded, or the process ended; the message is
                the process's own where it gave one.
        """
        engine = cls(settings)
        reader = await engine._spawn()
        engine._listener = asyncio.create_task(engine._listen(reader))
        return engine

    async def statistics(self) -> EngineStatistics:
        """See EngineService."""
        if self._given_up is not None:
            raise self._given_up
        if self._writer is None:
            raise EngineFailedError("The engine's process is being started again.")
        question: asyncio.Future[EngineStatistics] = asyncio.get_running_loop().create_future()
        self._questions.append(question)
        self._send({"op": "statistics"})
        try:
            answer = await asyncio.wait_for(question, _PATIENCE)
        except TimeoutError:
            raise EngineFailedError(f"The engine has not answered for {_PATIENCE:g} s.") from None
        if answer.stalled_seconds > _LONGEST_STALL and self._process is not None:
            self._process.kill()  # what it hangs in will not end; its requests go on elsewhere
            raise EngineFailedError(f"The engine made no step for {answer.stalled_seconds:.0f} s.")
        return replace(answer, restarts=self._restarts)

    async def close(self) -> None:
        """See EngineService."""
        if self._closing:
            return
        self._closing = True
        self._send({"op": "close"})
        if self._listener is not None:
            await asyncio.wait([self._listener], timeout=_LONGEST_CLOSE)
            self._listener.cancel()
        await self._reap()
        self._fail_all(EngineFailedError("The engine was closed before the reply was complete."))
        await asyncio.to_thread(shutil.rmtree, self._spool, ignore_errors=True)

    @property
    def process_id(self) -> int | None:
        """The child's process id while it runs."""
        return None if self._process is None else self._process.pid

    def _submit(self, number: int, request: GenerationRequest) -> None:
        if self._given_up is not None or self._closing:
            raise self._given_up or EngineFailedError("The engine was closed.")
        self._progress[number] = _Progress(request)
        self._send_request(number, resumed=False)

    def _cancel(self, number: int) -> None:
        self._progress.pop(number, None)
        self._send({"op": "cancel", "number": number})

    def _send_request(self, number: int, *, resumed: bool) -> None:
        progress = self._progress[number]
        command = {
            "op": "generate",
            "number": number,
            "request": request_to_json(progress.request),
            "resumed": progress.generated if resumed else None,
        }
        self._send(command)

    def _send(self, message: object) -> None:
        # While there is no process, nothing needs to be sent: a new one gets all that is open.
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(line(message))

    async def _spawn(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "oneiros.engine.worker",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_LINE)
        writer.write(line({"settings": asdict(self._settings), "spool": str(self._spool)}))
        first = await _read(reader)
        if first is None or "ready" not in first:
            writer.close()
            code = await self._process.wait()
            raise EngineFailedError(
                first["failed"] if first else f"The engine's process ended with {_ending(code)}."
            )
        self.context = first["ready"]["context"]
        self.model_sha256 = first["ready"]["model_sha256"]
        self._writer = writer
        return reader

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Pass on what the process says; when it dies, see to another one."""
        try:
            listening: asyncio.StreamReader | None = reader
            while listening is not None:
                message = await _read(listening)
                if message is not None:
                    self._hear(message)
                    continue
                await self._reap()
                if self._closing:
                    return
                listening = await self._restart()
        finally:
            if not self._closing and self._given_up is None:
                self._give_up(EngineFailedError("The engine's process cannot be watched any more."))

    def _hear(self, message: Any) -> None:
        if isinstance(message, list):
            answers = answers_from_json(message)
            self._deliver([(n, answer) for n, answer in answers if self._note(n, answer)])
        else:
            question = self._questions.popleft()
            if not question.done():
                question.set_result(statistics_from_json(message["statistics"]))

    def _note(self, number: int, answer: Output | OneirosError) -> bool:
        """Remember what is needed to go on after a failure; whether the answer is new."""
        progress = self._progress.get(number)
        if progress is None:
            return False
        match answer:
            case Tokens():
                progress.generated += answer.ids
            case PromptRead():
                again, progress.read = progress.read, True
                progress.request = replace(progress.request, prompt_logprobs=None)
                return not again
            case Finished() | OneirosError():
                del self._progress[number]
        return True

    async def _restart(self) -> asyncio.StreamReader | None:
        """Start another process and give it all that is open; None if that is hopeless."""
        for number, progress in list(self._progress.items()):
            progress.failures += 1
            if progress.failures >= _MOST_FAILURES_OF_REQUEST:
                del self._progress[number]
                self._deliver([(number, EngineFailedError(_REQUEST_GIVEN_UP))])
        reason = ""
        while self._may_try_again():
            _log.warning("The engine's process ended; starting another one.%s", reason)
            try:
                reader = await self._spawn()
            except (EngineFailedError, OSError) as error:
                # Often there is no memory just now: what took it from the engine has it still.
                reason = f" The last attempt failed: {error}"
                await asyncio.sleep(_FIRST_PAUSE * 2 ** len(self._failures))
                continue
            self._restarts += 1
            for number in list(self._progress):
                self._send_request(number, resumed=True)
            return reader
        self._give_up(
            EngineFailedError(
                f"The engine's process ended {len(self._failures)} times within "
                f"{_FAILURE_WINDOW:g} s, and is not started again.{reason}"
            )
        )
        return None

    def _may_try_again(self) -> bool:
        """Count a failure, and say whether there were not too many of late."""
        now = time.monotonic()
        self._failures.append(now)
        while now - self._failures[0] > _FAILURE_WINDOW:
            self._failures.popleft()
        return len(self._failures) <= _MOST_FAILURES and not self._closing

    def _give_up(self, error: EngineFailedError) -> None:
        self._given_up = error
        _log.error("%s", error)
        self._progress.clear()
        self._fail_all(error)

    async def _reap(self) -> None:
        """The process is gone, or must go."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        while self._questions:
            question = self._questions.popleft()
            if not question.done():
                question.set_exception(EngineFailedError("The engine's process ended."))
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), _PATIENCE)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
            self._process = None


async def _read(reader: asyncio.StreamReader) -> Any:
    """The next message, or None at the end."""
    try:
        text = await reader.readline()
    except (ConnectionError, ValueError):  # the latter: a line without an end
        return None
    return json.loads(text) if text.endswith(b"\n") else None


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"
