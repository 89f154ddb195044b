"""A suit as the diversity family sees it: what the rule makes of it, and its words.

Amounts are whole US dollars; a person's home state stands for citizenship. Two exceptions of
subject matter come on top of complete diversity and amount, and are narrower than they sound:

- **Domestic relations**: decrees of divorce, alimony and child custody (Ankenbrandt v. Richards,
  504 U.S. 689, 703 (1992)); torts between members of a family are not excepted.
- **Probate**: probate or annulment of a will and administration of an estate (Marshall v. Marshall,
  547 U.S. 293, 311–312 (2006)); interference with a gift or an inheritance is not excepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from judicaita.errors import DataError

THRESHOLD = 75_000
"""US dollars; the matter in controversy must *exceed* it: 28 U.S.C. § 1332(a)."""

EXCEPTED: Mapping[str, str] = MappingProxyType(
    {
        "divorce": "domestic relations",
        "alimony": "domestic relations",
        "child custody": "domestic relations",
        "probate of a will": "probate",
        "annulment of a will": "probate",
        "administration of an estate": "probate",
    }
)
"""Cause → the exception that takes it out of diversity jurisdiction."""

NEAR_CAUSES = ("assault by an ex-spouse", "interference with a gift by will")
"""Causes that sound like the exceptions and fall under none, as in Ankenbrandt and in Marshall."""

SHAPES = {1: (1, 1, 1), 2: (1, 2, 1), 3: (1, 1, 2), 4: (2, 1, 1), 5: (2, 1, 2), 6: (2, 2, 2)}
"""LegalBench's levels → plaintiffs, defendants, claims against each defendant."""


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
class Suit:
    """One suit. What the rule makes of it is derived, so it cannot disagree with the facts."""

    plaintiffs: tuple[Party, ...]
    defendants: tuple[Party, ...]
    claims: tuple[Claim, ...]

    def __post_init__(self) -> None:
        sued = {claim.defendant for claim in self.claims}
        if not self.plaintiffs or not sued or sued != {party.name for party in self.defendants}:
            raise DataError(
                "A suit needs plaintiffs, and a claim against each defendant and nobody else. Tell "
                "who sues whom for what."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Plaintiffs, defendants, and the distinct numbers of claims against a defendant."""
        counts = {len(self.amounts_against(party)) for party in self.defendants}
        return (len(self.plaintiffs), len(self.defendants), *counts)

    @property
    def names(self) -> frozenset[str]:
        """Everyone in the suit."""
        return frozenset(party.name for party in (*self.plaintiffs, *self.defendants))

    @property
    def shared_states(self) -> tuple[str, ...]:
        """Defendants' states that are also a plaintiff's, in order."""
        plaintiff_states = {party.state for party in self.plaintiffs}
        return tuple(p.state for p in self.defendants if p.state in plaintiff_states)

    @property
    def parties_are_diverse(self) -> bool:
        """Complete diversity: no plaintiff shares a state with any defendant."""
        return not self.shared_states

    def amounts_against(self, defendant: Party) -> list[int]:
        """US dollars of each claim against one defendant, which add up; others' never do."""
        return [claim.amount for claim in self.claims if claim.defendant == defendant.name]

    @property
    def distinct_amounts(self) -> list[list[int]]:
        """What is claimed from each defendant, once where two are sued for the same amounts."""
        found: dict[tuple[int, ...], list[int]] = {}
        for party in self.defendants:
            amounts = self.amounts_against(party)
            found.setdefault(tuple(sorted(amounts)), amounts)
        return list(found.values())

    @property
    def aic_is_met(self) -> bool:
        """The amount in controversy exceeds $75,000 against every defendant."""
        return all(sum(amounts) > THRESHOLD for amounts in self.distinct_amounts)

    @property
    def causes(self) -> tuple[str, ...]:
        """Every cause of action, once, in order."""
        return tuple(dict.fromkeys(claim.cause for claim in self.claims))

    @property
    def excepted_causes(self) -> tuple[str, ...]:
        """Causes that fall under an exception; one of them defeats jurisdiction over the suit."""
        return tuple(cause for cause in self.causes if cause in EXCEPTED)

    @property
    def has_jurisdiction(self) -> bool:
        """Complete diversity, the amount, and no excepted cause."""
        return self.parties_are_diverse and self.aic_is_met and not self.excepted_causes

    def as_dict(self) -> dict[str, Any]:
        """JSON-able parties and claims."""
        return {
            "plaintiffs": [asdict(party) for party in self.plaintiffs],
            "defendants": [asdict(party) for party in self.defendants],
            "claims": [asdict(claim) for claim in self.claims],
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Suit:
        """Read parties and claims back; recorded labels are ignored and derived anew."""
        return cls(
            plaintiffs=tuple(Party(**party) for party in facts["plaintiffs"]),
            defendants=tuple(Party(**party) for party in facts["defendants"]),
            claims=tuple(Claim(**claim) for claim in facts["claims"]),
        )

    def tell(self) -> list[str]:
        """The suit in LegalBench's words, sentence by sentence."""
        sentences = [f"{p.name} is from {p.state}." for p in (*self.plaintiffs, *self.defendants)]
        names = [party.name for party in self.plaintiffs]
        sue = f"{names[0]} sues" if len(names) == 1 else f"{' and '.join(names)} both sue"
        if self.shape == SHAPES[2]:
            sued = " and ".join(party.name for party in self.defendants)
            claim = self.claims[0]
            return [*sentences, f"{sue} {sued} each for {claim.cause} for {dollars(claim.amount)}."]
        for party in self.defendants:
            against = [claim for claim in self.claims if claim.defendant == party.name]
            counts = " and ".join(f"{c.cause} for {dollars(c.amount)}" for c in against)
            sentences.append(f"{sue} {party.name} for {counts}.")
        return sentences


def dollars(amount: int) -> str:
    """An amount as suits tell it: $75,000."""
    return f"${amount:,}"


_CITIZEN = re.compile(r"(?P<name>\S+) is from (?P<state>[^.]+)")
_SUIT = re.compile(
    r"(?:(?P<one>\S+) sues|(?P<two>\S+ and \S+) both sue) "
    r"(?P<defendants>\S+(?: and \S+ each)?) for (?P<claims>.+)"
)
_CLAIM = re.compile(r"(?P<cause>[^$]+?) for \$(?P<amount>\d{1,3}(?:,\d{3})*)(?: and (?=[^$]+\$)|$)")


def read_suits(text: str) -> list[Suit]:
    """Every suit that sentences in LegalBench's wording tell, in the order told.

    Anything else, a party of no suit or of two, or a mixture of plaintiffs is a `DataError`.
    """
    states: dict[str, str] = {}
    claims: dict[str, list[Claim]] = {}  # by who sues: "Ava", or "Ava and Mia"
    for sentence in re.split(r"\.\s+", text.strip().removesuffix(".")):
        if (citizen := _CITIZEN.fullmatch(sentence)) and citizen["name"] not in states:
            states[citizen["name"]] = citizen["state"]
        elif suit := _SUIT.fullmatch(sentence):
            counts = _read_claims(suit["defendants"], suit["claims"])
            claims.setdefault(suit["one"] or suit["two"], []).extend(counts)
        else:
            raise unreadable(sentence)
    suits = [_as_suit(suing, counts, states) for suing, counts in claims.items()]
    parties = [name for suit in suits for name in suit.names]
    if not suits or sorted(parties) != sorted(states):
        raise unreadable(text)
    return suits


def _as_suit(suing: str, claims: list[Claim], states: Mapping[str, str]) -> Suit:
    plaintiffs = suing.split(" and ")
    defendants = {claim.defendant for claim in claims}
    if not {*plaintiffs, *defendants} <= states.keys() or defendants & {*plaintiffs}:
        raise unreadable(f"{suing} and {', '.join(sorted(defendants))}")
    return Suit(
        tuple(Party(name, state) for name, state in states.items() if name in plaintiffs),
        tuple(Party(name, state) for name, state in states.items() if name in defendants),
        tuple(claims),
    )


def _read_claims(defendants: str, counts: str) -> list[Claim]:
    found = list(_CLAIM.finditer(counts))
    if "".join(match[0] for match in found) != counts:
        raise unreadable(counts)
    return [
        Claim(name, match["cause"], int(match["amount"].replace(",", "")))
        for name in defendants.removesuffix(" each").split(" and ")
        for match in found
    ]


def unreadable(text: str) -> DataError:
    """The error for words that tell no suit."""
    return DataError(
        f"{text[:80]!r} is not worded as a diversity question: expected sentences like "
        "'Ava is from Alaska.' and 'Ava sues Mia for trespass for $61,000.'"
    )
