"""Schulman's estimators by hand, and against the exact divergence and its exact gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from judicaita.training.algorithms.kl import KLPenalty

k3 = KLPenalty()
LOG_P = st.lists(st.floats(-20, 0), min_size=1, max_size=6)


def test_by_hand() -> None:
    # q/p = ½: ½ − 1 + ln 2; q/p = 2: 2 − 1 − ln 2; equal: 0. Slope by log p: 1 − q/p.
    log_p = torch.tensor([[0.5, 0.25, 0.125]], dtype=torch.float64).log().requires_grad_()
    log_q = torch.tensor([[0.25, 0.5, 0.125]], dtype=torch.float64).log().requires_grad_()
    result = k3(log_p, log_q)
    expected = [math.log(2) - 0.5, 1 - math.log(2), 0.0]
    assert expected[:2] == pytest.approx([0.19314718055994531, 0.3068528194400547], abs=1e-15)
    assert result[0].tolist() == pytest.approx(expected, abs=1e-15)
    result.sum().backward()
    assert log_p.grad[0].tolist() == pytest.approx([0.5, -1.0, 0.0], abs=1e-15)
    assert log_q.grad is None


@pytest.mark.parametrize(
    ("settings", "value", "slope"),
    [
        ({"estimator": "k1", "gradient": "exact"}, math.log(3), math.log(3)),
        ({"estimator": "k2"}, math.log(3) ** 2 / 2, math.log(3)),
        ({"estimator": "k2", "gradient": "exact"}, math.log(3) ** 2 / 2, math.log(3)),
        ({"estimator": "k3"}, 1 / 3 - 1 + math.log(3), 2 / 3),
        ({"estimator": "k3", "gradient": "exact"}, 1 / 3 - 1 + math.log(3), math.log(3)),
        ({"estimator": "k1", "place": "reward"}, math.log(3), 1.0),
    ],
)
def test_values_and_gradients_by_hand(settings: dict[str, Any], value: float, slope: float) -> None:
    """Of a token three times as likely under the policy as under the reference."""
    log_p = torch.tensor([[math.log(0.6)]], dtype=torch.float64).requires_grad_()
    log_q = torch.tensor([[math.log(0.2)]], dtype=torch.float64).requires_grad_()
    found = KLPenalty(**settings)(log_p, log_q)
    found.sum().backward()
    assert float(found.detach()) == pytest.approx(value, abs=1e-15)
    assert float(log_p.grad) == pytest.approx(slope, abs=1e-15)
    assert log_q.grad is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"estimator": "k1", "gradient": "exact"}, "reverse"),
        ({"estimator": "k2"}, "reverse"),
        ({"estimator": "k3", "gradient": "exact"}, "reverse"),
        ({"estimator": "k3"}, "forward"),
        ({"estimator": "k1", "place": "reward"}, "none"),
    ],
)
def test_whose_gradient_it_is(settings: dict[str, Any], expected: str) -> None:
    """Averaged over tokens that the policy draws: that of KL(p‖q), of KL(q‖p), or nothing."""
    logits = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64).requires_grad_()
    log_q = torch.tensor([0.1, 0.3, 0.2, 0.4], dtype=torch.float64).log()
    log_p = logits.log_softmax(-1)
    drawn = (log_p.detach().exp() * KLPenalty(**settings)(log_p[None], log_q[None])[0]).sum()
    (found,) = torch.autograd.grad(drawn, logits)
    log_p = logits.log_softmax(-1)
    exact = {
        "reverse": (log_p.exp() * (log_p - log_q)).sum(),
        "forward": (log_q.exp() * (log_q - log_p)).sum(),
        "none": 0 * logits.sum(),
    }
    (wanted,) = torch.autograd.grad(exact[expected], logits)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(0.1, 0.5), (0.11, 0.505), (0.5, 0.51), (0.0, 0.49), (0.085, 0.4925)],
)
def test_beta_adapts_by_hand(kl: float, expected: float) -> None:
    """Towards .1 nats: × (1 + .1 · e), e = kl / .1 − 1 cut at ±.2."""
    assert KLPenalty(target=0.1).adapted(0.5, kl) == pytest.approx(expected, abs=1e-15)
    assert KLPenalty().adapted(0.5, kl) == 0.5
    if abs(kl - 0.1) > 1e-9:
        assert KLPenalty(target=0.1, gain=0.5).adapted(0.5, kl) != pytest.approx(expected)


@pytest.mark.parametrize(
    "settings",
    [
        *({"estimator": "k1"}, {"estimator": "k4"}, {"gain": 0.2}, {"target": -1.0}),
        {"place": "reward", "gradient": "exact"},
    ],
)
def test_what_has_no_meaning_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KLPenalty(**settings)


def test_its_mean_under_the_policy_is_the_divergence() -> None:
    p = torch.tensor([0.5, 0.25, 0.2, 0.05], dtype=torch.float64)
    q = torch.tensor([0.1, 0.3, 0.2, 0.4], dtype=torch.float64)
    exact = sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
    mean = float((p * k3(p.log()[None], q.log()[None])[0]).sum())
    assert mean == pytest.approx(exact, abs=1e-14)


def test_small_differences_survive_float32() -> None:
    # x²/2 for a log-ratio x of 1e-4; exp(x) − 1 − x computed plainly loses all digits.
    result = float(k3(torch.tensor([[0.0]]), torch.tensor([[1e-4]])))
    assert result == pytest.approx(0.5e-8, rel=1e-3)


@settings(max_examples=100, deadline=None)
@given(pair=LOG_P.flatmap(lambda p: st.tuples(st.just(p), st.permutations(p))))
def test_never_negative_and_its_slope_is_the_finite_difference(
    pair: tuple[list[float], list[float]],
) -> None:
    log_p = torch.tensor([pair[0]], dtype=torch.float64, requires_grad=True)
    log_q = torch.tensor([pair[1]], dtype=torch.float64)
    result = k3(log_p, log_q)
    assert float(result.detach().min()) >= 0
    result.sum().backward()
    step = 1e-5
    with torch.no_grad():
        slope = (k3(log_p + step, log_q) - k3(log_p - step, log_q)) / (2 * step)
    torch.testing.assert_close(log_p.grad, slope, rtol=1e-6, atol=1e-6)
