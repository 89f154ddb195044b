"""Contradiction: whether a text denies what another one affirms.

Overlap of words cannot tell "enforceable" from "not enforceable", and embeddings prefer the
negation to a paraphrase. So free text is first asked whether it denies what the gold answer
affirms. How a text is read for that stands in `reading`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from judicaita.legal.normal_form import WORD, denied_word, legible, normalise
from judicaita.legal.reading import Reading, read_pair

__all__ = ["WORD", "contradict", "denied_word", "deny", "disjoint", "legible", "normalise"]

_SIDE = re.compile(r"\W*(yes|no)(?=\s*(?:[.,;:!\u2014\u2013-]|$))")


def contradict(first: str, second: str) -> bool:
    """True when one normalised text denies what the other affirms, as far as shared words tell.

    That is: one opens with Yes and the other with No; or only one of them denies any word that both
    use; or a word that a negation aims at is not denied and affirmed alike in both; or one denies
    what the other affirms in other words ("granted" and "denied").
    """
    sides = {side[1] for text in (first, second) if (side := _SIDE.match(text))}
    if len(sides) == 2:
        return True
    return deny(*read_pair(first, second))


def deny(one: Reading, two: Reading) -> bool:
    """`contradict` without the opening Yes and No, for texts already read."""
    shared = one.affirmed.keys() & two.affirmed.keys()
    if _denies_any(one, shared) != _denies_any(two, shared):
        return True
    targets = (shared & (one.targets | two.targets)) - one.loose - two.loose
    if any(one.affirmed[word] != two.affirmed[word] for word in targets):
        return True
    return disjoint(one.concepts, two.concepts)


def disjoint(one: Mapping[Any, set[Any]], two: Mapping[Any, set[Any]]) -> bool:
    """Whether the two have nothing in common under some key that both have."""
    return any(not one[key] & two[key] for key in one.keys() & two.keys())


def _denies_any(reading: Reading, words: Iterable[str]) -> bool:
    return any(False in reading.affirmed[word] for word in words)
