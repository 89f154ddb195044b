"""The learning rate at every turn, by hand."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.errors import ConfigError
from judicaita.training.algorithms.schedules import Schedule, learning_rate_factor
from judicaita.training.config import SFTConfig

# 10 steps (0 to 9), a warm-up of 2: the fall goes from step 2 to 10, halfway at step 6.
BY_HAND = [
    ("cosine", 0.0, {0: 1 / 3, 1: 2 / 3, 2: 1, 4: 0.8535533905932737, 6: 0.5, 10: 0}),
    ("cosine", 0.2, {0: 1 / 3, 2: 1, 4: 0.882842712474619, 6: 0.6, 10: 0.2}),
    ("linear", 0.0, {0: 1 / 3, 1: 2 / 3, 2: 1, 4: 0.75, 6: 0.5, 10: 0}),
    ("linear", 0.2, {2: 1, 4: 0.8, 6: 0.6, 10: 0.2}),
    ("constant", 0.2, {0: 1 / 3, 1: 2 / 3, 2: 1, 6: 1, 10: 1}),
    # A decay share of .4 is the last four steps, 6 to 9.
    ("wsd", 0.0, {0: 1 / 3, 1: 2 / 3, 2: 1, 5: 1, 6: 1, 7: 0.75, 8: 0.5, 9: 0.25, 10: 0, 12: 0}),
    ("wsd", 0.2, {5: 1, 6: 1, 7: 0.8, 8: 0.6, 9: 0.4, 10: 0.2}),
    # √(3 / (step + 1)).
    ("inverse_sqrt", 0.0, {0: 1 / 3, 1: 2 / 3, 2: 1, 5: 0.7071067811865476, 11: 0.5, 26: 1 / 3}),
    ("inverse_sqrt", 0.2, {2: 1, 11: 0.6, 299: 0.28}),
]


@pytest.mark.parametrize(("schedule", "floor", "factors"), BY_HAND)
def test_by_hand(schedule: Schedule, floor: float, factors: dict[int, float]) -> None:
    for step, expected in factors.items():
        factor = learning_rate_factor(
            step,
            total_steps=10,
            warmup_steps=2,
            schedule=schedule,
            floor=floor,
            decay_share=0.4,
        )
        assert factor == pytest.approx(expected, abs=1e-15), step


def test_no_warm_up_starts_at_the_peak() -> None:
    for schedule in get_args(Schedule):
        factor = learning_rate_factor(
            0, total_steps=5, warmup_steps=0, schedule=schedule, floor=0, decay_share=0.1
        )
        assert factor == 1


@pytest.mark.parametrize(
    ("total", "warmup", "share", "factors"),
    [
        (4, 0, 1.0, [1, 0.75, 0.5, 0.25]),  # the whole run: the line
        (4, 2, 1.0, [1 / 3, 2 / 3, 1, 0.5]),  # the warm-up goes first
        (4, 0, 0.1, [1, 1, 1, 1, 0]),  # less than a step is one
        (5, 0, 0.5, [1, 1, 1, 0.8, 0.4, 0]),  # from 2.5 on
        (2, 3, 0.5, [0.25, 0.5, 0.75, 1, 0]),
    ],
)
def test_where_wsd_begins_to_fall(
    total: int, warmup: int, share: float, factors: list[float]
) -> None:
    found = [
        learning_rate_factor(
            step,
            total_steps=total,
            warmup_steps=warmup,
            schedule="wsd",
            floor=0.0,
            decay_share=share,
        )
        for step in range(len(factors))
    ]
    assert found == pytest.approx(factors, abs=1e-15)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "inverse_sqrt"])
def test_a_share_to_fall_in_is_wsd_s_alone(schedule: str) -> None:
    assert SFTConfig(lr_scheduler="wsd", lr_decay_share=0.3).lr_decay_share == 0.3
    with pytest.raises(ConfigError) as error:
        SFTConfig(lr_scheduler=schedule, lr_decay_share=0.3)
    assert str(error.value) == (
        f"lr_decay_share=0.3 with lr_scheduler={schedule}: only wsd has a part of the run to fall "
        "in. Set lr_scheduler=wsd, or leave it out."
    )


@settings(max_examples=100, deadline=None)
@given(
    total=st.integers(1, 40),
    warmup=st.integers(0, 50),
    schedule=st.sampled_from(get_args(Schedule)),
    floor=st.floats(0, 1),
    share=st.floats(0.01, 1),
)
def test_rises_then_falls_between_floor_and_peak(
    total: int, warmup: int, schedule: Schedule, floor: float, share: float
) -> None:
    """A warm-up longer than the run, a run of one step and steps past the end included."""
    factors = [
        learning_rate_factor(
            step,
            total_steps=total,
            warmup_steps=warmup,
            schedule=schedule,
            floor=floor,
            decay_share=share,
        )
        for step in range(total + warmup + 3)
    ]
    rise, fall = factors[: warmup + 1], factors[warmup:]
    assert rise == sorted(rise)
    assert fall == sorted(fall, reverse=True)
    assert factors[0] > 0
    assert factors[warmup] == 1
    assert all(floor - 1e-12 <= factor <= 1 for factor in fall)
