"""Weights against numbers by hand, and what they are there for: an unbiased mean."""

from __future__ import annotations

import math

import pytest
import torch

from judicaita.errors import ConfigError
from judicaita.training.algorithms.correction import ImportanceCorrection
from judicaita.training.config import TrainingConfig

POLICY = torch.tensor([[0.5, 0.8, 0.5], [0.2, 0.1, 0.9]], dtype=torch.float64).log()
DRAWN = torch.tensor([[0.25, 0.2, 0.5], [0.4, 0.1, 0.1]], dtype=torch.float64).log()
MASK = torch.tensor([[True, True, True], [True, True, False]])
# Ratios of tokens: 2, 4, 1 and 1/2, 1 (and 9 outside of the mask); of completions 8 and 1/2.


@pytest.mark.parametrize(
    ("kind", "cap", "expected"),
    [
        ("none", 3.0, [[1, 1, 1], [1, 1]]),
        ("token_truncate", 3.0, [[2, 3, 1], [0.5, 1]]),
        ("token_truncate", 4.5, [[2, 4, 1], [0.5, 1]]),
        ("token_mask", 3.0, [[2, 0, 1], [0.5, 1]]),
        ("token_mask", 1.5, [[0, 0, 1], [0.5, 1]]),
        ("sequence_truncate", 3.0, [[3, 3, 3], [0.5, 0.5]]),
        ("sequence_truncate", 9.0, [[8, 8, 8], [0.5, 0.5]]),
        ("sequence_mask", 3.0, [[0, 0, 0], [0.5, 0.5]]),
        ("sequence_mask", 9.0, [[8, 8, 8], [0.5, 0.5]]),
    ],
)
def test_by_hand(kind: str, cap: float, expected: list[list[float]]) -> None:
    policy = POLICY.clone().requires_grad_()
    weights = ImportanceCorrection(type=kind, cap=cap)(policy, DRAWN, MASK)  # type: ignore[arg-type]
    assert not weights.requires_grad
    for row, mask, right in zip(weights, MASK, expected, strict=True):
        assert row[mask].tolist() == pytest.approx(right)


def test_what_stands_outside_the_mask_changes_nothing() -> None:
    changed = DRAWN.clone()
    changed[1, 2] = -math.inf
    for kind in ("token_truncate", "sequence_mask"):
        correction = ImportanceCorrection(type=kind)  # type: ignore[arg-type]
        assert torch.equal(
            correction(POLICY, DRAWN, MASK)[MASK], correction(POLICY, changed, MASK)[MASK]
        )


def test_it_makes_a_mean_unbiased() -> None:
    """Samples of one distribution, weighed, have the mean of another."""
    policy = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    drawn = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    values = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.multinomial(drawn, 200_000, replacement=True, generator=generator)[:, None]
    weights = ImportanceCorrection(type="token_truncate", cap=10)(
        policy.log()[tokens], drawn.log()[tokens], torch.ones_like(tokens, dtype=torch.bool)
    )
    mean = float((weights * values[tokens]).mean())
    assert mean == pytest.approx(float((policy * values).sum()), abs=0.03)
    assert abs(mean - float((drawn * values).sum())) > 1


@pytest.mark.parametrize("settings", [{"type": "tokens"}, {"cap": 0.5}, {"clip_high": 0.3}])
def test_what_it_refuses(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="correction"):
        TrainingConfig(base_model="tiny", correction=settings)
