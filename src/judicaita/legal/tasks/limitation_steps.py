"""Which steps of an answer about a limitation period can be checked, and how.

**Grammar**, in any capitals, with or without Markdown emphasis; ``D`` is a date ("March 3, 2014",
"Monday, March 3, 2014" or "2014-03-03"), CONNECTOR and REASON are those of `grammar.py`, and a name
or pronoun may stand before "18", "sued", "a minor" and the days away::

    step      = point | point CONNECTOR point | point REASON point
    point     = two years | eighteen | away | time | weekday | last day | filed | outcome
    two years = two years [from D] end|run out|expire on D | two years run to|until D
    eighteen  = [is|turns|turned] 18 on D | [was] [not] a minor | no minor
    away      = N days away|absent|out of state before|after the injury
    time      = the time ends on D | the time runs to D | no tolling | no time is added
    weekday   = D is a WEEKDAY
    last day  = it stands | the last day is D | it rolls|moves to D
    filed     = [sued|filed [on]] D [,] is|was [not] after|past D | … [on or] before D
    outcome   = the suit is [not] in time | the suit is [too] late

A step is true when every part of it holds of the claim asked about and one decides a point: the end
of two years, minority, absence, the last day, or the comparison. It is false when a date, a
weekday, a number or a finding is wrong, when a comparison is of other days than the filing and the
last day, or when its parts are about different points. An age, an absence or a weekday from which
nothing follows, an end without its reason, and the outcome alone decide nothing.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from datetime import date
from types import MappingProxyType

from judicaita.legal.tasks.family import StepVerdict
from judicaita.legal.tasks.grammar import Point, clean, join_parts, judge, names_others
from judicaita.legal.tasks.limitation_claim import (
    MONTHS,
    WEEKDAYS,
    Claim,
    is_weekend,
    weekday_of,
)

TWO_YEARS, MINORITY, ABSENCE = "two_years", "minority", "absence"
LAST_DAY, FILED = "last_day", "filed"
_TIME, _OUTCOME, _OTHER_DAY = "time", "outcome", "other_day"  # of these no answer has need
_UNREAD = "unread"
"""What evidence is about that the grammar does not know."""

_NOTHING, _UNTOLD = "nothing follows from it", "nothing is told of it"


def required_points(claim: Claim) -> tuple[str, ...]:
    """What a complete answer decides, in the order of the worked solution."""
    minority = [MINORITY] if claim.born is not None else []
    absence = [ABSENCE] if claim.days_away is not None else []
    return (TWO_YEARS, *minority, *absence, LAST_DAY, FILED)


_WEEKDAY = "|".join(day.casefold() for day in WEEKDAYS)
_MONTH = "|".join(month.casefold() for month in MONTHS)
_DATE = re.compile(
    rf"(?:\b(?P<weekday>{_WEEKDAY}),? )?"
    rf"(?:\b(?P<month>{_MONTH}) (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year>\d{{4}})"
    r"|\b(?P<iso>\d{4} \d\d \d\d))\b"
)
_TWO_YEARS = re.compile(
    r"(?:the )?(?:two|2) years?(?: period)?(?: from @(\d+))? "
    r"(?:(?:ends?|ran out|runs? out|expires?) on|runs? (?:to|until)) @(\d+)"
)
_EIGHTEEN = re.compile(r"(?:(?:is|was|turns|turned|becomes) )?18 on @(\d+)")
_MINOR = re.compile("(?:(?:is|was) )?(?:a minor|(?P<neither>no minor|not a minor))")
_AWAY = re.compile(
    r"(?:was )?(?P<days>\d{1,6}) days (?:away|absent|out of state) "
    "(?P<when>before|after) the injury"
)
_ENDS = re.compile(r"the time (?:ends on|runs to) @(\d+)")
_NO_TOLLING = ("no tolling", "no time is added")
_FALLS = re.compile(rf"@(\d+) is an? (?P<weekday>{_WEEKDAY})")
_STANDS = "it stands"
_LAST = re.compile(r"(?:the last day is|it (?:rolls|moves) to) @(\d+)")
_RELATIONS: Mapping[str, Callable[[date, date], bool]] = MappingProxyType(
    {
        "after": operator.gt,
        "past": operator.gt,
        "before": operator.lt,
        "not after": operator.le,
        "not past": operator.le,
        "on or before": operator.le,
    }
)
_FILED = re.compile(
    r"(?:(?:sued|filed)(?: on)? )?@(\d+),? (?:(?:is|was) )?"
    r"(?P<relation>(?:not )?(?:after|past)|(?:on or )?before) @(\d+)"
)
_IN_TIME = re.compile("the suit is (?:(?P<yes>in time)|not in time|(?:too )?late)")


class ClaimReader:
    """Reads steps about one claim."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim

    def check(self, step: str) -> StepVerdict:
        """Whether a step is true, false or not checkable; see the module."""
        words = clean(step)
        if names_others(words, {self.claim.who}):
            return StepVerdict("not checkable", reason="it speaks of another person")
        if "@" in words:
            return StepVerdict("not checkable", reason="it has a sign that no step has")
        read = [_as_date(match) for match in _DATE.finditer(words)]
        days = [day for day in read if day is not None]
        if len(days) < len(read):
            return StepVerdict("false", reason="there is no such day")
        known = sorted(set(days))
        numbers = iter(map(known.index, days))
        parts = join_parts(_DATE.sub(lambda _: f"@{next(numbers)}", words))
        if parts is None:
            return StepVerdict("not checkable", reason="it joins too much, or a thing with itself")
        evidence, finding = parts
        if evidence is None:
            return judge([self._read(finding, known, None)])
        first = self._read(evidence, known, None)
        return judge([first, self._read(finding, known, first.factor if first else _UNREAD)])

    def _read(self, words: str, days: list[date], about: str | None) -> Point | None:
        """One part; ``about`` is the factor of the part from which it follows."""
        who = self.claim.who.casefold()
        words = re.sub(rf"^(?:{who}|she|he|they|the plaintiff) ", "", words)
        words = re.sub(rf"^(?:{who}s|her|his|their|the) defendant ", "", words)
        if match := _TWO_YEARS.fullmatch(words):
            return self._two_years(match, days)
        if match := _EIGHTEEN.fullmatch(words):
            holds = days[int(match[1])] == self.claim.majority
            return Point(MINORITY, holds, "it is not the 18th birthday", _NOTHING)
        if match := _MINOR.fullmatch(words):
            return self._minor(bool(match["neither"]))
        if match := _AWAY.fullmatch(words):
            away = (int(match["days"]), match["when"] == "after")
            holds = away == (self.claim.days_away, self.claim.away_after)
            return Point(ABSENCE, holds, "this absence is not told", _NOTHING)
        if match := _ENDS.fullmatch(words):
            return self._time(days[int(match[1])], about)
        if words in _NO_TOLLING:
            return self._time(None, about)
        return self._last_day(words, days, about) or self._filed(words, days, about)

    def _two_years(self, match: re.Match[str], days: list[date]) -> Point:
        start = self.claim.hurt if match[1] is None else days[int(match[1])]
        holds = (start, days[int(match[2])]) == (self.claim.hurt, self.claim.two_years)
        return Point(TWO_YEARS, holds, "two years from the injury end on another day")

    def _minor(self, neither: bool) -> Point:
        if self.claim.born is None:
            return Point(MINORITY, True, undecided=_UNTOLD)
        holds = self.claim.is_minor != neither
        # Being a minor leaves open until when the time runs.
        return Point(MINORITY, holds, "the birthday says otherwise", "" if neither else _NOTHING)

    def _time(self, end: date | None, about: str | None) -> Point | None:
        """The time ends on a day by tolling, or is not tolled (``end`` None)."""
        if about == _UNREAD:
            return None  # tolled by what?
        tolled = {MINORITY: self.claim.is_minor, ABSENCE: self.claim.was_away}
        wrong = "the time ends otherwise"
        if about in tolled:
            holds = not tolled[about] if end is None else tolled[about] and end == self.claim.end
            return Point(about, holds, wrong)
        holds = not any(tolled.values()) if end is None else end == self.claim.end
        return Point(_TIME, holds, wrong, "it gives no reason")

    def _last_day(self, words: str, days: list[date], about: str | None) -> Point | None:
        if match := _FALLS.fullmatch(words):
            day = days[int(match[1])]
            factor = LAST_DAY if day == self.claim.end else _OTHER_DAY
            holds = weekday_of(day).casefold() == match["weekday"]
            return Point(factor, holds, "it is another weekday", _NOTHING)
        if words == _STANDS and about == LAST_DAY:
            return Point(LAST_DAY, not is_weekend(self.claim.end), "it is a weekend")
        if words == _STANDS and about == _OTHER_DAY:
            return Point(LAST_DAY, False, "it is not the day on which the time ends")
        if match := _LAST.fullmatch(words):
            holds = days[int(match[1])] == self.claim.last_day
            return Point(LAST_DAY, holds, "the last day is another")
        return None

    def _filed(self, words: str, days: list[date], about: str | None) -> Point | None:
        if match := _FILED.fullmatch(words):
            one, other = days[int(match[1])], days[int(match[3])]
            meant = (one, other) == (self.claim.sued, self.claim.last_day)
            holds = meant and _RELATIONS[match["relation"]](one, other)
            return Point(FILED, holds, "the filing and the last day do not compare so")
        if match := _IN_TIME.fullmatch(words):
            holds = self.claim.is_in_time == bool(match["yes"])
            factor = FILED if about == FILED else _OUTCOME
            return Point(factor, holds, "it is the other way", "it is the answer itself")
        return None


def _as_date(match: re.Match[str]) -> date | None:
    """The date that words name; None if no calendar has it, or on that weekday."""
    try:
        if match["iso"]:
            day = date(*map(int, match["iso"].split()))
        else:
            month = [name.casefold() for name in MONTHS].index(match["month"]) + 1
            day = date(int(match["year"]), month, int(match["day"]))
    except ValueError:
        return None
    return day if match["weekday"] in (None, weekday_of(day).casefold()) else None
