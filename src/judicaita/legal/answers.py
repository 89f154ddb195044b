"""Reading a completion: its steps, its conclusion, and whether that conclusion is the gold answer.

The format is the guide's: ``Step 1: … Step 2: … Conclusion: …``, on lines of their own or in one
paragraph, in plain text or with Markdown emphasis. Everything that needs to know where a step
begins (the format reward, discounting per step, explained traces) asks `parse_reasoning`;
everything that needs to know whether an answer is right (rewards, evaluation) asks `grade_answer`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from judicaita.legal.label_lists import read_labels
from judicaita.legal.polarity import (
    WORD,
    clauses,
    contradict,
    denied_word,
    normalise,
    vocabulary_of,
)

MatchMode = Literal["auto", "exact", "overlap"]

MULTILABEL = "multilabel"
"""The answer type of a question whose answer lists any number of its labels."""

LABEL_WORDS = 3
"""References of at most so many words count as labels in mode ``auto``: the longest labels of
LegalBench ("Limitation of liability") have three."""

# Repetitions are bounded, since a model may emit a thousand dashes or spaces in a row.
_MARKER = re.compile(
    r"""
    (?: ^ | (?<=[.!?;:)\]"'”’*_]) [^\S\n] )     # at a line's start, or after a sentence's end
    (?: [#>*_-] | [^\S\n] ){0,16}               # indent; Markdown heading, quote, list, emphasis
    (?: step [^\S\n]{1,4} (?P<number>\d{1,3}) | (?P<conclusion>conclusion) )
    [^\S\n]{0,4} [*_]{0,4} [^\S\n]{0,4} [:\uFF1A] [*_]{0,4}  # "Step 1:", "**Step 1**:"
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_WORD = re.compile(WORD)


@dataclass(frozen=True)
class Step:
    """One "Step N: …" of a completion."""

    number: int
    """As the text says, which need not be its place in the order."""
    text: str
    """What stands between this marker and the next one, stripped."""
    start: int
    """Character offset of the marker in the completion, with the blank or emphasis before it."""
    text_start: int
    """Character offset of ``text``."""


@dataclass(frozen=True)
class Reasoning:
    """A completion taken apart."""

    steps: tuple[Step, ...]
    conclusion: str | None
    """What follows the last "Conclusion:", stripped, perhaps ""; None without that marker."""
    conclusion_start: int | None
    """Character offset of the last "Conclusion:" marker."""
    conclusion_text_start: int | None
    """Character offset of ``conclusion``."""
    conclusions: int
    """How many "Conclusion:" markers there are; the last one counts."""

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Offsets at which each reasoning step and the conclusion begin, in order of the text."""
        starts = [step.start for step in self.steps]
        if self.conclusion_start is not None:
            starts.append(self.conclusion_start)
        return tuple(sorted(starts))

    @property
    def is_ordered(self) -> bool:
        """True when steps count 1, 2, 3 … and one conclusion follows them."""
        in_order = [step.number for step in self.steps] == list(range(1, len(self.steps) + 1))
        last = self.steps[-1].start if self.steps else -1
        follows = self.conclusion_start is not None and self.conclusion_start > last
        return in_order and follows and self.conclusions == 1


@lru_cache(1024)  # each part of a reward takes the same completion apart
def parse_reasoning(text: str) -> Reasoning:
    """Split a completion at its "Step N:" and "Conclusion:" markers."""
    marks = list(_MARKER.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    steps: list[Step] = []
    conclusion: str | None = None
    conclusion_start: int | None = None
    conclusion_text_start: int | None = None
    for mark, end in zip(marks, ends, strict=False):  # without marks there is one end too many
        following = text[mark.end() : end]
        body = following.strip()
        body_start = mark.end() + len(following) - len(following.lstrip())
        if mark["conclusion"]:
            conclusion, conclusion_start, conclusion_text_start = body, mark.start(), body_start
        else:
            steps.append(Step(int(mark["number"]), body, mark.start(), body_start))
    conclusions = sum(1 for mark in marks if mark["conclusion"])
    return Reasoning(tuple(steps), conclusion, conclusion_start, conclusion_text_start, conclusions)


def extract_answer(text: str) -> str | None:
    """What follows the last "Conclusion:"; None without one.

    >>> extract_answer("Step 1: Both are from Ohio. Conclusion: No")
    'No'
    """
    return parse_reasoning(text).conclusion


@dataclass(frozen=True)
class Grade:
    """How an answer compares with the gold one."""

    score: float
    """1 or 0 for labels; token F1 for free text, 0 where it stays below the threshold."""
    correct: bool
    answer: str | None
    """The text that was graded; None when the completion gives no answer."""
    reason: Literal["match", "no answer", "mismatch", "hedged", "contradicted", "below threshold"]


def grade_answer(
    text: str,
    reference: str,
    *,
    mode: MatchMode = "auto",
    threshold: float = 0.5,
    labels: Sequence[str] = (),
    answer_type: str | None = None,
) -> Grade:
    """Grade a completion, or a bare answer, against the gold answer.

    The answer is the body of the last "Conclusion:". A text without any marker is graded as a
    whole, since it can only earn by opening with the answer; one with steps but no conclusion gives
    no answer.

    ``exact`` asks which label the answer *commits* to: "Yes", "**yes**.", "Yes, because …" and "The
    answer is Yes" are Yes. Hedges, two answers, a later change of mind, and a label that only
    occurs inside another ("not hearsay", "unenforceable") are wrong. ``labels`` names the task's
    labels, so that a change to any of them is seen; Yes/No, True/False and letters need no naming.

    ``overlap`` is the F1 over word tokens of SQuAD (arXiv 1606.05250 §6.1), 0 below ``threshold``.
    Polarity comes first: a contradiction scores 0 however many words agree.

    ``auto`` is ``exact`` for references of at most `LABEL_WORDS` words, and ``overlap`` else.

    Where ``answer_type`` is `MULTILABEL`, whatever the mode, the answer must name exactly those of
    ``labels`` that the reference names ("trespass, battery", "Battery and trespass."), in any order
    and with nothing else but filler. Any other type is graded as above.

    Raises `ValueError` for an empty reference, or a list of labels in which some is not offered.
    """
    if not reference.strip():
        raise ValueError("grade_answer needs a reference; without one there is nothing to compare")
    reasoning = parse_reasoning(text)
    answer = text.strip() if not reasoning.boundaries else reasoning.conclusion
    if not answer:
        return Grade(0.0, False, answer, "no answer")
    if answer_type == MULTILABEL:
        reason = _list_commitment(answer, reference, labels)
        return Grade(float(reason == "match"), reason == "match", answer, reason)
    got, gold = normalise(answer), normalise(reference)
    if got == gold:
        return Grade(1.0, True, answer, "match")
    if not _WORD.search(got):
        return Grade(0.0, False, answer, "no answer")
    if mode == "exact" or (mode == "auto" and (labels or len(_WORD.findall(gold)) <= LABEL_WORDS)):
        reason = _commitment(got, gold, tuple(normalise(label) for label in labels))
        return Grade(float(reason == "match"), reason == "match", answer, reason)
    if contradict(got, gold):
        return Grade(0.0, False, answer, "contradicted")
    score = _token_f1(got, gold)
    if score < threshold:
        return Grade(0.0, False, answer, "below threshold")
    return Grade(score, True, answer, "match")


# --- labels --------------------------------------------------------------------------------------

_REASON = r"(?:because|since|as|given|under|for|due|but|so|therefore|when|where|pursuant)\b"
# What follows a label that stands for itself: punctuation (neither "?" nor "/"), or its reasons.
_STOP = rf"\s*(?:$|[.,](?!\d)|[;:!)\]}}\n\"'<\u2014\u2013-]|{_REASON})"
_SUBJECT = r"(?:answer|label|conclusion|classification|category|class|choice|option|boxed)"
_ANNOUNCE = (
    rf"\b{_SUBJECT}\b(?:\s+(?:to|for|of)\s[^.;:!?\n]{{1,80}}?)?\s*"
    r"(?:\b(?:is|was|(?:would|should|must)\s+be)\b|[:={>])\W{0,8}"
)
# What may come before the label: "Therefore, the answer is", "Final answer:", "Option".
_LEAD = (
    r"\W{0,16}(?:(?:so|therefore|thus|hence|accordingly|consequently|finally|overall|"
    r"in (?:conclusion|sum|short))\b\W{0,4})?(?:(?:the|my|our)\s+)?"
    rf"(?:(?:final|correct|right|best|short)\s+)?(?:{_ANNOUNCE})?(?:{_SUBJECT}\W{{1,4}})?"
)
_COPULA = r"(?:[^.;:!?\n]{0,120}?\b(?:is|are|was|were|be|as)\s+(?:an?\s+|the\s+)?[\"'($]{0,2})?"
_EDGE = r"\b"
_PREFIX = r"(?:non|un|in|il|im|ir)"
_NOT_A = r"\b(?:not|never|nor|neither|no\s+longer)\s+(?:an?\s+|the\s+)?"
_DOUBT = re.compile(
    r"\b(?:not|never|no|neither|nor|false|untrue|if|whether|unless|may|might|could|maybe|perhaps|"
    r"possibly|either|doubt|doubtful|hardly|unlikely|fails?|lacks?|but|yet|however|rather|instead)\b"
)
_HEDGE = re.compile(
    r"\b(?:it (?:all )?depends|can not (?:be determined|say|tell)|not (?:sure|certain)|unsure|"
    r"either way|hard to say)\b"
)
_HEDGE_NEXT = re.compile(
    r"\W*(?:or|nor|if|unless|depending|sometimes|partly)\b"
    r"|\s+(?:is|was|would|may|might|could|can|should)\b"
    rf"|(?:(?!{_REASON})[^.;!?\n])*?\b(?:maybe|perhaps|possibly|depends|unclear|uncertain)\b"
)
_LIST_HEDGE = re.compile(
    r"\b(?:or|either|maybe|perhaps|possibly|probably|likely|may|might|could|unclear|uncertain)\b"
)
# Possessive repetitions: a model may emit a hundred short lines, and each would double the work.
_LIST = re.compile(
    r"(?:(?=\s*[,;.\n])\s*+[,;.]?+\s*+(?:(?:or|and)\s+(?=\w))?+\w++)+\W*"
    r"|(?:(?=\s*[,;\n])\s*+[,;]?+\s*+\w++(?:[^\S\n]\w++){0,2}+)+\W*"
)
_TURN = r"(?:or|and|but|yet|though|although|however|rather|instead|probably|perhaps|maybe)"
_PAIRS = (frozenset({"yes", "no"}), frozenset({"true", "false"}))
_LETTERS = frozenset("abcdefghij")


def _commitment(
    answer: str, gold: str, labels: Sequence[str]
) -> Literal["match", "mismatch", "hedged", "contradicted"]:
    """Whether a normalised answer commits to the label ``gold``, and to nothing else."""
    opening = _opening(gold).match(answer)
    if opening is None or _DOUBT.search(answer, 0, opening.start("label")):
        return "mismatch"
    rest = answer[opening.end() :]
    if _HEDGE.search(answer) or _HEDGE_NEXT.match(rest):
        return "hedged"
    if _denial(gold).search(rest):
        return "contradicted"
    rivals = {label for label in labels if label != gold}
    for family in (*_PAIRS, _LETTERS):
        rivals |= family - {gold} if gold in family else set()
    if rivals:
        claim = _rival_claim(frozenset(rivals))
        before = f". {answer[: opening.start('label')]}"
        return "contradicted" if claim.search(before) or claim.search(rest) else "match"
    # Nobody named the other labels: what is listed or announced besides may be one.
    if _LIST.fullmatch(rest) and not re.match(rf"\W*{_REASON}", rest):
        return "hedged"
    ends = (mark.end() for mark in re.finditer(_ANNOUNCE, rest))
    agree = all(re.match(_label(gold), rest[end:]) for end in ends)
    return "match" if agree else "contradicted"


def _list_commitment(
    answer: str, reference: str, labels: Sequence[str]
) -> Literal["match", "mismatch", "hedged", "contradicted"]:
    """Whether an answer commits to the labels that the reference lists, and to no other."""
    gold = read_labels(reference, labels)
    if gold is None:
        raise ValueError(
            f"the reference {reference!r} is no list of the labels {', '.join(labels) or '(none)'};"
            " separate them by commas, and give every answer that the question offers as labels"
        )
    named, got = read_labels(answer, labels), normalise(answer)
    if named is not None:
        return "match" if named == gold else "mismatch"
    if _HEDGE.search(got) or _LIST_HEDGE.search(got):
        return "hedged"
    denied = any(_denial(normalise(label)).search(got) for label in labels)
    return "contradicted" if denied else "mismatch"


@lru_cache(maxsize=1024)
def _label(label: str) -> str:
    """Pattern of a label: its words, whatever stands between them; "not x" is also "un-x"."""
    words = _WORD.findall(label) or [label]
    plain = _EDGE + r"\W+".join(map(re.escape, words)) + _EDGE
    base = _denied_word(label)
    return rf"(?:{plain}|{_NOT_A}{base}\b|\b{_PREFIX}{base}\b)" if base else plain


def _denied_word(label: str) -> str | None:
    """What "not enforceable" and "unenforceable" deny; None for any other label."""
    negated = re.fullmatch(rf"{_NOT_A}([a-z]+)", label)
    return negated[1] if negated else denied_word(label)


@lru_cache(maxsize=1024)
def _opening(gold: str) -> re.Pattern[str]:
    """An answer that opens with the label, or with a sentence that ends in it."""
    follows = {
        "yes": r"(?!\s*[?/])",  # "Yes there is" commits too,
        # "No it is not" as well, but neither "No state is shared" nor "No. 5".
        "no": rf"(?!\.?\s*\d)(?={_STOP}|\s+(?:there|it|this|that|they|he|she|we|i|the)\b)",
    }
    follow = follows.get(gold, rf"(?={_STOP})")
    return re.compile(rf"{_LEAD}{_COPULA}(?P<label>{_label(gold)}){follow}")


@lru_cache(maxsize=1024)
def _denial(gold: str) -> re.Pattern[str]:
    """The label taken back: "not hearsay"; for the label "not hearsay", "is hearsay"."""
    base = _denied_word(gold)
    if base:
        return re.compile(rf"\b(?:is|are|was|were|be)\s+(?:an?\s+|the\s+)?{base}\b")
    if len(gold) == 1:  # "not a" is an article more often than label A
        return re.compile(r"(?!)")
    return re.compile(rf"{_NOT_A}{_label(gold)}|\b{_PREFIX}{_label(gold).removeprefix(_EDGE)}")


@lru_cache(maxsize=1024)
def _rival_claim(rivals: frozenset[str]) -> re.Pattern[str]:
    """Another label of the task, where a text commits to it."""
    either = "|".join(sorted(map(_label, rivals), key=len, reverse=True))
    if any(rivals < pair for pair in _PAIRS):  # not "No. 5", nor "no state"
        return re.compile(rf"(?:{either})(?!\.?\s*\d)(?={_STOP}|\s*(?:and|or|if)\b)")
    start = rf"(?:[.,;:/&!?)\n\u2014\u2013-]|\b{_TURN}\b|{_ANNOUNCE})"
    return re.compile(rf"{start}{_LEAD}{_COPULA}(?:{either})(?={_STOP})")


def _token_f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall over word tokens, articles left out; in [0, 1]."""
    vocabulary = vocabulary_of(answer, gold)
    said, meant = (
        Counter(word for clause in clauses(text, vocabulary) for word in clause)
        for text in (answer, gold)
    )
    for article in ("a", "an", "the"):
        del said[article], meant[article]
    common = (said & meant).total()
    return 2 * common / (said.total() + meant.total()) if common else 0.0
