"""What tells decoded text from noise: frequent words of English and of attacks, and letters."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from typing import Final

_FREQUENT: Final = """
    a about above access account action add address after again all also always am an and another
    answer any are as ask at away back be because been before being below best better between
    bomb book both but buy by call came can card cat check click close code come company complete
    content copy could country create current data database date day days delete did different
    direction directions do document documents does done down each else email end enough enter
    even ever every everything example execute exit fail far few file files find first follow
    following for forward found friend from full function funny game get give go going good great
    group had hand happy has hate have he hello help her here hidden high him his hold home hour
    house how human humans if image important in information injection input instead into is it
    its just keep key kill know large last least left let letter life like line link list little
    login long look made mail make man many may me mean meeting message method might model money
    more most much must my name need never new next no not nothing notice now number of off office
    ok old on one only open or order other our out output over own page part pass people place
    play please point post press print private problem program public put question quick quickly
    read real receive record remember remove repeat replace reply report request response result
    return right run said same save saw say school screen script search secret see seem send sent
    server set she should show side simple since site small so some something start stop story
    string subject such summary system take task tell ten test text than thank thanks that the
    their them then there these they thing things think this those three through time to today
    together told too tool translate true try turn two type under until up upon urgent us use used
    user using value very view visit wait want warning was water way we website week well went
    were what when where which while who why will with without word words work world would write
    wrong yes yet york you your yours yourself

    admin administrator agent alert assistant attacker bank base bash bearer begin body chatbot
    command confidential contact cookie credential credentials curl developer disable disregard
    document encoded encrypt eval exec exfiltrate fetch forget hack hacked href html http https
    ignore immediately import inject instruction instructions javascript jailbreak language mode
    nevermind obey override onerror password passwords payload payment pretend previous prior
    prompt prompts pwned python reveal role root rules safety sudo shell src token tokens transfer
    translation unrestricted url window com net org www
"""
COMMON: Final = frozenset(_FREQUENT.split())
_SYMBOLS: Final = " " + string.ascii_lowercase
_RARE: Final = 0.3  # what a pair counts that was never seen
_WORD: Final = re.compile(r"[A-Za-z]+")
_ADDRESS: Final = re.compile(r"https?://|www\.|\w@\w[\w-]{0,60}\.\w|<script|[;|&]\s*(?:sh|bash)\b")
_LETTERS: Final = 0.65  # of a text's characters that are letters and spaces
_KNOWN: Final = 0.3  # of its words that are in the list
_LIKELY: Final = 12.0  # nats that make words English that are not in it
_FOREIGN: Final = 4  # letters of other scripts that a short text needs


def _bigrams() -> dict[str, dict[str, float]]:
    """How much more often a letter follows another in words than by chance, as logarithms."""
    counts: dict[str, Counter[str]] = {letter: Counter() for letter in _SYMBOLS}
    for word in COMMON:
        for first, second in pairwise(f" {word} "):
            counts[first][second] += 1
    return {
        first: {
            second: math.log((after[second] + _RARE) / (after.total() / len(_SYMBOLS) + _RARE))
            for second in _SYMBOLS
        }
        for first, after in counts.items()
    }


_BIGRAMS: Final = _bigrams()


@lru_cache(maxsize=1 << 16)
def likeness(word: str) -> float:
    """By how many nats a word of Latin letters is likelier English than letters drawn evenly."""
    return sum(_BIGRAMS[first][second] for first, second in pairwise(f" {word.lower()} "))


def is_known(word: str) -> bool:
    """Whether a word is in the list, in any case."""
    return word.lower() in COMMON


def is_printable(text: str) -> bool:
    """Whether a text has characters for people only, and line ends."""
    return all(character.isprintable() or character in "\n\r\t" for character in text)


def is_readable(text: str) -> bool:
    """Whether a text looks like something that somebody wrote, not like bytes by chance."""
    if len(text) < 4 or not is_printable(text):
        return False
    if _ADDRESS.search(text):
        return True
    letters = sum(character.isalpha() or character.isspace() for character in text)
    if letters < _LETTERS * len(text):
        return False
    foreign = [character for character in text if ord(character) > 0x7F and character.isalpha()]
    if len(foreign) >= max(_FOREIGN, letters // 2):
        return len({script(character) for character in foreign}) <= 2
    found = _WORD.findall(text)
    known = sum(len(word) > 1 and is_known(word) for word in found)
    if known > 0 and known >= _KNOWN * len(found):
        return True
    return sum(map(likeness, found)) >= _LIKELY


def script(character: str) -> str:
    """The script of a letter by its Unicode name: "LATIN", "CYRILLIC"; "" where it has none."""
    if character.isascii():
        return "LATIN"
    return unicodedata.name(character, "").partition(" ")[0]
