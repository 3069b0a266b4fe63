"""Masking what identifies people: addresses and numbers become ones that belong to nobody."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from datatrove.pipeline.formatters.pii import PIIFormatter, public_ip_validator

# "+49 30 901820", "(212) 555-0175", "212-555-0175": shapes that hardly anything else has.
_TELEPHONE = re.compile(
    r"(?<![\w+.-])"
    r"(?:\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6}|\(\d{3}\) ?\d{3}-\d{4}|\d{3}-\d{3}-\d{4})"
    r"(?![\w-]|\.\d)"
)
_CARD = re.compile(r"(?<![\d.-])\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}(?![\d-]|\.\d)")


def _alone(address: str) -> re.Pattern[str]:
    """An IP address that is not part of a longer number, nor said to be a version or a section."""
    named = "".join(rf"(?<!{name} )" for name in ("version", "release", "kernel", "section", "§"))
    return re.compile(rf"(?<![\w.-]){named}(?:{address})(?![\w-]|\.\d)", re.IGNORECASE)


def _valid_card(number: str) -> bool:
    """Whether the check digit is right (Luhn)."""
    digits = [int(sign) for sign in number if sign.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return any(digits) and (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _enough_digits(number: str) -> bool:
    return 8 <= sum(sign.isdigit() for sign in number) <= 15


def _anything(_: str) -> bool:
    return True


class Masker:
    """Replaces personal data, each kind by one sign for all.

    datatrove's own formatter goes round in a list of replacements, so that a text would depend on
    the texts before it.
    """

    def __init__(self) -> None:
        theirs = PIIFormatter()
        self._kinds: list[tuple[str, Any, str, Callable[[str], bool]]] = [
            ("email", theirs.emails_replacer.regex, "email@example.com", _anything),
            ("ip", _alone(theirs.ip_replacer.regex.pattern), "192.0.2.1", public_ip_validator),
            ("card", _CARD, "0000 0000 0000 0000", _valid_card),
            ("telephone", _TELEPHONE, "+1 202 555 0100", _enough_digits),
        ]

    def mask(self, text: str) -> tuple[str, Counter[str]]:
        """The text without personal data, and how many of each kind it had."""
        counts: Counter[str] = Counter()
        for kind, expression, mask, valid in self._kinds:
            text = expression.sub(_replacement(kind, mask, valid, counts), text)
        return text, counts


def _replacement(
    kind: str, mask: str, valid: Callable[[str], bool], counts: Counter[str]
) -> Callable[[re.Match[str]], str]:
    def replace(found: re.Match[str]) -> str:
        if found.group() == mask or not valid(found.group()):
            return found.group()
        counts[kind] += 1
        return mask

    return replace
