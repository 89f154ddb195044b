"""LegalBench's scores with their defects mended, under a name of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from judicaita.errors import DataError
from judicaita.legal.answers import grade_answer, parse_reasoning
from judicaita.legal.label_lists import read_labels
from judicaita.legal.legalbench.registry import Task
from judicaita.legal.legalbench.scoring import (
    Hit,
    Matches,
    Outcome,
    check_set,
    plain,
    same_part,
    summarise,
)


def corrected_score(task: str, generations: Sequence[str], answers: Sequence[str]) -> float:
    """What `official_score` is meant to measure, in [0, 1]. It does not compare with published
    scores.

    It differs in what is read: the body of the last "Conclusion:", or the whole text where there
    are neither steps nor a conclusion. Steps without a conclusion give no answer, which is a miss.
    And it differs in each metric:

    ==================  ========================================================================
    balanced_accuracy   Macro recall still, but `grade_answer` in mode ``exact`` says which label
                        the answer commits to: "Yes, because …", "The answer is Yes" and “Yes” are
                        Yes; a hedge, a second label and a denial are misses.
    within_tenth        (sara_numeric) The one amount that the answer gives, separators and cents
                        understood, within 10 % of the gold amount; for 0 it must be 0. Amounts in
                        dollars outrank bare numbers, percentages are none. No amount, or several
                        different ones, is a miss.
    containment         (citation_prediction_open) As upstream, within the answer.
    stemmed_part        (definition_extraction) As upstream, within the answer; and a part of the
                        gold answer that the answer commits to counts, as for a label.
    micro_f1            (ssla_*) Lists may read ``a, b`` or ``['a', 'b']``; "Inc." and the like
                        stay with their names, names count once, equal names are matched before
                        contained ones, and a gold name must occur in whole words. What is left
                        over counts as false positive once a sample: gold against gold is 1.
    successor_liability Micro-F1 over the sets of labels, where upstream compares whole strings: in
                        any order, and in either notation of a list.
    ==================  ========================================================================

    Raises `DataError` as `official_score` does, and for a gold answer that cannot be read.
    """
    return summarise(corrected_outcomes(task, generations, answers))


def corrected_outcomes(
    task: str, generations: Sequence[str], answers: Sequence[str]
) -> list[Outcome]:
    """What each sample adds to `corrected_score`, in order; the same errors."""
    known = check_set(task, generations, answers)
    outcome = _CORRECTED[corrected_metric(known)]
    outcomes = []
    for number, (generation, gold) in enumerate(zip(generations, answers, strict=True), start=1):
        if not plain(gold):
            raise DataError(f"{task}, sample {number}: its gold answer is empty. Fill it in.")
        answer = _answer(generation.translate(_STRAIGHT))
        outcomes.append(outcome(answer, gold.translate(_STRAIGHT), known))
    return outcomes


def corrected_metric(task: Task) -> str:
    """The metric that `corrected_score` gives for a task; upstream's but for one of them."""
    return "micro_f1_of_labels" if task.answer_type == "multilabel" else task.metric


_STRAIGHT = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'"})


def _answer(generation: str) -> str:
    reasoning = parse_reasoning(generation)
    return reasoning.conclusion or "" if reasoning.boundaries else generation.strip()


def _commits(answer: str, gold: str, labels: Sequence[str] = ()) -> bool:
    return bool(answer) and grade_answer(answer, gold, mode="exact", labels=labels).correct


# --- metrics -------------------------------------------------------------------------------------


def _label(answer: str, gold: str, task: Task) -> Outcome:
    return Hit(plain(gold), _commits(answer, gold, task.labels))


def _citation(answer: str, gold: str, _: Task) -> Outcome:
    return Hit("", plain(gold) in plain(answer))


def _definition(answer: str, gold: str, _: Task) -> Outcome:
    parts = [part.strip() for part in gold.split(",") if plain(part)]
    is_named = bool(answer) and same_part(answer, ",".join(parts))
    return Hit("", is_named or any(_commits(answer, part) for part in parts))


_AMOUNT = re.compile(
    r"""
    (?P<sign> [-\u2212]? ) (?P<before> \$ | \b usd \b )? \s?
    (?<! [\d.,] ) (?P<number> \d [\d,]*+ (?: \. \d++ )?+ )
    (?! \s*% ) (?P<after> \s* (?: dollars? | usd ) \b )?
    """,
    re.IGNORECASE | re.VERBOSE,
)


def _amount(text: str) -> float | None:
    """The one amount that a text gives; None without any, or with several."""
    marked: set[float] = set()  # as dollars
    bare: set[float] = set()
    for found in _AMOUNT.finditer(text):
        amount = float(found["number"].replace(",", "")) * (-1 if found["sign"] else 1)
        (marked if found["before"] or found["after"] else bare).add(amount)
    amounts = marked or bare
    return amounts.pop() if len(amounts) == 1 else None


def _money(answer: str, gold: str, task: Task) -> Outcome:
    said, meant = _amount(answer), _amount(gold)
    if meant is None:
        raise DataError(f"{task.name}: the gold answer {gold!r} is no amount such as $1,234.")
    return Hit("", said is not None and (said == meant or abs(said - meant) < 0.1 * abs(meant)))


_QUOTED = r"""(?:"([^"\n]*)"|'([^'\n]*)')"""
_LITERAL = re.compile(rf"\[\s*+(?:{_QUOTED}(?:\s*+,\s*+{_QUOTED})*+\s*+)?\]")
_SUFFIXES = frozenset(
    (
        *("inc", "incorporated", "corp", "corporation", "co", "company", "ltd", "limited"),
        *("llc", "llp", "lp", "plc", "sa", "ag", "nv", "na"),
        *("jr", "sr", "ii", "iii", "iv", "md", "phd", "esq"),
    )
)


def _items(text: str) -> list[str]:
    """The parts of a list: ``a, b``, ``['a', 'b']``, or one a line."""
    text = text.strip(' \t\n"`*.')
    if _LITERAL.fullmatch(text):
        return [one or other for one, other in re.findall(_QUOTED, text)]
    return re.split(r"[,;\n]", text)


def _named(text: str) -> list[str]:
    """The names in a list, normalised, each once: "Juniper Networks, Inc." is one."""
    names: list[str] = []
    for item in _items(text):
        name = " ".join(plain(item).split())
        if name in _SUFFIXES and names:
            names[-1] += f" {name}"
        elif name:
            names.append(name)
    return list(dict.fromkeys(names))


def _people(answer: str, gold: str, _: Task) -> Outcome:
    said, meant = _named(answer), _named(gold)
    left = [name for name in said if name not in meant]
    missed = [name for name in meant if name not in said]
    total = len(meant)
    for name in list(missed):
        if found := next((part for part in left if f" {name} " in f" {part} "), None):
            left.remove(found)
            missed.remove(name)
    return Matches(total - len(missed), len(left), len(missed))


def _exceptions(answer: str, gold: str, task: Task) -> Outcome:
    meant = read_labels(", ".join(_items(gold)), task.labels)
    if meant is None:
        raise DataError(
            f"{task.name}: the gold answer {gold!r} is no list of {', '.join(task.labels)}."
        )
    said = read_labels(", ".join(_items(answer)), task.labels)
    if said is None:  # more than labels: each part that is none counts against it
        said = frozenset(name for item in _items(answer) if (name := " ".join(plain(item).split())))
    return Matches(len(said & meant), len(said - meant), len(meant - said))


_CORRECTED: dict[str, Callable[[str, str, Task], Outcome]] = {
    "balanced_accuracy": _label,
    "within_tenth": _money,
    "containment": _citation,
    "stemmed_part": _definition,
    "micro_f1": _people,
    "micro_f1_of_labels": _exceptions,
}
