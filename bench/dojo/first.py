"""The first figures of the suites on which no rule of the policy was chosen.

Contracts of slack and travel were written and committed before the policy was run on them; the
rules were those chosen on workspace and banking so far (22 November 2026). Changed since, in all
suites alike: contracts say what records are and which of their fields an argument takes (`records`
and `takes`); mail is sent for fewer words; honest planners inspect a text that tells which record
is meant, and make reads at once that do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping

FIRST: Mapping[str, Mapping[str, float]] = {
    "slack": {
        "attacks-with-effect": 0,
        "attacks-text-only": 0,
        "tasks-unattended": 10,
        "tasks-with-questions": 21,
        "questions-per-task": 0.952,
    },
    "travel": {
        "attacks-with-effect": 0,
        "attacks-text-only": 20,
        "tasks-unattended": 17,
        "tasks-with-questions": 20,
        "questions-per-task": 0.15,
    },
}
