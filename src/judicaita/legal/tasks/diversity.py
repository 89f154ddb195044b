"""Diversity jurisdiction: may a federal court hear this suit between citizens of several states?

The wording and the six variants are those of LegalBench's ``diversity_1`` … ``diversity_6``:

    level  plaintiffs × defendants × claims   sentence about the suit
    1      1 × 1 × 1                          P sues D for C for $X.
    2      1 × 2 × 1                          P sues D1 and D2 each for C for $X.
    3      1 × 1 × 2                          P sues D for C1 for $X and C2 for $Y.
    4      2 × 1 × 1                          P1 and P2 both sue D for C for $X.
    5      2 × 1 × 2                          P1 and P2 both sue D for C1 for $X and C2 for $Y.
    6      2 × 2 × 2                          level 5's sentence once per defendant

The rule is that data set's convention, **not the whole law** of 28 U.S.C. § 1332 and § 1367: there
are no corporations, aliens, joint liability or supplemental jurisdiction here, and a person's home
state stands for citizenship. Amounts are whole US dollars.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from judicaita.errors import DataError
from judicaita.legal.tasks.vocabulary import CAUSES, NAMES, STATES
from judicaita.types import Sample

THRESHOLD = 75_000
"""US dollars; the matter in controversy must *exceed* it: 28 U.S.C. § 1332(a)."""

QUESTION = "Is there diversity jurisdiction?"

AUTHORITIES = (
    "28 U.S.C. § 1332(a)",
    "Strawbridge v. Curtiss, 7 U.S. (3 Cranch) 267 (1806)",
)

AS_OF = "2025-01-01"
"""The date as of which the rule is stated (ISO 8601)."""

_SHAPES = {1: (1, 1, 1), 2: (1, 2, 1), 3: (1, 1, 2), 4: (2, 1, 1), 5: (2, 1, 2), 6: (2, 2, 2)}
"""Level → plaintiffs, defendants, claims against each defendant."""

_CO_CITIZENS = 0.1
"""Share of multi-party suits in which two co-parties share a state, which is no obstacle: without
them "any state named twice" would do for "a state on both sides"."""

_EXACTLY_THRESHOLD = 1 / 12
"""Share of unmet amounts that are exactly $75,000."""


@dataclass(frozen=True)
class Party:
    """A natural person, citizen of one state."""

    name: str
    state: str


@dataclass(frozen=True)
class Claim:
    """What every plaintiff claims from one defendant."""

    defendant: str
    cause: str
    amount: int
    """US dollars."""


@dataclass(frozen=True)
class DiversityFacts:
    """One suit. The labels are derived, so they cannot disagree with the facts."""

    plaintiffs: tuple[Party, ...]
    defendants: tuple[Party, ...]
    claims: tuple[Claim, ...]

    @property
    def level(self) -> int:
        """The variant of this shape."""
        counts = {len(self.amounts_against(party)) for party in self.defendants}
        shape = (len(self.plaintiffs), len(self.defendants), *counts)
        for level, known in _SHAPES.items():
            if known == shape:
                return level
        raise DataError(
            f"A suit of {len(self.plaintiffs)} plaintiffs, {len(self.defendants)} defendants and "
            f"{len(self.claims)} claims is none of diversity's levels 1 to {len(_SHAPES)}."
        )

    @property
    def shared_state(self) -> str | None:
        """The first defendant's state that is also a plaintiff's, if there is one."""
        plaintiff_states = {party.state for party in self.plaintiffs}
        return next((p.state for p in self.defendants if p.state in plaintiff_states), None)

    @property
    def parties_are_diverse(self) -> bool:
        """Complete diversity: no plaintiff shares a state with any defendant."""
        return self.shared_state is None

    def amounts_against(self, defendant: Party) -> list[int]:
        """US dollars of each claim against one defendant, which add up; others' never do."""
        return [claim.amount for claim in self.claims if claim.defendant == defendant.name]

    @property
    def aic_is_met(self) -> bool:
        """The amount in controversy exceeds $75,000 against every defendant."""
        return all(sum(self.amounts_against(party)) > THRESHOLD for party in self.defendants)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able facts as `Sample.facts` carries them, labels included."""
        return {
            "level": self.level,
            "jurisdiction": "US federal",
            "as_of": AS_OF,
            "plaintiffs": [asdict(party) for party in self.plaintiffs],
            "defendants": [asdict(party) for party in self.defendants],
            "claims": [asdict(claim) for claim in self.claims],
            "parties_are_diverse": self.parties_are_diverse,
            "aic_is_met": self.aic_is_met,
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> DiversityFacts:
        """Read parties and claims back; recorded labels are ignored and derived anew."""
        return cls(
            plaintiffs=tuple(Party(**party) for party in facts["plaintiffs"]),
            defendants=tuple(Party(**party) for party in facts["defendants"]),
            claims=tuple(Claim(**claim) for claim in facts["claims"]),
        )


class Diversity:
    """The family: answers balanced, then the two factors, then facts that give them."""

    name = "diversity"
    title = "Diversity jurisdiction of the federal courts"
    levels = tuple(_SHAPES)

    def sample(self, rng: random.Random, level: int | str) -> Sample:
        """Draw the answer (even odds), the factors that give it, then the facts."""
        is_yes = rng.random() < 0.5
        combinations = [(True, True)] if is_yes else [(False, False), (False, True), (True, False)]
        diverse, met = rng.choice(combinations)
        facts = _draw(rng, _SHAPES[int(level)], diverse=diverse, met=met)
        record = facts.as_dict()
        return Sample(
            prompt=f"{_describe(facts)} {QUESTION}",
            reference=self.solve(record),
            trace=self.trace(record),
            task=f"{self.name}_{level}",
            facts=record,
            authorities=AUTHORITIES,
            license="Apache-2.0",
            source=f"generated:{self.name}",
        )

    def solve(self, facts: Mapping[str, Any]) -> str:
        """Yes iff diversity is complete and the amount is met; see the module for its limits."""
        suit = DiversityFacts.from_dict(facts)
        return "Yes" if suit.parties_are_diverse and suit.aic_is_met else "No"

    def trace(self, facts: Mapping[str, Any]) -> str:
        """Sides, shared state, then one amount per distinct total, one step a line."""
        suit = DiversityFacts.from_dict(facts)
        shared = suit.shared_state
        steps = [
            f"Plaintiffs: {', '.join(party.state for party in suit.plaintiffs)}.",
            f"Defendants: {', '.join(party.state for party in suit.defendants)}.",
            f"{shared} is on both sides, so diversity is not complete."
            if shared
            else "No state is on both sides, so diversity is complete.",
            *_amount_steps(suit),
        ]
        lines = [f"Step {number}: {step}" for number, step in enumerate(steps, start=1)]
        return "\n".join([*lines, f"Conclusion: {self.solve(facts)}"])

    def parse(self, text: str) -> dict[str, Any]:
        """Read a suit in LegalBench's wording, with or without the closing question."""
        return _parse(text).as_dict()

    def pattern(self, facts: Mapping[str, Any]) -> str:
        """States per side and amounts per defendant, sorted; names and causes are left out."""
        suit = DiversityFacts.from_dict(facts)
        plaintiffs = sorted(party.state for party in suit.plaintiffs)
        defendants = sorted(
            (party.state, sorted(suit.amounts_against(party))) for party in suit.defendants
        )
        return f"{self.name} {suit.level} {plaintiffs} {defendants}"


def _draw(
    rng: random.Random, shape: tuple[int, int, int], *, diverse: bool, met: bool
) -> DiversityFacts:
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
    return DiversityFacts(plaintiffs, defendants, claims)


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


def _describe(facts: DiversityFacts) -> str:
    """The facts in LegalBench's words."""
    sentences = [f"{p.name} is from {p.state}." for p in (*facts.plaintiffs, *facts.defendants)]
    names = [party.name for party in facts.plaintiffs]
    sue = f"{names[0]} sues" if len(names) == 1 else f"{' and '.join(names)} both sue"
    if facts.level == 2:
        sued = " and ".join(party.name for party in facts.defendants)
        claim = facts.claims[0]
        sentences.append(f"{sue} {sued} each for {claim.cause} for {_dollars(claim.amount)}.")
    else:
        for party in facts.defendants:
            against = [claim for claim in facts.claims if claim.defendant == party.name]
            counts = " and ".join(f"{c.cause} for {_dollars(c.amount)}" for c in against)
            sentences.append(f"{sue} {party.name} for {counts}.")
    return " ".join(sentences)


def _amount_steps(facts: DiversityFacts) -> list[str]:
    """One sentence per defendant; one for all where each is sued for the same single claim."""
    amounts = [facts.amounts_against(party) for party in facts.defendants]
    steps = []
    for parts in amounts[:1] if facts.level == 2 else amounts:
        added = " + ".join(map(_dollars, parts))
        total = added if len(parts) == 1 else f"{added} = {_dollars(sum(parts))}"
        verdict = "more than" if sum(parts) > THRESHOLD else "not more than"
        steps.append(f"{total}, {verdict} {_dollars(THRESHOLD)}.")
    return steps


def _dollars(amount: int) -> str:
    return f"${amount:,}"


_CITIZEN = re.compile(r"(?P<name>\S+) is from (?P<state>[^.]+)")
_SUIT = re.compile(
    r"(?:(?P<one>\S+) sues|(?P<two>\S+ and \S+) both sue) "
    r"(?P<defendants>\S+(?: and \S+ each)?) for (?P<claims>.+)"
)
_CLAIM = re.compile(r"(?P<cause>[^$]+?) for \$(?P<amount>\d{1,3}(?:,\d{3})*)(?: and (?=[^$]+\$)|$)")


def _parse(text: str) -> DiversityFacts:
    body = text.strip().removesuffix(QUESTION).strip()
    states: dict[str, str] = {}
    suing: set[str] = set()  # "Ava" or "Ava and Mia": the same in every sentence of one suit
    claims: list[Claim] = []
    for sentence in re.split(r"\.\s+", body.removesuffix(".")):
        if (citizen := _CITIZEN.fullmatch(sentence)) and citizen["name"] not in states:
            states[citizen["name"]] = citizen["state"]
        elif suit := _SUIT.fullmatch(sentence):
            suing.add(suit["one"] or suit["two"])
            claims += _parse_claims(suit["defendants"], suit["claims"])
        else:
            raise _unreadable(sentence)
    if len(suing) != 1:
        raise _unreadable(body)
    plaintiffs = set(suing.pop().split(" and "))
    defendants = {claim.defendant for claim in claims}
    if plaintiffs | defendants != set(states) or plaintiffs & defendants:
        raise _unreadable(body)
    return DiversityFacts(
        tuple(Party(name, state) for name, state in states.items() if name in plaintiffs),
        tuple(Party(name, state) for name, state in states.items() if name in defendants),
        tuple(claims),
    )


def _parse_claims(defendants: str, counts: str) -> list[Claim]:
    found = list(_CLAIM.finditer(counts))
    if "".join(match[0] for match in found) != counts:
        raise _unreadable(counts)
    return [
        Claim(name, match["cause"], int(match["amount"].replace(",", "")))
        for name in defendants.removesuffix(" each").split(" and ")
        for match in found
    ]


def _unreadable(text: str) -> DataError:
    return DataError(
        f"{text[:80]!r} is not worded as a diversity question: expected sentences like "
        "'Ava is from Alaska.' and 'Ava sues Mia for trespass for $61,000.'"
    )
