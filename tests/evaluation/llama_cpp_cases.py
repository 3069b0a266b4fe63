"""What is compared with llama.cpp: models in some formats, windows of a text, and LAMBADA.

The goldens (make_llama_cpp_goldens.py) hold llama.cpp's score of every window and every example,
so that a test may take as many of the first ones as it has time for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oneiros.model.catalog import resolve
from oneiros.model.convert import convert
from oneiros.model.tensor_types import TensorType
from oneiros.model.tokenizer import Tokenizer

GOLDENS = Path(__file__).resolve().parents[1] / "data" / "llama-cpp-scores.json"

WINDOW = 512  # tokens; windows do not overlap, and the first token of each is given


@dataclass(frozen=True, slots=True)
class Case:
    """A model file, and how much of the data it is scored on."""

    model: str  # its name in the catalog
    converted: TensorType | None  # from the catalog's file; None: that file itself
    windows: int  # that llama.cpp scored
    first_windows: int  # that the default tests score; 0: the long tests only
    examples: int
    exact: str | None = None  # the case of the same weights in a floating-point format


# llama.cpp computes Q4_K and Q6_K with activations of 8 bits that share a scale among 256, where
# the other formats share it among 32 as we do for all. "exact" is its score without that rounding.
CASES = {
    "smollm2-135m q4_1": Case("smollm2-135m", None, 40, 16, 500),
    "smollm2-135m q4_0": Case("smollm2-135m", TensorType.Q4_0, 40, 16, 0),
    "smollm2-135m q8_0": Case("smollm2-135m", TensorType.Q8_0, 40, 16, 0),
    "smollm2-135m bf16": Case("smollm2-135m", TensorType.BF16, 40, 4, 0),
    "qwen2.5-coder-0.5b q4_k_m": Case("qwen2.5-coder-0.5b", None, 4, 0, 0),
    "qwen2.5-coder-1.5b q4_k_m": Case(
        "qwen2.5-coder-1.5b", None, 4, 0, 0, exact="qwen2.5-coder-1.5b f16"
    ),
    "qwen2.5-coder-1.5b f16": Case("qwen2.5-coder-1.5b", TensorType.F16, 4, 0, 0),
}


@dataclass(frozen=True, slots=True)
class Example:
    """A passage without its last word, which is to be told from the rest (Paperno et al. 2016)."""

    context: list[int]
    target: list[int]


def model_file(case: Case, folder: Path) -> Path:
    """The case's GGUF file, written into `folder` if the catalog has it in another format."""
    source = resolve(case.model)
    if case.converted is None:
        return source
    path = folder / f"{case.model}-{case.converted.name.lower()}.gguf"
    convert(source, path, tensor_type=case.converted)
    return path


def shakespeare(tokenizer: Tokenizer, data_folder: Path, windows: int) -> list[int]:
    """The first tokens of tinyshakespeare, as many as fill the windows."""
    text = (data_folder / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    ids = tokenizer.encode(text[:200_000])[: windows * WINDOW]
    assert len(ids) == windows * WINDOW
    return ids


def lambada(tokenizer: Tokenizer, data_folder: Path, count: int) -> list[Example]:
    """The first examples of LAMBADA, in the form in which OpenAI measured with them."""
    path = data_folder / "benchmarks" / "lambada_openai.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    return [
        Example(
            tokenizer.prompt_ids(example["context"]),
            tokenizer.encode(" " + example["continuation"]),
        )
        for example in map(json.loads, lines)
    ]


def id_windows(ids: Sequence[int]) -> list[list[int]]:
    """Token ids in consecutive windows."""
    return [list(ids[first : first + WINDOW]) for first in range(0, len(ids), WINDOW)]
