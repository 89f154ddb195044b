"""LegalBench's rows from a local copy of its repository.

Each task is a folder with ``train.tsv``, ``base_prompt.txt`` and a README. The folder holds the few
train rows (median 6 a task); test rows are published elsewhere.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from judicaita.errors import DataError
from judicaita.legal.legalbench.registry import CATEGORIES
from judicaita.legal.names import match_names
from judicaita.types import Sample

GOLD_COLUMNS = ("answer", "correct_choice_index")
"""Where a row's gold label stands; the first one present counts. scalr uses the second."""

LONGEST_CELL = 2**31 - 1
"""Characters; the csv module's own limit of 131,072 is less than a long contract has."""

Split = Literal["train", "test"]

_PLACEHOLDER = re.compile(r"\{\{(.+?)\}\}")
_LICENSE = re.compile(r"^\*\*License\*\*:[ \t]*\[?(?P<name>[^\]\n]+)", re.MULTILINE)


def tasks_folder(folder: Path) -> Path | None:
    """The folder whose children are tasks: ``folder`` itself, its ``tasks/``, or None."""
    for candidate in (folder / "tasks", folder):
        if next(candidate.glob("*/base_prompt.txt"), None) is not None:
            return candidate
    return None


def load_tasks(
    folder: str | Path, tasks: Sequence[str] = (), *, split: Split = "train"
) -> list[Sample]:
    """The rows of some tasks as samples, each with its task's base prompt filled in.

    Args:
        folder: The repository's root or its ``tasks`` folder.
        tasks: Names, shell patterns such as ``learned_hands_*``, or categories of `CATEGORIES`.
            Without any, all tasks that have such rows. A task named in full must have some.
        split: ``test`` reads the ``test.tsv`` of each task, which LegalBench's own repository does
            not hold.

    `Sample.facts` carries the row's other columns as text, and ``in_demonstrations``: whether the
    base prompt shows this very row, answer included, among its examples.
    """
    root = _root(folder)
    samples: list[Sample] = []
    for task in task_names(folder, tasks):
        rows = _load_task(root / task, split)
        if not rows and task in tasks:
            raise _without_rows(task, split)
        samples += rows
    if not samples:
        raise _without_rows(", ".join(tasks) or str(folder), split)
    return samples


def task_names(folder: str | Path, tasks: Sequence[str] = ()) -> list[str]:
    """The tasks of a local copy that names, patterns and categories select; all without any."""
    known = sorted(path.parent.name for path in _root(folder).glob("*/base_prompt.txt"))
    wanted = [name for task in tasks for name in _members(task, known)] or ["*"]
    return match_names(wanted, known, "LegalBench task")


def _root(folder: str | Path) -> Path:
    root = tasks_folder(Path(folder))
    if root is None:
        raise DataError(
            f"{folder} is no LegalBench folder: neither it nor its tasks/ holds a task with a "
            "base_prompt.txt. Give the root of a LegalBench checkout."
        )
    return root


def demonstrated(samples: Iterable[Sample]) -> int:
    """How many samples have their own answer among the demonstrations of their prompt."""
    return sum(1 for sample in samples if sample.facts.get("in_demonstrations") is True)


def _members(name: str, known: Sequence[str]) -> Sequence[str]:
    """A category's tasks as far as the folder holds them; any other name or pattern as it is."""
    members = CATEGORIES.get(name, (name,))
    return [task for task in members if task in known] or members


def _load_task(folder: Path, split: Split) -> list[Sample]:
    path = folder / f"{split}.tsv"
    rows = read_rows(path)
    if not rows:
        return []
    gold = next((column for column in GOLD_COLUMNS if column in rows[0]), None)
    if gold is None:
        raise DataError(
            f"{path} has no gold column: expected {' or '.join(GOLD_COLUMNS)} "
            f"among its columns {', '.join(rows[0])}."
        )
    template = (folder / "base_prompt.txt").read_text(encoding="utf-8")
    columns = _PLACEHOLDER.findall(template)
    missing = [column for column in columns if column not in rows[0]]
    if missing:
        raise DataError(
            f"{folder / 'base_prompt.txt'} asks for the column {missing[0]!r}, which {path.name} "
            f"lacks; it has {', '.join(rows[0])}."
        )
    for number, row in enumerate(rows, start=1):
        if not row[gold].strip():
            raise DataError(
                f"{path}, row {number}: its {gold} is empty, so an answer cannot "
                "be graded. Fill it in, or remove the row."
            )
    license_name = _read_license(folder)
    return [
        Sample(
            prompt=_fill(template, row),
            reference=row[gold],
            task=folder.name,
            facts={name: cell for name, cell in row.items() if name != gold}
            | {"in_demonstrations": _shows(template, [row[column] for column in columns])},
            license=license_name,
            source=f"legalbench:{folder.name}",
        )
        for row in rows
    ]


def _fill(template: str, row: Mapping[str, str]) -> str:
    """Plain replacement in one pass: a cell that happens to hold {{…}} is text, no placeholder."""
    return _PLACEHOLDER.sub(lambda match: row[match[1]], template)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows as column → cell. Quoted cells may span lines, so the csv module does the splitting."""
    if not path.is_file():
        return []
    rows: list[dict[str, str]] = []
    try:
        csv.field_size_limit(LONGEST_CELL)
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", strict=True)
            for number, row in enumerate(reader, start=1):
                # DictReader files surplus cells under None, and fills missing ones with None.
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}, line {reader.line_num}, row {number}: has not the "
                        f"{len(reader.fieldnames or ())} cells of its header. Check the quoting."
                    )
                rows.append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as tab-separated UTF-8: {error}.") from error
    return rows


def _read_license(folder: Path) -> str:
    """What the README names, "CC-BY-4.0" for "[CC By 4.0](…)"; "" when it names none."""
    for readme in sorted(folder.glob("[Rr][Ee][Aa][Dd][Mm][Ee].*")):
        if found := _LICENSE.search(readme.read_text(encoding="utf-8")):
            name = found["name"].strip()
            return name.upper().replace(" ", "-") if name.startswith("CC ") else name
    return ""


def _shows(template: str, cells: Sequence[str]) -> bool:
    """Whether every cell that fills the prompt already stands in its template.

    Letters and digits alone are compared: demonstrations differ in quotes and white space.
    """
    shown = _bare(template)
    return bool(cells) and all(_bare(cell) in shown for cell in cells)


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def _without_rows(task: str, split: Split) -> DataError:
    if split == "test":
        return DataError(
            f"{task}: this copy of LegalBench holds no test rows (test.tsv). The Hub has them: "
            "dataset=legalbench."
        )
    return DataError(
        f"{task} has no train rows: LegalBench publishes only test rows for it. "
        "Name a task that has some, such as contract_qa."
    )
