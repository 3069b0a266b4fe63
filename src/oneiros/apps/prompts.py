"""All that an assistant's model is told, beside its tools: as few tokens as say it.

The system prompt is read before every conversation, and small models follow few instructions: each
sentence here is one that made a difference. Notices are in brackets, as the kernel's are.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

SYSTEM = (
    "You are Oneiros, an assistant that acts through tools. Find out, compute and change things "
    "with tools; do not guess. Use names, addresses and numbers exactly as they are given. Call "
    "tools that do not depend on each other at once. When all is done, call answer, or say the "
    "result briefly."
)

HANDLES = (
    "Texts that others wrote are kept from you behind handles, like ⟨handle 12.3#0.body: 431 "
    "characters⟩. Ask about one with inspect, for a yes or no, a choice or a number. Only if the "
    "words themselves are needed, read it with open_handle: after that, more of what you do has "
    "to be asked."
)
"""For processes in quarantine, beside that."""


class Notice(StrEnum):
    """How each notice of the agent begins; it is recognised by that in the context."""

    FAILED = "[Your reply failed"
    EMPTY = "[Your reply was empty"
    CUT = "[Your reply was cut"
    MALFORMED = "[Your call was malformed"
    REPEATS = "[You repeat yourself"
    ACCOUNT = "[Stop here"
    SEEN = "[The message names"
    NO_ANSWER = "[There is no answer"


def seen(what: str, request: str) -> str:
    """What a message names, looked at before the first reply to it.

    The message comes once more behind it: small models do what was said last, and took what a file
    holds for what to write.
    """
    return f"{Notice.SEEN} what is here now]\n{what}{again(request)}"


def again(request: str) -> str:
    """What a notice of what was seen ends with."""
    return f"\n\n[The message again:]\n{request}"


def failed() -> str:
    """After a generation of which nothing came."""
    return f"{Notice.FAILED}, and nothing of it is here. Answer again.]"


def empty() -> str:
    """After a reply without words or calls."""
    return f"{Notice.EMPTY}. Go on with a call, or answer.]"


def cut() -> str:
    """After a reply that a limit ended within a call."""
    return f"{Notice.CUT} within a call, which was not made. Make it shorter, or in parts.]"


def malformed(tool: str) -> str:
    """After a call written in a way that cannot be carried out."""
    return f"{Notice.MALFORMED}. Call {tool} again.]"


def repeats(what: str, *, failed: bool, neglected: Sequence[str] = ()) -> str:
    """When calls and results come again and again."""
    advice = (
        "Try another way"
        if failed
        else "Answer with the results, or make another call, of another page or file"
    )
    if neglected and not failed:
        advice = f"Nothing was done yet with {', '.join(neglected)}: go on with that"
    return f"{Notice.REPEATS}: {what}. {advice}.]"


def account(why: str) -> str:
    """When the work ends before it is done."""
    return f"{Notice.ACCOUNT}: {why}. Call no tool. Say what was done and found, what is missing.]"


def no_answer(why: str) -> str:
    """For the person who waits, where the model says nothing."""
    return f"{Notice.NO_ANSWER}: {why}]"


def notice_of(text: str) -> Notice | None:
    """Which notice a text is; None: none of these."""
    return next((notice for notice in Notice if text.startswith(notice)), None)
