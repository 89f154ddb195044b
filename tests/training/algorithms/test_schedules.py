"""The learning rate at every turn, by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.training.algorithms.schedules import Schedule, learning_rate_factor

# 10 steps (0 to 9), a warm-up of 2: the fall goes from step 2 to 10, halfway at step 6.
BY_HAND = [
    ("cosine", 0.0, {0: 1 / 3, 1: 2 / 3, 2: 1, 4: 0.8535533905932737, 6: 0.5, 10: 0}),
    ("cosine", 0.2, {0: 1 / 3, 2: 1, 4: 0.882842712474619, 6: 0.6, 10: 0.2}),
    ("linear", 0.0, {0: 1 / 3, 1: 2 / 3, 2: 1, 4: 0.75, 6: 0.5, 10: 0}),
    ("linear", 0.2, {2: 1, 4: 0.8, 6: 0.6, 10: 0.2}),
    ("constant", 0.2, {0: 1 / 3, 1: 2 / 3, 2: 1, 6: 1, 10: 1}),
]


@pytest.mark.parametrize(("schedule", "floor", "factors"), BY_HAND)
def test_by_hand(schedule: Schedule, floor: float, factors: dict[int, float]) -> None:
    for step, expected in factors.items():
        factor = learning_rate_factor(
            step, total_steps=10, warmup_steps=2, schedule=schedule, floor=floor
        )
        assert factor == pytest.approx(expected, abs=1e-15), step


def test_no_warm_up_starts_at_the_peak() -> None:
    for schedule in ("cosine", "linear", "constant"):
        assert (
            learning_rate_factor(0, total_steps=5, warmup_steps=0, schedule=schedule, floor=0) == 1
        )


@settings(max_examples=100, deadline=None)
@given(
    total=st.integers(1, 40),
    warmup=st.integers(0, 50),
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
    floor=st.floats(0, 1),
)
def test_rises_then_falls_between_floor_and_peak(
    total: int, warmup: int, schedule: Schedule, floor: float
) -> None:
    """A warm-up longer than the run, a run of one step and steps past the end included."""
    factors = [
        learning_rate_factor(
            step, total_steps=total, warmup_steps=warmup, schedule=schedule, floor=floor
        )
        for step in range(total + warmup + 3)
    ]
    rise, fall = factors[: warmup + 1], factors[warmup:]
    assert rise == sorted(rise)
    assert fall == sorted(fall, reverse=True)
    assert factors[0] > 0
    assert factors[warmup] == 1
    assert all(floor - 1e-12 <= factor <= 1 for factor in fall)
