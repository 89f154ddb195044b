"""The label that an answer commits to, and to nothing else.

Hedges, two answers, a later change of mind, and a label that only occurs inside another ("not
hearsay", "unenforceable") commit to none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from judicaita.legal.label_lists import read_labels
from judicaita.legal.normal_form import WORD, denied_word, normalise

Verdict = Literal["match", "mismatch", "hedged", "contradicted"]

_WORD = re.compile(WORD)

_REASON = r"(?:because|since|as|given|under|for|due|but|so|therefore|when|where|pursuant)\b"
# What follows a label that stands for itself: punctuation (neither "?" nor "/"), or its reasons.
_STOP = rf"\s*(?:$|[.,](?!\d)|[;:!)\]}}\n\"'<\u2014\u2013-]|{_REASON})"
_SUBJECT = r"(?:answer|label|conclusion|classification|category|class|choice|option|boxed)"
ANNOUNCE = (
    rf"\b{_SUBJECT}\b(?:\s+(?:to|for|of)\s[^.;:!?\n]{{1,80}}?)?\s*"
    r"(?:\b(?:is|was|(?:would|should|must)\s+be)\b|[:={>])\W{0,8}"
)
# What may come before the label: "Therefore, the answer is", "Final answer:", "Option".
LEAD = (
    r"\W{0,16}(?:(?:so|therefore|thus|hence|accordingly|consequently|finally|overall|"
    r"in (?:conclusion|sum|short))\b\W{0,4})?(?:(?:the|my|our)\s+)?"
    rf"(?:(?:final|correct|right|best|short)\s+)?(?:{ANNOUNCE})?(?:{_SUBJECT}\W{{1,4}})?"
)
_COPULA = r"(?:[^.;:!?\n]{0,120}?\b(?:is|are|was|were|be|as)\s+(?:an?\s+|the\s+)?[\"'($]{0,2})?"
_EDGE = r"\b"
_PREFIX = r"(?:non|un|in|il|im|ir)"
_NOT_A = r"\b(?:not|never|nor|neither|no\s+longer)\s+(?:an?\s+|the\s+)?"
_DOUBT = re.compile(
    r"\b(?:not|never|no|neither|nor|false|untrue|if|whether|unless|may|might|could|maybe|perhaps|"
    r"possibly|either|doubt|doubtful|hardly|unlikely|fails?|lacks?|but|yet|however|rather|instead)\b"
)
HEDGE = re.compile(
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
_LIST_LEAD = re.compile(
    r"^\W*(?:so|therefore|thus)?\W*the (?!no\b)[a-z ]{1,40}?\b(?:is|are|include)\b\W*"
)
# Possessive repetitions: a model may emit a hundred short lines, and each would double the work.
_LIST = re.compile(
    r"(?:(?=\s*[,;.\n])\s*+[,;.]?+\s*+(?:(?:or|and)\s+(?=\w))?+\w++)+\W*"
    r"|(?:(?=\s*[,;\n])\s*+[,;]?+\s*+\w++(?:[^\S\n]\w++){0,2}+)+\W*"
)
TURN = r"(?:or|and|but|yet|though|although|however|rather|instead|probably|perhaps|maybe)"
_CONDITIONAL = re.compile(
    r"\b(?:if|unless|whether|may|might|could|maybe|perhaps|possibly|either)\b"
)
# Where a last sentence may announce its label, and what has to stand before that.
_FINALLY = re.compile(
    rf"{ANNOUNCE}|\b(?P<so>so|therefore|thus|hence|accordingly|consequently|in conclusion)\b"
)
_BEFORE_ANNOUNCED = re.compile(
    r"[\s,.;:(>](?:(?:the|my|our)\s+)?(?:(?:final|correct|right|best|short)\s+)?$"
)
_BEFORE_SO = re.compile(r"[.;!?\n]\s*$")
_WINDOW = 24
"""Characters before "answer" within which "the final" stands."""
_PAIRS = (frozenset({"yes", "no"}), frozenset({"true", "false"}))
_LETTERS = frozenset("abcdefghij")


ALIASES = {
    "yes": r"affirmative",
    "no": r"negative",
    "ucc": r"u\.\s?c\.\s?c\.?|(?:the\s+)?uniform commercial code",
}
"""Other names of labels, as patterns of normalised text; none counts where it is a label itself."""


def commitment(answer: str, gold: str, labels: Sequence[str]) -> Verdict:
    """Whether a normalised answer commits to the label ``gold``, and to nothing else.

    It opens with the label, or gives its reasons first and then announces it ("…, so the answer is
    yes") or sets it on the last line. Reasons first are read only where the other labels are known.
    """
    for label in {gold, *labels} & ALIASES.keys():
        if ALIASES[label] not in labels:
            answer = re.sub(rf"\b(?:{ALIASES[label]})(?!\w)", label, answer)
    rivals = {label for label in labels if label != gold}
    for family in (*_PAIRS, _LETTERS):
        rivals |= family - {gold} if gold in family else set()
    verdict = _opens_with(answer, gold, frozenset(rivals))
    if verdict == "mismatch" and rivals and _ends_in(answer, gold, frozenset(rivals)):
        return "match"
    return verdict


def _opens_with(answer: str, gold: str, rivals: frozenset[str]) -> Verdict:
    opening = _opening(gold).match(answer)
    if opening is None or _DOUBT.search(answer, 0, opening.start("label")):
        return "mismatch"
    rest = answer[opening.end() :]
    if HEDGE.search(answer) or _HEDGE_NEXT.match(rest):
        return "hedged"
    if _denial(gold).search(rest):
        return "contradicted"
    if rivals:
        before = f". {answer[: opening.start('label')]}"
        return "contradicted" if _claims(rivals, before) or _claims(rivals, rest) else "match"
    # Nobody named the other labels: what is listed or announced besides may be one.
    if _LIST.fullmatch(rest) and not re.match(rf"\W*{_REASON}", rest):
        return "hedged"
    ends = (mark.end() for mark in re.finditer(ANNOUNCE, rest))
    agree = all(re.match(_label(gold), rest[end:]) for end in ends)
    return "match" if agree else "contradicted"


def _ends_in(answer: str, gold: str, rivals: frozenset[str]) -> bool:
    """Whether reasons that claim no label precede the label, announced or on a last line."""
    start = answer.rfind("\n") + 1
    for mark in _FINALLY.finditer(answer):
        lead = (_BEFORE_SO if mark["so"] else _BEFORE_ANNOUNCED).search(
            answer[max(mark.start() - _WINDOW, 0) : mark.start()]
        )
        if lead:
            start = max(start, mark.start() - len(lead[0].lstrip(" \n,.;:!?(>")))
    if not start or _opens_with(answer[start:], gold, rivals) != "match":
        return False
    before = answer[:start]
    sentence = re.split(r"[.;:!?\n]", before)[-1]
    clause = sentence.rsplit(",", 1)[-1]
    if _DOUBT.search(clause) or _CONDITIONAL.search(sentence) or HEDGE.search(before):
        return False
    return not _claims(rivals, f". {before}") and not _denial(gold).search(before)


def list_commitment(answer: str, reference: str, labels: Sequence[str]) -> Verdict:
    """Whether an answer commits to the labels that the reference lists, and to no other.

    The labels stand first, perhaps as a sentence; later sentences may explain them, naming none.
    """
    gold = read_labels(reference, labels)
    if gold is None:
        raise ValueError(
            f"the reference {reference!r} is no list of the labels {', '.join(labels) or '(none)'};"
            " separate them by commas, and give every answer that the question offers as labels"
        )
    named, got = read_labels(answer, labels), normalise(answer)
    if named is None and not _LIST_HEDGE.search(got):
        named = _list_beside_reasons(got, labels)
    if named is not None and not HEDGE.search(got):
        return "match" if named == gold else "mismatch"
    if HEDGE.search(got) or _LIST_HEDGE.search(got):
        return "hedged"
    denied = any(_denial(normalise(label)).search(got) for label in labels)
    return "contradicted" if denied else "mismatch"


def _list_beside_reasons(got: str, labels: Sequence[str]) -> frozenset[str] | None:
    """The labels of the sentences that name any, where each lists the same ones."""
    naming = _any_label(tuple(map(normalise, labels)))
    lists = {
        read_labels(_LIST_LEAD.sub("", part), labels)
        for part in re.split(r"[.\n]+", got)
        if naming.search(part)
    }
    return lists.pop() if len(lists) == 1 else None


@lru_cache(maxsize=1024)
def _any_label(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Any of some normalised labels."""
    return re.compile("|".join(map(_label, labels)))


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
    return re.compile(rf"{LEAD}{_COPULA}(?P<label>{_label(gold)}){follow}")


@lru_cache(maxsize=1024)
def _denial(gold: str) -> re.Pattern[str]:
    """The label taken back: "not hearsay"; for the label "not hearsay", "is hearsay"."""
    base = _denied_word(gold)
    if base:
        return re.compile(rf"\b(?:is|are|was|were|be)\s+(?:an?\s+|the\s+)?{base}\b")
    if len(gold) == 1:  # "not a" is an article more often than label A
        return re.compile(r"(?!)")
    return re.compile(rf"{_NOT_A}{_label(gold)}|\b{_PREFIX}{_label(gold).removeprefix(_EDGE)}")


def _claims(rivals: frozenset[str], text: str) -> bool:
    """Whether a text commits to one of these labels; most texts do not even hold one."""
    holds = _any_label(tuple(sorted(rivals))).search(text)
    return bool(holds and _rival_claim(rivals).search(text))


@lru_cache(maxsize=1024)
def _rival_claim(rivals: frozenset[str]) -> re.Pattern[str]:
    """Another label of the task, where a text commits to it."""
    either = "|".join(sorted(map(_label, rivals), key=len, reverse=True))
    if any(rivals < pair for pair in _PAIRS):  # not "No. 5", nor "no state"
        return re.compile(rf"(?:{either})(?!\.?\s*\d)(?={_STOP}|\s*(?:and|or|if)\b)")
    start = rf"(?:[.,;:/&!?)\n\u2014\u2013-]|\b{TURN}\b|{ANNOUNCE})"
    return re.compile(rf"{start}{LEAD}{_COPULA}(?:{either})(?={_STOP})")
