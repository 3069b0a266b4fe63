"""Oneiros: an operating system for language models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oneiros.engine.language_model import LanguageModel

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(
    model: str | Path = "smollm2-135m",
    *,
    adapter: str | Path | None = None,
    threads: int | None = None,
    context: int | None = None,
) -> LanguageModel:
    """Load a language model.

    Args:
        model: a path, or a name that `oneiros models` lists. The default model is fetched if it
            is not here; others need `oneiros pull`.
        adapter: the folder of a LoRA adapter that is added to the model; default: none.
        threads: default: the cores that this process may use.
        context: tokens that prompt and reply may take together; default: the model's.

    Raises:
        OneirosError: what is wrong and what to do (oneiros.errors).
    """
    # Imported late: the command line asks for the version only, and NumPy takes its time.
    from oneiros.engine import language_model
    from oneiros.model import catalog

    return language_model.load(
        catalog.ensure(model),
        str(model),
        adapter=None if adapter is None else Path(adapter),
        threads=threads,
        context=context,
    )
