"""The parameter file: one of the two files that a language model is."""

from __future__ import annotations

import hashlib
import mmap
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from oneiros.errors import ModelFileError
from oneiros.model.architecture import Architecture, RopeScaling
from oneiros.model.gguf import read_gguf
from oneiros.model.gguf_architecture import architecture_from_gguf
from oneiros.model.huggingface import read_folder
from oneiros.model.mapped_file import mapping_of
from oneiros.model.tensor import Tensor

__all__ = ["Architecture", "Parameters", "RopeScaling", "Tensor", "open_parameters"]

_HASH_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Parameters:
    """A memory-mapped, read-only view of a model's parameters.

    Tensors carry GGUF's names whatever the file: token_embd.weight, blk.N.attn_q.weight and so
    on. All that the architecture needs are there, with the shapes that it implies.
    """

    path: Path  # the GGUF file or the folder
    architecture: Architecture
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, object]  # GGUF key/values; for a folder its config.json
    file_bytes: int  # of all source files
    source_files: tuple[Path, ...]  # the GGUF file; or a folder's shards in order and config.json

    def sha256(self) -> str:
        """SHA-256 of the source files' bytes, one after the other, in hexadecimal.

        Raises:
            ModelFileError: a file cannot be read any more.
        """
        digest = hashlib.sha256()
        for path in self.source_files:
            try:
                with path.open("rb") as file:
                    while piece := file.read(_HASH_PIECE):
                        digest.update(piece)
            except OSError as error:
                raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
        return digest.hexdigest()

    def release_pages(self) -> None:
        """Take the files' pages out of this process's memory; those that are read come back.

        The system maps a large file in pieces of up to 2 MB, so that reading a few small tensors
        may hold most of the file.
        """
        mappings = {id(m): m for t in self.tensors.values() if (m := mapping_of(t.data))}
        for mapping in mappings.values():
            if hasattr(mmap, "MADV_DONTNEED"):
                mapping.madvise(mmap.MADV_DONTNEED)


def open_parameters(path: Path) -> Parameters:
    """Open a GGUF file or a Hugging Face folder (config.json and safetensors).

    Raises:
        ModelFileError: the path is not there, or the file is damaged or inconsistent.
        UnsupportedModelError: the file is sound, and the engine does not run its network.
    """
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be opened ({error.strerror}).") from error
    if is_folder:
        folder = read_folder(path)
        return Parameters(
            path,
            folder.architecture,
            folder.tensors,
            folder.config,
            folder.file_bytes,
            folder.source_files,
        )
    if path.suffix == ".safetensors":
        raise ModelFileError(f"{path}: holds tensors only; open the folder with its config.json.")
    file = read_gguf(path)
    architecture = architecture_from_gguf(file)
    return Parameters(path, architecture, file.tensors, file.metadata, file.file_bytes, (path,))
