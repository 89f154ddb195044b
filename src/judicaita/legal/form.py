"""The form of a reasoned answer: "Step 1: … Step 2: … Conclusion: …", and nothing else."""

from __future__ import annotations

import re

from judicaita.legal.answers import Reasoning, parse_reasoning

MIN_STEPS = 2
"""Steps that a reasoned answer has at least, unless told otherwise."""

_COPY_WORDS = 4
"""A step of at least so many words that stands whole inside another is a copy of it."""


def is_well_formed(text: str, min_steps: int = MIN_STEPS) -> bool:
    """Whether a text is at least ``min_steps`` good steps, then one conclusion, and nothing else.

    Neither words before step 1 nor a second paragraph after the conclusion.
    """
    reasoning = parse_reasoning(text)
    enough = good_steps(reasoning) == len(reasoning.steps) >= min_steps
    if not enough or not concludes_once(reasoning):
        return False
    preamble = text[: reasoning.boundaries[0]]
    paragraphs = re.split(r"\n\s*\n", reasoning.conclusion or "")
    return not _words(preamble) and len(paragraphs) == 1


def good_steps(reasoning: Reasoning) -> int:
    """How many steps from the start are numbered 1, 2, 3 …, have words, and copy no other."""
    seen: list[list[str]] = []
    for number, step in enumerate(reasoning.steps, start=1):
        words = _words(step.text)
        if step.number != number or not words or any(_copies(words, other) for other in seen):
            break
        seen.append(words)
    return len(seen)


def concludes_once(reasoning: Reasoning) -> bool:
    """Whether exactly one conclusion, with words, follows every step."""
    last = reasoning.steps[-1].start if reasoning.steps else -1
    start = reasoning.conclusion_start
    follows = start is not None and start > last
    return follows and reasoning.conclusions == 1 and bool(_words(reasoning.conclusion or ""))


def _copies(one: list[str], other: list[str]) -> bool:
    """Whether two steps have the same words, or the longer one holds all of the other in a row."""
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    return len(short) >= _COPY_WORDS and f" {' '.join(short)} " in f" {' '.join(long)} "


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
