"""Which families and levels a person means: "hearsay,negligence" and "3", "hearsay_*", "hard"."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from judicaita.legal.names import match_names
from judicaita.legal.tasks import FAMILIES, Level

ALL_FAMILIES = "generated"
"""The source that stands for every generated family."""


def select_families(source: str | Path) -> tuple[str, ...]:
    """The families that a source names: one, several with commas between, or `ALL_FAMILIES`.

    () for a path. Several names of which some is no family are a `DataError`.
    """
    if source == ALL_FAMILIES:
        return tuple(FAMILIES)
    names = [name.strip() for name in str(source).split(",")]
    if len(names) > 1 and not Path(source).exists():
        return tuple(match_names(names, list(FAMILIES), "generated family"))
    return (str(source),) if source in FAMILIES else ()


def select_levels(families: Sequence[str], tasks: Sequence[str]) -> dict[str, list[Level] | None]:
    """The levels of each family that any of the tasks selects; a family without one is left out.

    A task is a level (``3``, of every family that has it), a level of one family (``hearsay_3``),
    a shell pattern of such names, or ``easy`` or ``hard`` for the levels that each family calls so.
    Without tasks every family has None, all its levels; a task that selects nothing is a
    `DataError`.
    """
    if not tasks:
        return dict.fromkeys(families)
    known = {
        f"{name}_{level}": (name, level) for name in families for level in FAMILIES[name].levels
    }
    kind = f"level of {families[0]}" if len(families) == 1 else "level of these families"
    chosen: dict[str, dict[Level, None]] = {}
    for task in tasks:
        found = [key for key, (name, level) in known.items() if _selects(task, name, level)]
        for name, level in (known[key] for key in found or match_names([task], list(known), kind)):
            chosen.setdefault(name, {})[level] = None
    return {name: list(chosen[name]) for name in families if name in chosen}


def _selects(task: str, family: str, level: Level) -> bool:
    """Whether a level goes by this word: its bare value, "easy" or "hard"."""
    easy, hard = FAMILIES[family].easy_levels, FAMILIES[family].hard_levels
    return task == str(level) or level in {"easy": easy, "hard": hard}.get(task, ())
