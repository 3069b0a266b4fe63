"""Texts of exact length in tokens, different for every seed."""

from __future__ import annotations

import random

from oneiros.model.tokenizer import Tokenizer

_NOUNS = (
    "river mountain village engine letter garden captain market window winter student harbor "
    "machine forest teacher bridge doctor island lantern museum painter railway kitchen storm"
)
_VERBS = (
    "follows carries repairs describes remembers crosses paints measures visits protects "
    "discovers questions builds opens studies watches"
)
_ADJECTIVES = (
    "quiet old bright narrow distant careful heavy green broken gentle famous wooden strange "
    "patient silver hidden"
)
_LINKS = ("Meanwhile", "Later", "In the morning", "After that", "Nobody knows why, but", "Then")


def passage(tokenizer: Tokenizer, tokens: int, seed: int) -> str:
    """A text of exactly `tokens` tokens that is never twice the same."""
    draw = random.Random(seed)
    while True:
        text = ""
        while len(ids := tokenizer.encode(text)) < tokens:
            text += "".join(_sentence(draw) for _ in range(1 + (tokens - len(ids)) // 20))
        text = tokenizer.decode(ids[:tokens])
        if len(tokenizer.encode(text)) == tokens:
            return text


def _sentence(draw: random.Random) -> str:
    nouns = draw.sample(_NOUNS.split(), 3)
    adjectives = draw.sample(_ADJECTIVES.split(), 2)
    verbs = _VERBS.split()
    return (
        f"{draw.choice(_LINKS)} the {adjectives[0]} {nouns[0]} {draw.choice(verbs)} the "
        f"{adjectives[1]} {nouns[1]} of number {draw.randrange(1000)} near the {nouns[2]}. "
    )
