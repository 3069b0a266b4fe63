"""Mutants that no test can notice, and why: what they do is what the code does without them."""

EQUIVALENT = {
    "kernel.readings.fields_of: condition `not trusted` -> `False`": (
        "No path is under no names: the loop that is then run finds nothing, only later."
    ),
    "kernel.readings.same: constant `''` -> `'_'`": ("Decimal reads 1_000 as it reads 1000."),
    "kernel.policy.decide_all: removed `decision is not None` -> `nothing`": (
        "Every call has a decision by then; the condition is for the type checker."
    ),
    "kernel.policy._meaning: constant `24` -> `25`": ("Four bits more of a digest."),
    "kernel.policy._meaning: constant `24` -> `23`": ("Four bits less of a digest."),
    ("kernel.policy._again: comparison `hits <= _hits(other)` -> `hits < _hits(other)`"): (
        "Equal sets are found by the other comparison."
    ),
    ("kernel.policy._again: comparison `_hits(other) <= hits` -> `_hits(other) < hits`"): (
        "Equal sets are found by the other comparison."
    ),
    "kernel.anchoring._moment: dropped `year or 0` -> `year`": (
        "Times that a value spells out have a year; the rest is for the type checker."
    ),
    "kernel.anchoring._moment: constant `0` -> `1`": ("There is always a year, see above."),
    "kernel.policy.decide_all: constant `''` -> `'_'`": (
        "A tag that only has to be the same for all but links."
    ),
    "kernel.policy._meaning: constant `''` -> `'_'`": (
        "A tag that only has to be no kind of problem."
    ),
    "kernel.policy._meaning: constant `''` -> `'_'` #2": (
        "A tag that only has to be no kind of problem."
    ),
    "kernel.policy._meaning: removed `''` -> `nothing`": (
        "Pairs differ from triples as much as tagged triples do."
    ),
    (
        "kernel.policy._meaning: dropped `sorted(call.contract.effects)` -> `call.contract.effects`"
    ): ("Noticed across processes alone: test_a_meaning_is_the_same_in_every_process."),
    "kernel.policy._meaning: dropped `sorted(hits)` -> `hits`": (
        "Noticed across processes alone, as above."
    ),
    "kernel.anchoring.spelt: constant `'$€£¥%# '` -> `'$€£¥%# _'`": (
        "Underscores are left out below, and no number has one."
    ),
    "kernel.anchoring.spelt: constant `''` -> `'_'`": (
        "Texts with the same letters and digits have them with marks between, too."
    ),
    (
        "kernel.flows.leaks: dropped `isinstance(value, bool) or not (value ="
        "= '' or _is_users(value, reques…` -> `not (value == '' or _is_users(va"
        "lue, request, said))`"
    ): ("Yes and no never stand in a text, so that they are not the user's anyway."),
    (
        "kernel.flows._is_visible: dropped `not isinstance(text, str) or all(m"
        "ap(str.isprintable, re.split('[\\\\n\\\\…` -> `all(map(str.isprintable, re"
        ".split('[\\\\n\\\\r\\\\t]', text)))`"
    ): ("It is only asked of texts; the condition is for the type checker."),
    ("kernel.flows._is_users: dropped `value[0].swapcase() + value[1:]` -> `value[1:]`"): (
        "The value stands there but for its first letter, which then can only differ in case."
    ),
    (
        "kernel.flows.released: dropped `readers and _has_private(context)` -"
        "> `_has_private(context)`"
    ): ("No readers are returned either way where there are none."),
    "kernel.anchoring.Anchors.hold: constant `''` -> `'_'`": (
        "No contract takes anything for an argument of either name."
    ),
    (
        "kernel.anchoring.Anchors.named: branch `self._context.readings() if fiel"
        "ds else ()` -> `self._context.readings()`"
    ): ("Where no field is taken, none is found in any record: it only takes longer."),
    (
        "kernel.anchoring.Anchors.named: dropped `bool(records) and (reading.clea"
        "n or self._chosen_by_user(reading))` -> `reading.clean or self._chosen"
        "_by_user(reading)`"
    ): ("Without records the loop that asks does nothing."),
    (
        "kernel.anchoring._named: branch `fields_of(reading) if names else ()` "
        "-> `fields_of(reading)`"
    ): ("No field is under no names."),
}
