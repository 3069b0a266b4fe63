"""The memory that running a model takes, known before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from oneiros.engine.adapters import adapter_bytes
from oneiros.engine.library import MAX_ROWS, PAGE_TOKENS
from oneiros.engine.machine import usable_memory
from oneiros.engine.packing import packed_layout
from oneiros.errors import NotEnoughMemoryError
from oneiros.model.adapter import Adapter
from oneiros.model.architecture import kv_bytes
from oneiros.model.parameters import Parameters


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that one sequence of a model takes; the interpreter and the tokenizer come on top."""

    context: int  # positions
    weights: int  # packed, and those of an adapter
    kv_cache: int  # keys and values of every position in FP16, in whole pages
    workspace: int  # intermediate results and logits

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.workspace


def memory_needed(
    parameters: Parameters, context: int | None = None, adapter: Adapter | None = None
) -> Memory:
    """Predict the memory of a sequence of `context` positions (the model's own, if left out)."""
    a = parameters.architecture
    positions = a.context if context is None else context
    matrices, packed = packed_layout(parameters)
    queries = a.heads * a.head_dim
    # What engine.c allocates for MAX_ROWS tokens: floats, and activations of which each value
    # takes a byte and a sixteenth of four numbers per block, or a float beside them.
    floats = a.width + 2 * queries + 2 * a.kv_width + a.rope_dim
    inputs = max(a.width, queries) + a.ffn_width
    exact = any(m.columns * 16 * 2 <= m.group_bytes for m in matrices.values())
    if adapter is not None:
        packed += adapter_bytes(adapter)
        floats += 3 * adapter.rank
    per_row = 4 * floats + inputs * (5.5 if exact or adapter is not None else 1.5)
    return Memory(
        context=positions,
        weights=packed,
        kv_cache=kv_bytes(a, -(-positions // PAGE_TOKENS) * PAGE_TOKENS),
        workspace=int(MAX_ROWS * per_row) + 2 * 4 * a.vocabulary,
    )


def check_memory(parameters: Parameters, context: int, adapter: Adapter | None = None) -> None:
    """Raise NotEnoughMemoryError if weights and one full context do not fit what is free."""
    needed, usable = memory_needed(parameters, context, adapter), usable_memory()
    if usable is not None and needed.total > usable:
        raise NotEnoughMemoryError(
            f"{parameters.path.name} needs {needed.total / 2**30:.1f} GiB "
            f"({needed.kv_cache / 2**30:.1f} of them for a context of {context:,}), and "
            f"{usable / 2**30:.1f} GiB are free. Choose a smaller context (--context) or a "
            "smaller model."
        )
