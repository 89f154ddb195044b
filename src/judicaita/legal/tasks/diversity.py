"""Diversity jurisdiction: may a federal court hear this suit between citizens of several states?

The wording and the first six levels are those of LegalBench's ``diversity_1`` … ``diversity_6``:

    level  plaintiffs × defendants × claims   sentence about the suit
    1      1 × 1 × 1                          P sues D for C for $X.
    2      1 × 2 × 1                          P sues D1 and D2 each for C for $X.
    3      1 × 1 × 2                          P sues D for C1 for $X and C2 for $Y.
    4      2 × 1 × 1                          P1 and P2 both sue D for C for $X.
    5      2 × 1 × 2                          P1 and P2 both sue D for C1 for $X and C2 for $Y.
    6      2 × 2 × 2                          level 5's sentence once per defendant
    7      2 × 1 × 1                          level 4's, and the cause may be an excepted one
    8      2 × 1 × 2                          level 5's, one cause may be an excepted one, and
                                              two sentences tell of others
    9      2 × 1 × 1, twice                   two suits of level 7 in which diversity, amount and
                                              exception are opposites; one of them is asked about

Levels 1 to 6 turn on two factors only, complete diversity and the amount, so that either alone is
right in 5 of 6 balanced questions; they are no hard levels, 5 and 6 included. From level 7 on there
are three, the third being the exceptions of domestic relations and probate (see
`diversity_suit.py`). Each holds in 3 of 4 draws, and draws are rejected until they give the
answer wanted, so that the best rule of one factor is right in 1/2 + (1 − q) / 2(1 − q³) = .716 of
balanced questions for q = 3/4.

The rule is that data set's convention, **not the whole law** of 28 U.S.C. § 1332 and § 1367: there
are no corporations, aliens, joint liability or supplemental jurisdiction here. The question is
about the suit as a whole: one excepted claim is enough for No. Suits are schematic (two people may
sue for divorce). How steps are read: `diversity_steps.py`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from judicaita.errors import DataError
from judicaita.legal.tasks.diversity_steps import SuitReader, required_points
from judicaita.legal.tasks.diversity_suit import (
    EXCEPTED,
    NEAR_CAUSES,
    SHAPES,
    THRESHOLD,
    Claim,
    Party,
    Suit,
    dollars,
    read_suits,
    unreadable,
)
from judicaita.legal.tasks.family import AnswerType, Law, Level, StepVerdict, reading_facts
from judicaita.legal.tasks.vocabulary import CAUSES, NAMES, STATES
from judicaita.types import Sample

QUESTION = "Is there diversity jurisdiction?"

BOUND_QUESTION = "Is there diversity jurisdiction over {who}'s suit?"
"""The question from level 7 on; it names the first plaintiff."""

_EXCEPTION_SHAPES = {7: (2, 1, 1), 8: (2, 1, 2), 9: (2, 1, 1)}
_DISTRACTED, _BOUND = 8, 9

_WITNESS = "{who}, a witness, is from {state}."
_ASIDE = "{who} once paid {amount} for a boat."

_FACTOR_HOLDS = 0.75
"""Share of draws, before rejection, in which a factor of the levels with three holds."""

_CO_CITIZENS = 0.1
"""Share of multi-party suits in which two co-parties share a state, which is no obstacle: without
them "any state named twice" would do for "a state on both sides"."""

_EXACTLY_THRESHOLD = 1 / 12
"""Share of unmet amounts that are exactly $75,000."""


@dataclass(frozen=True)
class _Docket:
    """What a question tells: the suit asked about, and on the top level another."""

    level: int
    suit: Suit
    other: Suit | None = None
    other_first: bool = False

    @property
    def turns_on_exceptions(self) -> bool:
        return self.level in _EXCEPTION_SHAPES or bool(self.suit.excepted_causes)

    @property
    def question(self) -> str:
        if self.level not in _EXCEPTION_SHAPES:
            return QUESTION
        return BOUND_QUESTION.format(who=self.suit.plaintiffs[0].name)


class Diversity:
    """The family: answers balanced, then the factors, then facts that give them."""

    name: ClassVar[str] = "diversity"
    title: ClassVar[str] = "Diversity jurisdiction of the federal courts"
    law: ClassVar[Law] = Law(
        (
            "28 U.S.C. § 1332(a)",
            "Strawbridge v. Curtiss, 7 U.S. (3 Cranch) 267 (1806)",
            "Ankenbrandt v. Richards, 504 U.S. 689 (1992)",
            "Marshall v. Marshall, 547 U.S. 293 (2006)",
        ),
        "US federal",
    )
    answers: ClassVar[tuple[str, ...]] = ("Yes", "No")
    answer_type: ClassVar[AnswerType] = "yes_no"
    levels: ClassVar[tuple[Level, ...]] = (*SHAPES, *_EXCEPTION_SHAPES)
    easy_levels: ClassVar[tuple[Level, ...]] = (1, 2, 3, 4)
    hard_levels: ClassVar[tuple[Level, ...]] = tuple(_EXCEPTION_SHAPES)

    def sample(self, rng: random.Random, level: int | str) -> Sample:
        """Draw the answer (even odds), the factors that give it, then the facts."""
        docket = _draw_docket(rng, int(level))
        suits = [docket.suit, *([docket.other] if docket.other else [])]
        told = [s.tell() for s in (reversed(suits) if docket.other_first else suits)]
        sentences = [sentence for suit in told for sentence in suit]
        if docket.level == _DISTRACTED:
            _insert_distractors(rng, docket.suit, sentences)
        record = self._as_dict(docket)
        authorities = self.law.authorities
        return Sample(
            prompt=" ".join([*sentences, docket.question]),
            reference=self.solve(record),
            trace=self.trace(record),
            task=f"{self.name}_{level}",
            facts=record,
            authorities=authorities if docket.turns_on_exceptions else authorities[:2],
            license="Apache-2.0",
            source=f"generated:{self.name}",
        )

    def solve(self, facts: Mapping[str, Any]) -> str:
        """Yes iff diversity is complete, the amount is met and no cause is excepted."""
        return "Yes" if _read_docket(facts).suit.has_jurisdiction else "No"

    def required(self, facts: Mapping[str, Any]) -> tuple[str, ...]:
        """Both sides' states, whether one is shared, every amount, and the exceptions."""
        docket = _read_docket(facts)
        return required_points(docket.suit, docket.turns_on_exceptions)

    def trace(self, facts: Mapping[str, Any]) -> str:
        """Sides, shared state, one amount per distinct list of claims, exception; a step a line."""
        docket = _read_docket(facts)
        suit, shared = docket.suit, docket.suit.shared_states
        steps = [
            f"Plaintiffs: {', '.join(party.state for party in suit.plaintiffs)}.",
            f"Defendants: {', '.join(party.state for party in suit.defendants)}.",
            f"{shared[0]} is on both sides, so diversity is not complete."
            if shared
            else "No state is on both sides, so diversity is complete.",
            *map(_amount_step, suit.distinct_amounts),
        ]
        if docket.turns_on_exceptions:
            steps.append(_exception_step(suit))
        lines = [f"Step {number}: {step}" for number, step in enumerate(steps, start=1)]
        return "\n".join([*lines, f"Conclusion: {self.solve(facts)}"])

    def check(self, facts: Mapping[str, Any], step: str) -> StepVerdict:
        """Whether a step is true of the suit asked about; see `diversity_steps.py`."""
        docket = _read_docket(facts)
        return SuitReader(docket.suit, docket.turns_on_exceptions).check(step)

    def parse(self, text: str) -> dict[str, Any]:
        """Read suits in LegalBench's wording, with or without the closing question."""
        body = text.strip().removesuffix(QUESTION).strip()
        bound = _BOUND_QUESTION.search(body)
        if bound is None:
            suits = read_suits(body)
            level = _level_of(SHAPES, suits[0]) if len(suits) == 1 else None
            if level is None:
                raise _no_level(suits)
            return self._as_dict(_Docket(level, suits[0]))
        suits = read_suits(_DISTRACTOR.sub("", body[: bound.start()]))
        asked = [s for s in suits if bound["who"] in {party.name for party in s.plaintiffs}]
        if not asked:
            raise unreadable(bound[0])
        if len(suits) == 1:
            level = _level_of(_EXCEPTION_SHAPES, asked[0])
        else:
            is_pair = [suit.shape for suit in suits] == [_EXCEPTION_SHAPES[_BOUND]] * 2
            level = _BOUND if is_pair else None
        if level is None:
            raise _no_level(suits)
        others = [suit for suit in suits if suit is not asked[0]]
        if not others:
            return self._as_dict(_Docket(level, asked[0]))
        return self._as_dict(_Docket(level, asked[0], others[0], suits[0] is others[0]))

    def pattern(self, facts: Mapping[str, Any]) -> str:
        """States per side and amounts per defendant, sorted, and the excepted causes.

        Names, other causes and other suits are left out.
        """
        docket = _read_docket(facts)
        suit = docket.suit
        plaintiffs = sorted(party.state for party in suit.plaintiffs)
        defendants = sorted(
            (party.state, sorted(suit.amounts_against(party))) for party in suit.defendants
        )
        excepted = f" {sorted(suit.excepted_causes)}" if docket.turns_on_exceptions else ""
        return f"{self.name} {docket.level} {plaintiffs} {defendants}{excepted}"

    def _as_dict(self, docket: _Docket) -> dict[str, Any]:
        suit = docket.suit
        record = {
            "family": self.name,
            "level": docket.level,
            "jurisdiction": self.law.jurisdiction,
            "as_of": self.law.as_of,
            "labels": list(self.answers),
            "answer_type": self.answer_type,
            **suit.as_dict(),
            "parties_are_diverse": suit.parties_are_diverse,
            "aic_is_met": suit.aic_is_met,
        }
        if docket.turns_on_exceptions:
            record["no_exception"] = not suit.excepted_causes
        if docket.other:
            record |= {"other": docket.other.as_dict(), "other_first": docket.other_first}
        return record


def _read_docket(facts: Mapping[str, Any]) -> _Docket:
    with reading_facts("diversity"):
        other = facts.get("other")
        return _Docket(
            int(facts["level"]),
            Suit.from_dict(facts),
            Suit.from_dict(other) if other else None,
            bool(facts.get("other_first", False)),
        )


def _level_of(shapes: Mapping[int, tuple[int, int, int]], suit: Suit) -> int | None:
    return next((level for level, shape in shapes.items() if shape == suit.shape), None)


def _no_level(suits: list[Suit]) -> DataError:
    shapes = " and ".join(
        f"{len(suit.plaintiffs)} plaintiffs, {len(suit.defendants)} defendants and "
        f"{len(suit.claims)} claims"
        for suit in suits
    )
    return DataError(
        f"A question of {shapes} is none of diversity's levels, which have at most two of each; "
        "see the table at the head of `diversity.py`."
    )


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────


def _draw_docket(rng: random.Random, level: int) -> _Docket:
    is_yes = rng.random() < 0.5
    if level in SHAPES:
        combinations = [(True, True)] if is_yes else [(False, False), (False, True), (True, False)]
        diverse, met = rng.choice(combinations)
        return _Docket(level, _draw_suit(rng, SHAPES[level], diverse=diverse, met=met))
    while True:  # rejection: the factors as often as they hold, given the answer
        factors = [rng.random() < _FACTOR_HOLDS for _ in range(3)]
        if all(factors) == is_yes:
            break
    suit = _draw_excepted(rng, _EXCEPTION_SHAPES[level], factors)
    if level != _BOUND:
        return _Docket(level, suit)
    opposite = [not holds for holds in factors]
    while True:
        other = _draw_excepted(rng, _EXCEPTION_SHAPES[level], opposite)
        if suit.names.isdisjoint(other.names):
            return _Docket(level, suit, other, other_first=rng.random() < 0.5)


def _draw_excepted(rng: random.Random, shape: tuple[int, int, int], factors: list[bool]) -> Suit:
    """A suit whose causes are free of exceptions or not."""
    diverse, met, is_free = factors
    suit = _draw_suit(rng, shape, diverse=diverse, met=met)
    causes = rng.sample([*CAUSES, *NEAR_CAUSES], len(suit.claims))
    # A third of the causes are near ones, lest a word such as "will" give the exception away.
    causes = [rng.choice(NEAR_CAUSES) if rng.random() < 1 / 3 else cause for cause in causes]
    causes = causes if len(set(causes)) == len(causes) else rng.sample(CAUSES, len(causes))
    if not is_free:
        causes[rng.randrange(len(causes))] = rng.choice(list(EXCEPTED))
    pairs = zip(suit.claims, causes, strict=True)
    return replace(suit, claims=tuple(replace(claim, cause=cause) for claim, cause in pairs))


def _draw_suit(
    rng: random.Random, shape: tuple[int, int, int], *, diverse: bool, met: bool
) -> Suit:
    n_plaintiffs, n_defendants, n_claims = shape
    names = rng.sample(NAMES, n_plaintiffs + n_defendants)
    plaintiff_states, defendant_states = _draw_states(rng, n_plaintiffs, n_defendants, diverse)
    plaintiffs = tuple(map(Party, names[:n_plaintiffs], plaintiff_states))
    defendants = tuple(map(Party, names[n_plaintiffs:], defendant_states))
    if n_claims == 1:
        cause, amount = rng.choice(CAUSES), _draw_amount(rng, met)
        claims = tuple(Claim(party.name, cause, amount) for party in defendants)
    else:
        causes = iter(rng.sample(CAUSES, n_claims * n_defendants))
        claims = tuple(
            Claim(party.name, next(causes), amount)
            for party in defendants
            for amount in _draw_two_amounts(rng, met)
        )
    return Suit(plaintiffs, defendants, claims)


def _draw_states(
    rng: random.Random, n_plaintiffs: int, n_defendants: int, diverse: bool
) -> tuple[list[str], list[str]]:
    """Distinct states, but for the pair across the sides and now and then two co-parties."""
    states = rng.sample(STATES, n_plaintiffs + n_defendants)
    plaintiffs, defendants = states[:n_plaintiffs], states[n_plaintiffs:]
    sides = [side for side in (plaintiffs, defendants) if len(side) > 1]
    if sides and rng.random() < _CO_CITIZENS:
        side = rng.choice(sides)
        side[:] = [side[0]] * len(side)
    if not diverse:
        shared, replaced = rng.choice(plaintiffs), rng.choice(defendants)
        defendants = [shared if state == replaced else state for state in defendants]
    return plaintiffs, defendants


def _draw_amount(rng: random.Random, met: bool) -> int:
    """A single claim in US dollars, up to ten million as in LegalBench.

    Half of the met ones stay below $150,000, lest the number of digits decide.
    """
    if met:
        low, high = rng.choice([(76, 149), (150, 9_999)])
        return 1_000 * rng.randint(low, high)
    return THRESHOLD if rng.random() < _EXACTLY_THRESHOLD else 1_000 * rng.randint(1, 74)


def _draw_two_amounts(rng: random.Random, met: bool) -> tuple[int, int]:
    """Two claims in US dollars, each below $100,000, whose total is met or not.

    Half of the totals lie within $25,000 of the threshold, and half of the met ones are made of
    claims that both stay at or below it, so that neither claim alone gives the total away.
    """
    near = rng.random() < 0.5
    highest = 99
    if met:
        highest = rng.choice([75, 99])
        total = rng.randint(76, 100 if near else 2 * highest)
    elif rng.random() < _EXACTLY_THRESHOLD:
        total = 75
    else:
        total = rng.randint(50 if near else 2, 74)
    first = rng.randint(max(1, total - highest), min(highest, total - 1))
    return 1_000 * first, 1_000 * (total - first)


def _insert_distractors(rng: random.Random, suit: Suit, sentences: list[str]) -> None:
    """Enter a stranger's state, half the time one of the suit's, and a stranger's money."""
    witness, payer = rng.sample([name for name in NAMES if name not in suit.names], 2)
    parties = (*suit.plaintiffs, *suit.defendants)
    state = rng.choice(parties).state if rng.random() < 0.5 else rng.choice(STATES)
    amount = dollars(_draw_amount(rng, rng.random() < 0.5))
    for sentence in (
        _WITNESS.format(who=witness, state=state),
        _ASIDE.format(who=payer, amount=amount),
    ):
        sentences.insert(rng.randint(0, len(sentences)), sentence)


_BOUND_QUESTION = re.compile(r"Is there diversity jurisdiction over (?P<who>\w+)'s suit\?$")
_DISTRACTOR = re.compile(
    r"\b\w+(?:, a witness, is from [A-Z][A-Za-z ]+| once paid \$[\d,]+ for a boat)\.\s*"
)


# ── wording of steps ─────────────────────────────────────────────────────────────────────────────


def _amount_step(parts: list[int]) -> str:
    added = " + ".join(map(dollars, parts))
    total = added if len(parts) == 1 else f"{added} = {dollars(sum(parts))}"
    verdict = "more than" if sum(parts) > THRESHOLD else "not more than"
    return f"{total}, {verdict} {dollars(THRESHOLD)}."


def _exception_step(suit: Suit) -> str:
    causes = suit.excepted_causes or suit.causes
    are = "is" if len(causes) == 1 else "are"
    neither = "" if suit.excepted_causes else "not "
    step = f"{' and '.join(causes)} {are} {neither}excepted."
    return step[:1].upper() + step[1:]
