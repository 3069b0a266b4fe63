"""All attacks of our own."""

from __future__ import annotations

from bench.dojo.adaptive import Case
from bench.dojo.cases import banking, drive, mails, slack, travel


def every_case() -> list[Case]:
    """Of all suites."""
    modules = (mails, drive, banking, slack, travel)
    return [case for module in modules for case in module.cases()]
