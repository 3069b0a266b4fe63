"""Where what a process has read may flow: readers, and what calls tell them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from oneiros.kernel.anchoring import Anchors
from oneiros.kernel.anchors import Request
from oneiros.kernel.contract import PLACEHOLDER, Effect
from oneiros.kernel.readings import Scalar, is_under, leaves, same
from oneiros.kernel.verdict import PolicyContext, Problem, ToolCall

# Look-ups by a process, after which one that says nothing but the user's words is asked about, too,
# once private data was read.
MOST_LOOK_UPS = 8
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
_PUBLIC = "public"


def leaks(
    call: ToolCall,
    context: PolicyContext,
    request: Request,
    anchors: Anchors,
    together: Sequence[ToolCall],
) -> list[Problem]:
    """What goes to readers that the user did not mean it for.

    Whatever the process has read may be in any argument, in any form. So it does not matter what
    an argument looks like: only whether the user wrote it, what was read before, and who reads it.
    """
    readers = _others(call, context)
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
        made = [*context.lately(), *together]
        told = sum(bool(one.contract.sinks) and not one.contract.effects for one in made)
        return [Problem("often", readers[0][0])] if told >= MOST_LOOK_UPS else []
    problems = []
    sends = Effect.SEND in call.contract.effects or not call.contract.effects
    has_private = _has_private(context)
    kept_back = context.private or any(
        reading.private and not anchors.meant(reading, call) for reading in context.readings()
    )
    for reader, at in readers:
        named = reader in context.app_grants or _is_named(reader, at, call, request, anchors)
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


def released(call: ToolCall, context: PolicyContext) -> tuple[str, ...]:
    """Who gets to know something after private data was read, if a call is made."""
    readers = tuple(reader for reader, _ in _others(call, context))
    return readers if readers and _has_private(context) else ()


def _others(call: ToolCall, context: PolicyContext) -> list[tuple[str, str | None]]:
    """Who reads what a call says, but for the owner; an argument may say "me" and mean another."""
    return [
        (reader, at) for reader, at in _readers(call) if at is not None or reader != context.owner
    ]


def _has_private(context: PolicyContext) -> bool:
    return context.private or any(reading.private for reading in context.readings())


def _readers(call: ToolCall) -> Iterator[tuple[str, str | None]]:
    """Who reads what a call says, and the argument that names the reader, if one does."""
    sinks = call.contract.sinks
    if not sinks and Effect.SEND in call.contract.effects:
        sinks = (_PUBLIC,)  # it sends, and does not say to whom
    for template in sinks:
        placeholder = PLACEHOLDER.search(template)
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
    reader: str, at: str | None, call: ToolCall, request: Request, anchors: Anchors
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
