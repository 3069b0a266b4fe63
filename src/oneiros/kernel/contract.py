"""Contracts: what a tool declares about itself, so that checks need no code of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

PLACEHOLDER = re.compile(r"\{(\w+)\}")  # in sinks and origins: an argument


class Effect(StrEnum):
    """What a call may do to the world."""

    LOCAL = "local change"  # to what is kept here, or in an account of the user's
    SEND = "send"  # something leaves this machine, or reaches somebody
    SPEND = "spend"  # money or something else that is not given back
    DELETE = "delete"  # something that cannot be undone
    EXECUTE = "execute"  # a program, outside of a sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a tool may do, what decides that, and what becomes of its output."""

    effects: frozenset[Effect] = frozenset()  # empty: it only reads or computes
    # Arguments that decide whom or what an effect hits: recipient, path, address, amount, command.
    # ("*",): every one.
    critical: tuple[str, ...] = ()
    # Who reads the arguments, beside the tool itself: "public", or names such as "model:gpt".
    # "web:{url}" is the host of the argument `url`. Empty: nobody.
    sinks: tuple[str, ...] = ()
    # What the output's label names: "tool:NAME" where nothing is here; "web:{url}", "mcp:SERVER",
    # "file:{path}" take arguments as above.
    origins: tuple[str, ...] = ()
    # Fields of the output's records that the tool vouches for, whatever its origins: ids, amounts,
    # senders. ("*",): every one. Outsiders cannot write there, or no more than a short plain value.
    trusted_fields: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # trusted fields by which people name a record: a title
    # Words by which people ask for the tool: "pay", "refund". None: only a person's answer allows
    # its effects, and what it reads is never meant to be passed on.
    requested_by: tuple[str, ...] = ()
    records: str = ""  # what a record is: "file", "event", "payment"
    # Which trusted fields of a record that the user named a critical argument may take, too:
    # ("file_id", "file.id").
    takes: tuple[tuple[str, str], ...] = ()
    # Critical arguments, their values, and words for these: ("permission", "rw", "edit").
    said_as: tuple[tuple[str, str, str], ...] = ()
    undo: bool = False  # whether the kernel can undo all that a call changes
    private: bool = False  # whether only the process's owner may read the output
    idempotent: bool = False  # whether a call of unknown outcome may just be made again
    deadline: float = 60.0  # seconds for a call
    output_limit: int = 8_000  # characters that go to the context; the rest is kept on disk
    capability: str = ""  # what a process needs to call it; default: the tool's name


# For tools of which nothing is known.
CONSERVATIVE = Contract(
    effects=frozenset(Effect),
    critical=("*",),
    sinks=("public",),
    origins=("mcp:unknown",),
)
