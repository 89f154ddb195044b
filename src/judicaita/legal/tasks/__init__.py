"""Families of generated legal tasks: no licence, no end, and a solver behind every answer.

A family is one file that holds the whole task: how facts are drawn and worded (`sample`), the
worked solution (`trace`), the rule (`solve`) and the way back from words to facts (`parse`).
To add one, write the file and enter it in `FAMILIES`. Diversity and limitation have their facts and
their grammar of steps in files of their own; all families of elements share `elements.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from judicaita.errors import DataError
from judicaita.legal.names import unknown_name
from judicaita.legal.tasks.adverse_possession import AdversePossession
from judicaita.legal.tasks.baselines import (
    bag_of_words,
    best_factors,
    best_single_factor,
    best_two_factors,
)
from judicaita.legal.tasks.checking import TraceCheck, check_trace
from judicaita.legal.tasks.contract_notice import ContractNotice
from judicaita.legal.tasks.diversity import Diversity
from judicaita.legal.tasks.family import Law, Level, StepVerdict, TaskFamily
from judicaita.legal.tasks.hearsay import Hearsay
from judicaita.legal.tasks.issue_spotting import IssueSpotting
from judicaita.legal.tasks.negligence import Negligence
from judicaita.legal.tasks.non_compete import NonCompete
from judicaita.legal.tasks.personal_jurisdiction import PersonalJurisdiction
from judicaita.legal.tasks.statute_of_limitations import StatuteOfLimitations
from judicaita.legal.tasks.ucc_firm_offer import UccFirmOffer
from judicaita.types import Sample

__all__ = [
    "FAMILIES",
    "Law",
    "Level",
    "Split",
    "StepVerdict",
    "TaskFamily",
    "TraceCheck",
    "bag_of_words",
    "best_factors",
    "best_single_factor",
    "best_two_factors",
    "check_trace",
    "family_of",
    "generate",
    "generate_mixture",
    "get_family",
    "split_of",
    "stream",
]

Split = Literal["train", "eval"]

EVAL_SHARE = 10
"""One fact pattern in this many belongs to the eval split."""

_MAX_REDRAWS = 1_000
"""Redraws after which `generate` takes the space of distinct samples as used up."""


_ALL: tuple[TaskFamily, ...] = (
    Diversity(),
    StatuteOfLimitations(),
    PersonalJurisdiction(),
    Hearsay(),
    UccFirmOffer(),
    ContractNotice(),
    NonCompete(),
    Negligence(),
    IssueSpotting(),
    AdversePossession(),
)

FAMILIES: Mapping[str, TaskFamily] = MappingProxyType({family.name: family for family in _ALL})
"""Every family by name."""


def get_family(name: str) -> TaskFamily:
    """Look a family up; an unknown name is a `DataError` that gives the nearest and the list."""
    if name not in FAMILIES:
        raise unknown_name(name, list(FAMILIES), "task family")
    return FAMILIES[name]


def family_of(facts: Mapping[str, Any]) -> TaskFamily | None:
    """The family that drew these facts; None for those of any other source."""
    name = facts.get("family")
    is_whole = "labels" in facts and "answer_type" in facts  # not a column of that name alone
    return FAMILIES.get(name) if isinstance(name, str) and is_whole else None


def split_of(pattern: str) -> Split:
    """The split a fact pattern belongs to, whatever seed drew it: SHA-256 modulo `EVAL_SHARE`."""
    digest = hashlib.sha256(pattern.encode()).digest()
    return "eval" if int.from_bytes(digest[:8], "big") % EVAL_SHARE == 0 else "train"


def stream(
    family_name: str,
    *,
    split: Split,
    seed: int,
    levels: Sequence[Level] | None = None,
) -> Iterator[Sample]:
    """Samples without end, the levels in turn; the same arguments give the same samples.

    A fact pattern belongs to one split for good, so that no two streams of different splits share
    one. Duplicates within a stream are possible; `generate` removes them.
    """
    family, chosen, rng = _start(family_name, split, seed, levels)
    return (_draw(family, level, split, rng) for level in itertools.cycle(chosen))


def _start(
    family_name: str, split: Split, seed: int, levels: Sequence[Level] | None
) -> tuple[TaskFamily, tuple[Level, ...], random.Random]:
    family = get_family(family_name)
    chosen = _resolve_levels(family, levels)
    if split not in ("train", "eval"):
        raise DataError(f"split={split!r} is not a split. Use 'train' or 'eval'.")
    # Text seeds go through SHA-512 in `random`, so they are stable across Python processes.
    return family, chosen, random.Random(f"{family.name}/{split}/{seed}")


def _draw(family: TaskFamily, level: Level, split: Split, rng: random.Random) -> Sample:
    """The next sample of a level whose fact pattern belongs to the split."""
    draws = (family.sample(rng, level) for _ in range(_MAX_REDRAWS))
    fitting = (sample for sample in draws if split_of(family.pattern(sample.facts)) == split)
    sample = next(fitting, None)
    if sample is None:
        raise DataError(
            f"level {level} of {family.name} has no fact pattern in the {split} split. Leave that "
            "level out."
        )
    return sample


def generate(
    family_name: str,
    count: int,
    *,
    split: Split,
    seed: int,
    levels: Sequence[Level] | None = None,
) -> list[Sample]:
    """``count`` distinct samples, the levels in turn: a `stream` that draws again for a repetition.

    A level repeats itself only once `_MAX_REDRAWS` draws in a row have brought nothing new.
    """
    if count < 1:
        raise DataError(f"count={count}: a data set needs at least one sample. Set count >= 1.")
    family, chosen, rng = _start(family_name, split, seed, levels)
    samples: list[Sample] = []
    seen: set[str] = set()
    used_up: set[Level] = set()
    for level in itertools.islice(itertools.cycle(chosen), count):
        sample, redraws = _draw(family, level, split, rng), 0
        while sample.id in seen and level not in used_up:
            sample, redraws = _draw(family, level, split, rng), redraws + 1
            if redraws == _MAX_REDRAWS:
                used_up.add(level)
        seen.add(sample.id)
        samples.append(sample)
    return samples


def generate_mixture(
    families: Mapping[str, Sequence[Level] | None], count: int, *, split: Split, seed: int
) -> list[Sample]:
    """``count`` samples of several families in turn, each family equally often (±1).

    ``families`` gives the levels of each, which come equally often within it; None is all of them.
    """
    if count < 1:
        raise DataError(f"count={count}: a data set needs at least one sample. Set count >= 1.")
    parts = [
        generate(name, share, split=split, seed=seed, levels=levels)
        for place, (name, levels) in enumerate(families.items())
        if (share := len(range(place, count, len(families))))
    ]
    turns = itertools.zip_longest(*parts)
    return [sample for turn in turns for sample in turn if sample is not None]


def _resolve_levels(family: TaskFamily, levels: Sequence[Level] | None) -> tuple[Level, ...]:
    """The family's own level values; text such as "3" finds the level 3."""
    if levels is None:
        return family.levels
    if not levels:
        raise DataError(f"No level of {family.name} was chosen. Leave levels out to get them all.")
    known = {str(level): level for level in family.levels}
    for level in levels:
        if str(level) not in known:
            raise unknown_name(str(level), list(known), f"level of {family.name}")
    return tuple(known[str(level)] for level in levels)
