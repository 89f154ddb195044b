"""Does what a model learnt on generated tasks carry over to real LegalBench rows?

    python benchmarks/transfer.py runs/quickstart/seed-0/verified/final ./legalbench \\
        --output transfer.json

Asks a checkpoint the train rows of the tasks nearest to generated families, greedily. Each prompt
is the row's own text and question without LegalBench's demonstrations: these are the very rows,
answers included. What does not fit the model's positions beside the longest answer is left out and
counted, never cut. Tasks have 4 to 8 rows each, so that the intervals are wide; none of this is a
LegalBench score, which is of test rows.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from judicaita.legal.legalbench import load_tasks
from judicaita.training.checkpoints import open_checkpoint
from judicaita.training.evaluation import EvaluationHarness, EvaluationRecord, wilson_interval
from judicaita.training.rollouts.native import NativeEngine
from judicaita.types import Sample


@dataclass(frozen=True)
class Task:
    """How a row is asked, and which generated family comes nearest to it."""

    question: str
    """With the row's columns in braces."""
    family: str
    labels: tuple[str, ...] = ("Yes", "No")
    answer_type: str = "yes_no"


_DIVERSITY = Task("{text} Is there diversity jurisdiction?", "diversity")

TASKS: Mapping[str, Task] = {
    **{f"diversity_{number}": _DIVERSITY for number in range(1, 7)},
    "hearsay": Task("{text} Is there hearsay?", "hearsay"),
    "personal_jurisdiction": Task(
        "{text} Is there personal jurisdiction?", "personal_jurisdiction"
    ),
    "ucc_v_common_law": Task(
        "{contract}", "ucc_firm_offer", ("UCC", "Common Law"), "multiclass"
    ),  # each row ends with its own question
    "contract_qa": Task("{text} {question}", "contract_notice"),
    "learned_hands_torts": Task(
        "{text} Does the post discuss problems that one person has with another person (or "
        "animal), like when there is a car accident, a dog bite, bullying or possible harassment, "
        "or neighbors treating each other badly?",
        "issue_spotting",
    ),
}
"""The questions of LegalBench's base prompts, by task."""


@dataclass(frozen=True)
class Row:
    """Figures of one task, or of all; those of answers are None where every row was left out."""

    task: str
    family: str
    rows: int
    left_out: int
    """Rows whose prompt and longest answer exceed the model's positions."""
    accuracy: float | None
    accuracy_low: float | None
    """Bounds of the 95 % Wilson interval."""
    accuracy_high: float | None
    majority: float | None
    """Share of the commonest reference among the rows asked."""
    reasoned: float | None
    """Share of answers in the form of steps and one conclusion."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="a folder such as a run's final/")
    parser.add_argument("legalbench", type=Path, help="a checkout of the LegalBench repository")
    parser.add_argument("--output", type=Path, default=Path("runs/transfer.json"))
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    asked = plain(load_tasks(arguments.legalbench, list(TASKS)))
    table = tabulate(asked, answer(arguments.checkpoint, arguments.device, asked))
    print_table(table)
    report = {
        "checkpoint": str(arguments.checkpoint),
        "prompts": "without demonstrations",
        "rows": [asdict(row) for row in table],
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def plain(samples: Sequence[Sample]) -> list[Sample]:
    """The rows with a prompt of their own columns alone, in place of the base prompt."""
    return [
        Sample(
            prompt=task.question.format(**sample.facts),
            reference=sample.reference,
            task=sample.task,
            facts={"labels": list(task.labels), "answer_type": task.answer_type},
            license=sample.license,
            source=sample.source,
        )
        for sample in samples
        for task in (TASKS[sample.task],)
    ]


def answer(
    checkpoint: Path, device: str, samples: Sequence[Sample]
) -> dict[str, list[EvaluationRecord]]:
    """Task → records of the rows that fit the model."""
    opened = open_checkpoint(checkpoint, device)
    policy, positions = opened.policy, opened.policy.max_positions
    fitting = [
        sample
        for sample in samples
        if positions is None or len(policy.encode(sample.prompt)) + opened.max_tokens <= positions
    ]
    records: dict[str, list[EvaluationRecord]] = {name: [] for name in TASKS}
    if fitting:
        harness = EvaluationHarness(text_overlap=False)
        sampling = opened.greedy
        report = harness.evaluate(policy, NativeEngine(policy), fitting, sampling)
        for record in report.records:
            records[record.task].append(record)
    return records


def tabulate(
    samples: Sequence[Sample], records: Mapping[str, Sequence[EvaluationRecord]]
) -> list[Row]:
    """A row a task, and one of all. The majority of all is each task's own, weighed by its rows."""
    counts = Counter(sample.task for sample in samples)
    table = [
        _row(name, task.family, counts[name], records[name], _majority(records[name]))
        for name, task in TASKS.items()
    ]
    every = [record for name in TASKS for record in records[name]]
    majority = sum(_majority(records[name]) for name in TASKS)
    return [*table, _row("all", "", counts.total(), every, majority)]


def _majority(records: Sequence[EvaluationRecord]) -> int:
    """How many rows have the commonest reference."""
    return max(Counter(record.reference for record in records).values(), default=0)


def _row(
    name: str, family: str, rows: int, records: Sequence[EvaluationRecord], majority: int
) -> Row:
    asked = len(records)
    if not asked:
        return Row(name, family, rows, rows, None, None, None, None, None)
    right = sum(bool(record.correct) for record in records)
    reasoned = sum(record.well_formed for record in records)
    interval = wilson_interval(right, asked)
    shares = (right / asked, *interval, majority / asked, reasoned / asked)
    return Row(name, family, rows, rows - asked, *shares)


def print_table(table: Sequence[Row]) -> None:
    """As Markdown; – where nothing was asked."""
    print("| task | nearest family | rows | left out | accuracy (95 %) | majority | reasoned |")
    print("|---|---|---|---|---|---|---|")
    for row in table:
        figures: list[Any] = ["–"] * 3
        if row.accuracy is not None:
            interval = f"{row.accuracy_low:.2f}–{row.accuracy_high:.2f}"
            figures = [f"{row.accuracy:.2f} ({interval})", *map(_two, (row.majority, row.reasoned))]
        cells = [row.task, row.family, row.rows, f"{row.left_out / row.rows:.0%}", *figures]
        print(f"| {' | '.join(map(str, cells))} |")


def _two(share: float | None) -> str:
    return f"{share:.2f}"


if __name__ == "__main__":
    main()
