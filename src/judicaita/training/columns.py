"""Columns of files and data sets under names of their own, and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from judicaita.errors import DataError
from judicaita.legal.legalbench.checkout import LONGEST_CELL
from judicaita.legal.names import unknown_name

TEXT_COLUMNS = ("trace", "task", "license", "source")
SAMPLE_COLUMNS = ("prompt", "reference", "response", *TEXT_COLUMNS, "authorities", "facts")
"""What rows are made into samples by; every other column joins the facts."""

_REQUIRED = ("prompt", "reference", "response")


def parse_columns(pairs: Sequence[str]) -> dict[str, str]:
    """``["prompt=question"]`` → ``{"prompt": "question"}``; `DataError` for anything else."""
    found: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not (ours and equals and theirs):
            raise DataError(
                f"columns={pair!r}: should be a column of samples and one of the data, like "
                "prompt=question,reference=answer."
            )
        if ours in found:
            raise DataError(f"columns: {ours} is given twice. Keep one.")
        found[ours] = theirs
    check_columns(found)
    return found


def check_columns(columns: Mapping[str, str]) -> None:
    """`DataError` for what is no column of a sample."""
    for ours in columns:
        if ours not in SAMPLE_COLUMNS:
            raise DataError(f"columns: {unknown_name(ours, SAMPLE_COLUMNS, 'column of samples')}")


def renamed(
    rows: Iterable[tuple[str, Any]], columns: Mapping[str, str]
) -> Iterator[tuple[str, Any]]:
    """The rows with some of their columns under the names that samples have.

    A column that is renamed takes the place of one that has the name already.
    """
    check_columns(columns)
    for number, (where, row) in enumerate(rows):
        if not isinstance(row, Mapping) or not columns:
            yield where, row
            continue
        taken = {}
        for ours, theirs in columns.items():
            if theirs in row:
                taken[ours] = row[theirs]
            elif number == 0 or ours in _REQUIRED:
                raise unknown_name(theirs, [str(name) for name in row], f"column of {where}")
        rest = {name: value for name, value in row.items() if name not in columns.values()}
        yield where, {**rest, **taken}


def read_csv(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a comma-separated file with a header, each with the line on which it begins.

    Empty cells are absent; ``authorities`` and ``facts`` are JSON.
    """
    csv.field_size_limit(LONGEST_CELL)
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or ()
            if twice := sorted({name for name in header if list(header).count(name) > 1}):
                raise DataError(f"{path}, line 1: the column {twice[0]!r} stands there twice.")
            line = reader.line_num + 1  # on which the next row begins
            for row in reader:
                where = f"{path}, line {line}"
                # DictReader files surplus cells under None, and fills missing ones with None.
                if None in row or None in row.values():
                    raise DataError(
                        f"{where}: has not the {len(header)} cells of its header. Check the "
                        "quoting."
                    )
                yield where, _cells(row, where)
                line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: {error}. Check the quoting.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error


def _cells(row: Mapping[str, str], where: str) -> dict[str, Any]:
    cells: dict[str, Any] = {name: cell for name, cell in row.items() if cell}
    if "authorities" in cells:
        try:
            cells["authorities"] = json.loads(cells["authorities"])
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}: authorities is no JSON ({error.msg}). Give a list of texts, like "
                '["28 U.S.C. § 1332(a)"].'
            ) from error
    return cells
