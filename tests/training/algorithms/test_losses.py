"""The clipped surrogate on both sides of both bounds, for both signs of the advantage."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from judicaita.training.algorithms.losses import ClippedLoss

LOSS = ClippedLoss(clip_low=0.2, clip_high=0.3)

# ratio, advantage → −min(rA, clip(r, 0.8, 1.3)·A), its derivative by log π (−rA, or 0 where cut).
BY_HAND = [
    (0.5, 2.0, -1.0, -1.0),
    (0.79, 2.0, -1.58, -1.58),
    (0.81, 2.0, -1.62, -1.62),
    (1.0, 2.0, -2.0, -2.0),
    (1.29, 2.0, -2.58, -2.58),
    (1.31, 2.0, -2.6, 0.0),
    (2.0, 2.0, -2.6, 0.0),
    (0.5, -2.0, 1.6, 0.0),
    (0.79, -2.0, 1.6, 0.0),
    (0.81, -2.0, 1.62, 1.62),
    (1.0, -2.0, 2.0, 2.0),
    (1.29, -2.0, 2.58, 2.58),
    (1.31, -2.0, 2.62, 2.62),
    (2.0, -2.0, 4.0, 4.0),
    (1.5, 0.0, 0.0, 0.0),
]


def value(loss: ClippedLoss, log_p: float, log_old: float, advantage: float) -> float:
    tensors = [torch.tensor([[x]], dtype=torch.float64) for x in (log_p, log_old, advantage)]
    return float(loss(*tensors).per_token_B_T)


@pytest.mark.parametrize(("ratio", "advantage", "expected", "slope"), BY_HAND)
def test_by_hand(ratio: float, advantage: float, expected: float, slope: float) -> None:
    old = torch.tensor([[-1.5]], dtype=torch.float64, requires_grad=True)
    log_p = (old.detach() + math.log(ratio)).requires_grad_()
    output = LOSS(log_p, old, torch.tensor([[advantage]], dtype=torch.float64))
    output.per_token_B_T.sum().backward()
    assert float(output.per_token_B_T.detach()) == pytest.approx(expected, abs=1e-14)
    assert float(log_p.grad) == pytest.approx(slope, abs=1e-14)
    assert old.grad is None
    assert bool(output.clipped_B_T) == (slope == 0 and advantage != 0)


@settings(max_examples=100, deadline=None)
@given(
    log_ratio=st.floats(-1.5, 1.5),
    advantage=st.floats(-5, 5),
    low=st.sampled_from([0.1, 0.2, 0.5]),
    high=st.sampled_from([0.1, 0.28, 2.0]),
)
def test_gradient_is_the_finite_difference(
    log_ratio: float, advantage: float, low: float, high: float
) -> None:
    step = 1e-6
    if min(abs(log_ratio - math.log(1 - low)), abs(log_ratio - math.log(1 + high))) < 2 * step:
        return  # on a kink there are two slopes
    loss = ClippedLoss(clip_low=low, clip_high=high)
    log_p = torch.tensor([[log_ratio]], dtype=torch.float64, requires_grad=True)
    old, weight = torch.zeros_like(log_p), torch.full_like(log_p, advantage)
    loss(log_p, old, weight).per_token_B_T.sum().backward()
    rise = value(loss, log_ratio + step, 0, advantage) - value(loss, log_ratio - step, 0, advantage)
    assert float(log_p.grad) == pytest.approx(rise / (2 * step), abs=1e-7)


def test_every_knob_moves_its_own_bound() -> None:
    high, low = math.log(1.4), math.log(0.6)
    assert value(ClippedLoss(clip_high=0.3), high, 0, 1.0) == pytest.approx(-1.3)
    assert value(ClippedLoss(clip_high=0.5), high, 0, 1.0) == pytest.approx(-1.4)
    assert value(ClippedLoss(clip_high=0.3), low, 0, -1.0) == pytest.approx(0.8)
    assert value(ClippedLoss(clip_low=0.3), low, 0, -1.0) == pytest.approx(0.7)
    assert value(ClippedLoss(clip_low=0.5), low, 0, -1.0) == pytest.approx(0.6)
    assert value(ClippedLoss(clip_low=0.5), high, 0, 1.0) == pytest.approx(-1.2)


def test_defaults_are_those_of_ppo() -> None:
    assert ClippedLoss().model_dump() == {"type": "clipped", "clip_low": 0.2, "clip_high": 0.2}


@pytest.mark.parametrize(
    "knobs",
    [
        *({"clip_low": 0}, {"clip_low": 1.0}, {"clip_high": 0}, {"clip_high": math.inf}),
        *({"delta": 3}, {"type": "dapo"}),
    ],
)
def test_bad_knobs_are_refused(knobs: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ClippedLoss(**knobs)
