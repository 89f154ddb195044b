"""Whether a free-text conclusion says something else than the gold one, whatever words they share.

Beside what a text denies (`polarity`), two conclusions conflict in their amounts and dates, in
"all" or "some", "must" or "may", "if" or "even if", in one of several exclusive alternatives, and
in who does what to whom. Each rule asks for both texts to speak of the matter: what an answer
leaves out lowers its overlap and is no conflict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain

from judicaita.legal.amounts import Amount, read_amounts
from judicaita.legal.dates import Date, read_dates
from judicaita.legal.lexicon import (
    BOUNDS,
    CONDITIONS,
    FUNCTION_WORDS,
    HEDGES,
    NEGATORS,
    ROLES,
    stem,
    word_set,
)
from judicaita.legal.polarity import contradict, disjoint
from judicaita.legal.reading import Reading, read_pair

_CAPITALISED = re.compile(r"\b[A-Z][a-z]+\b")
_BE = word_set("is are was were be been being")
_PARTICIPLES = word_set(
    "given paid borne bought sold taken held made shown brought kept lent met left sent told "
    "found built hit won lost"
)
_BETWEEN = _BE | word_set(
    "has have had does do did will would shall should may might can could must not never also "
    "therefore thus only then to"
)
"""What may stand between a subject and its verb."""
_VERBS_IN_LY = word_set("apply supply rely reply comply imply multiply")
_RELATIONS = word_set("to from against on upon with for of")
_PREPOSITIONS = _RELATIONS | word_set("by in at under")
_NO_NAMES = word_set(
    "section act title rule article amendment court congress code constitution step under because"
)
"""Words that capitals begin and that name no party."""
_REACH = 4
"""Words within which "by" names who acts, and a hedge its matter."""


def conflicts(answer: str, gold: str, answer_text: str, gold_text: str) -> bool:
    """Whether two conclusions exclude each other, each as `normalise` and `legible` leave it."""
    if contradict(answer, gold):
        return True
    one, two = read_pair(answer, gold)
    return (
        disjoint(one.graded, two.graded)
        or disjoint(one.alternatives, two.alternatives)
        or disjoint(one.conditions, two.conditions)
        or _swaps_times(one, two)
        or _amounts_differ(answer_text, gold_text)
        or _hedges(one, two)
        or _swaps_parties(one, two, answer_text, gold_text)
    )


def _swaps_times(one: Reading, two: Reading) -> bool:
    """Whether one says that A was before B, the other that B was before A."""
    (told, meant) = ([k for k in r.concepts if k.startswith("before ")] for r in (one, two))
    if len(told) != 1 or len(meant) != 1 or told == meant:
        return False
    known = all(
        key.removeprefix("before ") in r.affirmed for key in (*told, *meant) for r in (one, two)
    )
    return known and one.concepts[told[0]] == two.concepts[meant[0]]


def _amounts_differ(answer: str, gold: str) -> bool:
    """Whether both state dates, or amounts of one unit, that the other one does not state."""
    gold_dates, gold_amounts = _figures(gold)
    if not gold_dates and not gold_amounts:
        return False
    dates, amounts = _figures(answer)
    if dates and gold_dates:
        unmet = any(not any(d.agrees_with(g) for d in dates) for g in gold_dates)
        new = any(not any(d.agrees_with(g) for g in gold_dates) for d in dates)
        if unmet and new:
            return True
    for unit in {amount.unit for amount in gold_amounts}:
        told = [amount for amount in amounts if amount.unit == unit]
        meant = [amount for amount in gold_amounts if amount.unit == unit]
        if told and _some_missing(told, meant) and _some_missing(meant, told):
            return True
    return False


def _some_missing(these: Sequence[Amount], those: Sequence[Amount]) -> bool:
    return any(not any(this.close_to(that) for that in those) for this in these)


@lru_cache(maxsize=1 << 12)
def _figures(text: str) -> tuple[list[Date], list[Amount]]:
    """Dates, and amounts that are no part of a date, of a list's numbering or "one" as a word."""
    dates = read_dates(text)
    amounts = [
        amount
        for amount in read_amounts(text)
        if not any(date.start < amount.end and amount.start < date.end for date in dates)
        and not (amount.unit == "" and (amount.value <= 1 or _is_numbering(text, amount)))
    ]
    return dates, amounts


def _is_numbering(text: str, amount: Amount) -> bool:
    before, after = text[: amount.start].rstrip(" ("), text[amount.end : amount.end + 1]
    return after in (")", ".") and (not before or before[-1] in ".;:,\n")


def _hedges(answer: Reading, gold: Reading) -> bool:
    """Whether the answer only supposes something ("might be liable") that the gold one states."""
    if gold.vocabulary & HEDGES or not answer.vocabulary & HEDGES:
        return False
    return any(
        token in HEDGES
        and any(
            stem(word) in gold.affirmed for word in answer.tokens[place + 1 : place + 1 + _REACH]
        )
        for place, token in enumerate(answer.tokens)
    )


# --- who does what to whom -----------------------------------------------------------------------


def _swaps_parties(answer: Reading, gold: Reading, answer_text: str, gold_text: str) -> bool:
    shared = answer.vocabulary & gold.vocabulary
    parties = {word for word in shared if word in ROLES}
    names = {word.lower() for word in _CAPITALISED.findall(gold_text)}
    parties |= names & shared & {word.lower() for word in _CAPITALISED.findall(answer_text)}
    parties -= FUNCTION_WORDS | _NO_NAMES
    if len(parties) < 2:
        return False
    told, meant = _parts(answer.tokens, parties), _parts(gold.tokens, parties)
    return any(
        told[key] and meant[key] and told[key] != meant[key] for key in told.keys() & meant.keys()
    )


def _parts(tokens: Sequence[str], parties: set[str]) -> dict[tuple[str, str], str | None]:
    """(Word, "acts" or "suffers") and ("to", "") → the party, None where several would fit."""
    found: dict[tuple[str, str], str | None] = {}
    for clause in _clauses(tokens):
        clause = [
            word  # "majority shareholder" is one party
            for before, word in zip(["", *clause], clause, strict=False)
            if not (word in parties and before in parties)
        ]
        if not any(word in parties for word in clause):
            continue
        for key, party in chain.from_iterable(
            _relations(clause, place, parties) for place in range(len(clause))
        ):
            found[key] = party if found.get(key, party) == party else None
    return found


def _clauses(tokens: Sequence[str]) -> Iterator[list[str]]:
    clause: list[str] = []
    for token in tokens:
        if token in BOUNDS or token in CONDITIONS:
            yield clause
            clause = []
        elif token[0].isalnum():
            clause.append(token)
    yield clause


def _relations(
    clause: list[str], place: int, parties: set[str]
) -> Iterator[tuple[tuple[str, str], str]]:
    """What one word of a clause tells of the parties."""
    word = clause[place]
    if word in _RELATIONS:
        if party := _next_party(clause, place, 2, parties):
            yield (word, ""), party
        return
    if word in parties or word in FUNCTION_WORDS or word in NEGATORS or word in _BETWEEN:
        return
    if _is_adverb(word):
        return
    before = place - 1
    while before >= 0 and (clause[before] in _BETWEEN or _is_adverb(clause[before])):
        before -= 1
    auxiliaries = clause[before + 1 : place]
    subject = clause[before] if before >= 0 and clause[before] in parties else None
    if subject and _PREPOSITIONS & set(clause[max(before - 2, 0) : before]):
        subject = None  # "the agent of the buyer pays"
    participle = word.endswith("ed") or word in _PARTICIPLES
    if participle and _BE & set(auxiliaries):
        if subject:
            yield (stem(word), "suffers"), subject
        if "by" in clause[place:]:
            by = clause.index("by", place)
            if party := _next_party(clause, by, 2, parties):
                yield (stem(word), "acts"), party
        return
    if subject:
        yield (stem(word), "acts"), subject
        if party := _next_party(clause, place, _REACH, parties):
            yield (stem(word), "suffers"), party


def _is_adverb(word: str) -> bool:
    return word.endswith("ly") and word not in _VERBS_IN_LY


def _next_party(clause: list[str], place: int, reach: int, parties: set[str]) -> str | None:
    following = clause[place + 1 : place + 1 + reach]
    return next((word for word in following if word in parties), None)
