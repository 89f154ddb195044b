"""Limitation: was a suit for personal injury filed in time?

    level  told besides injury and suit        the last day may fall on a weekend
    1      nothing                             no
    2      one of birth and absence, or …      … neither of them, but a weekend
    3      birth and absence                   yes
    4      the same, and two dates that        yes
           decide nothing
    5      of two people birth and absence,    yes, of one of them
           each the opposite of the other's

The law is at the head of `limitation_claim.py`, the grammar of steps at that of
`limitation_steps.py`.

On the hard levels (from 3 on) a suit in time is so, in a third each, because it came within two
years, because of tolling, or because of a weekend; a late one misses the last day by a month at
most. "Filed within two years" alone is then right in 1/2 + 1/2 · 1/3 = .667 of balanced questions,
and so is "ends on a weekend" on level 5. The day of the week of the filing is told, so that no
calendar is needed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from judicaita.errors import DataError
from judicaita.legal.tasks.family import AnswerType, Law, Level, StepVerdict, reading_facts
from judicaita.legal.tasks.limitation_claim import (
    MAJORITY,
    MONTHS,
    Claim,
    is_weekend,
    read_claims,
    tell_date,
    unreadable,
    weekday_of,
    years_after,
)
from judicaita.legal.tasks.limitation_steps import ClaimReader, required_points
from judicaita.legal.tasks.vocabulary import NAMES
from judicaita.types import Sample

QUESTION = "Is {who}'s suit in time?"

_DISTRACTED, _BOUND = 4, 5

_FIRST_INJURY, _LAST_INJURY = date(2011, 1, 1), date(2015, 6, 30)
_LAST_END = date(2019, 12, 1)
"""No period drawn reaches into the emergency of 2020, which tolled all of them."""

_CLEAR: Mapping[int, tuple[int, int]] = MappingProxyType(
    {
        **{1: (22, 31), 2: (22, 28), 3: (1, 29), 4: (2, 30), 5: (1, 24), 6: (1, 17)},
        **{7: (6, 31), 8: (1, 31), 9: (8, 21), 10: (15, 31), 11: (13, 21), 12: (1, 23)},
    }
)
"""Month → days on which no judicial holiday of Cal. Code Civ. Proc. § 135 is ever kept, weekends
apart; the last days drawn are among them."""

_NEAR = 30
"""Days before or after the day that matters within which a suit is filed."""

_ON_MONDAY = 1 / 3
"""Share of late suits meant to be filed on a Monday: as many as a weekend saves, lest the day of
the week give the answer away."""

Tolling = Literal["minority", "absence"]
_TOLLINGS: tuple[Tolling, ...] = ("minority", "absence")

Window = Literal["two years", "tolling", "weekend", "late"]
"""Why a suit is in time, or that it is not."""


@dataclass(frozen=True)
class _Plot:
    """What a claim is to be like, before its dates are drawn."""

    told: tuple[Tolling, ...]
    tolled_by: Tolling | None
    ends_on_weekend: bool
    window: Window


class StatuteOfLimitations:
    """In time iff filed by the last day of two years, tolled and rolled as the law has it."""

    name: ClassVar[str] = "statute_of_limitations"
    title: ClassVar[str] = "Limitation of personal-injury suits, with tolling and weekends"
    law: ClassVar[Law] = Law(
        (
            "Cal. Code Civ. Proc. § 335.1",
            "Cal. Code Civ. Proc. § 12",
            "Cal. Code Civ. Proc. § 12a",
            "Cal. Code Civ. Proc. § 351",
            "Cal. Code Civ. Proc. § 352(a)",
            "Shalabi v. City of Fontana, 11 Cal. 5th 842 (2021)",
        ),
        "California",
    )
    answers: ClassVar[tuple[str, ...]] = ("Yes", "No")
    answer_type: ClassVar[AnswerType] = "yes_no"
    levels: ClassVar[tuple[Level, ...]] = (1, 2, 3, 4, 5)
    easy_levels: ClassVar[tuple[Level, ...]] = (1, 2)
    hard_levels: ClassVar[tuple[Level, ...]] = (3, 4, 5)

    def sample(self, rng: random.Random, level: int | str) -> Sample:
        """Draw the answer (even odds), what it turns on, then dates that make it so."""
        level = int(level)
        is_yes = rng.random() < 0.5
        who, other = rng.sample(NAMES, 2)
        if level == _BOUND:  # the same pairs, whichever is asked about
            plot = _draw_plot(rng, level, True)
            pair = (plot, _draw_opposite(rng, plot))
            mine, theirs = pair if is_yes else pair[::-1]
            claims = [_draw_claim(rng, mine, who), _draw_claim(rng, theirs, other)]
        else:
            claims = [_draw_claim(rng, _draw_plot(rng, level, is_yes), who)]
        claim = claims[0]
        sentences = [sentence for claim in claims for sentence in claim.tell()]
        if level == _DISTRACTED:
            sentences += _distractors(rng, claim, other)
        if level >= _DISTRACTED:
            rng.shuffle(sentences)
        record = self._as_dict(level, claim, claims[1:])
        return Sample(
            prompt=" ".join([*sentences, QUESTION.format(who=who)]),
            reference=self.solve(record),
            trace=self.trace(record),
            task=f"{self.name}_{level}",
            facts=record,
            authorities=self.law.authorities,
            license="Apache-2.0",
            source=f"generated:{self.name}",
        )

    def solve(self, facts: Mapping[str, Any]) -> str:
        """Yes iff the claim asked about was filed by its last day."""
        return "Yes" if _read_claim(facts).is_in_time else "No"

    def required(self, facts: Mapping[str, Any]) -> tuple[str, ...]:
        """The end of two years, tolling as far as it is told, the last day, the comparison."""
        return required_points(_read_claim(facts))

    def trace(self, facts: Mapping[str, Any]) -> str:
        """One step a point, one step a line."""
        steps = _steps(_read_claim(facts))
        lines = [f"Step {number}: {step}" for number, step in enumerate(steps, start=1)]
        return "\n".join([*lines, f"Conclusion: {self.solve(facts)}"])

    def check(self, facts: Mapping[str, Any], step: str) -> StepVerdict:
        """Whether a step is true of the claim asked about; see `limitation_steps.py`."""
        return ClaimReader(_read_claim(facts)).check(step)

    def parse(self, text: str) -> dict[str, Any]:
        """Read a question in the family's words; a `DataError` for any other."""
        question = _ASKING.search(text.strip())
        if question is None:
            raise unreadable(text.strip()[-80:])
        told = re.split(r"(?<=\.)\s+", text.strip()[: question.start()].strip())
        sentences = [sentence for sentence in told if not _DISTRACTOR.fullmatch(sentence)]
        claims = read_claims(sentences)
        asked = [claim for claim in claims if claim.who == question["who"]]
        others = [claim for claim in claims if claim.who != question["who"]]
        if not asked:
            raise DataError(f"Nothing is told of {question['who']}'s suit. Tell when it was filed.")
        if len(others) > 1:
            raise DataError(f"{len(claims)} suits are told. Tell of one or two.")
        is_distracted = len(sentences) < len(told)
        level = _BOUND if others else _DISTRACTED if is_distracted else _plain_level(asked[0])
        return self._as_dict(level, asked[0], others)

    def pattern(self, facts: Mapping[str, Any]) -> str:
        """The dates of the claim asked about; names and other claims are left out."""
        dates = {**facts["claim"], "who": None}
        return f"{self.name} {list(dates.values())}"

    def _as_dict(self, level: int, claim: Claim, others: list[Claim]) -> dict[str, Any]:
        return {
            "family": self.name,
            "level": level,
            "jurisdiction": self.law.jurisdiction,
            "as_of": self.law.as_of,
            "labels": list(self.answers),
            "answer_type": self.answer_type,
            "claim": claim.as_dict(),
            "other_claim": others[0].as_dict() if others else None,
            **claim.labels,
        }


def _read_claim(facts: Mapping[str, Any]) -> Claim:
    with reading_facts("statute_of_limitations"):
        return Claim.from_dict(facts["claim"])


def _plain_level(claim: Claim) -> int:
    told = (claim.born is not None) + (claim.days_away is not None)
    return 3 if told == 2 else 2 if told == 1 or is_weekend(claim.end) else 1


def _steps(claim: Claim) -> list[str]:
    steps = [f"two years end on {tell_date(claim.two_years)}."]
    if claim.majority is not None:
        until = f"the time ends on {tell_date(claim.end)}" if claim.is_minor else "no minor"
        steps.append(f"18 on {tell_date(claim.majority)}, so {until}.")
    if claim.days_away is not None:
        when = "after" if claim.away_after else "before"
        until = f"the time ends on {tell_date(claim.end)}" if claim.was_away else "no time is added"
        steps.append(f"{claim.days_away} days away {when} the injury, so {until}.")
    moved = f"the last day is {tell_date(claim.last_day)}"
    last = moved if is_weekend(claim.end) else "it stands"
    steps.append(f"{tell_date(claim.end)} is a {weekday_of(claim.end)}, so {last}.")
    neither = "not " if claim.is_in_time else ""
    steps.append(f"{tell_date(claim.sued)} is {neither}after {tell_date(claim.last_day)}.")
    return steps


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────


def _draw_plot(rng: random.Random, level: int, is_yes: bool) -> _Plot:
    """The reason why a suit is in time first, then uniformly what goes with it."""
    plots = [plot for plot in _plots(level) if (plot.window != "late") == is_yes]
    windows = sorted({plot.window for plot in plots})
    window = rng.choice(windows)
    return rng.choice([plot for plot in plots if plot.window == window])


def _plots(level: int) -> list[_Plot]:
    """Every combination of a level that can be."""
    cases: list[tuple[tuple[Tolling, ...], Tolling | None, bool]]
    if level == 1:
        cases = [((), None, False)]
    elif level == 2:
        cases = [((), None, True)]
        cases += [((kind,), by, False) for kind in _TOLLINGS for by in (kind, None)]
    else:
        # On the top level one person's opposite is the other's, so that one of the two applies.
        reasons = _TOLLINGS if level == _BOUND else (None, *_TOLLINGS)
        cases = [(_TOLLINGS, by, weekend) for by in reasons for weekend in (False, True)]
    return [
        _Plot(told, by, weekend, window)
        for told, by, weekend in cases
        for window in _windows(by, weekend)
    ]


def _windows(tolled_by: Tolling | None, ends_on_weekend: bool) -> list[Window]:
    windows: list[Window] = ["two years", "late"]
    if tolled_by:
        windows.append("tolling")
    if ends_on_weekend:
        windows.append("weekend")
    return windows


def _draw_opposite(rng: random.Random, plot: _Plot) -> _Plot:
    """A claim of the other answer, with the other tolling, and a weekend iff this has none."""
    return rng.choice(
        [
            other
            for other in _plots(_BOUND)
            if other.tolled_by != plot.tolled_by
            and other.ends_on_weekend != plot.ends_on_weekend
            and (other.window == "late") != (plot.window == "late")
        ]
    )


def _draw_claim(rng: random.Random, plot: _Plot, who: str) -> Claim:
    """Dates by rejection, until they make the plot."""
    while True:
        hurt = _FIRST_INJURY + timedelta(rng.randint(0, (_LAST_INJURY - _FIRST_INJURY).days))
        born = days_away = None
        if "minority" in plot.told:
            days = rng.randint(30, 700)
            majority = hurt + timedelta(days if plot.tolled_by == "minority" else -days)
            if _is_leap_day(majority):
                continue
            born = years_after(majority, -MAJORITY)
        if "absence" in plot.told:
            days_away = rng.randint(20, 90)
        if _is_leap_day(hurt):
            continue
        tomorrow = hurt + timedelta(1)  # stands in until the last day is known
        draft = Claim(who, hurt, tomorrow, born, days_away, plot.tolled_by == "absence")
        if is_weekend(draft.end) != plot.ends_on_weekend or not _is_clear(draft):
            continue
        sued = _draw_filing(rng, draft, plot.window)
        if sued is not None:
            return replace(draft, sued=sued)


def _draw_filing(rng: random.Random, claim: Claim, window: Window) -> date | None:
    """A weekday for the window; None if there is none such."""
    last = {"two years": claim.two_years, "tolling": claim.end}
    if window == "weekend":
        return claim.last_day
    if window != "late":
        sued = last[window] - timedelta(rng.randint(0, _NEAR))
        fits = window == "two years" or sued > claim.two_years
        return sued if fits and not is_weekend(sued) else None
    on_monday = rng.random() < _ON_MONDAY
    days = [claim.last_day + timedelta(days) for days in range(1, _NEAR + 1)]
    return rng.choice([day for day in days if day.weekday() in ((0,) if on_monday else range(5))])


def _is_leap_day(day: date) -> bool:
    return (day.month, day.day) == (2, 29)


def _is_clear(claim: Claim) -> bool:
    """Whether no judicial holiday is near the end of the time."""
    days = (claim.end, claim.last_day)
    clear = all(_CLEAR[day.month][0] <= day.day <= _CLEAR[day.month][1] for day in days)
    return clear and claim.last_day <= _LAST_END


def _distractors(rng: random.Random, claim: Claim, other: str) -> list[str]:
    """A date of the person asked about, and one of another, neither of which decides."""
    days = [claim.hurt + timedelta(rng.randint(1, 900)) for _ in range(2)]
    return [
        f"{claim.who} saw a doctor on {tell_date(days[0])}.",
        f"{other} moved away on {tell_date(days[1])}.",
    ]


_DISTRACTOR = re.compile(
    rf"\w+ (?:saw a doctor|moved away) on (?:{'|'.join(MONTHS)}) \d{{1,2}}, \d{{4}}\."
)
_ASKING = re.compile(r"Is (?P<who>\w+)'s suit in time\?$")
