"""Budgets: what is left, what is said of that, and what a child gets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from oneiros.errors import ProcessError
from oneiros.kernel.events import Budget, Used
from oneiros.kernel.state import ProcessState

TOLD_AT = 0.8  # share of a budget at which its end is announced
# Who used up a budget before its end was announced is told, and may still say something. The steps
# are a call that was asked for, notes of the program, and the reply, which is the last.
LAST_STEPS = 4
LAST_WORDS = 64  # tokens of this reply
LAST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class BudgetEnd:
    """Parts of a budget that are used up, or nearly."""

    over: tuple[str, ...]
    near: tuple[str, ...]  # not announced yet
    left: str  # of these, as a text


def end_of_budget(state: ProcessState) -> BudgetEnd:
    """What of a process's budget comes to its end."""
    limits, used = asdict(state.budget), asdict(state.used)
    shares = {
        part: (used[part] / limit if limit > 0 else 1.0)
        for part, limit in limits.items()
        if limit is not None
    }
    near = tuple(
        part for part, share in shares.items() if share >= TOLD_AT and part not in state.told
    )
    return BudgetEnd(
        # Who has no calls left can still say what it did.
        over=tuple(part for part, share in shares.items() if share >= 1 and part != "calls"),
        near=near,
        left=", ".join(f"{max(0, limits[part] - used[part]):g} {part}" for part in near),
    )


def handed_over(state: ProcessState, wanted: Budget | None) -> tuple[Budget, Used]:
    """A child's budget, and what that takes of its parent's.

    Args:
        state: of the parent.
        wanted: the child's; what is None there, and limited at the parent, becomes half of what
            the parent has left.

    Raises:
        ProcessError: the parent has not got so much left.
    """
    limits, used = asdict(state.budget), asdict(state.used)
    asked = {} if wanted is None else asdict(wanted)
    child: dict[str, Any] = {}
    taken: dict[str, Any] = {}
    for part, limit in limits.items():
        if limit is None:
            child[part] = asked.get(part)
            continue
        left = limit - used[part]
        amount = asked.get(part)
        if amount is None:
            amount = left / 2 if isinstance(limit, float) else left // 2
        if amount > left:
            raise ProcessError(f"Only {left:g} {part} of the budget are left, not {amount:g}.")
        child[part] = taken[part] = amount
    return Budget(**child), Used(**taken)
