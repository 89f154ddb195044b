"""Group-relative advantages: numbers worked out by hand, in float64, and what must not matter."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.training.algorithms.advantages import (
    discount_per_step,
    group_advantages,
    has_signal,
    step_advantages,
    step_returns,
)

PLENTY = settings(max_examples=60, deadline=None)
REWARDS = st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=2, max_size=8)


def advantages(*groups: list[float], tau: float = 1.0) -> list[list[float]]:
    return group_advantages(torch.tensor(groups, dtype=torch.float64), tau).tolist()


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
    assert has_signal(rewards).tolist() == [False, False, True]
    result = group_advantages(rewards, 0.1)
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


def double(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_steps_are_compared_over_the_whole_group_by_hand() -> None:
    """Three steps and one: what fills the second row up plays no part, whatever it holds."""
    credits_G_S = double([[1, 0, 1], [1, 7, -7]])
    mask_G_S = torch.tensor([[True, True, True], [True, False, False]])
    found = step_advantages(credits_G_S, mask_G_S, tau=1.0)
    assert found.tolist() == [
        pytest.approx([HIT, MISS, HIT], abs=1e-12),
        pytest.approx([HIT, 0, 0], abs=1e-12),
    ]
    sharper = step_advantages(credits_G_S, mask_G_S, tau=0.1)
    assert sharper.tolist() == [pytest.approx([10 * x for x in row]) for row in found.tolist()]


@pytest.mark.parametrize(
    ("credits", "steps"),
    [([[1, 1], [1, 1]], 4), ([[0, 0], [0, 0]], 3), ([[1, 0], [0, 0]], 1), ([[0, 0], [0, 0]], 0)],
    ids=["all true", "all false", "one step", "no step"],
)
def test_steps_that_do_not_differ_earn_nothing(credits: list[list[float]], steps: int) -> None:
    mask_G_S = (torch.arange(4) < steps).reshape(2, 2)
    assert step_advantages(double(credits), mask_G_S, 0.1).tolist() == [[0, 0], [0, 0]]


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
    values = step_advantages(padded, mask_G_S.reshape(len(rows), width), 1.0)
    assert float(values.sum()) == pytest.approx(0, abs=1e-9)
    for row, found in zip(values.tolist(), step_returns(values, gamma).tolist(), strict=True):
        for j, value in enumerate(found):
            expected = sum(gamma ** (i - j) * row[i] for i in range(j, width))
            assert value == pytest.approx(expected, abs=1e-9)
