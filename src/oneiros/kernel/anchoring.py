"""Whether the values that decide what a call hits are the user's, or vouched for.

`anchors.py` says what stands in the user's words; here that is put together with what calls have
brought, and with what the process may still choose by itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby

from oneiros.kernel.anchor_dates import date_time
from oneiros.kernel.anchors import Request, parse, title_key
from oneiros.kernel.readings import (
    Compared,
    Reading,
    Scalar,
    computes,
    fields_of,
    is_under,
    leaves,
    same,
    values_of,
)
from oneiros.kernel.verdict import PolicyContext, Problem, ToolCall

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?\s?%?")
# A stop may be within closing quotation marks.
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[.!?]['\"”’)])\s+(?=[A-Z])|\n+")


def critical_values(call: ToolCall) -> Iterator[tuple[str, Scalar]]:
    """The values that decide whom or what a call hits. What is left empty decides nothing.

    Yes and no decide only where the contract names the argument.
    """
    critical = call.contract.critical
    for path, value in leaves(call.arguments, with_names=True):
        if isinstance(value, bool):
            decides = path in critical and (value or bool(words_for(call, path, value)))
        else:
            decides = value != "" and is_under(path, critical)
        if decides:
            yield path, value


def words_for(call: ToolCall, path: str, value: Scalar) -> list[str]:
    """The words for an argument's value, where the contract says some."""
    said_as = call.contract.said_as
    return [words for argument, said, words in said_as if (argument, said) == (path, str(value))]


class Anchors:
    """What critical values may rest on.

    - The user wrote it (a typed match), or wrote a template that it fills.
    - A tool vouches for it, and it is of a record that the user named: exactly one value of its
      kind, brought by a call that nobody else could aim.
    - A tool vouches for it or computed it, and nothing untrusted has been read yet: what the
      process chooses is still what the user's request made it choose.
    """

    def __init__(self, request: Request, context: PolicyContext) -> None:
        self._request = request
        self._context = context

    def hold(self, call: ToolCall, value: Scalar, path: str = "") -> bool:
        """Whether a critical value, of the argument at a path, is anchored."""
        words = words_for(call, path, value)
        if words:
            return self._request.asks(words)
        if self._request.has(value):
            return True
        clean = self._context.label.trusted
        if clean and any(
            same(value) in values_of(reading) and self._aimed(reading, same(value))
            for reading in self._context.readings()
        ):
            return True
        if clean and isinstance(value, str) and self._request.fills(value, self._is_vouched):
            return True
        return bool(self.named(call, path, value))

    def meant(self, reading: Reading, call: ToolCall) -> bool:
        """Whether the user asked for what was read to be passed on by a call.

        One sentence asks for both: "show me my mails; then write to Bob" does not mean the mails.
        """
        if reading.contract.effects:  # what it made itself for the user
            asked = self._request.asks(reading.contract.requested_by)
            return asked and (reading.clean or self._chosen_by_user(reading))
        granted = call.tool in self._context.app_grants
        return (reading.clean or self._chosen_by_user(reading)) and any(
            sentence.asks(reading.contract.requested_by)
            and (granted or sentence.asks(call.contract.requested_by))
            for sentence in sentences_of(self._context)
        )

    def _is_vouched(self, text: str) -> bool:
        return any(same(text) in values_of(reading) for reading in self._context.readings())

    def _chosen_by_user(self, reading: Reading) -> bool:
        """Whether a call's arguments are the user's words; of one with effects, the critical."""
        critical = reading.contract.critical if reading.contract.effects else ("*",)
        return all(
            isinstance(value, bool) or value == "" or self._request.has(value)
            for path, value in leaves(reading.arguments, with_names=True)
            if is_under(path, critical)
        )

    def _aimed(self, reading: Reading, value: Compared) -> bool:
        """Whether a clean process got a value from the world, or computed it.

        Only numbers are computed: a tool that only works on texts could bring whatever it is told.
        """
        if not computes(reading.contract):
            return True
        if reading.arguments and isinstance(value, str):
            return False
        earlier: set[Compared] = set()
        for other in self._context.readings():
            if other is reading:
                break
            earlier |= {known for known in values_of(other) if self._aimed(other, known)}
        return all(
            self._request.has(number.strip()) or same(number) in earlier
            for _, value in leaves(reading.arguments, with_names=True)
            for number in _NUMBER.findall(str(value))
        )

    def named(self, call: ToolCall, path: str, value: Scalar) -> dict[str, bool]:
        """Names of the records that give an argument this value, and no other in its place.

        The user named the records, and the contract says that the argument takes that field. With
        each, whether it is the one record of its kind that the process itself has made: "the
        document", without its name, means that.
        """
        wanted = same(value)
        fields = {field for argument, field in call.contract.takes if argument == path}
        found: dict[tuple[tuple[str, ...], str], set[frozenset[Compared]]] = defaultdict(set)
        holds: dict[tuple[tuple[str, ...], str], set[str]] = defaultdict(set)
        made: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for reading in self._context.readings() if fields else ():
            records = _named(self._request, reading)
            aimed = bool(records) and (reading.clean or self._chosen_by_user(reading))
            for name, values in records:
                for at, here in values.items():
                    kind = f"{reading.contract.records}.{at}"
                    place = title_key(name), kind
                    if kind in fields:
                        found[place].add(here)
                        if reading.contract.effects:
                            made[kind].add(title_key(name))
                        if aimed and wanted in here:
                            holds[place].add(name)
        return {
            name: made[kind] == {key}
            for (key, kind), names in holds.items()
            if len(found[key, kind]) == 1
            for name in names
        }


@lru_cache(maxsize=1024)
def _named(
    request: Request, reading: Reading
) -> tuple[tuple[str, dict[str, frozenset[Compared]]], ...]:
    """Of the records in a reading that a user named: the name, and the values in each field."""
    names = reading.contract.names
    found = []
    for _, group in groupby(fields_of(reading) if names else (), lambda field: field.record):
        fields = list(group)
        for field in fields:
            if (
                is_under(field.path, names)
                and isinstance(field.value, str)
                and request.names(field.value)
            ):
                values: dict[str, set[Compared]] = defaultdict(set)
                for other in fields:
                    values[other.path].add(same(other.value))
                sets = {path: frozenset(each) for path, each in values.items()}
                found.append((field.value, sets))
    return tuple(found)


def apart(
    call: ToolCall, context: PolicyContext, request: Request, anchors: Anchors
) -> list[Problem]:
    """Whether a call puts together what the user wrote apart.

    Which of the user's words belong together is a choice, too, and not the process's after it has
    read what others wrote. They do if one sentence has all of them, asks for the tool, and has
    nothing else that could be meant; if no text is of another such sentence; if no value is used
    for two arguments; and if times come in the order in which the contract lists their arguments.
    """
    if call.tool in context.app_grants:
        return []
    critical = list(critical_values(call))
    places = {(path, spelt(value)) for path, value in critical}
    times = [
        (call.contract.critical.index(path), moment)
        for path, value in critical
        if path in call.contract.critical and (moment := _moment(value))
    ]
    if len({value for _, value in places}) < len(places) or _backwards(times):
        return [Problem("apart")]
    values = [value for _, value in critical if request.has(value)]
    records = [
        anchors.named(call, path, value) for path, value in critical if not request.has(value)
    ]
    asking = [
        sentence for sentence in sentences_of(context) if sentence.asks(call.contract.requested_by)
    ]
    if any(_means(sentence, call, values, records, asking) for sentence in asking):
        return []
    return [Problem("apart")]


def _means(
    sentence: Request,
    call: ToolCall,
    values: Sequence[Scalar],
    records: Sequence[Mapping[str, bool]],
    asking: Sequence[Request],
) -> bool:
    """Whether a sentence speaks of all that a call is about, and of nothing else.

    Args:
        sentence: one that asks for the tool.
        call: the call.
        values: its critical values that the user wrote.
        records: names of the records that the others come from, as `Anchors.named` gives them.
        asking: all sentences that ask for the tool.
    """
    paths = {path.partition(".")[0] for path in call.contract.critical}
    left_out = not paths <= {"*", *(path.partition(".")[0] for path, _ in critical_values(call))}
    texts = [value for _, value in leaves(call.arguments) if isinstance(value, str)]
    named = [name for names in records for name in names]
    return (
        all(map(sentence.has, values))
        and not sentence.rivals([*values, *named], of_any_kind=left_out)
        and all(
            any(made or sentence.names(name) for name, made in names.items())
            for names in records
            if names
        )
        and not any(other.has(text) for text in texts if not sentence.has(text) for other in asking)
    )


def sentences_of(context: PolicyContext) -> list[Request]:
    """What the user wrote, sentence by sentence."""
    return [parse(text) for text in _SENTENCE.split(context.request())]


def spelt(value: Scalar) -> object:
    """Equal for spellings of a value that anchors take for the same, and for some others."""
    known = same(value.strip("$€£¥%# ") if isinstance(value, str) else value)
    if not isinstance(known, str):
        return known
    moment = date_time(known)
    if moment:
        day, minutes, last = moment
        return day, None if last else minutes or None
    text = known.casefold().removeprefix("https://").removeprefix("http://")
    return "".join(filter(str.isalnum, text)) or text


def _moment(value: Scalar) -> tuple[int, ...] | None:
    """A date and time as numbers that compare; None: it is none."""
    known = date_time(value) if isinstance(value, str) else None
    if known is None:
        return None
    (year, month, day), minutes, _ = known
    return (year or 0, month, day, minutes or 0)


def _backwards(times: Sequence[tuple[int, tuple[int, ...]]]) -> bool:
    """Whether a time is before one whose argument the contract lists first."""
    ordered = [moment for _, moment in sorted(times)]
    return ordered != sorted(ordered)
