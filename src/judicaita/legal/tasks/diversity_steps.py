"""Which steps of an answer about a suit can be checked, and how.

**Grammar**, in any capitals, with or without Markdown emphasis; ``S`` is a state, ``$X`` an amount,
``C`` a cause, CONNECTOR and REASON those of `grammar.py`::

    step       = point | point CONNECTOR point | point REASON point
    point      = sides | sharing | diversity | amount | met | exception
    sides      = [the] plaintiffs|defendants : S, S … | are from S and S … | are citizens of …
    sharing    = S is on both sides | S is shared by both sides | both sides share S
               | a plaintiff and a defendant are [both] from S
               | no state is on both sides | no state is shared | the sides share no state
               | no plaintiff shares a state with a|any|the defendant
    diversity  = diversity is [not] complete | diversity is incomplete
               | there is [no] complete diversity | the parties are [not] [completely] diverse
    amount     = [against NAME] [the amount|total is] $X [+ $Y … [= $Z]] [,] [is] RELATION $75,000
               | $X + $Y [= $Z] CONNECTOR [it is] RELATION $75,000
    RELATION   = [not] more|greater than | [not] over|above | less than | below | under | at most
               | exactly | [does not] exceed(s) | [not] exceeding
    met        = the amount [in controversy] is [not] met|satisfied
    exception  = C [and C] is|are [not] excepted | no cause is excepted | no exception applies
               | an exception applies | the domestic relations|probate exception applies

A step is true when every part of it holds of the suit asked about and one decides a point: the
lists of states are whole, the amounts are all that is claimed from one defendant, sums and
comparisons are right. It is false when a part does not hold, or when its parts decide different
points. A sum without a comparison, a word on some but not all causes, and "the amount is met" where
several sums matter decide nothing; with these, with a person of another suit, and with words beyond
the grammar a step is not checkable.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from judicaita.legal.polarity import normalise
from judicaita.legal.tasks.diversity_suit import EXCEPTED, NEAR_CAUSES, THRESHOLD, Suit
from judicaita.legal.tasks.family import StepVerdict
from judicaita.legal.tasks.grammar import (
    Point,
    clean,
    either,
    join_parts,
    judge,
    names_others,
)
from judicaita.legal.tasks.vocabulary import CAUSES, STATES

DIVERSE, EXCEPTION = "parties_are_diverse", "no_exception"


def required_points(suit: Suit, turns_on_exceptions: bool) -> tuple[str, ...]:
    """What a complete answer decides, in the order of the worked solution."""
    amounts = [f"amount_{number}" for number in range(1, len(suit.distinct_amounts) + 1)]
    exception = [EXCEPTION] if turns_on_exceptions else []
    return ("plaintiffs", "defendants", DIVERSE, *amounts, *exception)


_S = rf"(?:{either(STATES)})"
_SIDES = re.compile(
    r"(?:the )?(?P<side>plaintiff|defendant)s?"
    r"(?: *: *| (?:is|are|come|comes) from | (?:is a citizen|are citizens) of )"
    rf"(?P<states>{_S}(?:(?:,? and |, *){_S})*)"
)
_SHARED = tuple(
    re.compile(pattern.replace("S", _S))
    for pattern in (
        "(S) is (?:on|shared by) both sides",
        "both sides share (S)",
        "a plaintiff and a defendant are (?:both )?from (S)",
    )
)
_UNSHARED = re.compile(
    "no state is (?:on both sides|shared)|(?:the|both) sides share no state"
    "|no plaintiff shares a state with (?:a|any|the) defendant"
)
_DIVERSITY = re.compile(
    "(?P<yes>diversity is complete|there is complete diversity"
    "|the parties are (?:completely )?diverse)"
    "|diversity is (?:not complete|incomplete)|there is no complete diversity"
    "|the parties are not (?:completely )?diverse"
)
_RELATIONS: Mapping[str, Callable[[int, int], bool]] = MappingProxyType(
    {
        **dict.fromkeys(("more than", "greater than", "over", "above"), operator.gt),
        **dict.fromkeys(("exceeds", "exceeding"), operator.gt),
        **dict.fromkeys(("not more than", "not greater than", "no more than"), operator.le),
        **dict.fromkeys(("not over", "not above", "at most"), operator.le),
        **dict.fromkeys(("does not exceed", "not exceeding"), operator.le),
        **dict.fromkeys(("less than", "below", "under"), operator.lt),
        "exactly": operator.eq,
    }
)
_NUMBER = r"\d{1,12}"  # no amount is longer, and `int` refuses thousands of digits
_COMPARISON = rf"(?:is )?(?P<relation>{either(_RELATIONS)}) \$?(?P<limit>{_NUMBER})"
_AMOUNT = re.compile(
    r"(?:against (?P<who>\w+)[,:]? )?(?:the (?:amount|total)(?: in controversy)? is )?"
    rf"(?P<parts>\$?{_NUMBER}(?:(?: ?\+ ?| and | plus )\$?{_NUMBER})*)"
    rf"(?:(?: ?= ?| is | makes? | adds? up to )\$?(?P<total>{_NUMBER}))?"
    rf"(?:,? {_COMPARISON})?"
)
_LATE_COMPARISON = re.compile(rf"(?:(?:it|that|this|the total|the amount) )?{_COMPARISON}")
_MET = re.compile("the amount(?: in controversy)? is (?P<neither>not )?(?:met|satisfied)")
_C = rf"(?:{either((*CAUSES, *NEAR_CAUSES, *EXCEPTED))})"
_EXCEPTED = re.compile(
    rf"(?P<causes>{_C}(?:(?:,? and |, ?){_C})*) (?:is|are) (?P<neither>not )?excepted"
)
_EXCEPTION = re.compile(
    "(?P<neither>no cause is excepted|no exception applies)|an exception applies"
    "|the (?P<kind>domestic relations|probate) exception applies"
)


class SuitReader:
    """Reads steps about one suit."""

    def __init__(self, suit: Suit, turns_on_exceptions: bool) -> None:
        self.suit = suit
        self.turns_on_exceptions = turns_on_exceptions

    def check(self, step: str) -> StepVerdict:
        """Whether a step is true, false or not checkable; see the module."""
        words = clean(step)
        if names_others(words, self.suit.names):
            return StepVerdict("not checkable", reason="it speaks of somebody outside the suit")
        parts = join_parts(words)
        if parts is None:
            return StepVerdict("not checkable", reason="it joins too much, or a thing with itself")
        evidence, finding = parts
        if evidence is not None and _LATE_COMPARISON.fullmatch(finding):
            comparison = _LATE_COMPARISON.sub(r"\g<relation> \g<limit>", finding)
            evidence, finding = None, f"{evidence}, {comparison}"
        texts = [text for text in (evidence, finding) if text is not None]
        return judge([self._read(text) for text in texts])

    def _read(self, words: str) -> Point | None:
        readers = (self._sides, self._sharing, self._amount, self._met, self._exception)
        return next((point for reader in readers if (point := reader(words))), None)

    def _sides(self, words: str) -> Point | None:
        match = _SIDES.fullmatch(words)
        if not match:
            return None
        side = f"{match['side']}s"
        parties = self.suit.plaintiffs if side == "plaintiffs" else self.suit.defendants
        homes = sorted(normalise(party.state) for party in parties)
        # Two from one state may be listed as one: "the plaintiffs are from Ohio".
        whole = sorted(re.findall(_S, match["states"])) in (homes, sorted(set(homes)))
        return Point(side, whole, f"these are not the states of the {side}")

    def _sharing(self, words: str) -> Point | None:
        shared = {normalise(state) for state in self.suit.shared_states}
        for pattern in _SHARED:
            if match := pattern.fullmatch(words):
                return Point(DIVERSE, match[1] in shared, f"{match[1]} is not on both sides")
        if _UNSHARED.fullmatch(words):
            return Point(DIVERSE, not shared, "a state is on both sides")
        if match := _DIVERSITY.fullmatch(words):
            holds = bool(match["yes"]) == self.suit.parties_are_diverse
            return Point(DIVERSE, holds, "the parties' states say something else")
        return None

    def _amount(self, words: str) -> Point | None:
        match = _AMOUNT.fullmatch(words)
        if not match:
            return None
        parts = [int(number) for number in re.findall(r"\d+", match["parts"])]
        if match["total"] and int(match["total"]) != sum(parts):
            return Point("amount_1", False, "the sum is wrong")
        factor = self._claimed(parts, match["who"])
        if factor is None:
            return Point("amount_1", False, "this is not what is claimed from one defendant")
        if not match["relation"]:
            return Point(factor, True, undecided="it compares with nothing")
        limit = int(match["limit"])
        holds = _RELATIONS[match["relation"]](sum(parts), limit)
        other = "" if limit == THRESHOLD else f"the amount is not measured against ${limit}"
        return Point(factor, holds, "the comparison is wrong", other)

    def _claimed(self, parts: list[int], who: str | None) -> str | None:
        """The point that decides on these amounts, or on their total alone."""
        for party in self.suit.defendants:
            amounts = self.suit.amounts_against(party)
            same = sorted(parts) == sorted(amounts) or parts == [sum(amounts)]
            if same and who in (None, party.name.casefold()):
                known = [sorted(other) for other in self.suit.distinct_amounts]
                return f"amount_{known.index(sorted(amounts)) + 1}"
        return None

    def _met(self, words: str) -> Point | None:
        match = _MET.fullmatch(words)
        if not match:
            return None
        holds = self.suit.aic_is_met != bool(match["neither"])
        several = len(self.suit.distinct_amounts) > 1
        undecided = "it does not say which sum" if several else ""
        return Point("amount_1", holds, "the amounts say something else", undecided)

    def _exception(self, words: str) -> Point | None:
        excepted = {normalise(cause) for cause in self.suit.excepted_causes}
        idle = "" if self.turns_on_exceptions else "no exception is in dispute"
        if match := _EXCEPTION.fullmatch(words):
            kinds = {EXCEPTED[cause] for cause in self.suit.excepted_causes}
            holds = (
                match["kind"] in kinds if match["kind"] else bool(match["neither"]) != bool(kinds)
            )
            return Point(EXCEPTION, holds, "the causes say something else", idle)
        match = _EXCEPTED.fullmatch(words)
        if not match:
            return None
        named, all_ = set(re.findall(_C, match["causes"])), set(map(normalise, self.suit.causes))
        if not named <= all_:
            return Point(EXCEPTION, False, "nobody sues for it")
        if match["neither"]:
            partial = "" if named == all_ else "it leaves a cause out"
            return Point(EXCEPTION, not named & excepted, "a cause is excepted", partial or idle)
        return Point(EXCEPTION, named <= excepted, "the cause is not excepted", idle)
