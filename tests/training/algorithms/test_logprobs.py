"""Log-probabilities and entropies against a softmax by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.training.algorithms.logprobs import token_logprobs

LOGITS = torch.tensor([[[0.0, math.log(2), math.log(5)]]], dtype=torch.float64)  # 1 : 2 : 5


@pytest.mark.parametrize(
    ("temperature", "weights"),
    [(1.0, (1.0, 2.0, 5.0)), (0.5, (1.0, 4.0, 25.0)), (2.0, (1.0, math.sqrt(2), math.sqrt(5)))],
)
def test_by_hand(temperature: float, weights: tuple[float, ...]) -> None:
    p = [weight / sum(weights) for weight in weights]
    entropy = -sum(x * math.log(x) for x in p)
    for target in range(3):
        chosen, found = token_logprobs(LOGITS, torch.tensor([[target]]), temperature)
        assert float(chosen) == pytest.approx(math.log(p[target]), abs=1e-14)
        assert float(found) == pytest.approx(entropy, abs=1e-14)


def test_the_numbers_in_full() -> None:
    chosen, entropy = token_logprobs(LOGITS, torch.tensor([[2]]), 1.0)
    assert float(chosen) == pytest.approx(-0.4700036292457356, abs=1e-15)  # ln(5/8)
    assert float(entropy) == pytest.approx(0.9002560512685369, abs=1e-15)
    uniform = token_logprobs(torch.zeros(1, 1, 64).double(), torch.tensor([[7]]), 1.0)
    assert [float(x) for x in uniform] == pytest.approx([-math.log(64), math.log(64)], abs=1e-14)


def test_every_position_picks_its_own_target() -> None:
    logits = torch.tensor([[[0.0, 1.0], [3.0, 0.0]], [[-1.0, 1.0], [0.0, 0.0]]]).double()
    chosen, _ = token_logprobs(logits, torch.tensor([[1, 1], [0, 1]]), 1.0)
    logit_differences = [[1.0, -3.0], [-2.0, 0.0]]
    for row, wanted in zip(chosen.tolist(), logit_differences, strict=True):
        assert row == pytest.approx([-math.log1p(math.exp(-d)) for d in wanted], abs=1e-14)


def test_bfloat16_is_promoted() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (8 * torch.randn(2, 3, 50, generator=generator)).bfloat16()
    targets = torch.randint(0, 50, (2, 3), generator=generator)
    exact, exact_entropy = token_logprobs(logits.double(), targets, 0.7)
    chosen, entropy = token_logprobs(logits, targets, 0.7)
    assert (chosen.dtype, exact.dtype) == (torch.float32, torch.float64)
    assert float((chosen - exact).abs().max()) < 5e-6
    assert float((entropy - exact_entropy).abs().max()) < 5e-6


@settings(max_examples=50, deadline=None)
@given(
    logits=st.lists(st.floats(-30, 30), min_size=2, max_size=6),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
)
def test_gradient_is_one_hot_minus_softmax(logits: list[float], temperature: float) -> None:
    leaf = torch.tensor([[logits]], dtype=torch.float64, requires_grad=True)
    chosen, entropy = token_logprobs(leaf, torch.tensor([[1]]), temperature)
    assert not entropy.requires_grad
    chosen.sum().backward()
    top = max(logits)
    weights = [math.exp((x - top) / temperature) for x in logits]
    expected = [((i == 1) - w / sum(weights)) / temperature for i, w in enumerate(weights)]
    assert leaf.grad[0, 0].tolist() == pytest.approx(expected, abs=1e-12)
