"""Dates, times of day, lengths of time and amounts that stand in a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from oneiros.kernel.anchor_words import Kind, Token, number, word_set

_NAMES = """
january jan
february feb
march mar
april apr
may
june jun
july jul
august aug
september sep sept
october oct
november nov
december dec
"""
MONTHS = {
    name: number
    for number, names in enumerate(_NAMES.strip().splitlines(), 1)
    for name in names.split()
}
_SMALL = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty
"""
NUMBERS = {word: number for number, word in enumerate(_SMALL.split())}
_TENS = word_set("thirty forty fifty sixty seventy eighty ninety")
_LARGE = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
UNITS = {
    **dict.fromkeys(("hour", "hours", "hr", "hrs", "h"), 60),
    **dict.fromkeys(("minute", "minutes", "min", "mins"), 1),
}
_CURRENCIES = {
    **dict.fromkeys(("$", "usd", "dollar", "dollars"), "$"),
    **dict.fromkeys(("€", "eur", "euro", "euros"), "€"),
    **dict.fromkeys(("£", "gbp", "pound", "pounds"), "£"),
    **dict.fromkeys(("¥", "jpy", "yen"), "¥"),
}
_DAY = re.compile(r"([0-9]{1,2})(st|nd|rd|th)?")
_DAYS = re.compile(r"([0-9]{1,2})(?:st|nd|rd|th)?[-–]([0-9]{1,2})(?:st|nd|rd|th)?")
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.0+)?)?(?:Z|[+-]00:?00)?)?"
)
_SLASHED = re.compile(r"([0-9]{1,4})([/.])([0-9]{1,2})\2([0-9]{1,4})")
_GROUP = re.compile("[0-9][0-9.,]{0,20}")  # the "000" of "10 000"
_TIME = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?(?::00)?([ap]\.?m)?", re.I)
_TIMES = re.compile(r"([0-9]{1,2}:[0-9]{2})[-–]([0-9]{1,2}:[0-9]{2})")
_LENGTH = re.compile(
    r"([0-9]+(?:\.[0-9]+)?-?|[a-z]+-)(hours?|hrs?|h|minutes?|mins?)(?:-long)?", re.I
)

Date = tuple[int | None, int, int]  # year (None: any), month, day


@dataclass(slots=True)
class Amounts:
    """What a text says in numbers."""

    dates: set[Date] = field(default_factory=set)
    times: set[int] = field(default_factory=set)  # minutes since midnight
    lengths: set[int] = field(default_factory=set)  # minutes
    numbers: set[tuple[Decimal, str]] = field(default_factory=set)  # with a currency, "" or "%"
    spans: list[tuple[int, int]] = field(default_factory=list)  # first token, behind the last


@dataclass(frozen=True, slots=True)
class _Day:
    start: int
    end: int
    year: int | None
    month: int
    day: int


def amounts(tokens: Sequence[Token]) -> Amounts:
    """The dates, times, lengths of time and numbers of a text, and where the longer ones stand."""
    found = Amounts()
    days = _shared_years(tokens, _days(tokens))
    taken: set[int] = set()
    for day in days:
        if _exists(day.year, day.month, day.day):
            found.dates.add((day.year, day.month, day.day))
        taken.update(range(day.start, day.end))
        found.spans.append((day.start, day.end))
    _add_times(tokens, found, taken)
    _add_lengths(tokens, found, taken)
    _add_numbers(tokens, found, taken)
    return found


def date_time(value: str) -> tuple[Date, int | None, bool] | None:
    """Date, minutes since midnight (None: the date alone), and whether that is a day's very end."""
    match = _ISO.fullmatch(value)
    if not match:
        return None
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    if match[4] is None:
        return (year, month, day), None, False
    hour, minute, second = int(match[4]), int(match[5]), int(match[6] or 0)
    last = (hour, minute) == (23, 59) and second in (0, 59)
    if hour > 23 or minute > 59 or (second and not last):
        return (0, 0, 0), None, False  # no date: equal to nothing
    return (year, month, day), hour * 60 + minute, last


# Words by which a value may say a date, time or length of time otherwise than the text.
OTHER_WORDS = word_set("st nd rd th of a an am pm p m half and long").union(MONTHS, NUMBERS, UNITS)


def _exists(year: int | None, month: int, day: int) -> bool:
    longest = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not (1 <= month <= 12 and 1 <= day <= longest[month - 1]):
        return False
    leap = year is None or (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0))
    return leap or (month, day) != (2, 29)


def _month(token: Token) -> int | None:
    if token.kind is not Kind.WORD:
        return None
    if token.key in ("may", "march", "mar") and not token.text[0].isupper():
        return None  # "you may", "we march"
    return MONTHS.get(token.key)


def _year(tokens: Sequence[Token], at: int) -> int | None:
    if at < len(tokens) and len(text := tokens[at].text) == 4 and text.isascii() and text.isdigit():
        return int(text) if 1900 <= int(text) <= 2100 else None
    return None


def _days(tokens: Sequence[Token]) -> list[_Day]:
    """Every date, in order; years that others share are not yet given."""
    found: list[_Day] = []
    at = 0
    while at < len(tokens):
        new = _dates_at(tokens, at)
        found += new
        at = max([at + 1, *(day.end for day in new)])
    return found


def _dates_at(tokens: Sequence[Token], at: int) -> list[_Day]:
    text = tokens[at].text
    if len(text) > 40:
        return []
    if match := _ISO.fullmatch(text):
        return [_Day(at, at + 1, int(match[1]), int(match[2]), int(match[3]))]
    if match := _SLASHED.fullmatch(text):
        return _slashed(at, match)
    if (month := _month(tokens[at])) and tokens[at].after in ("", "."):
        return _after_month(tokens, at, month)
    return _before_month(tokens, at)


def _slashed(at: int, match: re.Match[str]) -> list[_Day]:
    first, second, third = int(match[1]), int(match[3]), int(match[4])
    if len(match[1]) == 4:
        return [_Day(at, at + 1, first, second, third)]
    if len(match[4]) != 4:
        return []
    if match[2] == "." or first > 12:
        return [_Day(at, at + 1, third, second, first)]
    if second > 12 or first == second:
        return [_Day(at, at + 1, third, first, second)]
    return [_Day(at, at + 1, third, 0, 0)]  # which is the month cannot be known: no date


def _after_month(tokens: Sequence[Token], at: int, month: int) -> list[_Day]:
    """ "May 15th, 2024", "May 13-17", "May 13th to 17th 2024"; "March 2022" is no day."""
    end = at + 1
    if end == len(tokens):
        return []
    if match := _DAYS.fullmatch(tokens[end].text):
        days = [int(match[1]), int(match[2])]
        end += 1
    elif match := _DAY.fullmatch(tokens[end].text):
        days = [int(match[1])]
        end += 1
        if tokens[at + 1].after == "" and end + 1 < len(tokens):
            last = _DAY.fullmatch(tokens[end + 1].text)
            if last and _joins(tokens[end]) and (last[2] or tokens[end].key != "and"):
                days.append(int(last[1]))
                end += 2
    elif (year := _year(tokens, end)) is not None:
        return [_Day(at, end + 1, year, month, 0)]
    else:
        return []
    year = _year(tokens, end) if tokens[end - 1].after in ("", ",") else None
    end += year is not None
    return [_Day(at, end, year, month, day) for day in days]


def _before_month(tokens: Sequence[Token], at: int) -> list[_Day]:
    """ "26 May", "11th of January 2025", "13th to 17th of May"."""
    days: list[int] = []
    end = at
    if match := _DAYS.fullmatch(tokens[at].text):
        days = [int(match[1]), int(match[2])]
        end = at + 1
    elif match := _DAY.fullmatch(tokens[at].text):
        days = [int(match[1])]
        end = at + 1
        if end + 1 < len(tokens) and _joins(tokens[end]):
            last = _DAY.fullmatch(tokens[end + 1].text)
            if last and _is_month(tokens, end + 2):
                days.append(int(last[1]))
                end += 2
    if not days or not _is_month(tokens, end) or tokens[at].after:
        return []
    end += tokens[end].key == "of"
    month = _month(tokens[end]) or 0
    following = _year(tokens, end + 1) if tokens[end].after in ("", ",", ".") else None
    end += 1 + (following is not None)
    return [_Day(at, end, following, month, day) for day in days]


def _is_month(tokens: Sequence[Token], at: int) -> bool:
    at += at < len(tokens) and tokens[at].key == "of"
    return at < len(tokens) and _month(tokens[at]) is not None


def _joins(token: Token) -> bool:
    return token.key in ("to", "until", "till", "through", "and", "-", "–")


def _shared_years(tokens: Sequence[Token], days: list[_Day]) -> list[_Day]:
    """ "January 11th to January 15th 2025": the first has the year of the second."""
    for at in range(len(days) - 2, -1, -1):
        one, other = days[at], days[at + 1]
        between = tokens[one.end : other.start]
        joined = len(between) == 1 and _joins(between[0]) and not between[0].after
        if one.year is None and other.year is not None and joined and one.day and other.day:
            earlier = (one.month, one.day) > (other.month, other.day)
            days[at] = replace(one, year=other.year - earlier)
    return days


def _clock(text: str, half: str = "") -> int | None:
    """Minutes since midnight of "12:00", "10am", or "10" before "am"."""
    match = _TIME.fullmatch(text) if len(text) < 16 else None
    if not match:
        return None
    hour, minute, half = int(match[1]), int(match[2] or 0), (match[3] or half).lower()
    if minute > 59 or (match[2] is None and not half):
        return None
    if half:
        return (hour % 12 + 12 * (half[0] == "p")) * 60 + minute if 1 <= hour <= 12 else None
    return hour * 60 + minute if hour < 24 else None


def _add_times(tokens: Sequence[Token], found: Amounts, taken: set[int]) -> None:
    for at, token in enumerate(tokens):
        if match := _ISO.fullmatch(token.text):
            if match[4] and int(match[4]) < 24 and int(match[5]) < 60 and not int(match[6] or 0):
                found.times.add(int(match[4]) * 60 + int(match[5]))
        elif at in taken:
            continue
        elif match := _TIMES.fullmatch(token.text):
            found.times |= {t for t in map(_clock, match.groups()) if t is not None}
            taken.add(at)
        elif token.text[:1].isdigit():
            following = tokens[at + 1].key if at + 1 < len(tokens) and not token.after else ""
            half = following if following in ("am", "pm", "a.m", "p.m") else ""
            time = _clock(token.text, half)
            if time is not None:
                end = at + 1 + bool(half)
                found.times.add(time)
                found.spans.append((at, end))
                taken.update(range(at, end))


def _add_lengths(tokens: Sequence[Token], found: Amounts, taken: set[int]) -> None:
    lengths: list[tuple[int, int, int]] = []
    for at, token in enumerate(tokens):
        if at in taken or (lengths and at < lengths[-1][1]):
            continue
        match = _LENGTH.fullmatch(token.text) if len(token.text) < 24 else None
        if match and (count := _count(match[1].rstrip("-"))) is not None:
            lengths.append((at, at + 1, int(count * UNITS[match[2].lower()])))
        elif at + 1 < len(tokens) and not token.after and (unit := UNITS.get(tokens[at + 1].key)):
            count = Decimal(1) if token.key in ("a", "an") else _count(token.text)
            if count is not None:
                start = at
                if at and tokens[at - 1].key == "half":
                    count /= 2
                    start = at - 1
                lengths.append((start, at + 2, int(count * unit)))
    index = 0
    while index < len(lengths):
        start, end, minutes = lengths[index]
        if index + 1 < len(lengths):  # "1 hour and 30 minutes" is one length
            following, last, more = lengths[index + 1]
            between = [token.key for token in tokens[end:following]]
            if between in ([], ["and"]) and not tokens[end - 1].after and more < 60:
                end, minutes, index = last, minutes + more, index + 1
        found.lengths.add(minutes)
        found.spans.append((start, end))
        taken.update(range(start, end))
        index += 1


def _count(text: str) -> Decimal | None:
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,4})?", text):
        return Decimal(text)
    small = NUMBERS.get(text.lower())
    return None if small is None else Decimal(small)


def _add_numbers(tokens: Sequence[Token], found: Amounts, taken: set[int]) -> None:
    """Numbers that stand for themselves, and for nothing longer."""
    at = 0
    while at < len(tokens):
        if at in taken or not _numeral(tokens[at]):
            at += 1
            continue
        end = at + 1
        while end < len(tokens) and end not in taken and not tokens[end - 1].after:
            linked = tokens[end].key == "and" and tokens[end - 1].key in _LARGE
            if not (
                _numeral(tokens[end])
                or (linked and end + 1 < len(tokens) and _numeral(tokens[end + 1]))
            ):
                break
            end += 1
        value = _value(tokens[at:end])
        if value is not None and not _part_of_name(tokens, at, end):
            _add_number(tokens, at, end, value, found)
        if end - at > 1:
            found.spans.append((at, end))
        at = end


def _numeral(token: Token) -> bool:
    return token.kind is Kind.NUMBER or _verbal(token) or bool(_GROUP.fullmatch(token.text))


def _verbal(token: Token) -> bool:
    return token.key in NUMBERS or token.key in _LARGE or token.key in _TENS


def _value(run: Sequence[Token]) -> tuple[Decimal, str] | None:
    """ "2200", "five", "2 million"; what is longer ("10 000", "two hundred and five") has none."""
    first = run[0]
    value: tuple[Decimal, str] | None = None
    if first.kind is Kind.NUMBER:
        value = number(first.text)
    elif first.key in NUMBERS and (len(run) > 1 or first.key != "one"):  # "the one that I mean"
        value = (Decimal(NUMBERS[first.key]), "")
    if value and len(run) == 2 and run[1].key in _LARGE:
        return value[0] * _LARGE[run[1].key], value[1]
    return value if len(run) == 1 else None


def _part_of_name(tokens: Sequence[Token], at: int, end: int) -> bool:
    """Whether a number is one of a list, a year, or a part of an address: "1234 Elm Street"."""
    before, last = tokens[at - 1] if at else None, tokens[end - 1]
    after = tokens[end] if end < len(tokens) else None
    if last.quote >= 0:
        within = [token for token in (before, after) if token and token.quote == last.quote]
        if within:
            return True
    listed = tokens[at].first and len(last.text) < 3 and after and end + 1 < len(tokens)
    if listed and (last.after == "." or (after and after.text == ")")):  # "1. Read the bill"
        return True
    if after and not last.after and after.capital and after.key not in _CURRENCIES:
        return True
    if before and not before.after and before.kind is Kind.WORD:
        if before.key in ("in", "since", "during", "year", "of") and _year(tokens, at) is not None:
            return True
        short = before.text.isupper() and len(before.text) in (2, 3)
        return short and before.key not in _CURRENCIES  # "NY 10001"
    return False


def _add_number(
    tokens: Sequence[Token], at: int, end: int, value: tuple[Decimal, str], found: Amounts
) -> None:
    amount, sign = value
    after = tokens[end].key if end < len(tokens) and not tokens[end - 1].after else ""
    before = tokens[at - 1].key if at and not tokens[at - 1].after else ""
    if after in ("percent", "%"):
        sign = "%"
    sign = sign or _CURRENCIES.get(after) or _CURRENCIES.get(before) or ""
    found.numbers.add((amount, sign))
    if sign != "%":
        found.numbers.add((amount, ""))
