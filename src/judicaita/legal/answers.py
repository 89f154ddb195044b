"""Reading a completion: its steps, its conclusion, and whether that conclusion is the gold answer.

The format is the guide's: ``Step 1: … Step 2: … Conclusion: …``, on lines of their own or in one
paragraph, in plain text or with Markdown emphasis. Everything that needs to know where a step
begins (the format reward, discounting per step, explained traces) asks `parse_reasoning`;
everything that needs to know whether an answer is right (rewards, evaluation) asks `grade_answer`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from judicaita.legal.amounts import NUMBERS
from judicaita.legal.commitment import amount_verdict, date_verdict
from judicaita.legal.contrasts import conflicts
from judicaita.legal.extraction import name_verdict, names_score, term_verdict
from judicaita.legal.labels import Verdict, commitment, list_commitment
from judicaita.legal.lexicon import stem
from judicaita.legal.normal_form import WORD, legible, normalise
from judicaita.legal.reading import words_of_pair

MatchMode = Literal["auto", "exact", "overlap"]

MULTILABEL = "multilabel"
"""The answer type of a question whose answer lists any number of its labels."""

ANSWER_TYPES = {
    **dict.fromkeys(("yes_no", "binary_yes_no", "binary_other", "multiclass"), "label"),
    MULTILABEL: MULTILABEL,
    **dict.fromkeys(("numeric", "dollars", "percentage"), "numeric"),
    "date": "date",
    "extraction": "extraction",
    "extraction_list": "extraction_list",
    "free_text_short": "free_text_short",
    "free_text": "free_text",
}
"""Each known answer type, LegalBench's names among them, and how its answers are read."""

_READERS: dict[str, Callable[[str, str], Verdict]] = {
    "numeric": amount_verdict,
    "date": date_verdict,
    "extraction": term_verdict,
    "free_text_short": name_verdict,
}

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
    """1 or 0 for labels, amounts, dates and terms; F1 for lists of names and free text, 0 where it
    stays below the threshold."""
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
    whole; one with steps but no conclusion gives no answer.

    ``auto`` grades by ``answer_type``, one of `ANSWER_TYPES`. Without a type, or with another one,
    references of at most `LABEL_WORDS` words and those of a task with ``labels`` are labels, and
    any longer ones free text.

    ``exact`` asks which label the answer *commits* to: "Yes", "**yes**.", "Yes, because …", "The
    answer is Yes" and "…, so the answer is yes" are Yes. Hedges, two answers, a later change of
    mind, and a label that only occurs inside another ("not hearsay", "unenforceable") are wrong.
    ``labels`` names the task's labels, so that a change to any of them is seen; Yes/No, True/False
    and letters need no naming.

    ``overlap`` is the F1 of SQuAD (arXiv 1606.05250 §6.1) over words, here stems, 0 below
    ``threshold``. A contradiction (`contrasts.conflicts`) scores 0 however many words agree.

    Where ``answer_type`` is `MULTILABEL`, whatever the mode, the answer must name exactly those of
    ``labels`` that the reference names ("trespass, battery", "Battery and trespass."), in any
    order; sentences before or after may explain, naming no label.

    Raises `ValueError` for an empty reference, a list of labels in which some is not offered, and
    an amount or date that cannot be read in the reference.
    """
    if not reference.strip():
        raise ValueError("grade_answer needs a reference; without one there is nothing to compare")
    reasoning = parse_reasoning(text)
    answer = text.strip() if not reasoning.boundaries else reasoning.conclusion
    if not answer:
        return Grade(0.0, False, answer, "no answer")
    said = unwrap(legible(answer))
    kind = _kind(mode, answer_type, reference, labels)
    if kind == MULTILABEL:
        return _judged(answer, list_commitment(said, reference, labels))
    got, gold = normalise(said), normalise(reference)
    if got == gold:
        return Grade(1.0, True, answer, "match")
    if not _WORD.search(got):
        return Grade(0.0, False, answer, "no answer")
    if kind == "label":
        return _judged(answer, commitment(got, gold, tuple(map(normalise, labels))))
    if kind in _READERS:
        return _judged(answer, _READERS[kind](said, legible(reference)))
    if kind == "extraction_list":
        return _scored(answer, names_score(said, legible(reference)), threshold)
    score = _token_f1(got, gold)
    if score >= threshold and conflicts(got, gold, said, legible(reference)):
        return Grade(0.0, False, answer, "contradicted")
    return _scored(answer, score, threshold)


_LATEX = re.compile(r"\\(?:text(?:bf|it|rm|tt)?|math(?:bf|rm|sf)|emph)\s*\{([^{}]*)\}")
_BOX = re.compile(r"\$*\s*\\(?:boxed|fbox)\s*\{([^{}]*)\}\s*\$*")
_MATHS = re.compile(r"\\[()\[\]]|\\(?=[$%])|\\[,;!]")
_TAG = re.compile(r"<(/?)\w{1,20}>")


def unwrap(text: str) -> str:
    r"""The text without LaTeX around words, and with boxes and tags as announcements.

    >>> unwrap(r"$\boxed{\text{Yes}}$"), unwrap("<answer>Yes</answer>")
    ('answer: Yes', 'answer: Yes')
    """
    if "\\" in text:
        text = _MATHS.sub("", _LATEX.sub(r"\1", text))
        text = _BOX.sub(r"answer: \1", text)
    if "<" in text:
        text = _TAG.sub(lambda tag: "" if tag[1] else "answer: ", text)
    return text


def _kind(mode: MatchMode, answer_type: str | None, reference: str, labels: Sequence[str]) -> str:
    """ "label", "free_text", or the answer type where it has a way of its own."""
    if answer_type == MULTILABEL:
        return MULTILABEL
    if mode != "auto":
        return "label" if mode == "exact" else "free_text"
    if kind := ANSWER_TYPES.get(answer_type or ""):
        return kind
    is_short = len(_WORD.findall(normalise(reference))) <= LABEL_WORDS
    return "label" if labels or is_short else "free_text"


def _judged(answer: str, verdict: Verdict) -> Grade:
    return Grade(float(verdict == "match"), verdict == "match", answer, verdict)


def _scored(answer: str, score: float, threshold: float) -> Grade:
    if score < threshold:
        return Grade(0.0, False, answer, "below threshold")
    return Grade(score, True, answer, "match")


@lru_cache(maxsize=1 << 16)
def _key(word: str) -> str:
    """The stem of a word, and figures for "five"."""
    return NUMBERS.get(word) or stem(word)


def _token_f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall over stems of words, articles left out; in [0, 1]."""
    said, meant = (Counter(map(_key, words)) for words in words_of_pair(answer, gold))
    for article in ("a", "an", "the"):
        del said[article], meant[article]
    common = sum(min(count, said[word]) for word, count in meant.items())
    return 2 * common / (said.total() + meant.total()) if common else 0.0
