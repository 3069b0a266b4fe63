"""What the commands of `oneiros train` share: they need packages that others do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from oneiros.errors import OneirosError

_PACKAGES = {
    "torch",
    "rustbpe",
    "tiktoken",
    "matplotlib",
    "datatrove",
    "loguru",
    "py3langid",
    "pyarrow",
    "regex",
    "tldextract",
    "warcio",
    "xxhash",
}


@contextmanager
def train_extra() -> Iterator[None]:
    """Around the imports from `oneiros.training`: says what to install where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").split(".")[0]
        if name not in _PACKAGES:
            raise
        raise OneirosError(
            f"Training needs {name}, which is not installed: run `pip install '.[train]'` in the "
            "source folder, or `pip install 'oneiros[train]'`."
        ) from error
