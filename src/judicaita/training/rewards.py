"""What a completion is worth: its form, its answer, its length, and anything of a user's own.

Columns are facts of the sample and of the completion (`columns_of`). A reward may abstain (score
None), but only for a property of the sample, so that all of a group abstain together. An exception
inside a reward never becomes a score: it stops the run and names the reward and the sample.
What a reward is, and how a user's own is loaded, stands in `reward_plugins`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from judicaita.errors import ConfigError, RewardError
from judicaita.legal.answers import MatchMode, grade_answer, parse_reasoning
from judicaita.legal.form import MIN_STEPS, concludes_once, good_steps, is_well_formed
from judicaita.training.config import StepMode, TrainingConfig, check_step_mode
from judicaita.training.reward_plugins import (
    FunctionReward,
    Reward,
    as_reward,
    describe_sample,
    load_reward,
    score_safely,
)
from judicaita.training.step_reward import StepReward, steps_needed
from judicaita.types import FinishReason, Prompt, RewardResult, Sample

__all__ = [
    "CompositeReward",
    "FormatReward",
    "FunctionReward",
    "OutcomeReward",
    "Reward",
    "StepReward",
    "VerbosityReward",
    "as_reward",
    "columns_of",
    "composite_from_config",
    "load_reward",
    "reward_parts",
    "score_batch",
    "score_safely",
]


class FormatReward:
    """Whether a response has the form "Step 1: … Step 2: … Conclusion: …", and nothing else.

    score = 0.4 · min(k, min_steps) / min_steps + 0.4 · c + 0.2 · w, in [0, 1], where

    - k counts the good steps from the start: numbered 1, 2, 3 …, each with words of its own that
      are no copy of an earlier step;
    - c is 1 for exactly one conclusion, with words, after every step;
    - w is 1 if all of it is well-formed: c is 1, every step is good, there are at least
      ``min_steps``, and neither words before step 1 nor a second paragraph after the conclusion.

    So a score of 1 means well-formed, and nothing else scores above 0.8. A question of a generated
    family that has fewer points than ``min_steps`` asks for as many steps as it has points.
    """

    name = "format"
    part_names = ()

    def __init__(self, min_steps: int = MIN_STEPS) -> None:
        if min_steps < 1:
            raise ConfigError(f"min_steps={min_steps}: a reasoned answer has steps; use 1 or more.")
        self.min_steps = min_steps

    def compute(
        self, prompt: Prompt, response: str, reference: str = "", **columns: Any
    ) -> RewardResult:
        """Score the form of ``response``; details say whether it is ``well_formed``."""
        del prompt, reference
        needed = steps_needed(self.min_steps, columns)
        reasoning = parse_reasoning(response)
        good, well_formed = good_steps(reasoning), is_well_formed(response, needed)
        score = 0.4 * min(good, needed) / needed + 0.4 * concludes_once(reasoning)
        return RewardResult(
            1.0 if well_formed else score,
            {"steps": len(reasoning.steps), "good_steps": good, "well_formed": well_formed},
        )


class OutcomeReward:
    """Whether the conclusion is the gold answer, as `grade_answer` decides.

    Labels, amounts, dates and extracted terms score 1 or 0; lists of names and free text score
    their F1 from ``threshold`` on and 0 below, and free text 0 whenever it contradicts the
    reference. It abstains where the sample has no reference. A column ``labels`` (the answers that
    the task offers) lets it see a change to another label; a column ``answer_type``, one of
    `judicaita.legal.answers.ANSWER_TYPES`, says how the answer is read. Without it, short
    references are labels and longer ones free text.
    """

    name = "outcome"
    part_names = ()

    def __init__(self, match: MatchMode = "auto", threshold: float = 0.5) -> None:
        if match not in get_args(MatchMode):
            raise ConfigError(
                f"match={match!r}: there is no such mode; use auto, exact or overlap."
            )
        if not 0 < threshold <= 1:
            raise ConfigError(f"threshold={threshold}: a token F1 lies in (0, 1] (default 0.5).")
        self.match: MatchMode = match
        self.threshold = threshold

    def compute(
        self, prompt: Prompt, response: str, reference: str = "", **columns: Any
    ) -> RewardResult:
        """Grade ``response`` against ``reference``; the details hold the answer that was read."""
        del prompt
        if not reference.strip():
            return RewardResult(None, {"reason": "no reference"})
        labels = columns.get("labels") or ()
        if isinstance(labels, str):
            raise TypeError(f"the column labels={labels!r} must be a list of answers, not a string")
        grade = grade_answer(
            response,
            reference,
            mode=self.match,
            threshold=self.threshold,
            labels=labels,
            answer_type=columns.get("answer_type"),
        )
        details = {"answer": grade.answer, "correct": grade.correct, "reason": grade.reason}
        return RewardResult(grade.score, details)


class VerbosityReward:
    """Whether a response has about the length wanted.

    With low, high = target · (1 − tolerance), target · (1 + tolerance), in tokens: a length n from
    low to high scores 1; a shorter one n / low, so an empty one 0; a longer one 2 − n / high, so
    twice the upper bound and more 0.

    The length is the column ``completion_tokens`` where the caller gives it (the trainer and the
    evaluation do: tokens as sampled, EOS included); else words separated by blanks.
    """

    name = "verbosity"
    part_names = ()

    def __init__(self, target_tokens: int = 256, tolerance: float = 0.5) -> None:
        if target_tokens < 1:
            raise ConfigError(f"target_tokens={target_tokens}: a length wanted is 1 token or more.")
        if not (tolerance >= 0 and math.isfinite(tolerance)):
            raise ConfigError(f"tolerance={tolerance}: a share of the target is 0 or more.")
        self.low = target_tokens * (1 - tolerance)
        self.high = target_tokens * (1 + tolerance)

    def compute(
        self, prompt: Prompt, response: str, reference: str = "", **columns: Any
    ) -> RewardResult:
        """Score the length of ``response``."""
        del prompt, reference
        given = columns.get("completion_tokens")
        tokens = len(response.split()) if given is None else int(given)
        score = 1.0
        if tokens < self.low:
            score = tokens / self.low
        elif tokens > self.high:
            score = max(0.0, 2 - tokens / self.high)
        return RewardResult(score, {"tokens": tokens})


class CompositeReward:
    """A weighted mean of named parts: format, outcome, verbosity, steps, and any further ones.

    Weights are normalised to sum to 1. A part that abstains is left out and the other weights are
    normalised again; a part of weight 0 is computed and shown, and does not count.

    ``steps`` is a part only where ``step_weight`` is above 0. ``step_mode`` says how it counts:

    - ``additive``: as any other part;
    - ``gated``: likewise, and the outcome counts as 0 unless there are steps and every one is true
      (`TraceCheck.is_true`). The outcome's own score is shown as it is, so that accuracy is not
      touched, with the detail ``gated``: whether it was set aside;
    - ``per_step``: it has no share in the mean, since whoever trains gives the detail ``credits``
      to the steps one by one.

    ``parts`` maps further names to (reward, weight), where a reward is anything `as_reward` takes.
    Ready-made components replace the default ones.

    >>> CompositeReward().compute("Is it hearsay?", "Conclusion: No", "No").details["outcome"]
    {'score': 1.0, 'weight': 0.5, 'details': {'answer': 'No', 'correct': True, 'reason': 'match'}}
    """

    name = "composite"

    def __init__(
        self,
        format_weight: float = 0.3,
        outcome_weight: float = 0.5,
        verbosity_weight: float = 0.2,
        parts: Mapping[str, tuple[Any, float]] | None = None,
        *,
        step_weight: float = 0.0,
        step_mode: StepMode = "additive",
        format_reward: FormatReward | None = None,
        outcome_reward: OutcomeReward | None = None,
        verbosity_reward: VerbosityReward | None = None,
        step_reward: StepReward | None = None,
    ) -> None:
        self.format_reward = format_reward or FormatReward()
        self.outcome_reward = outcome_reward or OutcomeReward()
        self.verbosity_reward = verbosity_reward or VerbosityReward()
        self.step_reward = step_reward or StepReward(self.format_reward.min_steps)
        self.step_mode = check_step_mode(step_mode, step_weight)
        chosen: dict[str, tuple[Reward, float]] = {
            "format": (self.format_reward, format_weight),
            "outcome": (self.outcome_reward, outcome_weight),
            "verbosity": (self.verbosity_reward, verbosity_weight),
        }
        if step_weight != 0:
            chosen["steps"] = (self.step_reward, step_weight)
        for name, (reward, weight) in (parts or {}).items():
            if name in chosen:
                raise ConfigError(f"a further part is named {name!r}, which is taken; rename it.")
            chosen[name] = (as_reward(reward), weight)
        for name, (_, weight) in chosen.items():
            if not (weight >= 0 and math.isfinite(weight)):
                raise ConfigError(f"{name} has weight {weight}; a weight is a number from 0 up.")
        if step_mode == "per_step":
            chosen["steps"] = (self.step_reward, 0.0)
        total = math.fsum(weight for _, weight in chosen.values())
        if total == 0:
            raise ConfigError("every reward weight is 0, so nothing counts; set one above 0.")
        self.parts = {name: (reward, weight / total) for name, (reward, weight) in chosen.items()}
        self.part_names = tuple(self.parts)

    def compute(
        self, prompt: Prompt, response: str, reference: str = "", **columns: Any
    ) -> RewardResult:
        """The weighted mean; details give {part: {"score", "weight", "details"}}."""
        results = {
            name: score_safely(reward, prompt, response, reference, columns, name=name)
            for name, (reward, _) in self.parts.items()
        }
        weights = {n: self.parts[n][1] for n, r in results.items() if r.score is not None}
        total = math.fsum(weights.values())
        if total == 0:
            raise RewardError(
                f"every part of the reward that counts abstained on "
                f"{describe_sample(prompt, columns)}; give the sample a reference, or weight to a "
                "part that needs none."
            )
        counted = {name: results[name].score or 0.0 for name in weights}
        if self.step_mode == "gated" and {"steps", "outcome"} <= weights.keys():
            is_gated = not results["steps"].details["is_true"]
            outcome = results["outcome"]
            results["outcome"] = replace(outcome, details={**outcome.details, "gated": is_gated})
            counted["outcome"] *= not is_gated
        details = {
            name: {
                "score": result.score,
                "weight": weights.get(name, 0.0) / total,
                "details": result.details,
            }
            for name, result in results.items()
        }
        earned = math.fsum(weight * counted[name] for name, weight in weights.items())
        return RewardResult(earned / total, details)

    def compute_batch(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        references: Sequence[str],
        columns: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[RewardResult]:
        """`compute` for each row, in order; ``columns`` holds one mapping a row."""
        return score_batch(self, prompts, responses, references, columns)


def composite_from_config(config: TrainingConfig | Mapping[str, Any]) -> CompositeReward:
    """The composite that a configuration describes; what a mapping leaves out has its default.

    Reads format_weight, outcome_weight, verbosity_weight, step_weight, step_mode, min_steps,
    outcome_match, outcome_threshold, verbosity_target (tokens) and verbosity_tolerance.
    """
    settings = config if isinstance(config, Mapping) else config.model_dump()

    def given(**names: str) -> dict[str, Any]:
        return {own: settings[key] for own, key in names.items() if key in settings}

    own = ("format_weight", "outcome_weight", "verbosity_weight", "step_weight", "step_mode")
    match = given(match="outcome_match", threshold="outcome_threshold")
    length = given(target_tokens="verbosity_target", tolerance="verbosity_tolerance")
    return CompositeReward(
        **given(**{name: name for name in own}),
        format_reward=FormatReward(**given(min_steps="min_steps")),
        outcome_reward=OutcomeReward(**match),
        verbosity_reward=VerbosityReward(**length),
    )


def reward_parts(result: RewardResult) -> dict[str, float]:
    """Scores of a composite's parts by name, abstentions left out; {} for a single reward."""
    return {
        name: part["score"]
        for name, part in result.details.items()
        if isinstance(part, Mapping)
        and part.keys() == {"score", "weight", "details"}
        and part["score"] is not None
    }


def columns_of(
    sample: Sample, completion_tokens: int | None, finish_reason: FinishReason | str | None
) -> dict[str, Any]:
    """The columns that rewards see: the sample's facts, and what is known of the completion; None
    where a text comes from a file."""
    return {
        **sample.facts,
        "task": sample.task,
        "sample_id": sample.id,
        "completion_tokens": completion_tokens,
        "finish_reason": finish_reason,
    }


def score_batch(
    reward: Reward,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    references: Sequence[str],
    columns: Sequence[Mapping[str, Any]] | None = None,
) -> list[RewardResult]:
    """Any reward's results for each row, in order, with errors told as in `score_safely`."""
    rows = [{} for _ in prompts] if columns is None else columns
    return [
        score_safely(reward, *row) for row in zip(prompts, responses, references, rows, strict=True)
    ]
