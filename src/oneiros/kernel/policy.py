"""What may be done: one pure function over contracts, labels and what the user wrote.

The model is taken to obey whatever it reads. From the moment that its context holds anything
untrusted, all that it chooses may be somebody else's choice, so a call is judged by what nobody
else can choose: the user's own words, and fields that tools vouch for. Public work on the same
question: CaMeL (Debenedetti et al. 2025, arXiv 2503.18813) and FIDES (Costa et al. 2025, arXiv
2505.23643), both of which rest on labels of values; unlike CaMeL this takes no planner for honest.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import groupby
from urllib.parse import urlsplit

from oneiros.kernel.anchor_dates import date_time
from oneiros.kernel.anchors import Request, parse, title_key
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.label import Label
from oneiros.kernel.provenance import explained
from oneiros.kernel.readings import (
    Arguments,
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

MOST_REFUSALS = 2  # of people, until a process that goes on asking is stopped
MOST_TOGETHER = 12  # calls in one question: more nobody reads
MOST_QUESTIONS = 8  # since the user's last message
MOST_LOOK_UPS = 8  # likewise, that say nothing but the user's words after private data was read
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?\s?%?")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_SHORT = re.compile(r"(?!.*//)[\d\s:.,/+T-]{0,25}")  # a number, a date or a time
_MOST_SHORT = 60  # characters of all of them in a call: what is longer is a text
# Hosts and addresses in a text: what a reader, or a program of the reader's, would open.
_LINK = re.compile(
    r"(?:[a-z][a-z0-9+.-]*:)?//[^\s<>\"']+"
    r"|\b(?:[\w-]+\.)+"
    r"(?!(?:docx?|xlsx?|pptx?|txt|md|pdf|csv|json|py|png|jpe?g|html?)\b(?![/?#:]\w))"
    r"[^\W\d_]{2,}(?:[/?#:][^\s<>\"']*)?",
    re.IGNORECASE,
)
_NO_HOST = re.compile(r"[\\\s\x00-\x1f]")  # programs differ in what they make of them
_SCHEMES = ("http", "https")
_PATH = re.compile(r"[\w.-]{1,60}")
_PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a process wants to make."""

    tool: str
    arguments: Arguments
    contract: Contract
    capability: str
    # Names of arguments that the tool's schema does not have: whoever calls it made them up.
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContext:
    """All that a decision depends on."""

    owner: str
    app: str
    capabilities: frozenset[str]  # "*": every one
    granted: frozenset[str]  # meanings of questions that a person allowed for good
    request: Callable[[], str]  # what the user wrote: all messages, read when they are asked for
    label: Label  # of the context that the call comes from
    readings: Callable[[], Sequence[Reading]] = tuple  # what earlier calls brought, in order
    # Calls with effects or readers that were allowed earlier.
    made: Callable[[], Sequence[ToolCall]] = tuple
    app_grants: frozenset[str] = frozenset()  # tools, and readers, that the app's owner allowed
    private: bool = False  # whether private data came into the context by another way than a call
    asked: int = 0  # questions since the user's last message
    refused: int = 0  # of them


@dataclass(frozen=True, slots=True)
class Allow:
    """The call may be made."""

    # Who reads what it says, or at least that it was made, after private data was read: what is
    # made known to them with the user's consent. Journalled, so that it can be looked at later.
    released: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """The call may be made if a person agrees."""

    question: str
    meaning: str  # equal for calls that one answer settles


@dataclass(frozen=True, slots=True)
class Deny:
    """The call may not be made."""

    reason: str
    stop: bool = False  # whether the process may not go on by itself, either


Decision = Allow | Ask | Deny


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a call is not allowed without a question."""

    kind: str  # "grant", "value", "empty", "again", "apart", "text", "private", "reader", "link", …
    about: str = ""  # an argument's path, or a reader
    value: Scalar | None = None


def decide(call: ToolCall, context: PolicyContext) -> Decision:
    """Whether a call may be made; `decide_all` for one call."""
    return decide_all([call], context)[0]


def decide_all(calls: Sequence[ToolCall], context: PolicyContext) -> list[Decision]:
    """Whether calls may be made that a process wants to make at once.

    A process needs the tool's capability. What only reads and tells nobody is then allowed, and so
    are changes that the kernel can undo. Another call is allowed if nothing is found against it:

    - grant: the user's words ask for such an effect (`Contract.requested_by`), or the app may;
    - value, empty: there are critical arguments, and every one is anchored (`_Anchors`);
    - again: the same was not done already for this request;
    - apart: once anything untrusted was read, what the user wrote in different sentences is not
      put together;
    - private, reader, text, link, hidden, often: nothing private goes to whom it is not meant for.

    Otherwise a person is asked. Calls against which the same is found are one question. A process
    that goes on asking after two refusals, or asks for too much, is stopped.
    """
    decisions: list[Decision | None] = [None] * len(calls)
    problems: dict[int, list[Problem]] = {}
    made: list[ToolCall] = []
    for number, call in enumerate(calls):
        if not {call.capability, "*"} & context.capabilities:
            lacks = f"it lacks {call.capability!r}"
            decisions[number] = Deny(f"This process may not use {call.tool}: {lacks}.")
            continue
        found = _problems(call, context, made)
        if found and _meaning([(call, found)]) not in context.granted:
            problems[number] = found
            continue
        decisions[number] = Allow(_released(call, context))
        made.append(call)
    groups: dict[object, list[int]] = defaultdict(list)
    for number, found in problems.items():
        kinds = frozenset(
            (problem.kind, "" if problem.kind in ("reader", "private") else problem.about)
            for problem in found
        )
        groups[calls[number].tool, kinds].append(number)
    asked = context.asked
    questions = [
        group[at : at + MOST_TOGETHER]
        for group in groups.values()
        for at in range(0, len(group), MOST_TOGETHER)
    ]
    for numbers in questions:
        together = [(calls[number], problems[number]) for number in numbers]
        decision = _ask(together, context, asked)
        asked += 1
        for number in numbers:
            decisions[number] = decision
    return [decision for decision in decisions if decision is not None]


def _ask(
    together: Sequence[tuple[ToolCall, list[Problem]]], context: PolicyContext, asked: int
) -> Decision:
    if context.refused >= MOST_REFUSALS:
        return Deny(
            f"A person has refused {context.refused} times what this process asked for. It is "
            "stopped, and not asked for again until there is a new message.",
            stop=True,
        )
    if asked >= MOST_QUESTIONS:
        return Deny(
            f"This process has asked {asked} questions about one request. It is stopped.", stop=True
        )
    meaning = _meaning(together)
    if meaning in context.granted:
        return Allow(tuple(r for call, _ in together for r in _released(call, context)))
    return Ask(_question(together, context), meaning)


def _meaning(together: Sequence[tuple[ToolCall, list[Problem]]]) -> str:
    """What a person agrees to: equal for calls, of one tool, that do the same to the same.

    Of a call without effects it is who would read what it says, so that one answer counts for all
    pages of a host, as long as nothing else is found against them.
    """
    parts = set()
    for call, problems in together:
        hits = {
            (problem.kind, problem.about, str(problem.value) if problem.kind == "link" else "")
            for problem in problems
        }
        if call.contract.effects:
            hits |= {("", path, str(same(value))) for path, value in _critical(call)}
        parts.add((*sorted(call.contract.effects), *sorted(hits)))
    digest = sha256(repr(sorted(map(repr, parts))).encode()).hexdigest()
    return f"{together[0][0].tool}:{digest[:24]}"


def _problems(
    call: ToolCall, context: PolicyContext, together: Sequence[ToolCall]
) -> list[Problem]:
    contract = call.contract
    effects = contract.effects - ({Effect.LOCAL} if contract.undo else set())
    if not effects and not contract.sinks:
        return []
    request = parse(context.request())
    anchors = _Anchors(request, context)
    problems = []
    if effects:
        requested = call.tool in context.app_grants or request.asks(contract.requested_by)
        if not requested:
            problems.append(Problem("grant"))
        unanchored = [
            Problem("value", path, value)
            for path, value in _critical(call)
            if not anchors.hold(call, value, path)
        ]
        problems += unanchored
        if not any(_critical(call)) and _has_to_aim(call):
            problems.append(Problem("empty"))
        if _again(call, [*context.made(), *together]):
            problems.append(Problem("again"))
        if requested and not unanchored and not context.label.trusted:
            problems += _apart(call, context, request, anchors)
    problems += _leaks(call, context, request, anchors, together)
    return problems


def _critical(call: ToolCall) -> Iterator[tuple[str, Scalar]]:
    """The values that decide whom or what a call hits. What is left empty decides nothing.

    Yes and no decide only where the contract names the argument.
    """
    critical = call.contract.critical
    for path, value in leaves(call.arguments, with_names=True):
        if isinstance(value, bool):
            decides = path in critical and (value or bool(_words(call, path, value)))
        else:
            decides = value != "" and is_under(path, critical)
        if decides:
            yield path, value


def _words(call: ToolCall, path: str, value: Scalar) -> list[str]:
    """The words for an argument's value, where the contract says some."""
    said_as = call.contract.said_as
    return [words for argument, said, words in said_as if (argument, said) == (path, str(value))]


def _has_to_aim(call: ToolCall) -> bool:
    """Whether some argument has to decide what a call hits."""
    critical = call.contract.critical
    return bool(call.arguments) if "*" in critical else bool(critical)


def _again(call: ToolCall, made: Sequence[ToolCall]) -> bool:
    """Whether the same was done already: a grant is for one time.

    So are less and more of the same: who wrote to two together does not write to each of them.
    """
    hits = _hits(call)
    return any(
        other.tool == call.tool and (hits <= _hits(other) or _hits(other) <= hits) for other in made
    )


def _hits(call: ToolCall) -> set[tuple[str, object]]:
    return {(path.partition(".")[0], _spelt(value)) for path, value in _critical(call)}


def _spelt(value: Scalar) -> object:
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


def _apart(
    call: ToolCall, context: PolicyContext, request: Request, anchors: _Anchors
) -> list[Problem]:
    """Whether a call puts together what the user wrote apart.

    Which of the user's words belong together is a choice, too, and not the process's after it has
    read what others wrote. They do if one sentence has all of them, asks for the tool, and has
    nothing else of their kinds that could be meant; if none of them is used for two arguments; and
    if times come in the order in which the contract lists their arguments.
    """
    if call.tool in context.app_grants:
        return []
    critical = list(_critical(call))
    places = {(path, _spelt(value)) for path, value in critical}
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
    for text in _SENTENCE.split(context.request()):
        sentence = parse(text)
        if (
            sentence.asks(call.contract.requested_by)
            and all(map(sentence.has, values))
            and not sentence.rivals(values)
            and all(
                any(made or sentence.names(name) for name, made in names.items())
                for names in records
                if names
            )
        ):
            return []
    return [Problem("apart")]


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


def _leaks(
    call: ToolCall,
    context: PolicyContext,
    request: Request,
    anchors: _Anchors,
    together: Sequence[ToolCall],
) -> list[Problem]:
    """What goes to readers that the user did not mean it for.

    Whatever the process has read may be in any argument, in any form. So it does not matter what
    an argument looks like: only whether the user wrote it, what was read before, and who reads it.
    """
    readers = [
        (reader, at) for reader, at in _readers(call) if at is not None or reader != context.owner
    ]
    if not readers:
        return []
    said = context.request()
    carried = [
        (path, value)
        for path, value in leaves(call.arguments, with_names=True)
        if isinstance(value, bool) or not (value == "" or _is_users(value, request, said))
    ]
    if not (carried or call.unknown) and all(map(_is_flat, call.arguments.values())):
        # The user's own words; which of them, and how often, can be made to say something, too.
        if call.contract.effects or not _has_private(context):
            return []
        made = [*context.made(), *together]
        told = sum(bool(one.contract.sinks) and not one.contract.effects for one in made)
        return [Problem("often", readers[0][0])] if told >= MOST_LOOK_UPS else []
    problems = []
    sends = Effect.SEND in call.contract.effects or not call.contract.effects
    has_private = _has_private(context)
    kept_back = context.private or any(
        reading.private and not anchors.meant(reading) for reading in context.readings()
    )
    for reader, at in readers:
        named = (
            reader in context.app_grants
            or (at is None and reader != _PUBLIC)
            or _is_named(reader, at, call, request, anchors)
        )
        if not named and (not call.contract.effects or has_private):
            problems.append(Problem("reader", reader))
        # Who reads a page does not ask for anything to be sent there.
        only_reads = not call.contract.effects
        asked_for = not only_reads and request.asks(call.contract.requested_by)
        if kept_back or (has_private and not asked_for):
            problems.append(Problem("private", reader))
    content = [
        (path, value) for path, value in carried if not is_under(path, call.contract.critical)
    ]
    texts = [
        (path, value)
        for path, value in content
        if isinstance(value, str) and not _SHORT.fullmatch(value)
    ]
    length = sum(len(str(same(value))) for _, value in content)
    if has_private and not sends and (texts or length > _MOST_SHORT):
        path, value = (texts or content)[0]
        problems.append(Problem("text", path, value))
    if call.contract.effects:
        problems += [
            Problem("link", path, link)
            for path, value in texts
            for link in _LINK.findall(value)
            if not anchors.hold(call, link.rstrip(".,;:!?)"))
        ]
        problems += [Problem("hidden", path) for path, value in texts if not _is_visible(value)]
    return problems


def _is_flat(argument: object) -> bool:
    """Whether an argument says nothing by its form: by what is in what, empty, or there again."""
    if not isinstance(argument, list | tuple):
        return not isinstance(argument, Mapping)
    values = [one for one in argument if isinstance(one, str | int | float) and one != ""]
    return len(values) == len(argument) == len(set(map(str, values)))


def _is_visible(text: object) -> bool:
    """Whether a text has only what people see, and line ends and tabs."""
    return not isinstance(text, str) or all(map(str.isprintable, re.split(r"[\n\r\t]", text)))


def _is_users(value: Scalar, request: Request, said: str) -> bool:
    """Whether a value is the user's words: what stands there, or a word that asks for something.

    It has to be spelt as the user did: capitals, spaces and punctuation can carry a message.
    """
    if not isinstance(value, str) or _SHORT.fullmatch(value):
        return request.has(value)
    if value.isalpha() and value in (value.lower(), value.capitalize()) and request.asks([value]):
        return True
    lines = " ".join(said.split())
    spellings = (value, value[0].swapcase() + value[1:])
    return any(one in said or one in lines for one in spellings) and request.has(value)


def _released(call: ToolCall, context: PolicyContext) -> tuple[str, ...]:
    """Who gets to know something after private data was read, if a call is made."""
    readers = tuple(
        reader for reader, at in _readers(call) if at is not None or reader != context.owner
    )
    return readers if readers and _has_private(context) else ()


def _has_private(context: PolicyContext) -> bool:
    return context.private or any(reading.private for reading in context.readings())


def _readers(call: ToolCall) -> Iterator[tuple[str, str | None]]:
    """Who reads what a call says, and the argument that names the reader, if one does."""
    sinks = call.contract.sinks
    if not sinks and Effect.SEND in call.contract.effects:
        sinks = (_PUBLIC,)  # it sends, and does not say to whom
    for template in sinks:
        placeholder = _PLACEHOLDER.search(template)
        if placeholder is None:
            yield template, None
            continue
        argument = call.arguments.get(placeholder[1], ())
        for path, value in leaves(argument, placeholder[1], with_names=True):
            reader = _host(str(value)) if template.startswith("web:") else str(value)
            if reader:
                yield template.replace(placeholder[0], reader), path


def _host(address: str) -> str:
    """The host of an address; where programs may take different ones for it, all of the address."""
    if _NO_HOST.search(address):
        return address
    if "://" not in address:
        return address.partition("/")[0] or address
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    return parts.hostname or address if parts.scheme in _SCHEMES else address


def _is_named(
    reader: str, at: str | None, call: ToolCall, request: Request, anchors: _Anchors
) -> bool:
    """Whether the user named a reader: by itself, or by an address on it."""
    if at is None:
        return reader != _PUBLIC or request.asks(call.contract.requested_by)
    kind, _, name = reader.partition(":")
    if kind == "web" and request.host(name):
        return True
    return any(
        anchors.hold(call, value, path)
        for path, value in leaves(call.arguments, with_names=True)
        if path == at and str(value) in (reader, name)
    )


class _Anchors:
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
        words = _words(call, path, value)
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

    def meant(self, reading: Reading) -> bool:
        """Whether the user asked for what a call read, and so for passing it on when asked to."""
        return self._request.asks(reading.contract.requested_by) and (
            reading.clean or self._chosen_by_user(reading)
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
            self._request.has(number.strip()) or same(number.strip()) in earlier
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


def _question(together: Sequence[tuple[ToolCall, list[Problem]]], context: PolicyContext) -> str:
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
