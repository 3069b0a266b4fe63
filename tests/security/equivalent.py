"""Mutants that no test can notice, and why: what they do is what the code does without them."""

EQUIVALENT = {
    "kernel.readings.fields_of: condition `not trusted` -> `False`": (
        "No path is under no names: the loop that is then run finds nothing, only later."
    ),
    "kernel.readings.same: constant `''` -> `'_'`": "Decimal reads 1_000 as it reads 1000.",
    "kernel.policy.Problem: constant `''` -> `'_'`": (
        "Problems without an `about` show none, and all of one kind have the same."
    ),
    "kernel.policy.decide_all: removed `decision is not None` -> `nothing`": (
        "Every call has a decision by then; the condition is for the type checker."
    ),
    "kernel.policy._meaning: constant `24` -> `25`": "Four bits more of a digest.",
    "kernel.policy._meaning: constant `24` -> `23`": "Four bits less of a digest.",
    "kernel.policy._again: comparison `hits <= _hits(other)` -> `hits < _hits(other)`": (
        "Equal sets are found by the other comparison."
    ),
    "kernel.policy._again: comparison `_hits(other) <= hits` -> `_hits(other) < hits`": (
        "Equal sets are found by the other comparison."
    ),
    "kernel.policy._moment: dropped `year or 0` -> `year`": (
        "Times that a value spells out have a year; the rest is for the type checker."
    ),
    "kernel.policy._moment: constant `0` -> `1`": "There is always a year, see above.",
}
