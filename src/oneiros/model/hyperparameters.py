"""Typed access to the hyper-parameters in a file's metadata, with errors that say where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.architecture import OTHER_ENGINE

_LARGEST_DIMENSION = 1 << 31
_LARGEST_NUMBER = 1e30


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Values of unknown types under known names; None counts as missing."""

    where: str  # the file's name
    values: Mapping[str, object]
    prefix: str = ""  # of every key that is asked for
    offsets: Mapping[str, int] = field(default_factory=dict)  # key -> byte of its value

    def describe(self, key: str) -> str:
        """The file, the key and its byte where that is known."""
        key = self.prefix + key
        at = f" at byte {self.offsets[key]:,}" if key in self.offsets else ""
        return f'{self.where}: "{key}"{at}'

    def fail(self, key: str, why: str) -> NoReturn:
        """Raise the error of a value that makes no sense."""
        raise ModelFileError(f"{self.describe(key)} {why}.")

    def unsupported(self, key: str, why: str) -> NoReturn:
        """Raise the error of a value that makes sense and that the engine does not run."""
        raise UnsupportedModelError(
            f"{self.describe(key)} {why}, which the Oneiros engine does not run. " + OTHER_ENGINE
        )

    def get(self, key: str) -> object:
        """The value as it is, or None."""
        return self.values.get(self.prefix + key)

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            self.fail(key, "is not a string")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """A boolean."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            self.fail(key, "is not a boolean")
        return value

    def integer(
        self,
        key: str,
        default: int | None = None,
        *,
        least: int = 1,
        most: int = _LARGEST_DIMENSION,
    ) -> int:
        """An integer in a range."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, "is not an integer")
        if not least <= value <= most:
            self.fail(key, f"is {_shown(value)}, and must be from {least} to {most:,}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """A number above 0 that float32 can hold."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(key, "is not a number")
        if not 0 < value < _LARGEST_NUMBER:
            self.fail(key, f"is {_shown(value)}, and must be a positive number")
        return float(value)

    def _value(self, key: str, default: object) -> object:
        value = self.get(key)
        if value is None:
            value = default
        if value is None:
            self.fail(key, "is missing")
        return value


def _shown(number: float) -> str:
    # Python refuses to print integers of thousands of digits.
    return f"{number:,}" if abs(number) < 1 << 64 else "beyond 64 bits"
