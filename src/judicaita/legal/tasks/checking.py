"""What holds of a whole answer to a generated task: each step, and whether they carry it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from judicaita.legal.answers import grade_answer, parse_reasoning
from judicaita.legal.form import MIN_STEPS, is_well_formed
from judicaita.legal.tasks.family import StepVerdict, TaskFamily


@dataclass(frozen=True)
class TraceCheck:
    """An answer, step by step and as a whole."""

    verdicts: tuple[StepVerdict, ...]
    """One a step, in order. A step that decides what an earlier one has decided is not checkable:
    it adds nothing."""
    required: tuple[str, ...]
    """The points that a complete answer decides."""
    well_formed: bool
    correct: bool
    """Whether the conclusion is the answer under the rule."""

    @property
    def covered(self) -> tuple[str, ...]:
        """The points that true steps decide, in the order of `required`."""
        decided = {verdict.factor for verdict in self.verdicts if verdict.status == "true"}
        return tuple(factor for factor in self.required if factor in decided)

    @property
    def coverage(self) -> float:
        """Share of the required points that true steps decide, in [0, 1]."""
        return len(self.covered) / len(self.required)

    @property
    def is_true(self) -> bool:
        """There are steps, every one is checkable, and none is false."""
        return bool(self.verdicts) and all(v.status == "true" for v in self.verdicts)

    @property
    def has_false_step(self) -> bool:
        """Some step is false."""
        return any(verdict.status == "false" for verdict in self.verdicts)

    @property
    def is_sound(self) -> bool:
        """True, well-formed, complete, and with the conclusion that its steps entail.

        True findings on every point that the rule needs entail one answer, the rule's own.
        """
        return self.is_true and self.well_formed and self.coverage == 1 and self.correct

    @property
    def step_score(self) -> float:
        """Distinct true steps over the larger of points required and steps written, in [0, 1]."""
        true = sum(verdict.status == "true" for verdict in self.verdicts)
        return true / max(len(self.required), len(self.verdicts))


def check_trace(
    family: TaskFamily, facts: Mapping[str, Any], text: str, *, min_steps: int | None = None
) -> TraceCheck:
    """Check any text against the facts of an instance and the family's rule.

    A well-formed one has ``min_steps`` steps; left out, `MIN_STEPS`, or as many as the question has
    points where these are fewer.
    """
    required = family.required(facts)
    if min_steps is None:
        min_steps = min(MIN_STEPS, len(required))
    verdicts: list[StepVerdict] = []
    decided: dict[str | None, int] = {}
    for number, step in enumerate(parse_reasoning(text).steps, start=1):
        verdict = family.check(facts, step.text)
        if verdict.status == "true" and verdict.factor in decided:
            earlier = decided[verdict.factor]
            verdict = replace(verdict, status="not checkable", reason=f"it repeats step {earlier}")
        elif verdict.status == "true":
            decided[verdict.factor] = number
        verdicts.append(verdict)
    grade = grade_answer(
        text, family.solve(facts), labels=facts["labels"], answer_type=facts["answer_type"]
    )
    return TraceCheck(
        tuple(verdicts),
        required,
        is_well_formed(text, min_steps),
        grade.correct and parse_reasoning(text).conclusion is not None,
    )
