"""One thing to be shown: what facts meet it, and how facts and findings are worded."""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from judicaita.legal.polarity import normalise

CONCEDED = "conceded"
"""Stands for a fact where the other side concedes that the element is met."""


@dataclass(frozen=True)
class Element(ABC):
    """One thing to be shown, and how facts and findings about it are worded."""

    name: str
    """Key of the finding in `Sample.facts`."""
    met: tuple[str, ...]
    """Wordings of the finding that it is met; the first is the worked solution's."""
    unmet: tuple[str, ...]
    sentence: str
    """How a fact is told, with ``{who}`` and ``{fact}``."""
    noun: str = ""
    """What is conceded or missing where no fact is told; "" where that never happens."""
    can_be_missing: bool = False
    """Whether a question may leave its fact out although it is in dispute."""

    @abstractmethod
    def draw(self, rng: random.Random, is_met: bool | None = None) -> str:
        """A fact, uniformly among all or among those that meet the element, or do not."""

    @abstractmethod
    def is_met(self, fact: str) -> bool:
        """What a fact amounts to."""

    @abstractmethod
    def recognise(self, words: str) -> str | None:
        """The fact that normalised words tell, if this element can have such a fact."""

    def tell(self, who: str, fact: str | None) -> str:
        """The sentence of a question that tells a fact, a concession, or that nothing is known."""
        if fact is None:
            return f"There is no word on {who}'s {self.noun}."
        if fact == CONCEDED:
            return f"{who}'s {self.noun} is conceded."
        return self.sentence.format(who=who, fact=fact)

    @cached_property
    def telling(self) -> re.Pattern[str]:
        """Matches a told sentence; groups ``who`` and ``fact``, or ``whose`` for a missing one, or
        ``conceded`` for whose element is met without a fact."""
        told = re.escape(self.sentence)
        told = told.replace(r"\{who\}", r"(?P<who>\w+)").replace(r"\{fact\}", r"(?P<fact>.+)")
        never = "(?!)"
        conceded = rf"(?P<conceded>\w+)'s {self.noun or never} is conceded\."
        noun = self.noun if self.can_be_missing else never
        return re.compile(rf"{told}|There is no word on (?P<whose>\w+)'s {noun}\.|{conceded}")

    def evidence(self, fact: str | None) -> str:
        """How the worked solution refers to what is told."""
        if fact is None:
            return f"no word on {self.noun}"
        return f"{self.noun} is conceded" if fact == CONCEDED else fact

    def can_be(self, fact: Any) -> bool:
        """Whether a question may tell this of the element, None and `CONCEDED` included."""
        if fact is None:
            return self.can_be_missing
        return bool(self.noun) if fact == CONCEDED else self.recognise(normalise(fact)) == fact

    def holds(self, fact: str) -> bool:
        """Whether the element is met by a fact or a concession."""
        return fact == CONCEDED or self.is_met(fact)

    @property
    def tells_of_another_thing(self) -> bool:
        """Whether facts are told of something of the party's ("Ava's victim broke an arm.")."""
        return "{who}'s" in self.sentence

    @cached_property
    def retelling(self) -> re.Pattern[str]:
        """Matches a told sentence in its normalised form; groups ``who`` and ``fact``."""
        words = re.escape(
            normalise(self.sentence.format(who="Someone", fact="Something")).rstrip(".")
        )
        told = re.sub("someones?", r"(?P<who>\\w+)", words)
        return re.compile(told.replace("something", "(?P<fact>.+)"))

    @cached_property
    def findings(self) -> Mapping[str, bool | None]:
        """Normalised wording → met, unmet, or None for missing."""
        open_ = {f"{self.noun} is open": None} if self.noun else {}
        return {
            **{normalise(wording): True for wording in self.met},
            **{normalise(wording): False for wording in self.unmet},
            **open_,
        }


@dataclass(frozen=True)
class Listed(Element):
    """An element whose facts are a list of wordings."""

    meeting: tuple[str, ...] = ()
    """Facts that meet it."""
    failing: tuple[str, ...] = ()

    def draw(self, rng: random.Random, is_met: bool | None = None) -> str:
        """See `Element`."""
        if is_met is None:
            return rng.choice((*self.meeting, *self.failing))
        return rng.choice(self.meeting if is_met else self.failing)

    def is_met(self, fact: str) -> bool:
        """See `Element`."""
        return fact in self.meeting

    def recognise(self, words: str) -> str | None:
        """See `Element`."""
        return self._by_words.get(words)

    @cached_property
    def _by_words(self) -> Mapping[str, str]:
        return {normalise(fact): fact for fact in (*self.meeting, *self.failing)}
