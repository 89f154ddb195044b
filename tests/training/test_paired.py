"""Statistics of pairs: by hand, and against scipy."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from judicaita.legal.legalbench.scoring import Hit, Matches
from judicaita.training.paired import compare_shares, interval, mcnemar, score_differences


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (1, 1, 1.0),  # twice 3/4, cut at 1
        (0, 5, 2 / 32),
        (1, 5, 2 * (1 + 6) / 64),
        (2, 6, 2 * (1 + 8 + 28) / 256),
    ],
)
def test_mcnemar_by_hand(only_a, only_b, p):
    assert mcnemar(only_a, only_b) == p
    assert mcnemar(only_b, only_a) == p


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_against_scipy(only_a, only_b):
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_many_samples():
    # Mean 45,500, σ 150.8: the normal tail at −3.31, with the continuity of a half.
    assert mcnemar(45_000, 46_000) == pytest.approx(9.28e-4, rel=0.01)


def verdicts(both, only_a, only_b, neither):
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_shares_by_hand():
    pair = compare_shares(*verdicts(40, 5, 15, 40))
    assert (pair.both, pair.only_a, pair.only_b, pair.neither) == (40, 5, 15, 40)
    assert (pair.samples, pair.a, pair.b) == (100, 0.45, 0.55)
    assert pair.difference.value == pytest.approx(0.1)
    # σ² of the mean of +1 (0.15), −1 (0.05) and 0: (0.2 − 0.1²) / 100.
    sigma = (0.19 / 100) ** 0.5
    assert pair.difference.low == pytest.approx(0.1 - 1.96 * sigma, abs=0.011)
    assert pair.difference.high == pytest.approx(0.1 + 1.96 * sigma, abs=0.011)
    assert pair.p_value == binomtest(5, 20).pvalue


def test_pairs_tell_more_than_shares():
    """45 of 100 and 55 of 100: whether that is chance depends on which ones."""
    assert compare_shares(*verdicts(45, 0, 10, 45)).p_value == pytest.approx(2 / 1024)
    assert compare_shares(*verdicts(20, 25, 35, 20)).p_value > 0.2


def test_equal_answers():
    pair = compare_shares([True, False], [True, False])
    assert (pair.difference.low, pair.difference.value, pair.difference.high) == (0, 0, 0)
    assert pair.p_value == 1


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30), st.randoms())
def test_order_changes_nothing(pairs, rng):
    shuffled = list(pairs)
    rng.shuffle(shuffled)
    assert compare_shares(*zip(*pairs, strict=True)) == compare_shares(*zip(*shuffled, strict=True))


def test_the_interval_covers():
    """Of 200 experiments with a true difference of 0.1, about 95 % should."""
    rng = random.Random(0)
    covered = 0
    for _ in range(200):
        drawn = rng.choices([(1, 1), (1, 0), (0, 1), (0, 0)], [0.4, 0.1, 0.2, 0.3], k=150)
        found = compare_shares(*([bool(it) for it in side] for side in zip(*drawn, strict=True)))
        covered += found.difference.low <= 0.1 <= found.difference.high
    assert 182 <= covered <= 198  # 190, σ 3.1


def test_score_differences_by_hand():
    # Recalls of yes and no: A 1/2 and 1, B 1 and 0; both 3/4 and 1/2.
    gold = ["yes", "yes", "no"]
    a = [Hit(label, right) for label, right in zip(gold, (True, False, True), strict=True)]
    b = [Hit(label, right) for label, right in zip(gold, (True, True, False), strict=True)]
    score_a, score_b, draws = score_differences("hearsay", a, b, 500)
    assert (score_a, score_b) == (0.75, 0.5)
    assert draws.shape == (500,)
    assert -1 <= draws.min() < draws.max() <= 1
    # The same answers differ in no resample, however few they are.
    *scores, draws = score_differences("hearsay", a, a, 500)
    assert scores == [0.75, 0.75]
    assert not draws.any()


def test_f1_differences():
    a, b = [Matches(1, 1, 0), Matches(0, 0, 1)], [Matches(1, 0, 0), Matches(1, 0, 0)]
    score_a, score_b, draws = score_differences("ssla_plaintiff", a, b, 500)
    assert (score_a, score_b) == (0.5, 1.0)
    # Draws of A: twice the first 2/3, one of each 1/2, twice the second 0.
    assert {round(float(it), 6) for it in draws} == {round(1 / 3, 6), 0.5, 1.0}
    assert interval(0.5, draws).low == pytest.approx(1 / 3)
