"""The amount or the date that an answer commits to, among all that it mentions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from judicaita.legal.amounts import Amount, read_amounts
from judicaita.legal.dates import Date, read_dates
from judicaita.legal.labels import ANNOUNCE, HEDGE, LEAD, TURN, Verdict

Figure = TypeVar("Figure", Amount, Date)

_UNSURE = re.compile(
    r"\b(?:either|between|maybe|perhaps|possibly|might|could be|unclear|uncertain|unknown"
    r"|actually|wait|correction|on reflection|scratch that|i mean)\b"
)
# Two figures with no more than this between them are a list, unless they are reckoned with.
_OR = re.compile(r"[^\w+*/=\u00d7\u2212-]*(?:(?:or|to|and|no|then|also)\b[^\w+*/=\u00d7-]*)*", re.I)
_NOT = re.compile(r"\b(?:not|never|no longer|isn't|wasn't)\s+(?:[a-z]+\s+){0,3}\W*$", re.I)
_BARE = re.compile(rf"{LEAD}[\W_]{{0,8}}$", re.I)
_REWORK = re.compile(r"\s*[-+*/=\u00d7\u2212]\s*\W?\d")
_OPENING = re.compile(
    rf"{LEAD}(?:[^.;:!?\n\d]{{0,80}}\b(?:is|are|was|were|be|on|by|owes?|pays?|equals)\s+"
    r"(?:[a-z]+\s+){0,2})?[\W_]{0,8}$",
    re.I,
)
_RESULT = re.compile(
    rf"(?:{ANNOUNCE}(?:[a-z]+\s+){{0,3}}|=\s*\W{{0,4}}|\b(?:totals?|totalling|equals)\b[^.;\d\n]{{0,40}}"
    r"|\b(?:therefore|thus|hence|so|accordingly|consequently)\b[^.;\d\n]{0,100}"
    r"|(?:^|\n)\W{0,8})[\W_]{0,8}$",
    re.I,
)
_COPULA = re.compile(
    r"\b(?:is|was|equals|owes?|pays?|(?:comes|amounts) to)\s+(?:only\s+)?\W{0,4}$", re.I
)
_REASON = re.compile(r"\b(?:because|since|as|given|under|where|when|for the)\b", re.I)
_CHANGE = re.compile(rf"\b(?:{TURN})\b", re.I)
_WINDOW = 160
"""Characters before a figure within which its announcement stands."""


def amount_verdict(answer: str, reference: str) -> Verdict:
    """Whether the answer commits to the gold amount, rounded as that is, in its unit or in none."""
    golds = read_amounts(reference)
    if len(golds) != 1:
        raise ValueError(
            f"the reference {reference!r} states {len(golds)} amounts, not one; give a figure such "
            "as '$27,181', '15%' or '3 years', or another answer_type."
        )
    gold = golds[0]
    decimals = re.search(r"\.(\d+)", reference)
    tolerance = 0.5 * 10.0 ** -len(decimals[1]) if decimals else 0.5 if gold.unit == "$" else 1e-9
    units = {gold.unit, ""} if gold.unit else None
    found = [a for a in read_amounts(answer) if units is None or a.unit in units]
    if any(amount.unit == gold.unit != "" for amount in found):
        found = [amount for amount in found if amount.unit == gold.unit]
    return _verdict(
        answer,
        found,
        lambda amount: abs(amount.value - gold.value) <= tolerance + 1e-9 * abs(gold.value),
        lambda one, two: one.close_to(two),
    )


def date_verdict(answer: str, reference: str) -> Verdict:
    """Whether the answer commits to the gold date; to any day of it where that is a month."""
    golds = read_dates(reference)
    if len(golds) != 1:
        raise ValueError(
            f"the reference {reference!r} states {len(golds)} dates, not one; give a day such as "
            "'March 2, 1999' or '1999-03-02', or another answer_type."
        )
    return _verdict(
        answer,
        read_dates(answer),
        lambda date: date.agrees_with(golds[0]),
        lambda one, two: (one.year, one.month, one.day) == (two.year, two.month, two.day),
    )


def _verdict(
    answer: str,
    found: Sequence[Figure],
    is_gold: Callable[[Figure], bool],
    same: Callable[[Figure, Figure], bool],
) -> Verdict:
    if not found:
        return "mismatch"
    lowered = answer.lower()
    if HEDGE.search(lowered) or _UNSURE.search(lowered):
        return "hedged"
    kept = [figure for figure in found if not _NOT.search(answer[: figure.start][-_WINDOW:])]
    if not kept:
        return "contradicted"
    first, last = kept[0], kept[-1]
    if all(same(first, other) for other in kept):
        return "match" if is_gold(first) else "mismatch"
    for one, two in pairwise(kept):
        if not same(one, two) and _OR.fullmatch(answer[one.end : two.start]):
            return "hedged"
    results = [f for f in kept if _RESULT.search(answer[: f.start][-_WINDOW:])]
    if not results and _COPULA.search(answer[: last.start][-_WINDOW:]):
        between = answer[first.end : last.start]
        results = [] if _REASON.search(between) else [last]
    concludes = bool(results) and same(results[-1], last)
    before = answer[: first.start]
    opens = _OPENING.fullmatch(before) and not _REWORK.match(answer, first.end)
    committed = last if concludes else None
    if opens and (_BARE.fullmatch(before) or not concludes):
        agree = all(same(first, f) for f in results) and not _CHANGE.search(answer, first.end)
        committed = first if agree else None
    if committed is None:
        return "hedged"
    return "match" if is_gold(committed) else "mismatch"
