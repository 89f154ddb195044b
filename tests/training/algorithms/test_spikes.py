"""Norms and medians by hand, and what a guard remembers of them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from judicaita.errors import ConfigError
from judicaita.training.algorithms.spikes import SpikeGuard, SpikeHistory, Verdict
from judicaita.training.config import TrainingConfig


def follow(guard: SpikeGuard, *norms: float) -> list[Verdict]:
    """What the guard makes of a run with these gradients."""
    found, history = list[Verdict](), SpikeHistory()
    for norm in norms:
        found.append(guard(norm, history))
        history = found[-1].history
    return found


def spikes(guard: SpikeGuard, *norms: float) -> list[bool]:
    return [verdict.is_spike for verdict in follow(guard, *norms)]


@pytest.mark.parametrize(
    ("norms", "limit"),
    [
        ((), math.inf),
        ((1.0,), math.inf),  # one of four is less than half
        ((1.0, 3.0), 5.0),  # 2.5 times the median, 2
        ((1.0, 3.0, 9.0), 7.5),
        ((3.0, 1.0, 4.0, 2.0), 6.25),
        ((100.0, 3.0, 1.0, 4.0, 2.0), 6.25),  # the last four
    ],
)
def test_the_limit_by_hand(norms: tuple[float, ...], limit: float) -> None:
    guard = SpikeGuard(factor=2.5, window=4)
    assert guard.limit(norms) == limit
    history = SpikeHistory(norms)
    assert not guard(min(limit, 1e9), history).is_spike
    assert guard(math.nextafter(limit, math.inf), history).is_spike == (limit < math.inf)


def test_factor_and_window_decide() -> None:
    norms = (1.0, 1.0, 8.0, 8.0, 8.0, 20.0)
    # The two that are left out stand as 4s: then medians are 2.5 and, with the 8 made, 4.
    assert spikes(SpikeGuard(factor=4, window=4), *norms) == [0, 0, 1, 1, 0, 1]
    assert spikes(SpikeGuard(factor=9, window=4), *norms) == [0, 0, 0, 0, 0, 0]
    # Two norms more to wait for: 8 is known by then.
    assert spikes(SpikeGuard(factor=4, window=8), *norms) == [0, 0, 0, 0, 0, 0]
    assert spikes(SpikeGuard(), *norms) == [0, 0, 0, 0, 0, 0]


def test_a_spike_that_is_left_out_enters_with_what_was_allowed() -> None:
    history = SpikeHistory((1.0, 2.0, 3.0, 2.0))
    left_out = SpikeGuard(factor=4, window=4)(1000.0, history)
    assert left_out == Verdict(True, 1.0, SpikeHistory((2.0, 3.0, 2.0, 8.0)))
    made = SpikeGuard(factor=4, window=4, skip=False)(1000.0, history)
    assert made == Verdict(True, 1.0, SpikeHistory((2.0, 3.0, 2.0, 1000.0)))


def test_single_spikes_stay_spikes() -> None:
    """However many the run has seen."""
    norms = [1.0, 1.0, 1.0, 50.0] * 20
    assert spikes(SpikeGuard(factor=5, window=8), *norms)[8:] == [0, 0, 0, 1] * 18


def test_a_level_that_lasts_becomes_the_usual_one() -> None:
    """Or else a run whose gradients have grown for good would never make an update again."""
    # Of 1, 1, 1, 1 and 3s, which stand for 9: after two the median is 2, the limit 6; after a third
    # it is 3, and 9 is no more than allowed.
    assert spikes(SpikeGuard(factor=3, window=4), *[1.0] * 4, *[9.0] * 5) == [0] * 4 + [
        *(1, 1, 1),
        *(0, 0),
    ]
    # Made, they enter as they are: after two the median is 5 and the limit 15.
    guard = SpikeGuard(factor=3, window=4, skip=False)
    assert spikes(guard, *[1.0] * 4, *[9.0] * 5) == [0] * 4 + [1, 1, 0, 0, 0]
    assert not spikes(SpikeGuard(factor=3, window=20), *[1.0] * 20, *[1e6] * 200)[-1]


def test_the_rate_falls_at_a_spike_and_comes_back() -> None:
    guard = SpikeGuard(factor=3, window=2, backoff=0.25, recovery=2)
    found = follow(guard, 1.0, 1.0, 7.0, 1.0, 1.0, 1.0)
    assert [verdict.is_spike for verdict in found] == [0, 0, 1, 0, 0, 0]
    # The first update behind a spike is still made at the lower rate.
    assert [verdict.rate_factor for verdict in found] == [1, 1, 0.25, 0.25, 0.5, 1]
    assert found[-1].history.rate_factor == 1
    slower = SpikeGuard(factor=3, window=2, backoff=0.25, recovery=1.5)
    rates = [verdict.rate_factor for verdict in follow(slower, 1.0, 1.0, 7.0, 1.0, 1.0, 1.0)]
    assert rates == [1, 1, 0.25, 0.25, 0.375, 0.5625]
    alone = SpikeGuard(factor=3, window=2)
    assert {verdict.rate_factor for verdict in follow(alone, 1.0, 1.0, 7.0, 1.0)} == {1}


def test_the_rate_falls_no_lower_than_the_floor() -> None:
    norms = [10.0**n for n in range(8)]
    for floor, rates in ((0.1, [0.5, 0.25, 0.125, 0.1, 0.1]), (0.3, [0.5, 0.3, 0.3, 0.3, 0.3])):
        guard = SpikeGuard(factor=2, window=4, skip=False, backoff=0.5, floor=floor)
        assert [verdict.rate_factor for verdict in follow(guard, *norms)][2:7] == rates


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_what_is_not_finite_is_no_spike_and_is_forgotten(norm: float) -> None:
    history = SpikeHistory((1.0, 2.0, 3.0), 0.5)
    guard = SpikeGuard(factor=2, window=4, backoff=0.5)
    assert guard(norm, history) == Verdict(False, 0.5, history)


def test_norms_of_0_are_kept_out() -> None:
    """To a median of 0 everything would be a spike, for ever."""
    assert spikes(SpikeGuard(factor=2, window=2), 0.0, 0.0, 0.0, 1.0, 1.0, 9.0) == [0] * 5 + [1]


def test_without_a_factor_nothing_is_remembered() -> None:
    history = SpikeHistory((1.0,) * 20, 0.5)
    assert SpikeGuard()(1e9, history) == Verdict(False, 1.0, SpikeHistory())


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        (
            {"factor": 0.5},
            "spikes.factor=0.5: at most 1 times the median is what half of all norms are over. Set "
            "it above 1, or 0 for no spikes (default 0).",
        ),
        (
            {"window": 5},
            "spikes.window=5 with factor=0: nothing is a spike. Set spikes.factor above 1, or "
            "leave it out.",
        ),
        (
            {"skip": False},
            "spikes.skip=False with factor=0: nothing is a spike. Set spikes.factor above 1, or "
            "leave it out.",
        ),
        (
            {"factor": 5, "recovery": 2},
            "spikes.recovery=2.0 with backoff=1: spikes leave the learning rate alone. Set "
            "spikes.backoff below 1, or leave it out.",
        ),
        (
            {"factor": 5, "floor": 0.5},
            "spikes.floor=0.5 with backoff=1: spikes leave the learning rate alone. Set "
            "spikes.backoff below 1, or leave it out.",
        ),
        ({"factor": 5, "backoff": 0}, "spikes.backoff=0: should be greater than 0."),
        ({"factor": 5, "window": 1}, "spikes.window=1: should be greater than or equal to 2."),
    ],
)
def test_what_it_refuses(knobs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrainingConfig(base_model="tiny", spikes=knobs)
    assert str(error.value) == sentence


def test_a_knob_that_is_unknown_is_named() -> None:
    with pytest.raises(ConfigError, match=r"spikes\.factr: no such setting.*'spikes\.factor'"):
        TrainingConfig(base_model="tiny", spikes={"factr": 5})
