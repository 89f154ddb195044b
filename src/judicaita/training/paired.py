"""Two models on the same samples: what differs, and whether chance could have made it.

Only samples that both have tell the two apart, and of these only the discordant ones, which one
gets right and the other wrong. Every difference is the second's figure minus the first's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from judicaita.legal.legalbench.averages import Estimate, draw_counts, scores_of
from judicaita.legal.legalbench.scoring import Outcome, summarise

if TYPE_CHECKING:
    import numpy as np

    Draws = np.ndarray[Any, np.dtype[Any]]

CONFIDENCE = 0.95
RESAMPLES = 10_000
"""Of differences of shares; the percentiles then move by less than 0.001 from seed to seed."""
SEED = 0


@dataclass(frozen=True)
class PairedShares:
    """Right answers of two models, A and B, on the same samples."""

    both: int
    """Samples that both get right; below, those that one alone does."""
    only_a: int
    only_b: int
    neither: int
    difference: Estimate
    """B's share of right answers minus A's, with its paired bootstrap interval."""
    p_value: float
    """Of McNemar's exact test (`mcnemar`)."""

    @property
    def samples(self) -> int:
        """Of which both have a verdict."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def a(self) -> float:
        """A's share of right answers."""
        return (self.both + self.only_a) / self.samples

    @property
    def b(self) -> float:
        """B's."""
        return (self.both + self.only_b) / self.samples


def compare_shares(a: Sequence[bool], b: Sequence[bool]) -> PairedShares:
    """Verdicts on the same samples in the same order, at least one.

    The interval is a percentile bootstrap (Efron & Tibshirani 1993, §13.3) over pairs: a drawn
    sample brings both its verdicts. It depends on how many pairs are of each kind, not on their
    order.
    """
    import numpy as np

    counts = Counter(zip(a, b, strict=True))
    both, only_a = counts[True, True], counts[True, False]
    only_b, neither = counts[False, True], counts[False, False]
    drawn_R_C = draw_counts([only_a, only_b, both + neither], "", RESAMPLES, SEED)
    draws = (drawn_R_C[:, 1] - drawn_R_C[:, 0]) / len(a)
    difference = interval((only_b - only_a) / len(a), np.asarray(draws))
    return PairedShares(both, only_a, only_b, neither, difference, mcnemar(only_a, only_b))


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p of the exact test (McNemar 1947; binomial form, Fagerland et al. 2013, §2.2).

    If neither model is better, each discordant sample is A's with probability 1/2, so with n of
    them p = min(1, 2 · P(X ≤ min(only_a, only_b))), X ~ Binomial(n, 1/2). 1 without any.
    """
    n = only_a + only_b
    term = tail = 1
    for k in range(1, min(only_a, only_b) + 1):
        term = term * (n - k + 1) // k  # n over k, in whole numbers
        tail += term
    return min(1.0, float(Fraction(2 * tail, 2**n)))


def score_differences(
    task: str, a: Sequence[Outcome], b: Sequence[Outcome], resamples: int
) -> tuple[float, float, Draws]:
    """LegalBench's score of A, that of B, and B's minus A's in each resample of a task, [R].

    The outcomes are of the same samples in the same order, and are drawn in pairs.
    """
    cells = sorted(Counter(zip(a, b, strict=True)).items())
    counts_R_C = draw_counts([count for _, count in cells], task, resamples, SEED)
    drawn_a, drawn_b = (scores_of([pair[side] for pair, _ in cells], counts_R_C) for side in (0, 1))
    return summarise(a), summarise(b), drawn_b - drawn_a


def interval(value: float, draws: Draws) -> Estimate:
    """A figure with the percentiles of its draws."""
    import numpy as np

    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))
