"""The 162 tasks of LegalBench: what each one asks, how it is scored, and under which licence.

The facts lie in ``tasks.json`` beside this file, one task a line, taken from the tasks' own files
and READMEs. The number of test rows is what public evaluations ran on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

from judicaita.errors import DataError
from judicaita.legal.names import match_names, unknown_name

AnswerType = Literal[
    "binary_yes_no",
    "binary_other",
    "multiclass",
    "multilabel",
    "extraction",
    "extraction_list",
    "numeric",
    "free_text_short",
    "free_text",
]

Metric = Literal[
    "balanced_accuracy", "within_tenth", "containment", "stemmed_part", "micro_f1", "manual"
]
"""How a task is scored upstream; `judicaita.legal.legalbench.scoring` says what each one does."""


@dataclass(frozen=True)
class Task:
    """One task, as its files describe it."""

    name: str
    category: str
    """The type of legal reasoning, a key of `CATEGORIES`."""
    answer_type: AnswerType
    metric: Metric
    labels: tuple[str, ...]
    """The answers that the task knows; () where it has no closed list of them."""
    prompt_columns: tuple[str, ...]
    """The columns that fill the placeholders of its base prompt."""
    train_rows: int
    test_rows: int
    license: str
    """As an SPDX identifier where the version is stated."""
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What each option letter stands for, where the labels are letters (maud_*)."""
    gold_column: str = "answer"
    """Local copies of scalr may call it ``correct_choice_index``; `load_tasks` reads both."""

    @property
    def is_non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return "-NC" in self.license


def _read() -> dict[str, Task]:
    text = files(__package__).joinpath("tasks.json").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(text)
    lists = ("labels", "prompt_columns")
    tasks = [
        Task(
            **row
            | {name: tuple(row[name]) for name in lists}
            | {"options": MappingProxyType(row.get("options", {}))}
        )
        for row in rows
    ]
    return {task.name: task for task in tasks}


TASKS: Mapping[str, Task] = MappingProxyType(_read())
"""Every task under its name, in alphabetical order."""

ISSUE_SPOTTING = "issue_spotting"
"""The training guide's name for the category issue-spotting. It is no task of its own."""


def _categories() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for task in TASKS.values():
        found.setdefault(task.category, []).append(task.name)
    tasks = {category: tuple(found[category]) for category in sorted(found)}
    return tasks | {ISSUE_SPOTTING: tasks["issue-spotting"]}


CATEGORIES: Mapping[str, tuple[str, ...]] = MappingProxyType(_categories())
"""Names that stand for several tasks: the five types of legal reasoning, and `ISSUE_SPOTTING`."""


def get_task(name: str) -> Task:
    """The task of that name; a `DataError` that names the nearest ones otherwise."""
    if name not in TASKS:
        raise unknown_name(name, list(TASKS), "LegalBench task")
    return TASKS[name]


def select(
    names: Sequence[str] = (), *, licenses: Sequence[str] = (), commercial: bool = False
) -> list[Task]:
    """Some tasks, each once, in the order asked for.

    Args:
        names: Tasks, shell patterns such as ``cuad_*``, or categories. Without any, all tasks.
        licenses: Licences to keep, as `Task.license` writes them, or shell patterns of such.
        commercial: Keep only tasks whose licence allows commercial use.

    Raises `DataError` for a name that matches nothing, and where the filters leave nothing.
    """
    found = match_names(names, [*TASKS, *CATEGORIES], "LegalBench task")
    wanted = [task for name in found for task in CATEGORIES.get(name, (name,))]
    tasks = [TASKS[name] for name in dict.fromkeys(wanted or TASKS)]
    if licenses:
        every = sorted({task.license for task in TASKS.values()})
        kept = set(match_names(licenses, every, "licence of a LegalBench task"))
        tasks = [task for task in tasks if task.license in kept]
    if commercial:
        tasks = [task for task in tasks if not task.is_non_commercial]
    if not tasks:
        asked = [f"licenses={', '.join(licenses)}"] if licenses else []
        asked += ["commercial=True"] if commercial else []
        raise DataError(
            f"No task of {', '.join(names) or 'LegalBench'} is left with {' and '.join(asked)}. "
            "Widen the choice of licences, or name other tasks."
        )
    return tasks
