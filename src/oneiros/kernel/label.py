"""Labels: where a value comes from, and who may read it.

Integrity and confidentiality as in decentralised information flow control (Myers and Liskov, "A
Decentralized Model for Information Flow Control", 1997): labels form a lattice, and a value made of
others has the join of their labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

USER = "user"
SYSTEM = "system"
# Origins that a label may name are these two, and names with one of these kinds before a colon.
TRUSTED_KINDS = ("app", "tool")
UNTRUSTED_KINDS = ("web", "mcp", "file", "mail", "model", "principal")


@dataclass(frozen=True, slots=True)
class Label:
    """What influenced a value, and who may read it.

    Origins are "user", "system", "app:NAME", "tool:NAME" and untrusted ones: "web:HOST",
    "mcp:SERVER", "file:PATH", "mail:ADDRESS", "model:NAME", "principal:NAME".
    """

    origins: frozenset[str] = frozenset()  # all that influenced it; more is less trusted
    readers: frozenset[str] | None = None  # who may read it; None: everybody

    def join(self, *others: Label) -> Label:
        """The label of a value that all of these influenced: all origins, common readers."""
        origins, readers = self.origins, self.readers
        for other in others:
            origins |= other.origins
            if readers is None:
                readers = other.readers
            elif other.readers is not None:
                readers &= other.readers
        return Label(origins, readers)

    def flows_to(self, sink: Label) -> bool:
        """Whether a value with this label may go where `sink` is: a partial order.

        The sink has to admit every origin, and everybody who reads there has to be a reader here.
        """
        if not self.origins <= sink.origins:
            return False
        return self.readers is None or (sink.readers is not None and sink.readers <= self.readers)

    def readable_by(self, reader: str) -> bool:
        """Whether somebody may read a value with this label."""
        return self.readers is None or reader in self.readers

    @property
    def trusted(self) -> bool:
        """Whether no untrusted origin had any influence."""
        return not self.untrusted_origins

    @property
    def untrusted_origins(self) -> frozenset[str]:
        """The origins that are neither the user, the system, an app nor a tool of ours."""
        return frozenset(origin for origin in self.origins if not is_trusted(origin))

    @property
    def private(self) -> bool:
        """Whether it is of more than what the user said, and not everybody may read it."""
        return self.readers is not None and not all(map(_is_said, self.origins))

    @classmethod
    def of(cls, *origins: str, readers: Iterable[str] | None = None) -> Self:
        """A label from names."""
        return cls(frozenset(origins), None if readers is None else frozenset(readers))


PUBLIC = Label()  # the least label: of constants


def is_trusted(origin: str) -> bool:
    """Whether an origin is the user, the system, an app or a tool of ours; others are not."""
    return origin in (USER, SYSTEM) or origin.partition(":")[0] in TRUSTED_KINDS


def _is_said(origin: str) -> bool:
    """Whether an origin is the user, or what processes begin with."""
    return origin in (USER, SYSTEM) or origin.startswith("app:")


def join_all(labels: Iterable[Label]) -> Label:
    """The join of labels; of none, the least label."""
    return PUBLIC.join(*labels)
