"""From a trained model's folder to GGUF files, which the engine and llama.cpp run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from oneiros.model.convert import convert
from oneiros.model.tensor_types import TensorType

TYPES = (TensorType.F16, TensorType.Q8_0, TensorType.Q4_1)
"""What every stage writes: as good as exact, half of that, and what runs fastest."""


def is_exported(folder: Path, types: Sequence[TensorType] = TYPES) -> bool:
    """Whether `export_model` has written all its files."""
    return all(_file(folder, tensor_type).exists() for tensor_type in types)


def export_model(
    folder: Path,
    *,
    types: Sequence[TensorType] = TYPES,
    name: str | None = None,
    progress: Callable[[Path, int, int], None] | None = None,
) -> list[Path]:
    """Write GGUF files beside a Hugging Face folder: `model/` gives model-f16.gguf and so on.

    They hold the tokenizer and the chat template too. A file of that name is replaced.

    Args:
        folder: config.json, weights and tokenizer, as `save_folder` writes them.
        types: how matrices are stored, one file each. Norms are F32 in all of them; the first and
            the last matrix of a four-bit file are Q8_0.
        name: what the files call the model; default: the folder's name.
        progress: called with the file, the bytes of tensors written so far and those in all.

    Returns:
        The files, in the order of `types`.

    Raises:
        ModelFileError: the folder is damaged, or a file cannot be written.
        UnsupportedModelError: the engine does not run the network.
    """
    files = []
    for tensor_type in types:
        path = _file(folder, tensor_type)
        path.unlink(missing_ok=True)

        def told(done: int, total: int, path: Path = path) -> None:
            if progress is not None:
                progress(path, done, total)

        convert(folder, path, tensor_type=tensor_type, name=name, progress=told)
        files.append(path)
    return files


def _file(folder: Path, tensor_type: TensorType) -> Path:
    return folder.with_name(f"{folder.name}-{tensor_type.name.lower()}.gguf")
