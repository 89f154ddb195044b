"""What the steps of an answer are worth, where a family of generated tasks can check them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from judicaita.legal.form import MIN_STEPS
from judicaita.legal.tasks import check_trace, family_of
from judicaita.types import Prompt, RewardResult


def steps_needed(min_steps: int, columns: Mapping[str, Any]) -> int:
    """``min_steps``, or the points that a sample of a generated family has, where these are fewer.

    A question that turns on one point has a one-step answer that leaves nothing out.
    """
    family = family_of(columns)
    return min_steps if family is None else min(min_steps, len(family.required(columns)))


class StepReward:
    """The share of a response's steps that are true, as the sample's family checks them.

    score = t / max(n, s), in [0, 1], where t counts the distinct true steps, n the points that a
    complete answer decides, and s the steps written. So neither a step left out nor one that is
    false, repeated or beside the point comes free.

    It abstains on samples of no generated family: those whose columns (their facts) name none.

    Details: ``verdicts`` (status, factor, reason) and ``credits``, one each step in the order of
    the text, where a credit is 1.0 for a distinct true step and else 0.0; ``is_true``,
    ``is_sound``, ``coverage`` and ``has_false_step`` as in `TraceCheck`.
    """

    name = "steps"
    part_names = ()

    def __init__(self, min_steps: int = MIN_STEPS) -> None:
        """``min_steps``, as far as the question has points, count for ``is_sound`` alone."""
        self.min_steps = min_steps

    def compute(
        self, prompt: Prompt, response: str, reference: str = "", **columns: Any
    ) -> RewardResult:
        """Check ``response`` against the facts in ``columns``."""
        del prompt, reference
        family = family_of(columns)
        if family is None:
            return RewardResult(None, {"reason": "no generated family"})
        needed = steps_needed(self.min_steps, columns)
        check = check_trace(family, columns, response, min_steps=needed)
        details = {
            "verdicts": [asdict(verdict) for verdict in check.verdicts],
            "credits": [float(verdict.status == "true") for verdict in check.verdicts],
            "is_true": check.is_true,
            "is_sound": check.is_sound,
            "coverage": check.coverage,
            "has_false_step": check.has_false_step,
        }
        return RewardResult(check.step_score, details)
