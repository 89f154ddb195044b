"""A claim for personal injury as the limitation family sees it: its dates, the rule, its words.

California as of 2025:

- **Two years** from the injury (Cal. Code Civ. Proc. § 335.1), counted without the first day and
  with the last (§ 12): an injury of March 3, 2012 must be sued on by March 3, 2014.
- **Minority** when the claim accrues does not count (§ 352(a)). It ends with the 18th birthday
  (Fam. Code § 6500), which is itself excluded under § 12, so that the last day is the 20th birthday
  (Shalabi v. City of Fontana, 11 Cal. 5th 842 (2021)).
- **Absence** of the defendant from the state after the claim accrues does not count (§ 351): the
  last day moves by the days away. Absence before it changes nothing.
- A **last day on a Saturday or Sunday** moves to the next day that is neither (§ 12a, § 10).

Simplified: of the judicial holidays (§ 135) only weekends count, and the questions drawn here have
no last day near any other; the date of injury is the date of accrual, so there is no delayed
discovery; absences are private ones of a resident who could not be served in the state's stead
(§ 351 gives way to interstate commerce, Bendix Autolite v. Midwesco, 486 U.S. 888 (1988), and to
Veh. Code § 17463); claims against public entities (Gov. Code § 945.4) and for childhood sexual
assault (§ 340.1) have rules of their own. Dates drawn lie in 2011 to 2019, which spares them the
emergency tolling of 2020.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

from judicaita.errors import DataError

YEARS = 2
"""Cal. Code Civ. Proc. § 335.1."""

MAJORITY = 18
"""Years of age: Cal. Fam. Code § 6500."""

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def tell_date(day: date) -> str:
    """A date as Americans write it: March 3, 2014."""
    return f"{MONTHS[day.month - 1]} {day.day}, {day.year}"


def weekday_of(day: date) -> str:
    """The English name of a date's day of the week."""
    return WEEKDAYS[day.weekday()]


def is_weekend(day: date) -> bool:
    """Whether a date is a Saturday or Sunday."""
    return day.weekday() >= 5


def years_after(day: date, years: int) -> date:
    """The same day of a later year.

    A `DataError` for February 29, whose anniversary is disputed.
    """
    if (day.month, day.day) == (2, 29):
        raise DataError("February 29 has no anniversary in most years. Give another day.")
    return day.replace(year=day.year + years)


@dataclass(frozen=True)
class Claim:
    """One person's claim. What the rule makes of it is derived."""

    who: str
    hurt: date
    sued: date
    born: date | None = None
    days_away: int | None = None
    """Days that the defendant was out of state; None where nothing is told of it."""
    away_after: bool = False
    """Whether that was after the injury, not before."""

    def __post_init__(self) -> None:
        if self.sued <= self.hurt or (self.born is not None and self.born >= self.hurt):
            raise DataError(
                f"The dates of {self.who}'s claim are out of order. Give birth, injury and suit in "
                "that order."
            )
        if self.is_minor and self.was_away:
            raise DataError(
                f"{self.who} was a minor and the defendant away, which may overlap. Tell of one of "
                "them only."
            )

    @cached_property
    def two_years(self) -> date:
        """The last day without tolling, weekend or not."""
        return years_after(self.hurt, YEARS)

    @cached_property
    def majority(self) -> date | None:
        """The 18th birthday."""
        return None if self.born is None else years_after(self.born, MAJORITY)

    @property
    def is_minor(self) -> bool:
        """Whether the person was under age when hurt."""
        return self.majority is not None and self.hurt < self.majority

    @property
    def was_away(self) -> bool:
        """Whether the defendant was away while time ran."""
        return self.days_away is not None and self.away_after

    @cached_property
    def end(self) -> date:
        """The last day with tolling, weekend or not."""
        if self.majority is not None and self.is_minor:
            return years_after(self.majority, YEARS)
        return self.two_years + timedelta(days=self.days_away or 0 if self.was_away else 0)

    @cached_property
    def last_day(self) -> date:
        """The last day on which a suit is in time, which is no weekend."""
        return self.end + timedelta(days=max(0, 7 - self.end.weekday()) % 7 * is_weekend(self.end))

    @property
    def is_in_time(self) -> bool:
        """Whether the suit was filed by the last day."""
        return self.sued <= self.last_day

    @property
    def labels(self) -> dict[str, bool]:
        """What is recorded of the points that decide, as far as they are told."""
        told = {
            "is_minor": self.is_minor if self.born is not None else None,
            "was_away": self.was_away if self.days_away is not None else None,
            "ends_on_weekend": is_weekend(self.end),
            "filed_within_two_years": self.sued <= self.two_years,
        }
        return {name: value for name, value in told.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """JSON-able facts; dates in ISO 8601."""
        return {
            "who": self.who,
            "hurt": self.hurt.isoformat(),
            "sued": self.sued.isoformat(),
            "born": None if self.born is None else self.born.isoformat(),
            "days_away": self.days_away,
            "away": None if self.days_away is None else "after" if self.away_after else "before",
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Claim:
        """Read the facts back; recorded labels are ignored and derived anew."""
        return cls(
            who=facts["who"],
            hurt=date.fromisoformat(facts["hurt"]),
            sued=date.fromisoformat(facts["sued"]),
            born=None if facts["born"] is None else date.fromisoformat(facts["born"]),
            days_away=facts["days_away"],
            away_after=facts["away"] == "after",
        )

    def tell(self) -> list[str]:
        """The sentences of a question."""
        sued = f"{weekday_of(self.sued)}, {tell_date(self.sued)}"
        sentences = [f"{self.who} was hurt on {tell_date(self.hurt)} and sued on {sued}."]
        if self.born is not None:
            sentences.append(f"{self.who} was born on {tell_date(self.born)}.")
        if self.days_away is not None:
            when = "after" if self.away_after else "before"
            sentences.append(
                f"{self.who}'s defendant was out of state for {self.days_away} days {when} the "
                "injury."
            )
        return sentences


_DATE = rf"(?:{'|'.join(MONTHS)}) \d{{1,2}}, \d{{4}}"
_HURT = re.compile(
    rf"(?P<who>\w+) was hurt on (?P<hurt>{_DATE}) and sued on (?P<weekday>\w+), (?P<sued>{_DATE})\."
)
_BORN = re.compile(rf"(?P<who>\w+) was born on (?P<born>{_DATE})\.")
_AWAY = re.compile(
    r"(?P<who>\w+)'s defendant was out of state for (?P<days>\d{1,4}) days "
    r"(?P<when>before|after) the injury\."
)


def read_claims(sentences: list[str]) -> list[Claim]:
    """Every claim that sentences tell, in any order; anything else is a `DataError`."""
    hurt, born, away = (
        {m["who"]: m for s in sentences if (m := telling.fullmatch(s))}
        for telling in (_HURT, _BORN, _AWAY)
    )
    if not hurt or len(sentences) != len(hurt) + len(born) + len(away):
        known = (_HURT, _BORN, _AWAY)
        strange = [s for s in sentences if not any(t.fullmatch(s) for t in known)]
        raise unreadable((strange or sentences or [""])[0])
    if not {*born, *away} <= hurt.keys():
        raise unreadable(", ".join(sorted({*born, *away} - hurt.keys())))
    claims = []
    for who, match in hurt.items():
        absence = away.get(who)
        claim = Claim(
            who,
            read_date(match["hurt"]),
            read_date(match["sued"]),
            read_date(born[who]["born"]) if who in born else None,
            int(absence["days"]) if absence else None,
            absence is not None and absence["when"] == "after",
        )
        if weekday_of(claim.sued) != match["weekday"]:
            raise DataError(
                f"{match['sued']} was no {match['weekday']}. Write {weekday_of(claim.sued)}."
            )
        claims.append(claim)
    return claims


def read_date(text: str) -> date:
    """Read "March 3, 2014"; a `DataError` for a day that no calendar has."""
    month, day, year = text.replace(",", "").split()
    try:
        return date(int(year), MONTHS.index(month) + 1, int(day))
    except ValueError as error:
        raise DataError(f"{text!r} is no date: {error}. Correct it.") from error


def unreadable(text: str) -> DataError:
    """The error for words that tell no claim."""
    return DataError(
        f"{text[:80]!r} is not worded as a statute_of_limitations question: expected sentences "
        "like 'Ava was hurt on March 3, 2012 and sued on Monday, March 3, 2014.' and at the end "
        '"Is Ava\'s suit in time?"'
    )
