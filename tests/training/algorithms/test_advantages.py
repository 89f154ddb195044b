"""Group-relative advantages: numbers worked out by hand, in float64, and what must not matter."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from judicaita.training.algorithms.advantages import (
    AdvantageBound,
    AdvantageEstimator,
    BatchSigma,
    Centred,
    Clip,
    Decoupled,
    LeaveOneOut,
    MedianDeviation,
    NoBound,
    Rewards,
    Squash,
    Winsorise,
    ZScore,
    cancels,
    discount_per_step,
    outcome_advantages,
    overlong_penalty,
    spreads,
    step_advantages,
    step_returns,
)

PLENTY = settings(max_examples=60, deadline=None)
REWARDS = st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=2, max_size=8)


def rewards_of(*groups: list[float], parts: Any = None, weights: Any = None) -> Rewards:
    """Without parts, the total alone."""
    total = double([*groups])
    count, size = total.shape
    return Rewards(
        total,
        double(parts) if parts is not None else torch.zeros(count, 0, size, dtype=torch.float64),
        double(weights) if weights is not None else torch.zeros(count, 0, dtype=torch.float64),
    )


def advantages(
    *groups: list[float], tau: float = 1.0, estimator: Any = None, bound: Any = None
) -> list[list[float]]:
    found = outcome_advantages(rewards_of(*groups), estimator or ZScore(), tau, bound or NoBound())
    return found.tolist()


def double(rows: Any) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_by_hand() -> None:
    # [0, 0.25, 1, 0.75]: mean 0.5; squares 0.25 + 0.0625 + 0.25 + 0.0625 = 0.625, over G - 1 = 3.
    sigma = math.sqrt(0.625 / 3)  # 0.4564354645876384
    expected = [a / (0.4564354645876384 + 1e-4) for a in (-0.5, -0.25, 0.5, 0.25)]
    assert sigma == pytest.approx(0.4564354645876384, abs=1e-15)
    assert advantages([0, 0.25, 1, 0.75])[0] == pytest.approx(expected, abs=1e-15)
    # One winner of four: mean 0.25, squares 3/16 + 9/16 = 0.75, σ = 0.5.
    expected = [0.75 / 0.5001, *[-0.25 / 0.5001] * 3]
    assert advantages([1, 0, 0, 0])[0] == pytest.approx(expected, abs=1e-15)


def test_two_completions() -> None:
    # σ of [0, 1] with ddof 1 is √½; with ddof 0 it would be ½ and the advantages nearly ±1.
    half = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert advantages([0, 1])[0] == pytest.approx([-half, half], abs=1e-15)


def test_epsilon_is_added_to_sigma() -> None:
    # σ = 1e-4·√2/2 of the order of ε: half of the z-score is gone, and that is wanted.
    low, high = advantages([0, 1e-4])[0]
    assert high == pytest.approx(0.5e-4 / (1e-4 * math.sqrt(0.5) + 1e-4), abs=1e-12)
    assert low == -high


def test_groups_do_not_see_each_other() -> None:
    first, second = advantages([0, 1, 1], [0.2, 0.9, 0.4])
    assert first == pytest.approx(advantages([0, 1, 1])[0], abs=1e-14)
    assert second == pytest.approx(advantages([0.2, 0.9, 0.4])[0], abs=1e-14)


@pytest.mark.parametrize(("tau", "factor"), [(1.0, 1), (0.1, 10), (0.25, 4), (2.0, 0.5)])
def test_tau_divides(tau: float, factor: float) -> None:
    plain = advantages([0, 0.25, 1, 0.75])[0]
    scaled = advantages([0, 0.25, 1, 0.75], tau=tau)[0]
    assert scaled == pytest.approx([factor * a for a in plain], rel=1e-14)


def test_equal_rewards_carry_no_signal() -> None:
    noisy = [0.1 + 0.2, 0.3, 0.3]  # 0.30000000000000004: a spread of 6e-17, no reward at all
    assert torch.tensor(noisy, dtype=torch.float64).std() > 0
    rewards = torch.tensor([noisy, [1.0, 1.0, 1.0], [0.3, 0.3, 0.30001]], dtype=torch.float64)
    assert spreads(rewards).tolist() == [False, False, True]
    result = double(advantages(*rewards.tolist(), tau=0.1))
    assert result[:2].tolist() == [[0.0] * 3] * 2
    assert result[2].abs().min() > 0


def test_a_single_completion_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 rewards, got 1"):
        advantages([1.0])


@PLENTY
@given(rewards=REWARDS, shift=st.integers(-8, 8))
def test_a_shift_changes_nothing(rewards: list[float], shift: int) -> None:
    moved = [reward + shift for reward in rewards]
    assert advantages(moved)[0] == pytest.approx(advantages(rewards)[0], abs=1e-9)


@PLENTY
@given(data=st.data(), rewards=REWARDS)
def test_order_changes_nothing(data: st.DataObject, rewards: list[float]) -> None:
    order = data.draw(st.permutations(range(len(rewards))))
    expected = [advantages(rewards)[0][index] for index in order]
    permuted = advantages([rewards[index] for index in order])[0]
    assert permuted == pytest.approx(expected, abs=1e-12)


@PLENTY
@given(rewards=REWARDS)
def test_advantages_are_centred_and_keep_the_order_of_rewards(rewards: list[float]) -> None:
    result = advantages(rewards)[0]
    assert sum(result) == pytest.approx(0, abs=1e-9)
    ranked = sorted(zip(rewards, result, strict=True))
    assert all(a <= b + 1e-12 for (_, a), (_, b) in itertools.pairwise(ranked))


# ── other estimators ─────────────────────────────────────────────────────────────────────────────

MIXED = [0.0, 0.25, 1.0, 0.75]
EVERY: tuple[Any, ...] = (
    *(ZScore(), Centred(), LeaveOneOut(), MedianDeviation(), BatchSigma(), Decoupled()),
)


def test_centred_and_leave_one_out_by_hand() -> None:
    """Mean .5. Without the first, the others' mean is 2/3; without the second 7/12; …"""
    assert advantages(MIXED, estimator=Centred())[0] == [-0.5, -0.25, 0.5, 0.25]
    found = advantages(MIXED, estimator=LeaveOneOut())[0]
    expected = [0 - 2 / 3, 0.25 - 1.75 / 3, 1 - 1 / 3, 0.75 - 1.25 / 3]
    assert found == pytest.approx(expected, abs=1e-15)


def test_median_and_mad_by_hand() -> None:
    """Median .5, distances .5 .25 .5 .25: their median is .375."""
    found = advantages(MIXED, estimator=MedianDeviation())[0]
    scale = 1.4826 * 0.375 + 1e-4
    assert found == pytest.approx([a / scale for a in (-0.5, -0.25, 0.5, 0.25)], abs=1e-14)
    # Of five the median is the third; an outlier moves neither it nor the scale.
    for last in (0.9, 100.0):
        found = advantages([0.0, 0.1, 0.2, 0.4, last], estimator=MedianDeviation())[0]
        scale = 1.4826 * 0.2 + 1e-4  # distances .2 .1 0 .2 and the last one's
        assert found[:4] == pytest.approx([a / scale for a in (-0.2, -0.1, 0, 0.2)], abs=1e-13)


def test_where_mad_is_0_the_mean_deviation_takes_its_place() -> None:
    """One winner of four: median 0, MAD 0, mean deviation 1/4."""
    found = advantages([1, 0, 0, 0], estimator=MedianDeviation())[0]
    assert found == pytest.approx([1 / (1.2533 / 4 + 1e-4), 0, 0, 0], abs=1e-14)


def test_batch_sigma_by_hand() -> None:
    """Rewards 0, 1, .5, .5 of two groups: mean .5, σ² = .5 / 3 over all four."""
    found = advantages([0, 1], [0.25, 0.75], estimator=BatchSigma())
    sigma = math.sqrt((0.25 + 0.25 + 0.0625 + 0.0625) / 3) + 1e-4
    assert found[0] == pytest.approx([-0.5 / sigma, 0.5 / sigma], abs=1e-14)
    assert found[1] == pytest.approx([-0.25 / sigma, 0.25 / sigma], abs=1e-14)


# Of one group the parts 0, 1, 0, 1 and 0, 0, .02, 0; of another one part is all the same.
PARTS = [[[0, 1, 0, 1], [0, 0, 0.02, 0]], [[1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]]]
WEIGHTS = [[0.75, 0.25], [0.75, 0.25]]


def test_decoupled_by_hand() -> None:
    """Each part's z-score, weighed and summed; then over σ of all eight."""
    totals = [[0.0, 0.75, 0.005, 0.75], [0.875, 0.125, 0.125, 0.125]]
    rewards = rewards_of(*totals, parts=PARTS, weights=WEIGHTS)
    even = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    small, large = -0.005 / (0.01 + 1e-4), 0.015 / (0.01 + 1e-4)
    one = [
        *(-0.75 * even + 0.25 * small, 0.75 * even + 0.25 * small),
        *(-0.75 * even + 0.25 * large, 0.75 * even + 0.25 * small),
    ]
    other = [0.75 * 0.75 / (0.5 + 1e-4), *[-0.75 * 0.25 / (0.5 + 1e-4)] * 3]
    sigma = math.sqrt(sum(a * a for a in one + other) / 7) + 1e-4
    found = outcome_advantages(rewards, Decoupled(), 1.0, NoBound()).tolist()
    assert found[0] == pytest.approx([a / sigma for a in one], abs=1e-13)
    assert found[1] == pytest.approx([a / sigma for a in other], abs=1e-13)


def test_a_part_that_abstained_has_no_weight() -> None:
    totals = [[0.0, 1.0], [0.2, 0.4]]
    parts = [[[0, 1], [0, 0]], [[0, 1], [0.2, 0.4]]]
    rewards = rewards_of(*totals, parts=parts, weights=[[1.0, 0.0], [0.5, 0.5]])
    found = outcome_advantages(rewards, Decoupled(), 1.0, NoBound())
    assert found[0, 1] / found[1, 1] == pytest.approx(
        1 / (0.5 + 0.5 * (0.1 / (0.1 * math.sqrt(2) + 1e-4)) / (0.5 / (math.sqrt(0.5) + 1e-4)))
    )


def test_parts_that_cancel_are_told() -> None:
    """What one gives the other takes: no signal in the total, nor in their z-scores."""
    parts = [[[0, 1, 1, 0], [1, 0, 0, 1]], [[0, 1, 0, 0], [0, 0, 0, 0]], [[1] * 4, [0] * 4]]
    totals = [[0.5] * 4, [0, 0.5, 0, 0], [0.5] * 4]
    rewards = rewards_of(*totals, parts=parts, weights=[[0.5, 0.5]] * 3)
    assert cancels(rewards).tolist() == [True, False, False]
    for estimator in (ZScore(), Decoupled()):
        assert estimator.has_signal(rewards).tolist() == [False, True, False]
        found = outcome_advantages(rewards, estimator, 1.0, NoBound())
        assert found[0].tolist() == found[2].tolist() == [0] * 4
    # With other weights the total has a signal, and nothing cancels.
    unequal = rewards_of([0.3, 0.7, 0.7, 0.3], *totals[1:], parts=parts, weights=[[0.7, 0.3]] * 3)
    assert cancels(unequal).tolist() == [False, False, False]


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: e.type)
@PLENTY
@given(data=st.data())
def test_what_must_not_matter(data: st.DataObject, estimator: Any) -> None:
    """A shift of a group's rewards, the order within it, and the order of groups; scale only where
    there is no ε to compare with."""
    groups = data.draw(st.lists(st.lists(st.integers(0, 20), min_size=4, max_size=4), min_size=2))
    shift = data.draw(st.integers(-5, 5))
    order = data.draw(st.permutations(range(4)))
    scores = double(groups) / 20

    def found(total: torch.Tensor) -> torch.Tensor:
        weights = torch.ones(len(total), 1, dtype=torch.float64)
        return outcome_advantages(
            Rewards(total, total[:, None], weights), estimator, 1.0, NoBound()
        )

    expected = found(scores)
    close = {"rtol": 0, "atol": 1e-9}
    if not isinstance(estimator, BatchSigma):  # whose σ sees how far apart groups are
        moved = scores + shift * torch.arange(len(scores), dtype=torch.float64)[:, None]
        assert torch.allclose(found(moved), expected, **close)  # type: ignore[arg-type]
    assert torch.allclose(found(scores + shift), expected, **close)  # type: ignore[arg-type]
    permuted = found(scores[:, order])
    assert torch.allclose(permuted, expected[:, order], **close)  # type: ignore[arg-type]
    assert torch.allclose(found(scores.flip(0)), expected.flip(0), **close)  # type: ignore[arg-type]
    if isinstance(estimator, Centred | LeaveOneOut):
        assert torch.allclose(found(scores * 3), expected * 3, **close)  # type: ignore[arg-type]
    elif float((scores.amax(1) - scores.amin(1)).max()) > 0:
        large = found(scores * 1e4) - found(scores * 1e5)
        assert float(large.abs().max()) < 1e-2
    equal = scores.amax(1) == scores.amin(1)
    assert float(expected[equal].abs().sum()) == 0


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: e.type)
def test_a_better_reward_has_a_better_advantage(estimator: Any) -> None:
    rewards = rewards_of(MIXED, parts=[[MIXED]], weights=[[1.0]])
    found = outcome_advantages(rewards, estimator, 0.5, NoBound())[0].tolist()
    assert [found[place] for place in (0, 1, 3, 2)] == sorted(found)
    assert found[0] < 0 < found[2]


def test_epsilons_are_knobs() -> None:
    for kind in (ZScore, MedianDeviation, BatchSigma):
        plain, other = (
            advantages(MIXED, [0, 0.5, 0.5, 0], estimator=estimator)
            for estimator in (kind(), kind(epsilon=0.5))
        )
        assert plain != other
    rewards = rewards_of(MIXED, parts=[[MIXED]], weights=[[1.0]])
    assert not torch.equal(Decoupled()(rewards), Decoupled(epsilon=0.5)(rewards))


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────


def test_clip_by_hand() -> None:
    """Behind tau: centred −.5 −.25 .5 .25 over .1 are −5 −2.5 5 2.5."""
    options = {"tau": 0.1, "estimator": Centred()}
    assert advantages(MIXED, bound=Clip(low=3, high=3), **options)[0] == pytest.approx(
        [-3, -2.5, 3, 2.5]
    )
    assert advantages(MIXED, bound=Clip(low=1, high=4), **options)[0] == pytest.approx(
        [-1, -1, 4, 2.5]
    )


def test_tanh_by_hand() -> None:
    found = advantages(MIXED, tau=0.1, estimator=Centred(), bound=Squash(limit=2))[0]
    assert found == pytest.approx([2 * math.tanh(a / 2) for a in (-5, -2.5, 5, 2.5)], abs=1e-14)


def test_winsorise_by_hand() -> None:
    """Of all of the step whose group has a signal: −5 −2.5 2.5 5 −10 −10 10 10 (sorted −10 −10 −5
    −2.5 2.5 5 10 10); quantile 1/7 of seven steps is the second, −10; 2/7 the third, −5."""
    groups = (MIXED, [1.0] * 4, [0.0, 0.0, 2.0, 2.0])
    options = {"tau": 0.1, "estimator": Centred()}
    found = advantages(*groups, bound=Winsorise(share=2 / 7), **options)
    assert found[0] == pytest.approx([-5, -2.5, 5, 2.5])
    assert found[1] == [0] * 4
    assert found[2] == pytest.approx([-5, -5, 5, 5])
    assert advantages([1.0, 1.0], bound=Winsorise())[0] == [0, 0]


@pytest.mark.parametrize(
    ("union", "knobs"),
    [
        (AdvantageEstimator, {"type": "z-score"}),
        (AdvantageEstimator, {"type": "centred", "epsilon": 1e-4}),
        (AdvantageEstimator, {"type": "mad", "epsilon": 0}),
        (AdvantageBound, {"type": "clip", "low": -1}),
        (AdvantageBound, {"type": "clip", "limit": 1}),
        (AdvantageBound, {"type": "tanh", "limit": 0}),
        (AdvantageBound, {"type": "winsorise", "share": 0.5}),
        (AdvantageBound, {"type": "none", "low": 1}),
    ],
)
def test_bad_knobs_are_refused(union: Any, knobs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(union).validate_python(knobs)


# ── the length ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("length", "expected"), [(1, 0), (80, 0), (81, 0.05), (90, 0.5), (99, 0.95), (100, 1)]
)
def test_overlong_penalty_by_hand(length: int, expected: float) -> None:
    assert overlong_penalty(length, longest=100, buffer=20) == pytest.approx(expected, abs=1e-15)


# ── over tokens ──────────────────────────────────────────────────────────────────────────────────


def test_discount_counts_reasoning_steps() -> None:
    # Two steps before the conclusion, one, the conclusion itself.
    steps = torch.tensor([[2, 2, 1, 0], [1, 0, 0, 0]])
    result = discount_per_step(torch.tensor([2.0, -3.0], dtype=torch.float64), steps, 0.9)
    expected = [[1.62, 1.62, 1.8, 2.0], [-2.7, -3.0, -3.0, -3.0]]
    assert result.dtype == torch.float64
    for row, wanted in zip(result.tolist(), expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-15)


def test_gamma_one_leaves_the_advantage_alone() -> None:
    steps = torch.tensor([[5, 1, 0]])
    assert discount_per_step(torch.tensor([1.5]), steps, 1.0).tolist() == [[1.5, 1.5, 1.5]]


# ── steps ────────────────────────────────────────────────────────────────────────────────────────

HIT, MISS = 0.25 / (0.5 + 1e-4), -0.75 / (0.5 + 1e-4)
"""Z-scores of credits 1, 0, 1, 1: mean 3/4, squares (3 · 1/16 + 9/16) / 3 = 1/4, σ 1/2."""


def test_steps_are_compared_over_the_whole_group_by_hand() -> None:
    """Three steps and one: what fills the second row up plays no part, whatever it holds."""
    credits_G_S = double([[1, 0, 1], [1, 7, -7]])
    mask_G_S = torch.tensor([[True, True, True], [True, False, False]])
    found = step_advantages(credits_G_S, mask_G_S, ZScore(), 1.0, NoBound())
    assert found.tolist() == [
        pytest.approx([HIT, MISS, HIT], abs=1e-12),
        pytest.approx([HIT, 0, 0], abs=1e-12),
    ]
    sharper = step_advantages(credits_G_S, mask_G_S, ZScore(), 0.1, NoBound())
    assert sharper.tolist() == [pytest.approx([10 * x for x in row]) for row in found.tolist()]


@pytest.mark.parametrize(
    ("credits", "steps"),
    [([[1, 1], [1, 1]], 4), ([[0, 0], [0, 0]], 3), ([[1, 0], [0, 0]], 1), ([[0, 0], [0, 0]], 0)],
    ids=["all true", "all false", "one step", "no step"],
)
def test_steps_that_do_not_differ_earn_nothing(credits: list[list[float]], steps: int) -> None:
    mask_G_S = (torch.arange(4) < steps).reshape(2, 2)
    assert step_advantages(double(credits), mask_G_S, ZScore(), 0.1, NoBound()).tolist() == [
        [0, 0],
        [0, 0],
    ]


def test_returns_by_hand() -> None:
    """From the end: 2; −4 + ½ · 2; 1 + ½ · −3. A single step is its own; no step is nothing."""
    found = step_returns(double([[1, -4, 2], [3, 0, 0]]), gamma=0.5)
    assert found.tolist() == [[-0.5, -3, 2], [3, 0, 0]]
    assert step_returns(double([[1, -4, 2]]), gamma=1.0).tolist() == [[-1, -2, 2]]
    assert step_returns(torch.zeros(2, 0), gamma=0.5).shape == (2, 0)


@PLENTY
@given(
    rows=st.lists(st.lists(st.integers(0, 1), max_size=5), min_size=2, max_size=4),
    gamma=st.floats(0.1, 1),
)
def test_returns_are_the_discounted_sums(rows: list[list[int]], gamma: float) -> None:
    width = max(map(len, rows))
    mask_G_S = torch.tensor([[n < len(row) for n in range(width)] for row in rows]).bool()
    padded = double([[*row, *[0] * (width - len(row))] for row in rows])
    values = step_advantages(padded, mask_G_S.reshape(len(rows), width), ZScore(), 1.0, NoBound())
    assert float(values.sum()) == pytest.approx(0, abs=1e-9)
    for row, found in zip(values.tolist(), step_returns(values, gamma).tolist(), strict=True):
        for j, value in enumerate(found):
            expected = sum(gamma ** (i - j) * row[i] for i in range(j, width))
            assert value == pytest.approx(expected, abs=1e-9)
