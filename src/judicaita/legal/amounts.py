"""Amounts in a text: dollars, percentages, spans of time and plain numbers, in figures or words."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: float(n) for n, word in enumerate(_ONES)} | {
    word: 10.0 * n for n, word in enumerate(_TENS, start=2)
}
NUMBERS = {word: f"{value:.0f}" for word, value in _VALUES.items()}
"""Words for 0 to 20 and the tens, in figures."""
_SCALES = {
    **{"hundred": 1e2, "thousand": 1e3, "k": 1e3, "million": 1e6, "m": 1e6},
    **{"billion": 1e9, "bn": 1e9},
}
_UNITS = {
    **dict.fromkeys(("dollar", "dollars", "usd", "buck", "bucks"), ("$", 1.0)),
    **dict.fromkeys(("cent", "cents"), ("$", 0.01)),
    **dict.fromkeys(("%", "percent", "percentage"), ("%", 1.0)),
    **dict.fromkeys(("year", "years"), ("month", 12.0)),
    **dict.fromkeys(("month", "months"), ("month", 1.0)),
    **dict.fromkeys(("week", "weeks"), ("day", 7.0)),
    **dict.fromkeys(("day", "days"), ("day", 1.0)),
    **dict.fromkeys(("hour", "hours"), ("hour", 1.0)),
}
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_SPELT = "|".join(sorted((*_VALUES, "hundred", "thousand"), key=len, reverse=True))
_WORDS = rf"(?:{_SPELT})(?:(?:[\s-]|\sand\s)(?:{_SPELT}|million|billion)(?!\w))*"
_KIND = re.compile(
    r"(?:\b(?P<kind>section|sections|sec\.|rule|title|article|chapter|amendment|part|count|exhibit"
    r"|no\.)\s|(?P<paragraph>\u00a7{1,2}\s?))$"
)
_SIGN = re.compile(r"(?:^|[^\w)])[-\u2212]$")
# Starts with a sign, a figure or a word of a number, so that the search passes over other text.
_AMOUNT = re.compile(
    rf"""
    (?: (?P<currency> \$ | \b usd \b ) \s? )?
    (?: (?<![\w.,]) (?P<figures> {_NUMBER} ) (?!\d) | \b (?P<words> {_WORDS} ) (?!\w) )
    (?: \s? [(] \s? \d+ \s? [)] )?                                  # "thirty (30) days"
    (?: [\s-]? (?P<scale> hundred | thousand | million | billion | bn | k | m )(?!\w) )?
    (?: [\s-]? \\? (?P<unit> % | per\s?cent(?:age)? | dollars? | usd | bucks? | cents? | years?
        | months? | weeks? | days? | hours? )(?!\w) )?
    """,
    re.VERBOSE,
)
_CANDIDATE = re.compile(rf"[$\d]|\b(?=[efhnostuz])(?:usd|{_SPELT})\b")
_BEFORE = 12
"""Characters before a number within which "Section" stands."""


@dataclass(frozen=True)
class Amount:
    """A number that a text states."""

    value: float
    unit: str
    """"$", "%", "month" and "day" (also years and weeks), "hour", "section" and the like, or ""."""
    start: int
    """Characters from the text's start."""
    end: int

    def close_to(self, other: Amount) -> bool:
        """Equal but for rounding in floating point."""
        return math.isclose(self.value, other.value, rel_tol=1e-9, abs_tol=1e-9)


def read_amounts(text: str) -> list[Amount]:
    """The amounts that a text states, in order.

    >>> [(a.value, a.unit) for a in read_amounts("$1.5 million, ten percent, two years")]
    [(1500000.0, '$'), (10.0, '%'), (24.0, 'month')]
    """
    if not text.isascii():  # lower case, in as many characters
        text = "".join(c if len(c.lower()) > 1 else c.lower() for c in text)
    text = text.lower() if text.isascii() else text
    found, end = [], 0
    for candidate in _CANDIDATE.finditer(text):
        if candidate.start() >= end and (match := _AMOUNT.match(text, candidate.start())):
            found.append(_amount(text, match))
            end = match.end()
    return found


def _amount(text: str, found: re.Match[str]) -> Amount:
    words, scale, name = found["words"], found["scale"], found["unit"]
    value = _spelt(words) if words else float(found["figures"].replace(",", ""))
    if scale:
        value *= _SCALES[scale]
    unit, factor = "", 1.0
    before = text[max(found.start() - _BEFORE, 0) : found.start()]
    if name:
        unit, factor = _UNITS.get(re.sub(r"\s", "", name), ("%", 1.0))
    elif found["currency"]:
        unit = "$"
    elif kind := _KIND.search(before):
        named = (kind["kind"] or "section").strip(".")
        unit = {"sections": "section", "sec": "section"}.get(named, named)
    if _SIGN.search(before):
        value = -value
    return Amount(value * factor, unit, found.start(), found.end())


def _spelt(words: str) -> float:
    """ "one hundred and five thousand" → 105000."""
    total, group = 0.0, 0.0
    for word in re.split(r"[\s-]+", words):
        if word in _VALUES:
            group += _VALUES[word]
        elif word == "hundred":
            group = (group or 1) * 100
        elif word in _SCALES:
            total, group = total + (group or 1) * _SCALES[word], 0.0
    return total + group
