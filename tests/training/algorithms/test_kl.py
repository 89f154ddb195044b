"""Schulman's k3 against numbers by hand and the exact divergence."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.training.algorithms.kl import k3

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
