"""What a reader gets right without reasoning: the figures to hold any learnt accuracy against."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from judicaita.errors import DataError
from judicaita.types import Sample


def best_single_factor(samples: Sequence[Sample]) -> tuple[str, float]:
    """The boolean fact that alone predicts the reference best, and its accuracy in [0, 1].

    For each value of a fact the commonest reference is predicted; the rule is fitted on the very
    samples it is scored on, so the figure is an upper bound for one-factor rules. A fact counts
    when it is a bool in every sample.
    """
    if not samples:
        raise DataError("No samples: a baseline needs at least one.")
    factors = [
        name
        for name in samples[0].facts
        if all(isinstance(sample.facts.get(name), bool) for sample in samples)
    ]
    if not factors:
        raise DataError(
            "The samples share no boolean fact: a single-factor baseline needs at least one, "
            "such as 'aic_is_met'."
        )
    return max(((name, _accuracy(name, samples)) for name in factors), key=lambda pair: pair[1])


def _accuracy(factor: str, samples: Sequence[Sample]) -> float:
    references: defaultdict[bool, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        references[sample.facts[factor]][sample.reference] += 1
    right = sum(counts.most_common(1)[0][1] for counts in references.values())
    return right / len(samples)
