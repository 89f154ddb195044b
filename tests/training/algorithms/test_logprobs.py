"""Log-probabilities and entropies against a softmax by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.training.algorithms import logprobs
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


def entropy_of(logits: torch.Tensor) -> torch.Tensor:
    p = (logits / 0.7).softmax(-1)
    return -(p * p.log()).sum(-1)


def test_the_gradient_of_the_entropy_by_hand() -> None:
    """By a logit it is −p(log p + H) / T; and both values stay to the last bit."""
    logits = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    targets = torch.tensor([[1, 0, 4]])
    leaf = logits.clone().requires_grad_()
    chosen, entropy = token_logprobs(leaf, targets, 0.7, entropy_gradient=True)
    entropy.sum().backward()
    p = (logits / 0.7).softmax(-1)
    expected = -p * (p.log() + entropy_of(logits)[..., None]) / 0.7
    assert leaf.grad is not None
    assert torch.allclose(leaf.grad, expected, rtol=0, atol=1e-15)
    plain = token_logprobs(logits, targets, 0.7)
    assert torch.equal(chosen.detach(), plain[0])
    assert torch.allclose(entropy.detach(), plain[1], rtol=0, atol=1e-15)


@pytest.mark.parametrize("learns", [True, False], ids=["chunked", "frozen"])
def test_the_gradient_of_the_entropy_through_a_head(
    learns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks of 5 of 12 tokens, log-probabilities and entropies weighed together."""
    monkeypatch.setattr(logprobs, "LOGITS_AT_ONCE", 5 * 9)
    monkeypatch.setattr(logprobs, "TOKENS_AT_ONCE", 5)
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 9).double().requires_grad_(learns)
    hidden, targets = torch.randn(12, 4).double(), torch.randint(9, (12,))
    weights = torch.randn(2, 12).double()

    def gradient(values: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> Any:
        leaf = hidden.clone().requires_grad_()
        chosen, entropy = values(leaf)
        loss = (chosen * weights[0] + entropy * weights[1]).sum()
        return torch.autograd.grad(loss, leaf)[0]

    def found(leaf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if learns:
            return logprobs.chunked_logprobs(head, leaf, targets, 0.7, 9, True)
        return logprobs.frozen_head_logprobs(head, leaf, targets, 0.7, True)

    def expected(leaf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = head(leaf)
        log_p = (logits / 0.7).log_softmax(-1)
        return log_p.gather(-1, targets[:, None])[:, 0], entropy_of(logits)

    assert torch.allclose(gradient(found), gradient(expected), rtol=0, atol=1e-13)
