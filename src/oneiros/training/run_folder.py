"""The run folder: everything about one training run, readable without Oneiros.

config.json     the settings, the data's and the tokenizer's hashes, versions
metrics.jsonl   one record for each step, evaluation, dream, checkpoint and remark
data/           the token shards, if the run made them
checkpoints/    the latest ones
model/          the result as a Hugging Face folder
*.png report.md curves, and what there is to say about the run
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from oneiros.errors import ModelFileError, TrainingError, quoted
from oneiros.model.json_text import read_object
from oneiros.model.replacement import replacing_file
from oneiros.training.events import Event, from_record, to_record


class RunFolder:
    """Paths and files of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.data = path / "data"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.report = path / "report.md"
        self._log: TextIO | None = None

    @property
    def begun(self) -> bool:
        """Whether a run was started here."""
        return self.config.is_file()

    def check_usable(self) -> None:
        """Refuse a folder that holds something that is no run.

        Raises:
            TrainingError: it is a file, or has content and no config.json.
        """
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self.path}: is a file; name a folder for the run.")
        if self.begun or not self.path.is_dir():
            return
        names = {entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")}
        if names - {self.data.name}:  # shards that were made before the run could begin
            raise TrainingError(f"{self.path}: holds other files, and no run. Choose another.")

    def write_config(self, values: dict[str, Any]) -> None:
        """Write config.json.

        Raises:
            ModelFileError: it cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        _write(self.config, json.dumps(values, indent=2, ensure_ascii=False) + "\n")

    def read_config(self, stage: str) -> dict[str, Any]:
        """Read config.json of a run of this stage, "base" or "chat".

        Raises:
            TrainingError: it is missing or malformed, or the run is of another stage.
        """
        try:
            config = read_object(self.config)
        except ModelFileError as error:
            raise TrainingError(f"{self.path}: holds no run that could go on: {error}") from error
        if config.get("stage") != stage:
            raise TrainingError(
                f"{self.path}: holds no run of `train {stage}`, but of "
                f"{quoted(str(config.get('stage')))}. Choose another --output."
            )
        return config

    def events(self) -> Iterator[Event]:
        """All that happened, from metrics.jsonl; a last line that was cut off is left out.

        Raises:
            TrainingError: another line is malformed, with its number.
        """
        if not self.metrics.is_file():
            return
        lines = self.metrics.read_text(encoding="utf-8").split("\n")
        # What follows the last line's end was being written when the run was killed.
        for number, line in enumerate(lines[:-1], 1):
            try:
                yield from_record(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise TrainingError(f"{self.metrics}, line {number:,}: is damaged.") from error

    def rewind(self, step: int) -> None:
        """Forget what was recorded at or after a step: it will happen again."""
        kept = [event for event in self.events() if event.step < step]
        _write(self.metrics, "".join(map(_line, kept)))

    def record(self, event: Event) -> None:
        """Append to metrics.jsonl; the line is with the operating system when this returns."""
        if self._log is None:
            self._log = self.metrics.open("a", encoding="utf-8")
        self._log.write(_line(event))
        self._log.flush()

    def close(self) -> None:
        """Close metrics.jsonl."""
        if self._log is not None:
            self._log.close()
            self._log = None


def _line(event: Event) -> str:
    return json.dumps(to_record(event), ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    with replacing_file(path) as file:
        file.write(text.encode())
