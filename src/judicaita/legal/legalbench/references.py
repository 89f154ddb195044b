"""Scores of 19 public models, and a run beside them.

They are those of LegalEvalHub (2025), in ``reference_scores.json`` beside this file: model → task →
[score, samples]. Its own scheme is more lenient than `official_score` (for most tasks a label that
is contained in the output counts) and successor_liability stands there as F1. So they say
where a run stands, not which of two close scores is better.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from judicaita.errors import DataError
from judicaita.legal.legalbench.averages import Scoreboard
from judicaita.legal.names import match_names


@dataclass(frozen=True)
class ReferenceScore:
    """One public model's score on one task."""

    value: float
    samples: int


@cache
def reference_scores() -> Mapping[str, Mapping[str, ReferenceScore]]:
    """Model → task → score. Runs of a model without any sample, listed with 0, are left out."""
    text = files(__package__).joinpath("reference_scores.json").read_text(encoding="utf-8")
    models: dict[str, dict[str, tuple[float, int | None]]] = json.loads(text)
    return MappingProxyType(
        {
            model: MappingProxyType(
                {
                    task: ReferenceScore(value, samples)
                    for task, (value, samples) in scores.items()
                    if samples is not None
                }
            )
            for model, scores in models.items()
        }
    )


@dataclass(frozen=True)
class Beside:
    """One task's scores: the run's, and one for each model, None where a model has none."""

    task: str
    run: float
    models: tuple[float | None, ...]


@dataclass(frozen=True)
class Standing:
    """A run and a model, averaged over the tasks that both have."""

    model: str
    tasks: int
    run: float
    reference: float


@dataclass(frozen=True)
class Comparison:
    """A run beside public models."""

    models: tuple[str, ...]
    rows: tuple[Beside, ...]
    """In the order of the scoreboard."""
    standings: tuple[Standing, ...]
    """The best model first; a model without a common task is left out. Models have been run on
    different tasks, so only the two numbers of one standing compare with each other."""


def compare(board: Scoreboard, models: Sequence[str] = ()) -> Comparison:
    """A run's scores beside those of public models: names or shell patterns, without any all."""
    scores = reference_scores()
    chosen = match_names(models or ["*"], list(scores), "reference model")
    rows = tuple(
        Beside(row.task, row.score.value, tuple(_value(model, row.task) for model in chosen))
        for row in board.tasks
    )
    standings = []
    for number, model in enumerate(chosen):
        pairs = [(row.run, it) for row in rows if (it := row.models[number]) is not None]
        if pairs:
            ours, theirs = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
            standings.append(Standing(model, len(pairs), ours, theirs))
    standings.sort(key=lambda standing: -standing.reference)
    if not standings:
        raise DataError(
            "No reference model has a score on any task of this run; choose other tasks or models."
        )
    return Comparison(tuple(chosen), rows, tuple(standings))


def _value(model: str, task: str) -> float | None:
    score = reference_scores()[model].get(task)
    return None if score is None else score.value
