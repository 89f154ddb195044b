"""Two report folders of the same samples, side by side: `judicaita compare A B`.

Only samples that both have count. Differences are B minus A, with paired bootstrap intervals of
95 %; see `judicaita.training.paired`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from judicaita.errors import DataError
from judicaita.legal.legalbench import CATEGORIES, ISSUE_SPOTTING, TASKS, check_scorable
from judicaita.legal.legalbench.averages import OVERALL, Estimate
from judicaita.legal.legalbench.corrected import corrected_outcomes
from judicaita.legal.legalbench.scoring import official_outcomes
from judicaita.training.markdown import cell, code, inline
from judicaita.training.paired import PairedShares, compare_shares, interval, score_differences
from judicaita.training.report_files import REPORT, SAMPLES

RESAMPLES = 2_000
"""Of LegalBench's scores, for each task."""

_VERDICTS = {"correct": "accuracy", "is_sound": "sound"}
"""The columns of a sample's verdicts, and the figures they are the share of."""
_COLUMNS = ("sample_id", "task", "category", "reference", "completion", *_VERDICTS)

Row = Mapping[str, Any]
Rows = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
Key = tuple[str, int]
"""A sample's id, and which of the rows with that id it is."""


@dataclass(frozen=True)
class ScoreDifference:
    """LegalBench's score of both on a task, or averaged over tasks."""

    scoring: Literal["official", "corrected"]
    name: str
    """A task, a category, or `OVERALL`."""
    tasks: int
    samples: int
    a: float
    b: float
    difference: Estimate


@dataclass(frozen=True)
class ReportComparison:
    """What two reports say of the samples that both have."""

    a: str
    b: str
    common: int
    only_in_a: int
    only_in_b: int
    warnings: tuple[str, ...]
    """A sentence each: what is not the same beside the answers."""
    shares: Mapping[str, PairedShares]
    """``accuracy``, and ``sound`` where steps were checked; without samples that both have graded
    it is absent."""
    by_task: Mapping[str, PairedShares]
    """Accuracy per task."""
    scores: tuple[ScoreDifference, ...]
    """Overall, per category and per task, official before corrected; () without LegalBench."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        return {
            **asdict(self),
            "shares": {name: _fields(pair) for name, pair in self.shares.items()},
            "by_task": {name: _fields(pair) for name, pair in self.by_task.items()},
        }

    def tables(self) -> list[Rows]:
        """Title, heading and rows of what a person reads."""
        heading: tuple[str, ...] = (
            "",
            "samples",
            "A",
            "B",
            "B − A (95 %)",
            "A alone",
            "B alone",
            "p",
        )
        tables: list[Rows] = [
            (
                "right answers",
                heading,
                [_share_row(name, pair) for name, pair in self.shares.items()],
            )
        ]
        if len(self.by_task) > 1:
            # No p: with many tasks some would be small by chance.
            rows = [_share_row(name, pair)[:-1] for name, pair in self.by_task.items()]
            tables.append(("accuracy per task", heading[:-1], rows))
        for scoring in ("official", "corrected"):
            rows = [_score_row(row) for row in self.scores if row.scoring == scoring]
            if rows:
                title = f"LegalBench, {scoring} score"
                tables.append((title, ("", "tasks", "samples", "A", "B", "B − A (95 %)"), rows))
        return tables

    def conclusion(self) -> str:
        """Whether the two differ, in a sentence."""
        pair = self.shares.get("accuracy")
        if pair is None:
            return "No sample is graded in both, so that nothing is said of right answers."
        sign = "" if pair.p_value < 0.001 else "= "
        told = f"{pair.difference.value:+.3f}, p {sign}{p_text(pair.p_value)}"
        if pair.p_value < 0.05:
            better = "B" if pair.difference.value > 0 else "A"
            return f"{better} is right more often ({told})."
        return f"The difference in accuracy may be chance ({told})."

    def to_markdown(self) -> str:
        """The tables as a page."""
        parts = [
            "# Comparison",
            f"A: {code(self.a)}  \nB: {code(self.b)}",
            f"{self.common} samples that both have. {self.conclusion()} p is that of McNemar's "
            "exact test; intervals are paired bootstraps.",
            *(f"**Note:** {inline(warning)}" for warning in self.warnings),
        ]
        for title, heading, rows in self.tables():
            lines = [heading, ("---", *("---:" for _ in heading[1:])), *rows]
            shown = [" | ".join(cell(text) for text in line) for line in (lines[0], *lines[2:])]
            shown.insert(1, " | ".join(lines[1]))
            parts += [f"## {title}", "\n".join(f"| {line} |" for line in shown)]
        return "\n\n".join(parts) + "\n"


def compare_reports(a: Path | str, b: Path | str) -> ReportComparison:
    """Compare two report folders, or files in them.

    `DataError` where they share no sample, or where a file is none of a report's. A partial overlap
    is told in `ReportComparison.warnings`.
    """
    rows_a, rows_b = _read_rows(_samples_file(a)), _read_rows(_samples_file(b))
    keys = [key for key in rows_a if key in rows_b]
    missing_in_b, missing_in_a = len(rows_a) - len(keys), len(rows_b) - len(keys)
    if not keys:
        raise DataError(
            f"{a} and {b} have no sample in common: all {missing_in_b} of A are missing in B, and "
            f"all {missing_in_a} of B in A. Evaluate both on the same data set."
        )
    warnings = _grading_warnings(a, b)
    if missing_in_a or missing_in_b:
        warnings.insert(
            0,
            f"The samples are not the same: {missing_in_b} of A's {len(rows_a)} are missing in B, "
            f"and {missing_in_a} of B's {len(rows_b)} in A. The {len(keys)} that both have are "
            "compared.",
        )
    pairs = [(rows_a[key], rows_b[key]) for key in keys]
    by_task: dict[str, list[tuple[Row, Row]]] = {}
    for pair in pairs:
        by_task.setdefault(pair[0]["task"] or "unnamed", []).append(pair)
    return ReportComparison(
        a=str(a),
        b=str(b),
        common=len(keys),
        only_in_a=missing_in_b,
        only_in_b=missing_in_a,
        warnings=tuple(warnings),
        shares={
            name: found
            for column, name in _VERDICTS.items()
            if (found := _shares(pairs, column)) is not None
        },
        by_task={
            task: found
            for task in sorted(by_task)
            if (found := _shares(by_task[task], "correct")) is not None
        },
        scores=tuple(_score_differences(pairs)),
    )


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def _samples_file(path: Path | str) -> Path:
    path = Path(path)
    found = path / SAMPLES if path.is_dir() else path
    if path.name == REPORT:
        found = path.with_name(SAMPLES)
    if not found.is_file() or found.suffix != ".parquet":
        raise DataError(
            f"{path} is no report: {SAMPLES} is not there. Give a folder that evaluate-model "
            "--report wrote."
        )
    return found


def _read_rows(path: Path) -> dict[Key, Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        missing = [name for name in _COLUMNS if name not in table.column_names]
        rows = [] if missing else table.select(list(_COLUMNS)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]}, so it is not of a report. Give a folder that "
            "evaluate-model --report wrote."
        )
    keyed: dict[Key, Row] = {}
    seen: dict[str, int] = {}
    for row in rows:
        place = seen[row["sample_id"]] = seen.get(row["sample_id"], 0) + 1
        keyed[row["sample_id"], place] = row
    return keyed


def _grading_warnings(a: Path | str, b: Path | str) -> list[str]:
    """Where the two were graded by different rules."""
    graded = []
    for path in (a, b):
        report = _samples_file(path).with_name(REPORT)
        try:
            told = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
        except ValueError as error:
            raise DataError(f"{report} is no valid JSON ({error}). Evaluate again.") from error
        graded.append(told.get("grading", {}) if isinstance(told, dict) else {})
    if graded[0] == graded[1]:
        return []
    shown = [", ".join(f"{k}={v}" for k, v in each.items()) or "the defaults" for each in graded]
    return [f"A was graded by {shown[0]}, and B by {shown[1]}: accuracies differ by that, too."]


# ── figures ──────────────────────────────────────────────────────────────────────────────────────


def _shares(pairs: Sequence[tuple[Row, Row]], column: str) -> PairedShares | None:
    """Of the samples on which both have a verdict; None without any."""
    graded = [
        (a[column], b[column]) for a, b in pairs if a[column] is not None and b[column] is not None
    ]
    return compare_shares(*zip(*graded, strict=True)) if graded else None


def _score_differences(pairs: Sequence[tuple[Row, Row]]) -> list[ScoreDifference]:
    """Of the rows of LegalBench, whose category is known."""
    by_task: dict[str, list[tuple[Row, Row]]] = {}
    for a, b in pairs:
        if a["category"] and b["category"] and TASKS[a["task"]].metric != "manual":
            by_task.setdefault(a["task"], []).append((a, b))
    if not by_task:
        return []
    check_scorable(by_task)
    ordered = {task: by_task[task] for task in sorted(by_task)}
    return [*_of_scoring("official", ordered), *_of_scoring("corrected", ordered)]


def _of_scoring(
    scoring: Literal["official", "corrected"], by_task: Mapping[str, Sequence[tuple[Row, Row]]]
) -> list[ScoreDifference]:
    import numpy as np

    outcomes = official_outcomes if scoring == "official" else corrected_outcomes
    found = {}
    for task, pairs in by_task.items():
        gold = [a["reference"] for a, _ in pairs]
        a, b = (
            outcomes(task, [pair[side]["completion"] for pair in pairs], gold) for side in (0, 1)
        )
        found[task] = score_differences(task, a, b, RESAMPLES)

    def row(name: str, tasks: Sequence[str]) -> ScoreDifference:
        a, b = (float(np.mean([found[task][side] for task in tasks])) for side in (0, 1))
        draws = np.mean([found[task][2] for task in tasks], axis=0)
        samples = sum(len(by_task[task]) for task in tasks)
        return ScoreDifference(scoring, name, len(tasks), samples, a, b, interval(b - a, draws))

    members = {
        name: [task for task in by_task if TASKS[task].category == name]
        for name in CATEGORIES
        if name != ISSUE_SPOTTING
    }
    return [
        row(OVERALL, list(by_task)),
        *(row(name, tasks) for name, tasks in members.items() if tasks),
        *(row(task, [task]) for task in by_task),
    ]


# ── what a person reads ──────────────────────────────────────────────────────────────────────────


def _fields(pair: PairedShares) -> dict[str, Any]:
    return {"samples": pair.samples, "a": pair.a, "b": pair.b, **asdict(pair)}


def _span(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def p_text(p_value: float) -> str:
    """Three digits, or that it is smaller."""
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def _share_row(name: str, pair: PairedShares) -> tuple[str, ...]:
    counts = (str(pair.only_a), str(pair.only_b))
    figures = (str(pair.samples), f"{pair.a:.3f}", f"{pair.b:.3f}", _span(pair.difference))
    return (name, *figures, *counts, p_text(pair.p_value))


def _score_row(row: ScoreDifference) -> tuple[str, ...]:
    counts = (str(row.tasks), str(row.samples))
    return (row.name, *counts, f"{row.a:.3f}", f"{row.b:.3f}", _span(row.difference))
