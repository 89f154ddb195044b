"""What a reader gets right without reasoning: the figures to hold any learnt accuracy against.

Two kinds of reader. One looks at one or two of the boolean facts that `Sample.facts` records (a
factor; None or no entry where the fact is missing, which is a value like any other) and predicts
the commonest reference of what it sees; it is fitted on the very samples it is scored on, so that
its accuracy is an upper bound. The other weighs the words of the question, whatever their order,
and is scored on other questions than it learnt from.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence

from judicaita.errors import DataError
from judicaita.types import Sample


def best_single_factor(samples: Sequence[Sample]) -> tuple[str, float]:
    """The boolean fact that alone predicts the reference best, and its accuracy in [0, 1].

    A fact counts when it is True, False or missing in every sample, and not missing in all.
    """
    (name,), accuracy = _best(samples, 1)
    return name, accuracy


def best_two_factors(samples: Sequence[Sample]) -> tuple[tuple[str, str], float]:
    """The two boolean facts that together predict the reference best, and their accuracy.

    A `DataError` where fewer than two facts count; see `best_single_factor`.
    """
    (one, other), accuracy = _best(samples, 2)
    return (one, other), accuracy


def best_factors(samples: Sequence[Sample], size: int = 1) -> float:
    """The accuracy in [0, 1] of the best rule of ``size`` factors, each family having its own.

    Samples are grouped by the family that their facts name, since factors differ between families;
    what is right is counted over all of them. A family with fewer factors than ``size`` uses all.
    """
    if size < 1:
        raise DataError(f"size={size}: a rule needs at least one factor. Set size >= 1.")
    families: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        families[str(sample.facts.get("family", ""))].append(sample)
    if not families:
        raise DataError("No samples: a baseline needs at least one.")
    right = 0.0
    for members in families.values():
        right += len(members) * _best(members, min(size, len(_factors(members))))[1]
    return right / len(samples)


def bag_of_words(train: Sequence[Sample], held_out: Sequence[Sample]) -> float:
    """The accuracy in [0, 1] on ``held_out`` of a logistic regression over counts of words.

    Fitted on the prompts and references of ``train`` alone. What it gets right beyond the share of
    the commonest answer needs no understanding of who did what.
    """
    # scikit-learn takes a second to import, and nothing else here needs it.
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    if not held_out:
        raise DataError("No held-out samples: an accuracy needs at least one.")
    references = [sample.reference for sample in train]
    if len(set(references)) < 2:
        raise DataError(
            f"The {len(train)} training samples have fewer than two different references: a "
            "classifier needs two. Draw more samples."
        )
    # "I", "a" and single digits are words, too.
    counts = CountVectorizer(token_pattern=r"(?u)\w+")
    features = counts.fit_transform([str(sample.prompt) for sample in train])
    classifier = LogisticRegression(max_iter=1_000).fit(features, references)
    predicted = classifier.predict(counts.transform([str(s.prompt) for s in held_out]))
    pairs = zip(predicted, held_out, strict=True)
    return sum(bool(guess == sample.reference) for guess, sample in pairs) / len(held_out)


def _best(samples: Sequence[Sample], size: int) -> tuple[tuple[str, ...], float]:
    """The best rule of ``size`` factors; the first of equals."""
    if not samples:
        raise DataError("No samples: a baseline needs at least one.")
    factors = _factors(samples)
    if not factors:
        raise DataError(
            "The samples share no boolean fact: a single-factor baseline needs at least one, such "
            "as 'aic_is_met'."
        )
    if len(factors) < size:
        raise DataError(
            f"The samples share {len(factors)} boolean facts ({', '.join(factors)}): a rule of "
            f"{size} needs more. Ask for a smaller rule."
        )
    rules = itertools.combinations(factors, size)
    scored = ((names, _accuracy(names, samples)) for names in rules)
    return max(scored, key=lambda rule: rule[1])


def _factors(samples: Sequence[Sample]) -> list[str]:
    """Facts that are True, False or missing in every sample, in the order of their appearance."""
    names = dict.fromkeys(name for sample in samples for name in sample.facts)
    values = {name: {_kind(sample, name) for sample in samples} for name in names}
    return [name for name, kinds in values.items() if bool in kinds <= {bool, type(None)}]


def _kind(sample: Sample, name: str) -> type:
    return type(sample.facts.get(name))


def _accuracy(names: Sequence[str], samples: Sequence[Sample]) -> float:
    references: defaultdict[tuple[bool | None, ...], Counter[str]] = defaultdict(Counter)
    for sample in samples:
        references[tuple(sample.facts.get(name) for name in names)][sample.reference] += 1
    right = sum(counts.most_common(1)[0][1] for counts in references.values())
    return right / len(samples)
