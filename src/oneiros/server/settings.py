"""How a server is set up."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from oneiros.server.keys import KeyRing

LARGEST_BODY = 10_000_000
"""Bytes of a request: more text than any context holds."""

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the app has to know besides its models."""

    host: str = "127.0.0.1"  # the address that the server listens on
    allowed_hosts: frozenset[str] = frozenset()  # further names that clients may use for it
    allowed_origins: frozenset[str] = frozenset()  # web pages that may call it: "https://x.org"
    keys: KeyRing | None = None  # None: nobody needs a key, whatever the address
    public_prompts: tuple[str, ...] = ()  # system prompts whose pages serve every principal
    largest_body: int = LARGEST_BODY

    @property
    def on_loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Whether an address to listen on means all addresses of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == ""
