"""The file of answers: one line of JSON for each item, so that a run that ended early goes on.

The first line names the model. An item is known by its suite, its number and the SHA-256 of all
that the model is shown in it: what was asked in other words, with other examples, is asked again.
"""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from oneiros.errors import EvaluationError
from oneiros.evaluation.asking import Outcome

FORMAT = 1

_KEY = ("suite", "item", "prompt_sha256")


class AnswerFile:
    """Answers by item, in memory and on disk. A context manager, which closes the file."""

    def __init__(self, path: Path | None, model: str, model_sha256: str, context: int) -> None:
        """Open or begin a file; with None, keep the answers in memory only.

        Raises:
            EvaluationError: the file has other content, is another model's, or is being written.
            OSError: it cannot be read or written.
        """
        self._known: dict[tuple[Any, ...], Outcome] = {}
        self._file: BinaryIO | None = None
        if path is None:
            return
        head = {
            "oneiros_eval": FORMAT,
            "model": model,
            "model_sha256": model_sha256,
            "context": context,
        }
        file = path.open("a+b")
        try:
            _lock(file, path)
            whole = self._read(file, path, head)
            file.truncate(whole)  # a line that was cut by the end of the last run
        except BaseException:
            file.close()
            raise
        self._file = file
        if not whole:
            self._write(head)

    def __len__(self) -> int:
        """Answers that are kept, those to other prompts too."""
        return len(self._known)

    def find(self, suite: str, item: int, prompt_sha256: str) -> Outcome | None:
        """The outcome of an item, if it is there."""
        return self._known.get((suite, item, prompt_sha256))

    def add(self, suite: str, item: int, prompt_sha256: str, outcome: Outcome) -> None:
        """Keep an outcome. Raises OSError where the disk is full."""
        self._known[suite, item, prompt_sha256] = outcome
        self._write(dict(zip(_KEY, (suite, item, prompt_sha256), strict=True)) | outcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self, file: BinaryIO, path: Path, head: dict[str, Any]) -> int:
        """Take over what is in a file; returns the length of its whole lines in bytes."""
        file.seek(0)
        data = file.read()
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                record = json.loads(line)
                if number == 1:
                    found = {name: record[name] for name in head}
                else:
                    self._known[tuple(record.pop(name) for name in _KEY)] = record
            except (ValueError, KeyError, TypeError, AttributeError):
                raise EvaluationError(
                    f"{path}, line {number}: this is no file of answers. Name another one."
                ) from None
        if whole and found | {"model": head["model"]} != head:
            raise EvaluationError(
                f"{path} has the answers of another model, {found['model']} with a context of "
                f"{found['context']} tokens. Name another file, or remove this one."
            )
        if data and not whole and not b'{"oneiros_eval"'.startswith(data[:15]):
            raise EvaluationError(f"{path}: this is no file of answers. Name another one.")
        return whole

    def _write(self, record: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise EvaluationError(f"{path}: another evaluation is writing to it.") from None
