"""Every loss by hand: both signs of the advantage, ratios on both sides of each bound, masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from judicaita.training.algorithms.losses import (
    LOSSES,
    BNPOLoss,
    CISPOLoss,
    DAPOLoss,
    DrGRPOLoss,
    GRPOLoss,
    GSPOLoss,
    GSPOTokenLoss,
    LossOutput,
    PolicyLoss,
    SAPOLoss,
)
from judicaita.training.algorithms.reduction import StepSizes

CLIPPED = (DAPOLoss, GRPOLoss, BNPOLoss, DrGRPOLoss)
ALL: tuple[Any, ...] = (
    *LOSSES,
    lambda: DAPOLoss(dual_clip=3.0),
    lambda: CISPOLoss(bound="interval"),
)


def double(values: Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def of_token(loss: Any, ratio: float, advantage: float) -> tuple[float, float, bool]:
    """Value, slope by log π, and whether a bound cut, of a completion of one token."""
    old = double([[-1.5]]).requires_grad_()
    log_p = (old.detach() + math.log(ratio)).requires_grad_()
    output = loss(log_p, old, double([[advantage]]), torch.tensor([[True]]))
    output.per_token_B_T.sum().backward()
    assert old.grad is None
    return (
        float(output.per_token_B_T.detach()),
        float(log_p.grad),  # type: ignore[arg-type]
        bool(output.clipped_B_T),
    )


# ── the clipped surrogate ────────────────────────────────────────────────────────────────────────

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


@pytest.mark.parametrize("kind", CLIPPED)
@pytest.mark.parametrize(("ratio", "advantage", "expected", "slope"), BY_HAND)
def test_clipped(kind: Any, ratio: float, advantage: float, expected: float, slope: float) -> None:
    found = of_token(kind(clip_low=0.2, clip_high=0.3), ratio, advantage)
    assert found[:2] == pytest.approx((expected, slope), abs=1e-14)
    assert found[2] == (slope == 0 and advantage != 0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "slope"),
    [
        (0.5, -2.0, 1.6, 0.0),
        (2.9, -2.0, 5.8, 5.8),
        (3.1, -2.0, 6.0, 0.0),
        (10.0, -2.0, 6.0, 0.0),
        (10.0, 2.0, -2.6, 0.0),
        (0.5, 2.0, -1.0, -1.0),
    ],
)
def test_dual_clip(ratio: float, advantage: float, expected: float, slope: float) -> None:
    """For a negative advantage the loss is at most 3 · 2; a positive one goes as before."""
    loss = DAPOLoss(clip_low=0.2, clip_high=0.3, dual_clip=3.0)
    value, found, cut = of_token(loss, ratio, advantage)
    assert (value, found) == pytest.approx((expected, slope), abs=1e-14)
    assert cut == (slope == 0)


# ── cispo, sapo ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("loss", "ratio", "weight"),
    [
        (CISPOLoss(cap=1.5), 0.2, 0.2),
        (CISPOLoss(cap=1.5), 1.4, 1.4),
        (CISPOLoss(cap=1.5), 4.0, 1.5),
        (CISPOLoss(bound="interval", clip_low=0.3, clip_high=0.4), 0.2, 0.7),
        (CISPOLoss(bound="interval", clip_low=0.3, clip_high=0.4), 1.1, 1.1),
        (CISPOLoss(bound="interval", clip_low=0.3, clip_high=0.4), 4.0, 1.4),
    ],
)
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_cispo(loss: CISPOLoss, ratio: float, weight: float, advantage: float) -> None:
    """−w·A·log π, w without a gradient: the slope is −wA on either side of the bound."""
    value, slope, cut = of_token(loss, ratio, advantage)
    assert value == pytest.approx(-weight * advantage * (-1.5 + math.log(ratio)), abs=1e-13)
    assert slope == pytest.approx(-weight * advantage, abs=1e-14)
    assert cut == (weight != ratio)


@pytest.mark.parametrize(
    ("ratio", "advantage", "tau"), [(1.0, 2.0, 1.5), (0.3, 2.0, 1.5), (2.5, -2.0, 0.5)]
)
def test_sapo(ratio: float, advantage: float, tau: float) -> None:
    """Gate (4/τ)·s with s = 1/(1 + e^−τ(r−1)); its slope by log π is 4·s·(1 − s)·r, 1 at r = 1."""
    s = 1 / (1 + math.exp(-tau * (ratio - 1)))
    value, slope, cut = of_token(SAPOLoss(tau_positive=1.5, tau_negative=0.5), ratio, advantage)
    assert value == pytest.approx(-4 / tau * s * advantage, abs=1e-14)
    assert slope == pytest.approx(-4 * s * (1 - s) * ratio * advantage, abs=1e-14)
    assert not cut


# ── gspo ─────────────────────────────────────────────────────────────────────────────────────────


def of_completion(loss: Any, log_ratios: Sequence[float], advantages: Sequence[float]) -> Any:
    """Values and slopes of a completion of three tokens; a fourth place is padding."""
    old = double([[-1.0, -2.0, -0.5, -9.0]])
    log_p = (old + double([[*log_ratios, 7.0]])).requires_grad_()
    mask = torch.tensor([[True, True, True, False]])
    output = loss(log_p, old, double([[*advantages, 5.0]]), mask)
    output.per_token_B_T[mask].sum().backward()
    assert log_p.grad is not None
    assert float(log_p.grad[0, 3]) == 0
    return output.per_token_B_T[0, :3].tolist(), log_p.grad[0, :3].tolist()


def test_gspo_by_hand() -> None:
    """Log-ratios .3, −.1, .1 have the mean .1: s = e^.1 for all three. With advantages 1 each
    token's loss is −s, and a token's log π moves all three by a third."""
    values, slopes = of_completion(GSPOLoss(clip_high=0.5), [0.3, -0.1, 0.1], [1, 1, 1])
    s = math.exp(0.1)
    assert values == pytest.approx([-s] * 3, abs=1e-14)
    assert slopes == pytest.approx([-s] * 3, abs=1e-14)
    # e^.1 = 1.105 lies beyond 1 + .05: cut as a whole.
    values, slopes = of_completion(GSPOLoss(clip_high=0.05), [0.3, -0.1, 0.1], [1, 1, 1])
    assert values == pytest.approx([-1.05] * 3, abs=1e-14)
    assert slopes == [0, 0, 0]
    # Below 1 − .05 only where the advantage is negative.
    s = math.exp(-0.1)
    loss = GSPOLoss(clip_low=0.05)
    assert of_completion(loss, [-0.3, 0.1, -0.1], [1, 1, 1])[1] == pytest.approx([-s] * 3)
    assert of_completion(loss, [-0.3, 0.1, -0.1], [-1, -1, -1])[1] == [0, 0, 0]


def test_gspo_token_by_hand() -> None:
    """The same ratio as the value; each token has its own advantage in its slope alone."""
    s, advantages = math.exp(0.1), [1.0, 2.0, -1.0]
    values, slopes = of_completion(GSPOTokenLoss(clip_high=0.5), [0.3, -0.1, 0.1], advantages)
    assert values == pytest.approx([-s, -2 * s, s], abs=1e-14)
    assert slopes == pytest.approx([-s, -2 * s, s], abs=1e-14)
    # In GSPO itself every slope has the mean of the advantages.
    values, slopes = of_completion(GSPOLoss(clip_high=0.5), [0.3, -0.1, 0.1], advantages)
    assert slopes == pytest.approx([-s * 2 / 3] * 3, abs=1e-14)


def test_gspo_and_its_token_form_agree_on_one_advantage() -> None:
    for advantage in (1.5, -0.5):
        of_both = [
            of_completion(kind(clip_low=0.3, clip_high=0.3), [0.3, -0.1, 0.1], [advantage] * 3)
            for kind in (GSPOLoss, GSPOTokenLoss)
        ]
        for one, other in zip(*of_both, strict=True):
            assert one == pytest.approx(other, abs=1e-14)


# ── reductions ───────────────────────────────────────────────────────────────────────────────────

VALUES = double([[1, 2, 3, 99], [10, 99, 99, 99]])
MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])
SIZES = StepSizes(tokens=10, sequences=4, longest=8, passes=2, pass_tokens=4)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (DAPOLoss(), 16 / 10),
        (CISPOLoss(), 16 / 10),
        (GRPOLoss(), (6 / 3 + 10 / 1) / 4),
        (GSPOLoss(), (6 / 3 + 10 / 1) / 4),
        (GSPOTokenLoss(), (6 / 3 + 10 / 1) / 4),
        (SAPOLoss(), (6 / 3 + 10 / 1) / 4),
        (DrGRPOLoss(), 16 / (4 * 8)),
        (BNPOLoss(), 16 / 4 / 2),
    ],
    ids=lambda value: getattr(value, "type", None),
)
def test_reduction(loss: Any, expected: float) -> None:
    """Of ten tokens in four completions; the masked 99s count nowhere."""
    assert float(loss.reduce(VALUES, MASK, SIZES)) == pytest.approx(expected, abs=1e-15)


# ── what must hold for all of them ───────────────────────────────────────────────────────────────


class Batch:
    """Three completions of up to five tokens, ratios well away from 1, of unequal length."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.old = -normal(3, 5).abs() - 0.1
        self.now = self.old + 0.4 * normal(3, 5)
        self.advantages = normal(3, 1).expand(3, 5) * 2
        self.mask = torch.arange(5) < torch.tensor([[5], [1], [3]])
        self.sizes = StepSizes(9, 3, 6, 1, 9)

    def value(self, loss: Any, now: Tensor) -> Tensor:
        output: LossOutput = loss(now, self.old, self.advantages, self.mask)
        reduced: Tensor = loss.reduce(output.per_token_B_T, self.mask, self.sizes)
        return reduced

    def gradient(self, loss: Any) -> Tensor:
        leaf = self.now.clone().requires_grad_()
        (found,) = torch.autograd.grad(self.value(loss, leaf), leaf)
        return found


@pytest.mark.parametrize("make", ALL)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_gradient_is_the_finite_difference(make: Any, seed: int) -> None:
    """But for what a loss leaves without a gradient on purpose: CISPO's weight, GSPO-token's ratio,
    which are put in by hand."""
    loss, batch, step = make(), Batch(seed), 1e-6
    found = batch.gradient(loss)
    for row, place in ((0, 0), (0, 4), (1, 0), (2, 1)):
        moved = [batch.now.clone() for _ in range(2)]
        moved[0][row, place] += step
        moved[1][row, place] -= step
        if isinstance(loss, CISPOLoss):
            weight = (batch.now - batch.old).exp()[row, place]
            lowest = 1 - loss.clip_low if loss.bound == "interval" else 0
            highest = loss.cap if loss.bound == "cap" else 1 + loss.clip_high
            expected = -weight.clamp(lowest, highest) * batch.advantages[row, place] / 9
        elif isinstance(loss, GSPOTokenLoss):
            expected = batch.gradient(GSPOLoss(**loss.model_dump(exclude={"type"})))[row, place]
        else:
            up, down = (batch.value(loss, now) for now in moved)
            expected = (up - down) / (2 * step)
            if abs(float(expected - found[row, place])) > 1e-6:  # on a kink there are two slopes
                sides = [
                    abs(float(batch.value(loss, now) - batch.value(loss, batch.now))) / step
                    for now in moved
                ]
                assert abs(sides[0] - sides[1]) > 1e-3
                continue
        assert float(found[row, place]) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("make", ALL)
def test_padding_has_no_part(make: Any) -> None:
    loss, batch = make(), Batch(3)
    before = batch.value(loss, batch.now), batch.gradient(loss)
    for tensor in (batch.now, batch.old):
        tensor[~batch.mask] = -0.7
    batch.advantages = batch.advantages.clone()
    batch.advantages[~batch.mask] = 1e6
    assert torch.equal(batch.value(loss, batch.now), before[0])
    found = batch.gradient(loss)
    assert torch.equal(found, before[1])
    assert float(found[~batch.mask].abs().sum()) == 0


@pytest.mark.parametrize("make", ALL)
def test_the_order_of_completions_has_no_part(make: Any) -> None:
    loss, batch, order = make(), Batch(4), [2, 0, 1]
    before = batch.value(loss, batch.now), batch.gradient(loss)
    for name in ("now", "old", "advantages", "mask"):
        setattr(batch, name, getattr(batch, name)[order])
    assert float(batch.value(loss, batch.now)) == pytest.approx(float(before[0]), abs=1e-15)
    assert torch.allclose(batch.gradient(loss), before[1][order], rtol=0, atol=1e-15)


@pytest.mark.parametrize("make", ALL)
def test_pieces_add_up(make: Any) -> None:
    """Row by row, as micro-batches of one; BNPO is a mean over its micro-batches by definition."""
    loss, batch = make(), Batch(5)
    whole = batch.gradient(loss)
    rows = []
    for row in range(3):
        piece = Batch(5)
        for name in ("now", "old", "advantages", "mask"):
            setattr(piece, name, getattr(batch, name)[row : row + 1])
        if isinstance(loss, BNPOLoss):
            piece.sizes = StepSizes(9, 3, 6, passes=3, pass_tokens=int(piece.mask.sum()))
        rows.append(piece.gradient(loss))
    found = torch.cat(rows)
    if isinstance(loss, BNPOLoss):
        assert not torch.allclose(found, whole)
    else:
        assert torch.allclose(found, whole, rtol=0, atol=1e-15)


@pytest.mark.parametrize("make", ALL)
def test_without_advantage_nothing_is_learned(make: Any) -> None:
    loss, batch = make(), Batch(6)
    batch.advantages = torch.zeros(3, 5, dtype=torch.float64)
    assert float(batch.gradient(loss).abs().sum()) == 0


@pytest.mark.parametrize("make", ALL)
def test_on_policy_it_is_the_policy_gradient(make: Any) -> None:
    """At r = 1 every loss has the slope −A, weighed by its reduction."""
    loss, batch = make(), Batch(7)
    batch.now = batch.old.clone()
    ones = torch.ones(3, 5, dtype=torch.float64).requires_grad_()
    (weights,) = torch.autograd.grad(loss.reduce(ones, batch.mask, batch.sizes), ones)
    expected = -batch.advantages * weights
    assert torch.allclose(batch.gradient(loss), expected, rtol=0, atol=1e-14)


# ── knobs ────────────────────────────────────────────────────────────────────────────────────────

KNOBS: list[tuple[Any, dict[str, Any]]] = [
    *((kind, {"clip_low": 0.05}) for kind in (*CLIPPED, GSPOLoss, GSPOTokenLoss)),
    *((kind, {"clip_high": 0.5}) for kind in (*CLIPPED, GSPOLoss, GSPOTokenLoss)),
    *((kind, {"dual_clip": 1.3}) for kind in CLIPPED),
    *((kind, {"dual_clip": 1.1}) for kind in (GSPOLoss, GSPOTokenLoss)),
    (CISPOLoss, {"cap": 0.9}),
    (CISPOLoss, {"bound": "interval"}),
    (SAPOLoss, {"tau_positive": 3.0}),
    (SAPOLoss, {"tau_negative": 3.0}),
]


@pytest.mark.parametrize(("kind", "knobs"), KNOBS)
def test_every_knob_changes_the_gradient(kind: Any, knobs: dict[str, Any]) -> None:
    gradients = [
        torch.cat([Batch(seed).gradient(loss) for seed in range(20)])
        for loss in (kind(), kind(**knobs))
    ]
    assert not torch.equal(*gradients)


def test_both_knobs_of_cispos_interval() -> None:
    plain = CISPOLoss(bound="interval")
    for knobs in ({"clip_low": 0.05}, {"clip_high": 0.05}):
        changed = CISPOLoss(bound="interval", **knobs)
        assert not torch.equal(Batch(1).gradient(plain), Batch(1).gradient(changed))


def test_defaults_are_those_of_the_papers_and_peers() -> None:
    assert DAPOLoss().model_dump() == {
        **{"type": "dapo", "clip_low": 0.2, "clip_high": 0.2, "dual_clip": None}
    }
    assert (GSPOLoss().clip_low, GSPOLoss().clip_high) == (3e-4, 4e-4)
    assert (CISPOLoss().bound, CISPOLoss().cap) == ("cap", 5.0)
    assert (SAPOLoss().tau_positive, SAPOLoss().tau_negative) == (1.0, 1.05)
    names = [kind.model_fields["type"].default for kind in LOSSES]
    assert names == ["dapo", "grpo", "bnpo", "dr_grpo", "cispo", "gspo", "gspo_token", "sapo"]


@pytest.mark.parametrize(
    "knobs",
    [
        *({"clip_low": 0}, {"clip_low": 1.0}, {"clip_high": 0}, {"clip_high": math.inf}),
        *({"dual_clip": 1.0}, {"dual_clip": 1.2}, {"delta": 3}, {"type": "ppo"}, {"cap": 5.0}),
        *({"type": "sapo", "tau_positive": 0}, {"type": "sapo", "clip_low": 0.2}),
        *({"type": "cispo", "clip_low": 0.1}, {"type": "cispo", "bound": "interval", "cap": 2}),
        {"type": "cispo", "bound": "both"},
    ],
)
def test_bad_knobs_are_refused(knobs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(PolicyLoss).validate_python({"type": "dapo", **knobs})
