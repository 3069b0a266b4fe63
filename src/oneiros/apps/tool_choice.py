"""Which tools a request is shown: those whose descriptions speak of what it asks for.

The score is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
Beyond", 2009) over names, descriptions and parameters, of the request's words and of what its form
gives away: an address needs something that reads pages, whatever its words are.

Tools stand at the beginning of the prompt, so that other tools cost a whole prefill. Therefore they
are only added, at the end, and only by a message that needs them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from oneiros.kernel.tools import Tool

FEW = 4
"""So many tools are all shown, whatever is asked."""

MOST_PER_REQUEST = 4
"""That one message adds, beside those that they hand over to."""

# Shown to a request that seems to need hardly anything: with these most things can be done.
CORE = ("python", "read_file")

# Whoever has the first will need the others: their arguments or results are about the same things.
HAND_OFFS: Mapping[str, tuple[str, ...]] = {
    "search_files": ("read_file",),
    "list_files": ("read_file",),
    "edit_file": ("read_file",),
    "move_file": ("list_files",),
    "delete_file": ("list_files",),
    "search_web": ("fetch_page",),
    "spawn": ("wait",),
}

_HARDLY = 2  # tools
_RELATIVE = 0.5  # share of the best tool's score that others need
_NAME_WEIGHT, _PARAMETER_WEIGHT = 3, 1  # times that their words count
_SATURATION, _LENGTH = 1.2, 0.6  # BM25's k1 and b
_PER_CUE = 2  # tools for each thing that the form of a request says

# What the form of a request says beside its words.
_URL = re.compile(r"\bhttps?://\S+|\bwww\.\S+", re.IGNORECASE)
_WEB = "web page fetch link"
_CUES = tuple(
    (re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE), words)
    for pattern, words in (
        (r"web ?(?:site|page)s?|urls?|pages?", _WEB),
        (r"\w+\.(?:txt|csv|tsv|md|json|ini|py|pdf|docx?|html?|log|xml|ya?ml)", "file read write"),
        (r"files?|folders?|director(?:y|ies)", "file read"),
        (r"\d+\s*[-+*/^×÷]\s*\(?\d+|\d+\s*%|\d+ per ?cent|square root", "calculate exact"),
        (r"\d+ (?:times|plus|minus|divided by) \d+|convert|together|area", "calculate exact"),
        (r"how (?:many|much)|sum|total|average|mean|median|product|most often", "python code"),
        (r"code|script|program|plot|chart|csv|regression|sort|numbers|random", "run python code"),
        (
            r"(?:upper|lower) ?case|capital letters|reverse\w*|alphabetical\w*|copy",
            "run python code",
        ),
        (r"change|replace|rename|correct|add the line|append", "edit replace file"),
        (r"remind|alarm|timer|tomorrow|in \d+ (?:seconds|minutes|hours|days)", "timer time"),
        (r"today|now|what time|clock|weekday|day of the week", "time day"),
        (r"my \w+|notes?|diary|documents?", "search user files"),
        (r"look up|find out|search|news|latest", "search"),
    )
)

_WORD = re.compile(r"[a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_COMMON = frozenset(
    _WORD.findall(
        "a an and are as at be by can do does for from give has have how i if in into is it its "
        "me my of on or please so tell that the their them then there this times to use using was "
        "what when where which who will with you your all many much text line lines start new"
    )
)


@dataclass(frozen=True, slots=True)
class _Document:
    """A tool's words."""

    tool: Tool
    words: Counter[str]
    length: int


def choose_tools(requests: Sequence[str], tools: Sequence[Tool]) -> tuple[str, ...]:
    """The names of the tools to show, those that were shown longest first.

    Args:
        requests: everything that was asked in a conversation, in order. The tools for the first n
            of them are the beginning of those for all.
        tools: that there are.
    """
    if len(tools) <= FEW:
        return tuple(tool.name for tool in tools)
    documents = [_document(tool) for tool in tools]
    there = {tool.name for tool in tools}
    shown: dict[str, None] = {}
    for request in requests:
        needed = _needed(request, documents)
        if len(needed) < _HARDLY:
            needed += [name for name in CORE if name in there]
        for name in needed:
            shown[name] = None
            shown |= dict.fromkeys(_handed_to(name, documents))
    return tuple(shown)


def needed_tools(request: str, tools: Sequence[Tool]) -> tuple[str, ...]:
    """The names of the tools that one message by itself asks for, however few there are."""
    return tuple(_needed(request, [_document(tool) for tool in tools]))


def _needed(request: str, documents: Sequence[_Document]) -> list[str]:
    """The tools that a message needs: those for each thing its form says, then for its words."""
    words = _URL.sub(" ", request)
    cues = [more for pattern, more in _CUES if pattern.search(words)]
    if words != request:
        cues.insert(0, _WEB)
    needed: dict[str, None] = {}
    for cue in cues:
        needed |= dict.fromkeys(_ranked(_words(cue), documents)[:_PER_CUE])
    said = frozenset(_words(words))
    speaking = [document for document in documents if _speaks(document, said)]
    for name in _ranked(sorted(said), speaking):
        if len(needed) < MOST_PER_REQUEST:
            needed[name] = None
    return list(needed)


def _speaks(document: _Document, words: frozenset[str]) -> bool:
    """Whether more than one stray word of a description is what a request says."""
    name = _words(_CAMEL.sub(" ", document.tool.name))
    return not words.isdisjoint(name) or len(words.intersection(document.words)) > 1


def _ranked(words: Iterable[str], documents: Sequence[_Document]) -> list[str]:
    """The tools that speak of these words, best first; equal ones in the order of their names."""
    if not documents:
        return []
    lengths = sum(document.length for document in documents) / len(documents)
    scores: dict[str, float] = {}
    for word in dict.fromkeys(words):
        having = [document for document in documents if word in document.words]
        rarity = math.log(1 + (len(documents) - len(having) + 0.5) / (len(having) + 0.5))
        for document in having:
            times = document.words[word]
            norm = _SATURATION * (1 - _LENGTH + _LENGTH * document.length / lengths)
            score = rarity * times * (_SATURATION + 1) / (times + norm)
            scores[document.tool.name] = scores.get(document.tool.name, 0.0) + score
    ranked = sorted(scores, key=lambda name: (-scores[name], name))
    least = _RELATIVE * scores[ranked[0]] if ranked else 0.0
    return [name for name in ranked if scores[name] >= least]


def _handed_to(name: str, documents: Sequence[_Document]) -> list[str]:
    """Tools that a tool's description names, or that it is known to go with."""
    named = {document.tool.name: document.tool for document in documents}
    description = set(re.findall(r"[\w-]+", named[name].description)) - {name}
    known = HAND_OFFS.get(name, ())
    return [other for other in named if other in known or ("_" in other and other in description)]


def _document(tool: Tool) -> _Document:
    words = Counter(_words(_CAMEL.sub(" ", tool.name)) * _NAME_WEIGHT)
    words.update(_words(tool.description))
    properties = tool.parameters.get("properties")
    if isinstance(properties, Mapping):
        for name, schema in properties.items():
            words.update(_words(_CAMEL.sub(" ", str(name))) * _PARAMETER_WEIGHT)
            if isinstance(schema, Mapping):
                words.update(_words(str(schema.get("description", ""))))
    return _Document(tool, words, sum(words.values()))


def _words(text: str) -> list[str]:
    return [*_stems(word for word in _WORD.findall(text.lower()) if word not in _COMMON)]


def _stems(words: Iterable[str]) -> Iterable[str]:
    """Words without the endings that differ between a question and a description."""
    for word in words:
        stem = word
        for ending in ("ations", "ation", "ator", "ing", "ies", "es", "ed", "s", "e"):
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                stem = word[: -len(ending)]
                break
        yield stem
