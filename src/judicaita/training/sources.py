"""Of which kind a source of samples is, told from its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

LEGALBENCH = "legalbench"
"""The source that stands for LegalBench on the Hub."""

FILE_ENDINGS = (".jsonl", ".parquet", ".csv")

SourceKind = Literal["families", "legalbench", "checkout", "file", "hub"]

_HUB = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?::(?P<configuration>[^/]+))?")


def kind_of(source: str | Path) -> SourceKind:
    """What a source is. Whatever is none of the others is taken for the folder of a checkout.

    ``owner/name`` is a data set on the Hub where there is no such path; ``:configuration`` may
    follow.
    """
    from judicaita.errors import DataError
    from judicaita.legal.tasks.selection import select_families

    try:
        if select_families(source):
            return "families"
    except DataError:  # several names of which some is unknown: loading them says which one
        return "families"
    if source == LEGALBENCH:  # as text: the folder of that name is ./legalbench, or a Path
        return "legalbench"
    if Path(source).is_dir():
        return "checkout"
    if Path(source).suffix in FILE_ENDINGS or Path(source).is_file():
        return "file"
    return "hub" if isinstance(source, str) and _HUB.fullmatch(source) else "checkout"


def hub_name(source: str) -> tuple[str, str | None]:
    """Repository and configuration of ``owner/name:configuration``."""
    found = _HUB.fullmatch(source)
    assert found is not None, source
    return found["name"], found["configuration"]
