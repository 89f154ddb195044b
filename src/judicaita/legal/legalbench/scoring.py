"""What LegalBench's own evaluation gives for a set of answers, its known defects included.

Upstream compares whole strings: punctuation (ASCII) is deleted, white space at both ends is cut,
letters become small ones. So "**Yes**." is Yes, and neither "Yes, because …" nor “Yes” in curly
quotes is. `corrected_score` (`judicaita.legal.legalbench.corrected`) is what a reader would expect
instead; only the official score compares with published ones of this scheme.

A score is computed from one `Outcome` a sample, and so it can be resampled.
"""

from __future__ import annotations

import re
import string
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from judicaita.errors import DataError
from judicaita.legal.legalbench.registry import Metric, Task, get_task


class Hit(NamedTuple):
    """Whether a sample is right, and which of the gold classes it belongs to."""

    group: str
    """The class whose recall it enters; the same for all where the score is a share of samples."""
    right: bool


class Matches(NamedTuple):
    """What one sample adds to a micro-averaged F1."""

    true_positives: int
    false_positives: int
    false_negatives: int


Outcome = Hit | Matches
"""What a score is made of; all outcomes of a set are of one kind."""


def official_score(task: str, generations: Sequence[str], answers: Sequence[str]) -> float:
    """The score in [0, 1] that upstream's evaluation gives to these generations.

    ==================  ========================================================================
    balanced_accuracy   Mean over the gold classes of the share of their samples whose
                        generation is that string, normalised. Anything else is a miss.
    within_tenth        (sara_numeric) Commas and full stops are deleted, and the first run of
                        digits counts, 0 without one: ``$1,234.00`` is 123400. Right where
                        abs(p / (g + 0.1) − 1) < 0.1, which nothing is for a gold answer of 0.
    containment         (citation_prediction_open) The normalised gold answer occurs in the
                        generation.
    stemmed_part        (definition_extraction) Some part between commas equals some part of the
                        gold answer, each stemmed whole by nltk's Porter stemmer.
    micro_f1            (ssla_*) Parts between commas. Each gold part takes the first generated
                        part that contains it; *after each gold part* the generated parts left
                        are counted as false positives. A perfect list of four names has F1 4/7.
    ==================  ========================================================================

    successor_liability counts as balanced accuracy over its whole strings: upstream never reaches
    its own F1 of it. Raises `DataError` for an unknown task, for rule_qa (judged by hand), for an
    empty set and for lists of different lengths.
    """
    known = check_set(task, generations, answers)
    if known.metric == "balanced_accuracy":
        return _balanced_accuracy(
            [plain(answer) for answer in answers], [plain(text) for text in generations]
        )
    return summarise(official_outcomes(task, generations, answers))


def official_outcomes(
    task: str, generations: Sequence[str], answers: Sequence[str]
) -> list[Outcome]:
    """What each sample adds to `official_score`, in order; the same errors."""
    outcome = _OFFICIAL[check_set(task, generations, answers).metric]
    return [
        outcome(generation, answer) for generation, answer in zip(generations, answers, strict=True)
    ]


def summarise(outcomes: Iterable[Outcome]) -> float:
    """The score of these outcomes: macro recall over the groups of hits, or F1 over matches."""
    groups: dict[str, list[bool]] = {}
    counts = [0, 0, 0]
    for outcome in outcomes:
        if isinstance(outcome, Hit):
            groups.setdefault(outcome.group, []).append(outcome.right)
        else:
            counts = [total + more for total, more in zip(counts, outcome, strict=True)]
    if groups:
        return sum(sum(rights) / len(rights) for rights in groups.values()) / len(groups)
    hits, extra, missed = counts
    # Without a hit, and so perhaps without anything named at all, there is nothing earned.
    return 2 * hits / (2 * hits + extra + missed) if hits else 0.0


def check_scorable(tasks: Iterable[str]) -> None:
    """Refuse what could not be scored after hours of generation, before they are spent.

    Raises `DataError` for unknown tasks, for rule_qa, and where nltk is needed and missing.
    """
    for name in tasks:
        task = get_task(name)
        if task.metric == "manual":
            raise DataError(
                f"{name} is judged by hand upstream, so there is no score to compute: leave it "
                "out, or judge its free answers yourself."
            )
        if task.metric == "stemmed_part" and find_spec("nltk") is None:
            raise DataError(
                f"{name} is scored with nltk's Porter stemmer, which is not installed: "
                "pip install 'judicaita[eval]', or leave the task out."
            )


def check_set(task: str, generations: Sequence[str], answers: Sequence[str]) -> Task:
    """The task, where it can be scored and there is one generation for each gold answer."""
    check_scorable([task])
    if len(generations) != len(answers):
        raise DataError(
            f"{task}: {len(generations)} generations for {len(answers)} gold answers; give one "
            "for each, in the same order."
        )
    if not answers:
        raise DataError(f"{task}: an empty set has no score; give at least one sample.")
    return get_task(task)


# --- text ----------------------------------------------------------------------------------------

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain(text: str) -> str:
    """A text as upstream compares it; inner white space and curly quotes stay."""
    return str(text).translate(_PUNCTUATION).strip().lower()


@lru_cache(maxsize=16_384)
def stemmed(text: str) -> str:
    """The same, then stemmed as if the whole text were one word."""
    stem: str = _stemmer()(plain(text))
    return stem


@lru_cache(maxsize=1)
def _stemmer() -> Callable[[str], str]:
    stem: Callable[[str], str] = import_module("nltk.stem.porter").PorterStemmer().stem
    return stem


def same_part(generation: str, answer: str) -> bool:
    """Whether some part between commas of the one is some part of the other, both stemmed."""
    parts = {stemmed(part) for part in generation.split(",")}
    return not parts.isdisjoint(stemmed(part) for part in answer.split(","))


# --- metrics -------------------------------------------------------------------------------------


def _balanced_accuracy(gold: Sequence[str], said: Sequence[str]) -> float:
    from sklearn.metrics import balanced_accuracy_score

    with warnings.catch_warnings():
        # Of answers that are no gold class, of many classes and of a single one: all are misses or
        # hits like any other here.
        warnings.simplefilter("ignore", UserWarning)
        return float(balanced_accuracy_score(gold, said))


def _exact(generation: str, answer: str) -> Outcome:
    gold = plain(answer)
    return Hit(gold, plain(generation) == gold)


def _contained(generation: str, answer: str) -> Outcome:
    return Hit("", plain(answer) in plain(generation))


def _stemmed_part(generation: str, answer: str) -> Outcome:
    return Hit("", same_part(generation, answer))


_DIGITS = re.compile(r"\d+")


def _first_digits(text: str) -> float:
    found = _DIGITS.search(text.replace(",", "").replace(".", ""))
    return float(found[0]) if found else 0.0


def _within_tenth(generation: str, answer: str) -> Outcome:
    said, gold = _first_digits(generation), _first_digits(answer)
    return Hit("", abs(said / (gold + 0.1) - 1) < 0.1)


def _names(generation: str, answer: str) -> Outcome:
    left = [plain(part) for part in generation.split(",")]
    hits = extra = missed = 0
    for gold in (plain(part) for part in answer.split(",")):
        found = next((number for number, part in enumerate(left) if gold in part), None)
        if found is None:
            missed += 1
        else:
            hits += 1
            del left[found]
        extra += len(left)  # upstream's defect: once for each gold part, not once for the sample
    return Matches(hits, extra, missed)


_OFFICIAL: dict[Metric, Callable[[str, str], Outcome]] = {
    "balanced_accuracy": _exact,
    "within_tenth": _within_tenth,
    "containment": _contained,
    "stemmed_part": _stemmed_part,
    "micro_f1": _names,
}
