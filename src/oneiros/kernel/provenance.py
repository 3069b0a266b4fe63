"""What a person is asked about calls, and where each of their values comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from oneiros.kernel.flows import MOST_LOOK_UPS
from oneiros.kernel.readings import Compared, Reading, Scalar, leaves, same
from oneiros.kernel.verdict import PolicyContext, Problem, ToolCall

_PATH = re.compile(r"[\w.-]{1,60}")
_MOST = 3  # sources that are named


def question(together: Sequence[tuple[ToolCall, list[Problem]]], context: PolicyContext) -> str:
    """What would happen, why it is asked, and where each critical value comes from."""
    lines = []
    for call, problems in together:
        effects = " and ".join(sorted(call.contract.effects)) or "read"
        arguments = ", ".join(
            f"{_plain(name)}={_short(value)}" for name, value in call.arguments.items()
        )
        lines.append(f"{call.tool}({arguments}) would {effects}.")
        lines += [f"  - {line}" for line in _reasons(call, problems, context)]
    sources = sorted(context.label.untrusted_origins)
    if sources:
        some = ", ".join(_short(source, 60) for source in sources[:5])
        more = f" and {len(sources) - 5} more" if len(sources) > 5 else ""
        lines.append(f"The process has read from {some}{more}.")
    return "\n".join([*lines, "Allow it?" if len(together) == 1 else "Allow all of them?"])


def _reasons(call: ToolCall, problems: Sequence[Problem], context: PolicyContext) -> Iterator[str]:
    for problem in problems:
        about = _plain(problem.about)
        match problem.kind:
            case "grant":
                yield "You did not ask for this."
            case "value" if problem.value is not None:
                origin = explained(problem.value, context.readings())
                yield f"{about} {_short(problem.value)}: you did not write it; {origin}."
            case "empty":
                yield "What it would be done to is left empty."
            case "again":
                yield "The same was done already."
            case "apart":
                yield "What it puts together, you wrote in different sentences."
            case "private":
                yield f"{_short(problem.about)} would read what may hold private data."
            case "reader":
                yield f"You did not name {_short(problem.about)}, who would read it."
            case "often":
                yield f"{_short(problem.about)} was told your words {MOST_LOOK_UPS} times already."
            case "text":
                yield f"{about} is a text that may hold private data."
            case "hidden":
                yield f"{about} holds characters that nobody sees."
            case "link" if problem.value is not None:
                yield f"{about} holds the address {_short(problem.value)}; you did not write it."


def _plain(path: str) -> str:
    """An argument's name, which may be the process's invention, within a line."""
    return path if _PATH.fullmatch(path) else _short(path, 60)


def _short(value: object, longest: int = 200) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "something too deep to be shown"
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def explained(value: Scalar, readings: Sequence[Reading]) -> str:
    """Which results hold a value, literally; a value that none holds was made up by the model."""
    text = json.dumps(value, ensure_ascii=False).strip('"').casefold()
    found = []
    for reading in readings:
        if same(value) in _values(reading) or text in _text(reading):
            kinds = sorted({origin.partition(":")[0] for origin in reading.origins})
            found.append(reading.tool + (f" ({', '.join(kinds)})" if kinds else ""))
    named = list(dict.fromkeys(found))
    if not named:
        return "it is in nothing that was read"
    more = f" and {len(named) - _MOST} more" if len(named) > _MOST else ""
    return f"it is in what {', '.join(named[:_MOST])}{more} brought"


@lru_cache(maxsize=1024)
def _values(reading: Reading) -> frozenset[Compared]:
    return frozenset(same(value) for _, value in leaves(reading.data))


@lru_cache(maxsize=1024)
def _text(reading: Reading) -> str:
    return json.dumps(reading.data, ensure_ascii=False, default=str).casefold()
