"""The words by which people ask: their inflected forms, their negation, and what names nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from oneiros.kernel.anchor_words import Kind, Token, word_set

# Words that tell nothing by themselves.
FUNCTION = word_set(
    "a about above after again all also am an and any anybody anyone anything are as at be because "
    "been before being below between both but by can could did do does doing don't during each "
    "either else every everyone everything few for from had has have having he her here hers him "
    "his how i i'm if in into is it its it's just me more most much my myself no nobody none nor "
    "not nothing now of off on once one only onto or other our ours out over own per same she so "
    "some somebody someone something such than that that's the their theirs them then there these "
    "they this those through to too under until up upon us very was we were what when where "
    "whether which while who whom whose why will with within without would yes yet you your yours "
    "'s ok hi hey hello"
)
# Words that requests are made of: in them they name nothing.
COMMON = word_set(
    "accept access account accounts add added address addresses amount app appointment "
    "appointments ask attach attachment attachments balance bank begin bill bills body book "
    "booking bookings buy calendar call cancel change channel channels chat chase check client "
    "clients code codes contact contacts content contents copy create currently cut data date "
    "dates day days dear delete description document documents doc download draft drafts drive "
    "drop due during edit email emails e-mail e-mails empty end entry event events explain fetch "
    "file files fill filename find first folder folders follow following forget forward free "
    "friend full get give go grant help history hour hours image info information inbox invite "
    "invoice item items keep know last latest lend let like link links list lists locate location "
    "look mail make mark may meet meeting meetings member members mention message messages minute "
    "minutes money month months move name named names need new news next note notes notice "
    "notices number numbers old open order page pages participant participants password pay "
    "payment payments pending people permission permissions person phone photo photos pick place "
    "plan please post posts previous price print private public purchase put question read "
    "reading receive received recent recently recipient recipients record records refund remind "
    "reminder reminders remove rename reply report reports request requests reschedule reserve "
    "reset restaurant review rob room rooms save say schedule scheduled search security see sell "
    "send sender sent set share shared show sign sort start starting stop subject sue summarise "
    "summarize summary take task tasks tell text thank thanks time times title titled today "
    "tomorrow tonight total transaction transactions transfer travel try type update updated "
    "upload use user users using view visit wait want week weeks write year years yesterday"
)

_IRREGULAR = {
    "pay": ("paid",),  # who speaks of a payment does not ask for one
    "repay": ("repaid",),
    "send": ("sent",),
    "buy": ("bought",),
    "make": ("made",),
    "write": ("wrote", "written"),
    "give": ("gave", "given"),
    "tell": ("told",),
    "sell": ("sold",),
    "take": ("took", "taken"),
    "get": ("got", "getting"),
    "find": ("found",),
    "read": (),
    "put": (),
    "set": (),
    "forward": (),
}
_VOWELS = "aeiou"


@lru_cache(maxsize=1_024)
def forms(word: str) -> tuple[str, ...]:
    """A word in lower case in the forms that count as the same.

    The endings -s, -es, -ed, -ing and -ings, with a silent e dropped, y changed to i, or the last
    consonant doubled; -ation for verbs in -e of six letters or more ("reservation") and after a
    doubled consonant ("cancellation"), -ion for those in -ete and -ate ("deletion"); the irregular
    forms of a few. No form is a mere prefix: "post" has no "poster".
    """
    word = word.replace("e-mail", "email")
    found = {word, *_IRREGULAR.get(word, ())}
    if len(word) < 3 or not word.isalpha():
        return tuple(found)
    stem = word
    if word.endswith("e"):
        stem = word[:-1]
        found |= {word + "s", word + "d"}
        if len(word) >= 6:
            found |= {stem + "ation", stem + "ations"}
            if word.endswith(("ete", "ate")):
                found |= {stem + "ion", stem + "ions"}
    elif word.endswith("y") and word[-2] not in _VOWELS:
        found |= {word[:-1] + "ies", word[:-1] + "ied"}
    else:
        sibilant = word.endswith(("s", "x", "z", "ch", "sh"))
        found |= {word + ("es" if sibilant else "s"), word + "ed"}
    found |= {stem + "ing", stem + "ings"}
    if word[-1] not in "aeiouwxy" and word[-2] in _VOWELS and word[-3] not in _VOWELS:
        double = word + word[-1]
        found |= {double + "ed", double + "ing", double + "ings"}
        found |= {double + "ation", double + "ations"}
    return tuple(found)


_COMMANDS = frozenset(("don't", "dont", "never", "without", "avoid", "refrain", "neither", "nor"))
_NEGATIONS = _COMMANDS | word_set(
    "not no cannot can't cant won't wouldn't shouldn't couldn't mustn't needn't doesn't didn't "
    "isn't aren't wasn't weren't haven't hasn't stop "
    "nobody nothing none forbid forbidden prohibited refuse skip"
)
_NOTHING = frozenset(("nothing", "nobody", "none", "no"))
# "Do not forget to pay" asks for it.
_DOUBLE = frozenset(("forget", "forgetting", "hesitate", "fail", "failing", "worry", "mind"))
_CONTRAST = frozenset(("but", "instead", "however", "otherwise"))
_CONTRAST_AFTER_COMMA = frozenset(("just", "only", "please", "rather"))
_PRONOUNS = frozenset(("i", "you", "we", "they", "he", "she", "it", "that", "which", "who"))


def negated(tokens: Sequence[Token]) -> list[bool]:
    """For each token, whether its clause denies it.

    A clause ends with its sentence, at a colon, and where a contrast begins ("but", ", just"). At
    a comma it ends unless the negation is an order: "Don't send, share or delete it" denies all.
    "Do not forget to" and its like deny nothing.
    """
    found: list[bool] = []
    denied = ordered = False
    for at, token in enumerate(tokens):
        contrast = at and tokens[at - 1].after and token.key in _CONTRAST_AFTER_COMMA
        if token.kind is Kind.BREAK or token.key in _CONTRAST or contrast:
            denied = ordered = False
        following = tokens[at + 1].key if at + 1 < len(tokens) else ""
        found.append(denied or (following in _NOTHING and not token.after))
        if token.quote < 0 and token.key in _NEGATIONS:
            if following in _DOUBLE:
                denied = ordered = False
            else:
                denied = True
                ordered = ordered or _order(tokens, at)
        elif token.quote < 0 and token.key in ("rather", "instead") and following in ("than", "of"):
            denied = True
        if ":" in token.after or ("," in token.after and not ordered):
            denied = ordered = False
    return found


def _order(tokens: Sequence[Token], at: int) -> bool:
    """Whether a negation is an order: "don't", and "do not" unless somebody does it."""
    if tokens[at].key == "not":
        at -= 1
        if at < 0 or tokens[at].key != "do":
            return False
    elif tokens[at].key not in _COMMANDS and tokens[at].key != "no":
        return False
    return at == 0 or tokens[at - 1].key not in _PRONOUNS or bool(tokens[at - 1].after)
