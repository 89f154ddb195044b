"""Coverage of sampled steps: which points of a rule does the model ever decide, before training?

A reward for true steps can only raise what is sampled. A point that no sampled answer decides stays
undecided however long a run is, and nothing in its figures says why; so it is looked for first.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from judicaita.legal.tasks import check_trace, family_of
from judicaita.training.batching import Item
from judicaita.training.config import TrainingConfig
from judicaita.training.groups import sample_groups
from judicaita.training.policy import Policy
from judicaita.training.rollouts.base import RolloutEngine

PROMPTS = 8
"""Questions that are asked of a task at most."""

BUDGET = 512
"""Completions in all, about; each task is asked one question at least."""


@dataclass(frozen=True)
class StepCoverage:
    """What the sampled answers to a family's questions decided by true steps."""

    family: str
    answers: int
    asked: Mapping[str, int]
    """Point → answers to questions that it had to be decided in."""
    decided: Mapping[str, int]
    """Point → answers in which a true step decided it."""
    fullest: Mapping[int, int]
    """Number of points that a question has → the most of them that one answer decided."""

    @property
    def never(self) -> tuple[str, ...]:
        """The points that no answer decided."""
        return tuple(point for point in self.asked if not self.decided.get(point))

    def warnings(self) -> Iterator[str]:
        """A sentence for each point that was never decided, one for all where none ever was; and
        one where no answer was as full as its question asks."""
        if len(self.never) == len(self.asked):
            yield (
                f"{self.family}: no sampled answer decided anything by a true step (0 of "
                f"{self.answers}); an unsampled step is never rewarded. Add traces of the family "
                "to the warm start."
            )
            return
        for point in self.never:
            yield (
                f"{self.family}: no sampled answer ever decided {point} (0 of "
                f"{self.asked[point]}); an unsampled step is never rewarded. Add traces of it to "
                "the warm start."
            )
        most = max(self.fullest)
        if self.fullest[most] < most - len(self.never):
            yield (
                f"{self.family}: of {most} points no sampled answer decided more than "
                f"{self.fullest[most]}, so that none is complete; what is never sampled is never "
                "rewarded. Add traces with as many steps to the warm start."
            )

    def as_fields(self) -> dict[str, Any]:
        """What an event records: per point [decided, asked], the points never decided, and
        by the number of points how many the fullest answer decided."""
        points = {point: [self.decided.get(point, 0), n] for point, n in self.asked.items()}
        return {
            "answers": self.answers,
            "points": points,
            "never": list(self.never),
            "fullest": {str(count): most for count, most in self.fullest.items()},
        }


def probe_coverage(
    policy: Policy, engine: RolloutEngine, items: Sequence[Item], config: TrainingConfig
) -> tuple[StepCoverage, ...]:
    """Sample answers to a few questions of every task and check their steps, per family.

    As training samples: ``num_rollouts`` completions of ``batch_size`` questions at a time, at most
    `PROMPTS` questions of a task and about `BUDGET` completions in all, drawn with ``seed``.
    Samples of no generated family are left out.
    """
    seeds = random.Random(f"{config.seed}/coverage/rollouts")
    answers: Counter[str] = Counter()
    asked: dict[str, Counter[str]] = {}
    decided: dict[str, Counter[str]] = {}
    fullest: dict[str, dict[int, int]] = {}
    for group in sample_groups(policy, engine, _choose(items, config), config, seeds):
        facts = group.sample.facts
        family = family_of(facts)
        assert family is not None, "only samples of families are chosen"
        answers[family.name] += len(group.texts)
        for text in group.texts:
            check = check_trace(family, facts, text)
            asked.setdefault(family.name, Counter()).update(check.required)
            decided.setdefault(family.name, Counter()).update(check.covered)
            most, count = fullest.setdefault(family.name, {}), len(check.required)
            most[count] = max(most.get(count, 0), len(check.covered))
    return tuple(
        StepCoverage(name, answers[name], dict(asked[name]), dict(decided[name]), fullest[name])
        for name in sorted(answers)
    )


def _choose(items: Sequence[Item], config: TrainingConfig) -> list[Item]:
    """A few questions of each task of a generated family, the same for the same seed."""
    tasks: dict[str, list[Item]] = {}
    for item in items:
        if family_of(item[0].facts) is not None:
            tasks.setdefault(item[0].task, []).append(item)
    share = BUDGET // (config.num_rollouts * max(1, len(tasks)))
    count = min(PROMPTS, max(1, share))
    rng = random.Random(f"{config.seed}/coverage/prompts")
    return [
        item
        for name in sorted(tasks)
        for item in rng.sample(tasks[name], min(count, len(tasks[name])))
    ]
