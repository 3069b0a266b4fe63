"""Counting what filters do, with a few examples of everything."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

EXAMPLES = 3
_SHOWN = 240
"""Signs of a text that an example shows."""


@dataclass(frozen=True, slots=True)
class Example:
    """A document that was removed."""

    id: str
    text: str  # its beginning
    detail: str  # what the filter found, where there is more to say than the reason


@dataclass(slots=True)
class Removed:
    """The documents that were removed for one reason; the first few as examples."""

    documents: int = 0
    bytes: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, id: str, text: str, detail: str) -> None:
        """Count a document."""
        self.documents += 1
        self.bytes += len(text.encode("utf-8", "replace"))
        if len(self.examples) < EXAMPLES:
            start = " ".join(text[: 4 * _SHOWN].split())
            self.examples.append(
                Example(id, start[:_SHOWN].encode("utf-8", "replace").decode(), detail[:_SHOWN])
            )


@dataclass(slots=True)
class Tally:
    """What became of some documents."""

    read: int = 0
    kept: int = 0
    kept_bytes: int = 0
    removed: dict[str, dict[str, Removed]] = field(default_factory=dict)  # by filter and reason
    masked: Counter[str] = field(default_factory=Counter)  # personal data by kind
    masked_documents: int = 0
    lines_cut: int = 0
    languages: Counter[str] = field(default_factory=Counter)  # of documents that were asked

    def remove(self, filter: str, reason: str, id: str, text: str, detail: str) -> None:
        """Count a removed document."""
        reasons = self.removed.setdefault(filter, {})
        reasons.setdefault(reason, Removed()).add(id, text, detail)

    def removed_by(self, filter: str) -> int:
        """How many documents a filter removed."""
        return sum(removed.documents for removed in self.removed.get(filter, {}).values())

    def merge(self, other: Tally) -> None:
        """Add what became of the documents that follow."""
        self.read += other.read
        self.kept += other.kept
        self.kept_bytes += other.kept_bytes
        self.masked += other.masked
        self.masked_documents += other.masked_documents
        self.lines_cut += other.lines_cut
        self.languages += other.languages
        for name, reasons in other.removed.items():
            for reason, theirs in reasons.items():
                ours = self.removed.setdefault(name, {}).setdefault(reason, Removed())
                ours.documents += theirs.documents
                ours.bytes += theirs.bytes
                ours.examples += theirs.examples[: EXAMPLES - len(ours.examples)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["removed"] = {
            name: {reason: asdict(removed) for reason, removed in reasons.items()}
            for name, reasons in self.removed.items()
        }
        return values

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Tally:
        """The tally that `to_dict` gave."""
        removed = {
            name: {
                reason: Removed(
                    value["documents"],
                    value["bytes"],
                    [Example(**example) for example in value["examples"]],
                )
                for reason, value in reasons.items()
            }
            for name, reasons in values["removed"].items()
        }
        counters = {name: Counter(values[name]) for name in ("masked", "languages")}
        return Tally(**{**values, **counters, "removed": removed})
