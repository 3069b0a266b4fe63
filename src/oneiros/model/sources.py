"""Where a model's files come from, and what they must be: plain data.

A source is untrusted. Its bytes count only when their length and SHA-256 are those of the
`ModelFile` that names it.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository on a model hub, fetched over HTTPS."""

    repository: str  # "owner/name"
    file: str  # path inside the repository
    revision: str = "main"  # branch, tag or commit

    def __str__(self) -> str:
        return f"hub {self.repository}/{self.file}"


@dataclass(frozen=True, slots=True)
class PackageMember:
    """A file inside the wheel of a published Python package; a carrier of data, never installed."""

    package: str
    version: str
    member: str  # path inside the wheel

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class PackageParts:
    """The members of one or more packages, joined in order."""

    parts: tuple[PackageMember, ...]

    def __str__(self) -> str:
        first, last = self.parts[0], self.parts[-1]
        if first == last:
            return f"package {first.requirement}"
        return f"packages {first.requirement} to {last.requirement}"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that is already on this machine; it is copied."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


Source = HubFile | PackageParts | LocalFile


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model, and where it can be had, best source first."""

    name: str  # file name in the model's folder
    bytes: int
    sha256: str  # lower-case hexadecimal
    sources: tuple[Source, ...]


def megabytes(count: int) -> str:
    """A number of bytes for people: "98 MB", "1.1 GB"."""
    if count >= 1_000_000_000:
        return f"{count / 1e9:.1f} GB"
    if count >= 1_000_000:
        return f"{count / 1e6:.0f} MB"
    return f"{count:,} bytes"
