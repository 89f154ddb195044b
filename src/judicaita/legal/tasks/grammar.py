"""What the grammars of steps share: how a step opens, how it joins two parts, whom it names.

Everything here works on normalised text (`judicaita.legal.polarity.normalise`): capitals,
Markdown emphasis and commas within numbers are gone.

    CONNECTOR = so | thus | hence | therefore | which means | meaning | and so   (that)
    REASON    = because | since | given that
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from judicaita.legal.polarity import normalise
from judicaita.legal.tasks.family import StepVerdict
from judicaita.legal.tasks.vocabulary import NAMES

_LEAD = re.compile(
    r"^(?:(?:first|second|third|fourth|fifth|next|then|also|finally|here)\b,? +){0,2}"
)
_CONNECTOR = re.compile(
    r"[,;]? +(?:and +)?(?:so|thus|hence|therefore|which means|meaning)(?: that)?,? +"
)
_REASON = re.compile(r",? +(?:because|since|given that) +")
_NAMED = re.compile(rf"\b({'|'.join(name.casefold() for name in NAMES)})s?\b")


@dataclass(frozen=True)
class Point:
    """One part of a step, read: what it is about, whether it holds, whether it decides it."""

    factor: str
    holds: bool
    wrong: str = ""
    """Why it does not hold."""
    undecided: str = ""
    """Why it decides nothing although it holds."""


def judge(points: Sequence[Point | None]) -> StepVerdict:
    """What the parts of a step make together; None stands for one that could not be read.

    False if one part does not hold, or if they are about different points; true if all hold and
    one of them decides.
    """
    read = [point for point in points if point is not None]
    for point in read:
        if not point.holds:
            return StepVerdict("false", point.factor, point.wrong)
    if len(read) < len(points) or not read:
        return StepVerdict("not checkable", reason="it says something the grammar does not know")
    if len({point.factor for point in read}) > 1:
        return StepVerdict("false", read[-1].factor, "the one does not follow from the other")
    if all(point.undecided for point in read):
        return StepVerdict("not checkable", read[0].factor, read[0].undecided)
    return StepVerdict("true", read[0].factor)


def clean(step: str) -> str:
    """A step's words, normalised, without "First," at their head and full stops at their end."""
    return _LEAD.sub("", normalise(step)).rstrip(" .!;")


def join_parts(words: str) -> tuple[str | None, str] | None:
    """(evidence, finding) of a step; evidence is None where it has one part only.

    None where it joins more than two, or one with itself ("open, so open").
    """
    forward, backward = _CONNECTOR.split(words), _REASON.split(words)
    parts = forward if len(backward) == 1 else [*reversed(backward)]
    if len(forward) + len(backward) > 3 or (len(parts) == 2 and parts[0] == parts[1]):
        return None
    return (parts[0], parts[1]) if len(parts) == 2 else (None, words)


def names_others(words: str, own: Collection[str]) -> bool:
    """Whether the words name a person of the questions who is none of ``own``."""
    return bool(set(_NAMED.findall(words)) - {name.casefold() for name in own})


def either(options: Iterable[str]) -> str:
    """A pattern for any of some wordings in their normalised form, the longest first."""
    words = {normalise(option) for option in options}
    return "|".join(map(re.escape, sorted(words, key=lambda word: (-len(word), word))))
