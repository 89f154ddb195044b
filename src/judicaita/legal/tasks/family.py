"""What every family of generated tasks offers, and what may be said of one step of an answer."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from judicaita.errors import DataError
from judicaita.types import Sample

Level = int | str
"""A rung of difficulty within a family; each family lists its own, easiest first."""

AnswerType = Literal["yes_no", "multiclass", "multilabel"]
"""One of two labels, one of several, or a list of any of them."""

StepStatus = Literal["true", "false", "not checkable"]


@dataclass(frozen=True)
class Law:
    """The rule a family states, and where and when it holds."""

    authorities: tuple[str, ...]
    """Statutes, rules, restatements and cases that decide."""
    jurisdiction: str
    as_of: str = "2025-01-01"
    """The date as of which the rule is stated (ISO 8601)."""


@dataclass(frozen=True)
class StepVerdict:
    """What holds of one reasoning step, given the facts of the instance and the rule."""

    status: StepStatus
    factor: str | None = None
    """The point that the step decides, one of the family's `required` where it counts."""
    reason: str = ""
    """Why a step is false or not checkable; "" for a true one."""


@contextmanager
def reading_facts(family: str) -> Iterator[None]:
    """Tell what is wrong with recorded facts that cannot be read: a `DataError`."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"These are no facts of a {family} question ({type(error).__name__}: {error}). Give "
            "what the family's `parse` makes of the question."
        ) from error


class TaskFamily(Protocol):
    """What a family offers. Facts are JSON-able mappings, as `Sample.facts` carries them."""

    name: ClassVar[str]
    """Key in `FAMILIES`, one word."""
    title: ClassVar[str]
    """A line for people."""
    law: ClassVar[Law]
    """What decides, where, as of when."""
    answers: ClassVar[tuple[str, ...]]
    """The answers, or for several labels the labels, that a question offers."""
    answer_type: ClassVar[AnswerType]
    """Whether a question has one of the answers, or lists any of them."""
    levels: ClassVar[tuple[Level, ...]]
    """Easiest first; the last one binds facts to roles."""
    easy_levels: ClassVar[tuple[Level, ...]]
    """Of few factors: what a small model learns from worked solutions."""
    hard_levels: ClassVar[tuple[Level, ...]]
    """Of three factors or more, the top level included."""

    def sample(self, rng: random.Random, level: Level) -> Sample:
        """Draw one instance of a level; all randomness comes from ``rng``."""

    def trace(self, facts: Mapping[str, Any]) -> str:
        """The worked solution ("Step 1: … Conclusion: …"), true of these facts."""

    def solve(self, facts: Mapping[str, Any]) -> str:
        """The answer under the rule, from the plain facts alone (never from recorded labels)."""

    def parse(self, text: str) -> dict[str, Any]:
        """The facts that a question in the family's wording states."""

    def pattern(self, facts: Mapping[str, Any]) -> str:
        """The facts that decide, in a canonical order, with names masked."""

    def required(self, facts: Mapping[str, Any]) -> tuple[str, ...]:
        """The points that a complete answer has to decide, as `StepVerdict.factor` names them."""

    def check(self, facts: Mapping[str, Any], step: str) -> StepVerdict:
        """Whether one step's text is true of these facts; see each family for its grammar."""
