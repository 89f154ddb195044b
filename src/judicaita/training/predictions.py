"""Answers of any model, from a file, graded without a model.

One JSON object a line, each with ``generation`` and what it answers:

    {"id": "3f0c…", "generation": "Yes"}          the sample of that id (`Sample.id`)
    {"task": "hearsay", "generation": "Yes"}      the task's samples in the data set's order

A row may have both; further keys are ignored. Either every row has an id or none has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judicaita.errors import DataError
from judicaita.training.evaluation import EvaluationHarness, EvaluationReport
from judicaita.types import Sample


@dataclass(frozen=True)
class Prediction:
    """A row of such a file."""

    where: str
    """File and line, for messages."""
    generation: str
    id: str | None
    task: str | None


def evaluate_predictions(
    path: Path | str, samples: Sequence[Sample], harness: EvaluationHarness
) -> EvaluationReport:
    """Grade the answers of a file to these samples; each must have exactly one.

    Lengths in tokens and finish reasons are not known, so that figures of them are absent and the
    reward's length counts words.
    """
    texts = answers_to(samples, read_predictions(path), Path(path))
    unknown = [None] * len(samples)
    return harness.score(samples, texts, unknown, unknown)


def read_predictions(path: Path | str) -> list[Prediction]:
    """The rows of a file; `DataError` names the line that cannot be used."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist, or is no file. Check the path.")
    rows: list[Prediction] = []
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    rows.append(_read(line, f"{path}, line {number}"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error
    if not rows:
        raise DataError(f"{path} holds no predictions. Write one JSON object a line.")
    odd = next((row for row in rows if (row.id is None) != (rows[0].id is None)), None)
    if odd is not None:
        has, lacks = ("no id", "have one") if odd.id is None else ("an id", "have none")
        raise DataError(
            f"{odd.where}: has {has}, while the rows before it {lacks}. Give an id in every row, "
            "or in none."
        )
    return rows


def _read(line: str, where: str) -> Prediction:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(
            f"{where}: not valid JSON ({error}). Each line must be an object."
        ) from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: is no object, but {line.strip()[:40]!r}.")
    for name in ("generation", "id", "task"):
        value = row.get(name)
        if not isinstance(value, str) and (name == "generation" or value is not None):
            raise DataError(f"{where}: {name} must be text, and is {_kind(row, name)}.")
    if not row.get("id") and not row.get("task"):
        raise DataError(
            f"{where}: has neither id nor task, so that it answers nothing. Add the sample's id, "
            "or its task."
        )
    try:
        row["generation"].encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: generation holds half of a surrogate pair, which is no text. Write the file "
            "with ensure_ascii=False, in UTF-8."
        ) from None
    return Prediction(where, row["generation"], row.get("id") or None, row.get("task") or None)


def _kind(row: dict[str, Any], name: str) -> str:
    return type(row[name]).__name__ if name in row else "missing"


def answers_to(
    samples: Sequence[Sample], predictions: Sequence[Prediction], path: Path
) -> list[str]:
    """The text that answers each sample, in their order; one for each, and none left over."""
    if not samples:
        raise DataError("There are no samples to evaluate on; give a data set that has some.")
    _check_tasks(samples, predictions)
    if predictions[0].id is not None:
        return _by_id(samples, predictions, path)
    return _by_task(samples, predictions, path)


def _check_tasks(samples: Sequence[Sample], predictions: Sequence[Prediction]) -> None:
    known = {sample.task for sample in samples}
    for row in predictions:
        if row.task is not None and row.task not in known:
            names = sorted(filter(None, known))
            shown = ", ".join(names[:5]) + ", …" * (len(names) > 5) or "without a task"
            raise DataError(
                f"{row.where}: answers the task {row.task!r}, and the samples are {shown}. Give "
                "the file of these tasks, or name its tasks by --tasks."
            )


def _by_id(samples: Sequence[Sample], predictions: Sequence[Prediction], path: Path) -> list[str]:
    tasks = {sample.id: sample.task for sample in samples}
    rows: dict[str, Prediction] = {}
    for row in predictions:
        assert row.id is not None, "all rows have one"
        if row.id not in tasks:
            raise DataError(
                f"{row.where}: no sample has the id {row.id!r}. Evaluate on the data set, tasks "
                "and max-samples that the file answers."
            )
        if row.id in rows:
            raise DataError(
                f"{row.where}: answers sample {row.id}, as {rows[row.id].where} does. Keep one."
            )
        if row.task is not None and row.task != tasks[row.id]:
            raise DataError(
                f"{row.where}: sample {row.id} is of the task {tasks[row.id]!r}, and the row says "
                f"{row.task!r}. Mend the row."
            )
        rows[row.id] = row
    ids = [sample.id for sample in samples]
    missing = [sample_id for sample_id in ids if sample_id not in rows]
    if missing:
        raise DataError(
            f"{path} answers {len(ids) - len(missing)} of {len(ids)} samples; {missing[0]} is "
            "missing. Add the others, or evaluate on those it answers."
        )
    return [rows[sample_id].generation for sample_id in ids]


def _by_task(samples: Sequence[Sample], predictions: Sequence[Prediction], path: Path) -> list[str]:
    texts: dict[str, list[str]] = {}
    for row in predictions:
        texts.setdefault(row.task or "", []).append(row.generation)
    counts: dict[str, int] = {}
    for sample in samples:
        counts[sample.task] = counts.get(sample.task, 0) + 1
    for task, count in counts.items():
        given = len(texts.get(task, ()))
        if given != count:
            raise DataError(
                f"{path} has {given} generations for the {count} samples of {task or 'no task'}; "
                "give one for each, in the data set's order, or rows with ids."
            )
    queues = {task: iter(given) for task, given in texts.items()}
    return [next(queues[sample.task]) for sample in samples]
