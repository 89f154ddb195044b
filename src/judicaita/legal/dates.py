"""Calendar dates in a text: "March 2, 1999", "the 2d day of March, 1999", "1999-03-02", "3/2/1999".

A parser of its own: python-dateutil 4.0 refuses "the 2d day of March, 1999", and fills what a text
leaves out with today's date, which would make an answer right on some days.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass

_MONTHS = {name.lower(): n for n, name in enumerate(calendar.month_name) if name}
_MONTHS |= {name.lower(): n for n, name in enumerate(calendar.month_abbr) if name} | {"sept": 9}
_NAMES = "|".join(sorted(_MONTHS, key=len, reverse=True))
_UNITS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_ORDINALS = {
    **{word: n for n, word in enumerate(_UNITS, start=1)},
    **{f"twenty-{word}": 20 + n for n, word in enumerate(_UNITS, start=1)},
    **{"tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14},
    **{"fifteenth": 15, "sixteenth": 16, "seventeenth": 17, "eighteenth": 18, "nineteenth": 19},
    **{"twentieth": 20, "thirtieth": 30, "thirty-first": 31},
}
_DAY = r"\d{1,2}(?:\s?(?:st|nd|rd|th|d))?"
_SPELT = "|".join(sorted(_ORDINALS, key=len, reverse=True)).replace("-", "[- ]")
_YEAR = r"[12]\d{3}"
_DATE = re.compile(
    rf"""
    (?<![\w/]) (?:
        (?P<y1> {_YEAR} ) [-/.] (?P<m1> \d{{1,2}} ) [-/.] (?P<d1> \d{{1,2}} )
      | (?P<m2> \d{{1,2}} ) [-/] (?P<d2> \d{{1,2}} ) [-/] (?P<y2> {_YEAR} )
      | (?P<n3> {_NAMES} )\.? \s+ (?:the\s+)? (?P<d3> {_DAY} | {_SPELT} ) \s*,?\s+
        (?:in\s+)? (?P<y3> {_YEAR} )
      | (?P<d4> {_DAY} | {_SPELT} ) (?:\s+day)? (?:\s+of)? \s+ (?P<n4> {_NAMES} )\.? \s*,?\s*
        (?P<y4> {_YEAR} )
      | (?P<n5> {_NAMES} )\.? \s*,? \s+ (?:of\s+)? (?P<y5> {_YEAR} )
    ) (?![\w/])
    """,
    re.VERBOSE | re.IGNORECASE,
)
_REACH = 40
"""Characters from a year within which its month and day stand."""
_HAS_YEAR = re.compile(rf"(?<!\d){_YEAR}(?!\d)")


@dataclass(frozen=True)
class Date:
    """A day, or a month as a whole."""

    year: int
    month: int
    day: int | None
    start: int
    """Characters from the text's start."""
    end: int

    def agrees_with(self, gold: Date) -> bool:
        """Whether it is the gold date, or lies within the gold month."""
        same_month = (self.year, self.month) == (gold.year, gold.month)
        return same_month and gold.day in (None, self.day)


def read_dates(text: str) -> list[Date]:
    """The dates with a year that a text states, in order; figures are month, day, year.

    >>> [(d.year, d.month, d.day) for d in read_dates("the 2d day of March, 1999")]
    [(1999, 3, 2)]
    """
    dates: list[Date] = []
    read = 0  # up to where dates have been read
    for year in _HAS_YEAR.finditer(text):
        # Every form holds a year with the rest nearby; the long pattern is tried there alone.
        found = _DATE.search(text, max(read, year.start() - _REACH), year.end() + _REACH)
        while found and found.start() < year.end():
            read = found.end()
            if date := _date(found):
                dates.append(date)
            found = _DATE.search(text, read, year.end() + _REACH)
    return dates


def _date(found: re.Match[str]) -> Date | None:
    """None for a day that no calendar has, such as February 30."""
    parts = {name[0]: text for name, text in found.groupdict().items() if text is not None}
    month = _MONTHS[parts["n"].lower()] if "n" in parts else int(parts["m"])
    year, day = int(parts["y"]), None
    if "d" in parts:
        spelt = re.sub(r"\s+", "-", parts["d"].lower())
        day = _ORDINALS.get(spelt) or int(re.sub(r"\D", "", parts["d"]) or 0)
    if not 1 <= month <= 12:
        return None
    if day is not None and not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    return Date(year, month, day, found.start(), found.end())
