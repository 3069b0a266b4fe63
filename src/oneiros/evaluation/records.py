"""Reading the data of benchmarks: JSON lines with the fields that a suite needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneiros.errors import EvaluationError

Fields = Mapping[str, type | tuple[type, ...]]


def read_records(path: Path, fields: Fields) -> list[dict[str, Any]]:
    """The records of a file, texts stripped at both ends as the gauntlet of llm-foundry does.

    Raises EvaluationError naming the file, and the line where one is malformed.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise EvaluationError(
            f"{path}: no such file. Name the folder of benchmark data with --data or ONEIROS_DATA; "
            "docs/evaluation.md says what belongs in it."
        ) from None
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path} is not UTF-8 text: {error.reason}.") from None
    records = [
        _record(line, fields, f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not records:
        raise EvaluationError(f"{path} has no items.")
    return records


def _record(line: str, fields: Fields, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise EvaluationError(f"{where}: not JSON ({error}).") from None
    for name, kind in fields.items():
        if not isinstance(record, dict) or not isinstance(record.get(name), kind):
            raise EvaluationError(f'{where}: the field "{name}" is missing or of another type.')
    options = record.get("choices", record.get("context_options"))
    if "gold" in fields and not (options and 0 <= record["gold"] < len(options)):
        raise EvaluationError(f'{where}: "gold" names none of the options.')
    return {name: _stripped(value) for name, value in record.items()}


def _stripped(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip()
    return [_stripped(v) for v in value] if isinstance(value, list) else value
