"""LegalBench's own score, and the corrected one, of the samples of an evaluation that are its rows.

The generated family diversity has tasks of the same names as LegalBench: what counts as a row of
LegalBench is what its ``source`` calls so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from judicaita.errors import DataError
from judicaita.legal.legalbench import (
    TASKS,
    Comparison,
    Predictions,
    Scoreboard,
    check_scorable,
    compare,
    scoreboard,
)
from judicaita.legal.legalbench.corrected import corrected_outcomes
from judicaita.legal.legalbench.scoring import Hit, Outcome, official_outcomes
from judicaita.training.sources import LEGALBENCH
from judicaita.types import Sample

BY_HAND = "judged by hand upstream, so there is no score to compute"

LENIENT = (
    "Reference scores are those of LegalEvalHub (2025), on the full test sets. Its scheme is more "
    "lenient than the official score: for most tasks a label that is contained in the output "
    "counts, and successor_liability stands there as F1. They say where a run stands, not which of "
    "two close scores is better."
)
WHOLE_TEXT = (
    "The official score compares the whole text with the gold answer, as upstream does: an answer "
    "that reasons before it concludes scores 0 by it. The corrected score reads the conclusion; it "
    "does not compare with published figures."
)


@dataclass(frozen=True)
class LegalBenchScores:
    """A run's scores on LegalBench."""

    official: Scoreboard
    corrected: Scoreboard
    official_right: tuple[bool | None, ...]
    """For each sample of the evaluation; None where it is no row of LegalBench, or where its task's
    score is not made of right and wrong (F1 over names)."""
    corrected_right: tuple[bool | None, ...]
    not_scored: Mapping[str, str]
    """Tasks of the run without a score, and why."""
    not_comparable: str | None
    """Why the scores must not stand beside published ones; None where they may."""

    @property
    def references(self) -> tuple[Comparison, Comparison] | None:
        """The official and the corrected scores beside public models; None where they must not be,
        or where no model has run these tasks."""
        if self.not_comparable:
            return None
        try:
            return compare(self.official), compare(self.corrected)
        except DataError:
            return None

    def as_fields(self) -> dict[str, Any]:
        """For ``report.json``."""
        references = self.references
        return {
            "official": asdict(self.official),
            "corrected": asdict(self.corrected),
            "not_scored": dict(self.not_scored),
            "not_comparable": self.not_comparable,
            "references": references
            and {
                "note": LENIENT,
                "models": list(references[0].models),
                "tasks": [asdict(row) for row in references[0].rows],
                "standings": [
                    {
                        "model": standing.model,
                        "tasks": standing.tasks,
                        "official": standing.run,
                        "corrected": corrected.run,
                        "reference": standing.reference,
                    }
                    for standing, corrected in zip(
                        references[0].standings, references[1].standings, strict=True
                    )
                ],
            },
        }


def is_row(sample: Sample) -> bool:
    """Whether a sample is a row of LegalBench."""
    return sample.task in TASKS and sample.source.partition(":")[0] == LEGALBENCH


def check_rows(samples: Sequence[Sample]) -> None:
    """Refuse before generation what could not be scored after it; tasks judged by hand are let
    through, and are told of in the report."""
    tasks = dict.fromkeys(sample.task for sample in samples if is_row(sample))
    check_scorable(task for task in tasks if TASKS[task].metric != "manual")


def score_rows(samples: Sequence[Sample], texts: Sequence[str]) -> LegalBenchScores | None:
    """Scores of those samples that are rows of LegalBench; None without any that can be scored.

    Tasks stand in alphabetical order, so that the order of the samples changes no figure.
    """
    places: dict[str, list[int]] = {}
    for place, sample in enumerate(samples):
        if is_row(sample):
            places.setdefault(sample.task, []).append(place)
    not_scored = {name: BY_HAND for name in sorted(places) if TASKS[name].metric == "manual"}
    sets = [
        Predictions(
            name, [texts[n] for n in places[name]], [samples[n].reference for n in places[name]]
        )
        for name in sorted(places)
        if name not in not_scored
    ]
    if not sets:
        return None
    official: list[bool | None] = [None] * len(samples)
    corrected: list[bool | None] = [None] * len(samples)
    for given in sets:
        told = (given.task, given.generations, given.answers)
        for right, outcomes in (
            (official, official_outcomes(*told)),
            (corrected, corrected_outcomes(*told)),
        ):
            for place, outcome in zip(places[given.task], outcomes, strict=True):
                right[place] = _right(outcome)
    return LegalBenchScores(
        official=scoreboard(sets),
        corrected=scoreboard(sets, scoring="corrected"),
        official_right=tuple(official),
        corrected_right=tuple(corrected),
        not_scored=not_scored,
        not_comparable=_not_comparable([sample for sample in samples if is_row(sample)]),
    )


def _right(outcome: Outcome) -> bool | None:
    return outcome.right if isinstance(outcome, Hit) else None


def _not_comparable(rows: Sequence[Sample]) -> str | None:
    """A sentence, where some rows are none that public models were measured on.

    Rows say so themselves (``not_comparable``), or by their split. Those of a file that tells
    neither are taken for test rows.
    """
    stamped = sum(
        bool(row.facts.get("not_comparable")) or row.facts.get("split") == "test_partition"
        for row in rows
    )
    if stamped:
        return (
            f"{stamped} of {len(rows)} samples are marked as not comparable with published scores, "
            "so that no reference models stand beside them."
        )
    of_train = sum(
        row.facts.get("split") == "train" or "in_demonstrations" in row.facts for row in rows
    )
    if of_train:
        return (
            f"{of_train} of {len(rows)} samples are train rows of LegalBench. Published scores are "
            "those of test rows, so that no reference models stand beside these."
        )
    return None
