"""Families whose answer follows from elements, each met or not by a fact about one party.

    level  elements in dispute   besides
    1      one                   "Nothing else is disputed."; others conceded, asides now and then
    2      two                   the same
    3      three                 the same
    4      all
    5      all                   two asides: sentences about another person that decide nothing
    6      all                   a second matter, whose every fact is the opposite

A needed fact that is missing is told to be ("There is no word on …"); on level 6 nothing is.

Facts are told, and decided, in the order of the elements; on level 6 in any order. Level 6 binds
facts to roles: both facts of every element are told, one of each party, so that which words occur
says nothing about the answer.

Facts are drawn uniformly among the combinations that give the drawn answer. Each element has about
twice as many facts that meet it as facts that do not, so that no element alone decides: where n
elements must all be met and each is by a share q of its facts, the best rule of one element is
right in 1/2 + (1 − q) / 2(1 − qⁿ) of balanced questions, .708 for q = 2/3 and n = 4.

**Grammar of a step**, in any capitals, with or without Markdown emphasis::

    step     = evidence CONNECTOR finding | finding REASON evidence | finding
    evidence = a fact, a concession or the lack of word on something as the question tells it, or
               without the party's name; "it was", "she" … may stand before a fact, but no
               person where it is told of another thing ("Ava's victim broke an arm")
    finding  = how the family words an element met or unmet; "it is", "the statement was" …
               may stand before it; "not" before one means the other
    CONNECTOR = so | thus | hence | therefore | which means | meaning | and so   (that)
    REASON   = because | since | given that

A step is true when its evidence is the fact told of the party asked about and its finding is what
that fact amounts to; false when the evidence is another fact than the one told, or the finding is
not what it amounts to; everything else is not checkable.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from judicaita.errors import DataError
from judicaita.legal.polarity import normalise
from judicaita.legal.tasks.element import CONCEDED, Element
from judicaita.legal.tasks.family import AnswerType, Law, Level, StepVerdict, reading_facts
from judicaita.legal.tasks.grammar import clean, join_parts, names_others
from judicaita.legal.tasks.vocabulary import NAMES
from judicaita.types import Sample

NOTHING_ELSE = "Nothing else is disputed."

_DISPUTED = {1: 1, 2: 2, 3: 3}
"""Level → elements in dispute; all of them on any other level."""

_ASIDE = 0.3
"""Share of questions of the levels in `_DISPUTED` with an aside."""

_DISTRACTED, _BOUND = 5, 6

_ASIDES = 2
"""How many a question of level `_DISTRACTED` has."""

_CONCEDE = 0.35
"""Share of elements out of dispute that are conceded one by one, rather than passed over."""

Findings = Mapping[str, bool | None]
"""Element → met, unmet, or None where the needed fact is missing."""

Told = tuple[str, str, str | None]
"""Who, element, fact (None: told to be missing)."""


@dataclass(frozen=True)
class Case:
    """One instance: what is told of the party asked about, and of another."""

    level: int
    asked: str
    told: tuple[Told, ...]
    """In the order of the question."""
    nothing_else: bool
    """Whether whatever is not told is undisputed, rather than missing."""

    @property
    def own(self) -> dict[str, str | None]:
        """Element → fact of the party asked about, in the order told."""
        return {element: fact for who, element, fact in self.told if who == self.asked}


class ElementFamily(ABC):
    """A family of questions about one party that `conclude` decides from findings on elements."""

    name: ClassVar[str]
    title: ClassVar[str]
    law: ClassVar[Law]
    question: ClassVar[str]
    """With ``{who}``."""
    elements: ClassVar[tuple[Element, ...]]
    background: ClassVar[tuple[str, ...]]
    """Sentences that decide nothing, with ``{who}``, another person."""
    subjects: ClassVar[tuple[str, ...]] = ()
    """Nouns with which a finding may open beside pronouns: "the statement", "the covenant" …"""
    answers: ClassVar[tuple[str, ...]] = ("Yes", "No")
    answer_type: ClassVar[AnswerType] = "yes_no"
    undisputed: ClassVar[Mapping[str, bool]] = {}
    """How elements stand that are not in dispute; met unless entered here."""
    can_concede: ClassVar[bool] = True
    """Whether elements that are not told stand undisputed on levels 1 to 3; else nothing speaks
    for them."""

    levels: ClassVar[tuple[Level, ...]] = (1, 2, 3, 4, 5, 6)
    easy_levels: ClassVar[tuple[Level, ...]] = (1, 2)
    hard_levels: ClassVar[tuple[Level, ...]] = (3, 4, 5, 6)

    @abstractmethod
    def conclude(self, findings: Findings) -> str:
        """The answer under the rule, from a finding on every element."""

    def told_count(self, level: int) -> int:
        """How many elements are in dispute."""
        return _DISPUTED.get(level, len(self.elements))

    # ── drawing ──────────────────────────────────────────────────────────────────────────────────

    def sample(self, rng: random.Random, level: int | str) -> Sample:
        """Draw the answer (even odds), then facts among all combinations that give it."""
        level = int(level)
        case = self._draw(rng, level, rng.choice(self.kinds_of_answer(level)))
        record = self._as_dict(case)
        sentences = [self._element(name).tell(who, fact) for who, name, fact in case.told]
        for aside in rng.sample(self.background, self._aside_count(rng, level)):
            other = rng.choice([name for name in NAMES if name != case.asked])
            sentences.insert(rng.randint(0, len(sentences)), aside.format(who=other))
        if case.nothing_else:
            sentences.append(NOTHING_ELSE)
        return Sample(
            prompt=" ".join([*map(_capitalised, sentences), self.question.format(who=case.asked)]),
            reference=self.solve(record),
            trace=self.trace(record),
            task=f"{self.name}_{level}",
            facts=record,
            authorities=self.law.authorities,
            license="Apache-2.0",
            source=f"generated:{self.name}",
        )

    def _aside_count(self, rng: random.Random, level: int) -> int:
        """How many sentences tell of another person and decide nothing."""
        if level == _DISTRACTED:
            return _ASIDES
        return int(level in _DISPUTED and rng.random() < _ASIDE)

    def kinds_of_answer(self, level: int) -> tuple[str, ...]:
        """What is balanced on a level: the answers, or kinds of them."""
        del level
        return self.answers

    def kind_of(self, answer: str) -> str:
        """The kind of an answer, one of `kinds_of_answer`."""
        return answer

    def _draw(self, rng: random.Random, level: int, kind: str) -> Case:
        while True:  # rejection: uniform among the combinations that give the answer
            chosen = sorted(rng.sample(range(len(self.elements)), self.told_count(level)))
            facts = {
                element.name: self._draw_fact(rng, element)
                for element in (self.elements[index] for index in chosen)
            }
            asked, other = rng.sample(NAMES, 2)
            told = [(asked, *item) for item in facts.items()]
            case = Case(level, asked, tuple(told), self.can_concede and level in _DISPUTED)
            if self.kind_of(self.conclude(self._findings(case))) == kind:
                break
        if case.nothing_else:
            told = self._with_concessions(rng, told, asked)
        if level == _BOUND:
            told += [(other, *item) for item in self._opposite(rng, facts).items()]
            told = [item for item in told if item[2] is not None]
            rng.shuffle(told)
        return replace(case, told=tuple(told))

    def _draw_fact(self, rng: random.Random, element: Element) -> str | None:
        is_missing = element.can_be_missing and rng.random() < _MISSING
        return None if is_missing else element.draw(rng)

    def _with_concessions(self, rng: random.Random, told: list[Told], asked: str) -> list[Told]:
        """Some of the elements out of dispute are conceded, each in its place in the order."""
        facts = {name: fact for _, name, fact in told}
        for element in self.elements:
            if element.name not in facts and element.noun and rng.random() < _CONCEDE:
                facts[element.name] = CONCEDED
        return [(asked, e.name, facts[e.name]) for e in self.elements if e.name in facts]

    def _opposite(
        self, rng: random.Random, facts: Mapping[str, str | None]
    ) -> dict[str, str | None]:
        """Of each element a fact that amounts to the opposite.

        Where one party's fact may be missing, exactly one is, of the one party or the other, so
        that the number of sentences says nothing.
        """
        opposite: dict[str, str | None] = {}
        for name, fact in facts.items():
            element = self._element(name)
            opposite[name] = element.draw(rng, None if fact is None else not element.is_met(fact))
        may_miss = [name for name in facts if self._element(name).can_be_missing]
        if may_miss and None not in facts.values():
            opposite[rng.choice(may_miss)] = None
        return opposite

    # ── the rule ─────────────────────────────────────────────────────────────────────────────────

    def solve(self, facts: Mapping[str, Any]) -> str:
        """The answer under the rule, from what is told of the party asked about."""
        return self.conclude(self._findings(self._read_case(facts)))

    def required(self, facts: Mapping[str, Any]) -> tuple[str, ...]:
        """The elements in dispute, in the order told; at the end those that nothing is told of."""
        return self._disputed(self._read_case(facts))

    def _disputed(self, case: Case) -> tuple[str, ...]:
        silent = [e.name for e in self.elements if e.can_be_missing and e.name not in case.own]
        return (*case.own, *([] if case.nothing_else else silent))

    def _findings(self, case: Case) -> dict[str, bool | None]:
        own, disputed = case.own, self._disputed(case)
        findings: dict[str, bool | None] = {}
        for element in self.elements:
            fact = own.get(element.name)
            if element.name not in disputed:
                findings[element.name] = self.undisputed.get(element.name, self.can_concede)
            else:
                findings[element.name] = None if fact is None else element.holds(fact)
        return findings

    def trace(self, facts: Mapping[str, Any]) -> str:
        """One step for each element in dispute, in the order of `required`; one step a line."""
        case = self._read_case(facts)
        steps = []
        for name in self._disputed(case):
            element, fact = self._element(name), case.own.get(name)
            finding = f"{element.noun} is open"
            if fact is not None:
                finding = element.met[0] if element.holds(fact) else element.unmet[0]
            steps.append(f"{element.evidence(fact)}, so {finding}.")
        lines = [f"Step {number}: {step}" for number, step in enumerate(steps, start=1)]
        return "\n".join([*lines, f"Conclusion: {self.solve(facts)}"])

    # ── facts as records ─────────────────────────────────────────────────────────────────────────

    def _read_case(self, facts: Mapping[str, Any]) -> Case:
        with reading_facts(self.name):
            told = tuple((str(who), str(element), fact) for who, element, fact in facts["told"])
            case = Case(int(facts["level"]), str(facts["asked"]), told, bool(facts["nothing_else"]))
            known = {element.name: element for element in self.elements}
            for _, name, fact in told:
                if not known[name].can_be(fact):
                    raise ValueError(f"{fact!r} is no fact of {name}")
        return case

    def _as_dict(self, case: Case) -> dict[str, Any]:
        findings, decided = self._findings(case), self._disputed(case)
        return {
            "family": self.name,
            "level": case.level,
            "jurisdiction": self.law.jurisdiction,
            "as_of": self.law.as_of,
            "labels": list(self.answers),
            "answer_type": self.answer_type,
            "asked": case.asked,
            "told": [list(item) for item in case.told],
            "nothing_else": case.nothing_else,
            **{name: findings[name] for name in sorted(findings) if name in decided},
        }

    def pattern(self, facts: Mapping[str, Any]) -> str:
        """What is told of the party asked about, sorted; names and other parties are left out."""
        own = self._read_case(facts).own.items()
        return f"{self.name} {sorted(item for item in own if item[1])}"

    def parse(self, text: str) -> dict[str, Any]:
        """Read a question in the family's words."""
        asking = re.escape(self.question).replace(r"\{who\}", r"(?P<who>\w+)")
        body, found = text.strip(), re.search(asking + r"\s*$", text)
        if not found:
            raise self._unreadable(body)
        told: list[Told] = []
        nothing_else = distracted = False
        for sentence in re.split(r"(?<=\.)\s+", body[: found.start()].strip()):
            fact = self._read_told(sentence)
            if fact:
                told.append(fact)
            elif sentence == NOTHING_ELSE:
                nothing_else = True
            elif any(_as_pattern(known).fullmatch(sentence) for known in self.background):
                distracted = True
            else:
                raise self._unreadable(sentence)
        others = any(who != found["who"] for who, _, _ in told)
        level = self._level_of(told, nothing_else, others, distracted)
        case = Case(level, found["who"], tuple(told), nothing_else)
        if len({(who, element) for who, element, _ in told}) < len(told):
            raise DataError(
                f"The {self.name} question tells the same of one person twice. Leave one of them."
            )
        if not self._disputed(case):
            raise DataError(
                f"The {self.name} question tells nothing of {case.asked}, whom it asks about. Add "
                "a fact."
            )
        return self._as_dict(case)

    def _level_of(
        self, told: Sequence[Told], nothing_else: bool, others: bool, distracted: bool
    ) -> int:
        if others:
            return _BOUND
        for level in _DISPUTED:
            in_dispute = sum(fact != CONCEDED for _, _, fact in told)
            if self.told_count(level) == in_dispute and nothing_else == self.can_concede:
                return level
        return _DISTRACTED if distracted else 4

    def _read_told(self, sentence: str) -> Told | None:
        for element in self.elements:
            match = element.telling.fullmatch(sentence)
            if match and match["whose"]:
                return match["whose"], element.name, None
            if match and match["conceded"]:
                return match["conceded"], element.name, CONCEDED
            fact = match and element.recognise(normalise(match["fact"]))
            if match and fact:
                return match["who"], element.name, fact
        return None

    def _unreadable(self, text: str) -> DataError:
        example = self.elements[0].tell("Ava", self.elements[0].draw(random.Random(0), True))
        return DataError(
            f"{text[:80]!r} is not worded as a {self.name} question: expected sentences like "
            f"{example!r} and at the end {self.question.format(who='Ava')!r}"
        )

    def _element(self, name: str) -> Element:
        return next(element for element in self.elements if element.name == name)

    # ── steps ────────────────────────────────────────────────────────────────────────────────────

    def check(self, facts: Mapping[str, Any], step: str) -> StepVerdict:
        """Whether a step is true of these facts, by the grammar at the head of `elements.py`."""
        case = self._read_case(facts)
        words = clean(step)
        if names_others(words, {case.asked}):
            return StepVerdict("not checkable", reason="it speaks of another person")
        parts = join_parts(words)
        if parts is None:
            return StepVerdict("not checkable", reason="it joins too much, or a thing with itself")
        evidence, finding = parts
        if evidence is None:
            return self._check_finding(case, self._read_finding(case, finding))
        return self._check_inference(case, evidence, finding)

    def _check_inference(self, case: Case, evidence: str, finding: str) -> StepVerdict:
        cited = self._read_evidence(case, evidence)
        found = self._read_finding(case, finding)
        bare = self._check_finding(case, found)
        if cited is None:
            unfounded = StepVerdict("not checkable", reason=f"{evidence!r} is no fact of this kind")
            return bare if bare.status == "false" else unfounded
        name, fact = cited
        if name not in self._disputed(case):
            return StepVerdict("false", name, f"{evidence!r} is told nowhere")
        if case.own.get(name) != fact:
            return StepVerdict("false", name, f"{evidence!r} is not what is told")
        if found is None:
            return StepVerdict("not checkable", reason=f"{finding!r} is no finding of the rule")
        if found[0] != name:
            return StepVerdict("false", found[0], "the one does not follow from the other")
        return bare

    def _check_finding(self, case: Case, found: tuple[str, bool | None] | None) -> StepVerdict:
        if found is None:
            return StepVerdict("not checkable", reason="it states no finding of the rule")
        name, value = found
        actual = self._findings(case)[name]
        if actual != value:
            return StepVerdict("false", name, "the facts told amount to something else")
        if name not in self._disputed(case):
            return StepVerdict("not checkable", reason="it is not in dispute")
        return StepVerdict("true", name)

    def _read_evidence(self, case: Case, words: str) -> tuple[str, str | None] | None:
        """(element, fact) that the words tell, the name of the party or a pronoun before them."""
        for element in self.elements:
            for fact in (None, CONCEDED) if element.noun else ():
                told = normalise(element.tell(case.asked, fact)).rstrip(".")
                if words in (element.evidence(fact), told):
                    return element.name, fact
            match = element.retelling.fullmatch(words)
            if match and match["who"] not in self._own_words(case, element):
                match = None  # "nobody spoke at lunch", "never sold here often"
            opened = self._without_pronoun(case, element, words)
            for candidate in (words, opened, match["fact"] if match else None):
                fact = candidate and element.recognise(candidate)
                if fact:
                    return element.name, fact
        return None

    def _read_finding(self, case: Case, words: str) -> tuple[str, bool | None] | None:
        """(element, met) that the words state."""
        for candidate in (words, self._without_subject(case, words)):
            for element in self.elements:
                if candidate in element.findings:
                    return element.name, element.findings[candidate]
                denied = element.findings.get(candidate.removeprefix("not "))
                if candidate.startswith("not ") and denied is not None:
                    return element.name, not denied
        return None

    def _own_words(self, case: Case, element: Element) -> tuple[str, ...]:
        """Normalised words that stand for the party asked about where a fact is told."""
        asked = case.asked.casefold()
        if element.tells_of_another_thing:
            return (f"{asked}s", *_POSSESSIVES)
        return (asked, *_PERSONS, *_THINGS)

    def _without_pronoun(self, case: Case, element: Element, words: str) -> str:
        """Evidence without "it was", "she" … at its head.

        Where the question tells of "Ava's victim", it is not "Ava" or "she" who broke an arm.
        """
        persons = () if element.tells_of_another_thing else (case.asked.casefold(), *_PERSONS)
        subject = "|".join(map(re.escape, (*persons, *_THINGS)))
        return re.sub(rf"^(?:{subject}) +(?:(?:is|was|are|were) +)?", "", words)

    def _without_subject(self, case: Case, words: str) -> str:
        """A finding without a subject and a form of "to be" at its head."""
        nouns = [normalise(noun) for noun in self.subjects]
        subject = "|".join(map(re.escape, [case.asked.casefold(), *nouns, *_PERSONS, *_THINGS]))
        return re.sub(rf"^(?:{subject}) +(?:(?:is|was|are|were|has|had) +)?", "", words)


def all_met(findings: Findings) -> str:
    """The rule of families in which every element must be met."""
    return "Yes" if all(findings.values()) else "No"


_MISSING = 1 / 7
"""Share of elements whose fact is missing where one may be: with four facts that meet an element
and two that do not, one of seven ways for it to turn out."""

_PERSONS = ("he", "she", "they")
_THINGS = ("it", "this", "that", "these", "those")
_POSSESSIVES = ("its", "his", "her", "their", "the")


def _as_pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{who\}", r"\w+"))


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
