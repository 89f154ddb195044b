"""Scores of a run over many tasks: macro averages and how far chance could have moved them.

Every task counts the same in an average, however many samples it has. Intervals are percentile
bootstraps (Efron & Tibshirani 1993, §13.3) over samples within tasks: each task's samples are drawn
again with replacement, its score computed anew, and the draws of the tasks averaged. The tasks
stay as they are, so an interval says nothing about tasks that were not run, and a class that a
draw leaves out is no part of that draw's macro recall. With few samples (some tasks have 50) such
an interval is too narrow rather than too wide.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from judicaita.errors import DataError
from judicaita.legal.legalbench.corrected import (
    corrected_metric,
    corrected_outcomes,
    corrected_score,
)
from judicaita.legal.legalbench.registry import CATEGORIES, ISSUE_SPOTTING, get_task
from judicaita.legal.legalbench.scoring import (
    Hit,
    Matches,
    Outcome,
    official_outcomes,
    official_score,
)

if TYPE_CHECKING:
    import numpy as np

    Draws = np.ndarray[Any, np.dtype[Any]]

Scoring = Literal["official", "corrected"]


@dataclass(frozen=True)
class Predictions:
    """What a model wrote for samples of one task, and the gold answers, in the same order."""

    task: str
    generations: Sequence[str]
    answers: Sequence[str]


@dataclass(frozen=True)
class Estimate:
    """A score in [0, 1] with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TaskScore:
    """One task of a run."""

    task: str
    category: str
    metric: str
    samples: int
    score: Estimate


@dataclass(frozen=True)
class MacroScore:
    """The unweighted mean over some tasks of a run."""

    name: str
    """A category, or `OVERALL`."""
    tasks: int
    samples: int
    score: Estimate


@dataclass(frozen=True)
class Scoreboard:
    """A run's scores; equal predictions and an equal seed give an equal one."""

    scoring: Scoring
    tasks: tuple[TaskScore, ...]
    """In the order in which they were given."""
    categories: tuple[MacroScore, ...]
    """Of those that have tasks in the run, in the order of `CATEGORIES`."""
    overall: MacroScore
    confidence: float
    resamples: int
    seed: int

    def value(self, task: str) -> float | None:
        """The score of a task; None where the run does not have it."""
        return next((row.score.value for row in self.tasks if row.task == task), None)


OVERALL = "overall"


def scoreboard(
    predictions: Iterable[Predictions],
    *,
    scoring: Scoring = "official",
    resamples: int = 1_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Scoreboard:
    """Score every task, and average over each category and over all of them.

    The draws of a task depend on ``seed``, its name and its outcomes alone: its interval is the
    same in any run, and in any order of the samples. Raises `DataError` as the scores do, for a
    task given twice, and for none at all.
    """
    import numpy as np

    if not 0 < confidence < 1 or resamples < 1:
        raise DataError(
            f"confidence={confidence} and resamples={resamples} give no interval: set a confidence "
            "between 0 and 1 and at least one resample (default 0.95 and 1000)."
        )
    rows: list[TaskScore] = []
    draws: list[Draws] = []
    for given in predictions:
        if any(row.task == given.task for row in rows):
            raise DataError(f"{given.task} is given twice; join its samples into one set.")
        value, outcomes, metric = _score(given, scoring)
        draws.append(_draws(outcomes, given.task, resamples, seed))
        rows.append(
            TaskScore(
                task=given.task,
                category=get_task(given.task).category,
                metric=metric,
                samples=len(outcomes),
                score=_estimate(value, draws[-1], confidence),
            )
        )
    if not rows:
        raise DataError("No predictions, so there is nothing to score; give at least one task.")

    def macro(name: str) -> MacroScore:
        chosen = [number for number, row in enumerate(rows) if name in (row.category, OVERALL)]
        mean = sum(rows[number].score.value for number in chosen) / len(chosen)
        drawn = np.mean([draws[number] for number in chosen], axis=0)
        samples = sum(rows[number].samples for number in chosen)
        return MacroScore(name, len(chosen), samples, _estimate(mean, drawn, confidence))

    present = {row.category for row in rows}
    return Scoreboard(
        scoring=scoring,
        tasks=tuple(rows),
        categories=tuple(
            macro(name) for name in CATEGORIES if name in present and name != ISSUE_SPOTTING
        ),
        overall=macro(OVERALL),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def _score(given: Predictions, scoring: Scoring) -> tuple[float, list[Outcome], str]:
    """The value, what it is made of, and the name of its metric."""
    told = (given.task, given.generations, given.answers)
    task = get_task(given.task)
    if scoring == "official":
        return official_score(*told), official_outcomes(*told), task.metric
    return corrected_score(*told), corrected_outcomes(*told), corrected_metric(task)


def _estimate(value: float, draws: Draws, confidence: float) -> Estimate:
    import numpy as np

    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))


def _draws(outcomes: Sequence[Outcome], task: str, resamples: int, seed: int) -> Draws:
    """The score of each resample, [R].

    Drawing n of n samples with replacement draws how often each distinct outcome occurs from a
    multinomial, so the cost does not grow with n.
    """
    cells = sorted(Counter(outcomes).items())
    counts_R_C = draw_counts([count for _, count in cells], task, resamples, seed)
    return scores_of([cell for cell, _ in cells], counts_R_C)


def draw_counts(counts: Sequence[int], task: str, resamples: int, seed: int) -> Draws:
    """How often each distinct outcome of a task occurs in each resample, [R, C], from how often it
    occurs in the run."""
    import numpy as np

    rng = np.random.default_rng([seed, zlib.crc32(task.encode())])
    total = sum(counts)
    drawn: Draws = rng.multinomial(total, np.array(counts) / total, size=resamples)
    return drawn


def scores_of(cells: Sequence[Outcome], counts_R_C: Draws) -> Draws:
    """The score of each resample, [R], as `summarise` computes it; a class that a resample leaves
    out is no part of its macro recall."""
    import numpy as np

    matches = [cell for cell in cells if isinstance(cell, Matches)]
    if matches:
        hits, extra, missed = (counts_R_C @ np.array(matches)).T
        return np.where(hits > 0, 2 * hits / np.maximum(2 * hits + extra + missed, 1), 0.0)
    recalls = []
    hit_cells = [cell for cell in cells if isinstance(cell, Hit)]
    for group in sorted({cell.group for cell in hit_cells}):
        of_group = np.array([cell.group == group for cell in hit_cells])
        right = np.array([cell.group == group and cell.right for cell in hit_cells])
        total_R = counts_R_C[:, of_group].sum(axis=1)
        right_R = counts_R_C[:, right].sum(axis=1)
        recalls.append(np.where(total_R > 0, right_R / np.maximum(total_R, 1), np.nan))
    mean: Draws = np.nanmean(recalls, axis=0)
    return mean
