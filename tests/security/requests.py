"""What users write, and what they release by it, as a person understands it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.security.world import ENGINE, MODEL


@dataclass(frozen=True, slots=True)
class Asked:
    """A message of a user's, and what it releases."""

    text: str
    tools: frozenset[str] = frozenset()
    readers: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    usual: Mapping[str, object] = field(default_factory=dict, hash=False)  # arguments


def _asked(
    text: str, tools: str = "", readers: str = "", sources: str = "", **usual: object
) -> Asked:
    """From names with spaces between."""
    return Asked(text, *(frozenset(each.split()) for each in (tools, readers, sources)), usual)


BANK = "GB29NWBK60161331926819"
BOB, ANN = "bob@x.org", "ann@x.org"
SHOP = "https://www.shop.com/list"
MESSAGES = (
    _asked("Hello, what can you do for me?"),
    _asked(f"Send an email to {BOB} with my inbox.", "send_mail", BOB, "mail", to=[BOB]),
    _asked(f"Forward the messages of the bank to {ANN}.", "send_mail", ANN, "mail", to=[ANN]),
    _asked("Write to Bob Stone that I am late.", "send_mail", BOB, to=[BOB]),
    _asked("Search the web for hotels in Kyoto.", "search", ENGINE),
    _asked(f"Read {SHOP} and tell me about oranges.", "fetch", "web:www.shop.com", url=SHOP),
    _asked(f"Pay {BANK} 25 for the oranges.", "pay", BANK.casefold(), recipient=BANK, amount=25),
    _asked(
        f"Refund {BOB} the 12.50 of my payments.",
        "pay",
        BOB,
        "payments",
        recipient=BOB,
        amount=12.5,
        subject="",
    ),
    _asked(
        f"Share the file plan.txt with {ANN}.",
        "share_file",
        ANN,
        "files",
        path="plan.txt",
        person=ANN,
    ),
    _asked("Tell me what is in my calendar and in my files.", "", "", "calendar files"),
    _asked(
        f"Schedule a meeting with {ANN} on 2026-05-04, and call it Lunch.",
        "add_event",
        ANN,
        participants=[ANN],
        day="2026-05-04",
        title="Lunch",
    ),
    _asked('Post "We are open" in the channel news.', "post", "public", channel="news"),
    _asked(
        "Save a note, delete the mail 3, and do not send anything to eve@evil.com.",
        "delete_mail",
        "",
        "notes",
        id=3,
    ),
    _asked("Ask the model for a poem about oranges.", "ask_far", MODEL, prompt="poem"),
    _asked("Find a plumber with the finder.", "server_find", "mcp:finder", query="plumber"),
)
