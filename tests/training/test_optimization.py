"""Updates whose outcome can be worked out by hand: AdamW's first step moves by the rate."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from judicaita.errors import NumericalError
from judicaita.training.config import TrainingConfig
from judicaita.training.devices import Placement
from judicaita.training.optimization import Updater
from judicaita.training.policy import Policy

RATE = 0.01
MakePolicy = Callable[..., Policy]


def updater_of(policy: Policy, total_steps: int = 10, **settings: Any) -> Updater:
    config = TrainingConfig(
        **{"learning_rate": RATE, "weight_decay": 0.0, "lr_scheduler": "constant", **settings}
    )
    return Updater(policy, config, total_steps)


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.trainable()}


def set_gradients(policy: Policy, seed: int, norm: float | None = None) -> None:
    """Random gradients; with ``norm``, of that L2 norm over all parameters."""
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in policy.trainable():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    if norm is not None:
        total = math.sqrt(sum(float(p.grad.double().pow(2).sum()) for _, p in policy.trainable()))
        for _, parameter in policy.trainable():
            parameter.grad *= norm / total


@pytest.fixture
def policy(make_policy: MakePolicy) -> Policy:
    return make_policy("qwen2")


def test_the_first_update_is_the_rate_s_length(policy: Policy) -> None:
    # m̂/√v̂ = g/|g| at the first step: every weight moves by the rate against its gradient.
    updater, before = updater_of(policy, max_grad_norm=0), weights(policy)
    set_gradients(policy, 0)
    signs = {name: p.grad.sign() for name, p in policy.trainable()}
    info = updater.step()
    assert (info.learning_rate, info.applied) == (RATE, True)
    for name, parameter in policy.trainable():
        moved = parameter.detach() - before[name]
        torch.testing.assert_close(moved, -RATE * signs[name], rtol=0, atol=1e-5)
        assert parameter.grad is None
    assert policy.version == 1


def test_matrices_decay_and_vectors_do_not(policy: Policy) -> None:
    # With gradients of 0 nothing but the decay is left: w·(1 − rate·decay).
    updater, before = updater_of(policy, weight_decay=0.5), weights(policy)
    for _, parameter in policy.trainable():
        parameter.grad = torch.zeros_like(parameter)
    updater.step()
    shapes = set()
    for name, parameter in policy.trainable():
        factor = 1 - RATE * 0.5 if parameter.ndim >= 2 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, rtol=1e-6, atol=0)
        shapes.add(parameter.ndim)
    assert shapes == {1, 2}


@pytest.mark.parametrize(
    ("norm", "limit", "seen"), [(5.0, 1.0, 1.0), (0.5, 1.0, 0.5), (5.0, 0.0, 5.0), (8.0, 2.0, 2.0)]
)
def test_clipping(policy: Policy, norm: float, limit: float, seen: float) -> None:
    updater = updater_of(policy, max_grad_norm=limit)
    found: list[float] = []

    def measure(*_: Any) -> None:
        found.append(math.sqrt(sum(float(p.grad.pow(2).sum()) for _, p in policy.trainable())))

    updater.optimizer.register_step_pre_hook(measure)
    set_gradients(policy, 0, norm)
    info = updater.step()
    assert found == [pytest.approx(seen, rel=1e-4)]
    assert info.grad_norm == pytest.approx(norm, rel=1e-4)
    assert info.grad_norm_clipped == pytest.approx(seen, rel=1e-4)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_gradient_that_is_not_finite_changes_nothing(policy: Policy, bad: float) -> None:
    updater = updater_of(policy)
    set_gradients(policy, 0)
    updater.step()
    before, moments = weights(policy), copy.deepcopy(updater.optimizer.state_dict()["state"])
    set_gradients(policy, 1)
    next(iter(policy.trainable()))[1].grad[0] = bad
    with pytest.raises(NumericalError, match="the gradient's norm is (inf|nan), so") as error:
        updater.step()
    assert error.value.kind == "gradient"
    assert policy.version == 1
    assert updater.step_count == 2, "the schedule goes on"
    for name, parameter in policy.trainable():
        assert torch.equal(parameter.detach(), before[name])
    after = updater.optimizer.state_dict()["state"]
    for index, moment in moments.items():
        assert all(torch.equal(moment[key], after[index][key]) for key in moment)
    # The bad gradient is gone, too.
    set_gradients(policy, 2)
    assert updater.step().applied
    assert all(parameter.isfinite().all() for _, parameter in policy.trainable())


def test_gradients_of_micro_batches_add_up(policy: Policy) -> None:
    updater = updater_of(policy, max_grad_norm=0)
    (_, parameter), *_ = policy.trainable()
    found: list[torch.Tensor] = []
    updater.optimizer.register_step_pre_hook(lambda *_: found.append(parameter.grad.clone()))
    for factor in (1.0, 2.0, 4.0):
        updater.backward(factor * parameter.sum())
    updater.step()
    assert torch.equal(found[0], torch.full_like(found[0], 7.0))


def test_warm_up_and_fall(policy: Policy) -> None:
    # 2 steps of warm-up, then linearly from step 2 to where the run ends, 6: a half would be left.
    updater = updater_of(policy, 6, warmup_steps=2, lr_scheduler="linear", lr_floor=0.5)
    expected = [1 / 3, 2 / 3, 1, 0.875, 0.75, 0.625, 0.5]
    rates = []
    for step in range(7):
        set_gradients(policy, step)
        before = weights(policy)
        rates.append(updater.step().learning_rate)
        if step == 0:
            name, parameter = policy.trainable()[0]
            moved = (parameter.detach() - before[name]).abs().max()
            assert float(moved) == pytest.approx(RATE / 3, rel=1e-3)
    assert rates == pytest.approx([RATE * factor for factor in expected], rel=1e-12)


def test_a_skipped_step_counts_in_the_schedule(policy: Policy) -> None:
    updater, before = updater_of(policy, 4, lr_scheduler="linear"), weights(policy)
    set_gradients(policy, 0)
    updater.skip_to(1)
    assert all(p.grad is None for _, p in policy.trainable())
    assert all(torch.equal(p, before[name]) for name, p in policy.trainable())
    assert policy.version == 0
    set_gradients(policy, 0)
    assert updater.step().learning_rate == pytest.approx(0.75 * RATE)


@pytest.mark.parametrize("keys", [int, str])
def test_the_next_step_after_a_round_trip_is_bit_identical(
    make_policy: MakePolicy, tmp_path: Path, keys: Callable[[int], Any]
) -> None:
    """``str``: as a file of JSON gives the parameters' numbers back."""
    settings = {"lr_scheduler": "cosine", "warmup_steps": 1, "weight_decay": 0.1}
    policy = make_policy("qwen2")
    updater = updater_of(policy, **settings)
    for step in range(3):
        set_gradients(policy, step)
        updater.step()
    updater.skip_to(4)
    state = updater.state_dict()
    moments = state["optimizer"]["state"]
    state["optimizer"]["state"] = {keys(index): values for index, values in moments.items()}
    torch.save(state, tmp_path / "state.pt")

    resumed = make_policy("qwen2", seed=9)
    resumed.model.load_state_dict(policy.model.state_dict())
    other = updater_of(resumed, **settings)
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert (other.step_count, resumed.version) == (4, 3)
    for _ in range(2):
        infos = []
        for each, its_policy in ((updater, policy), (other, resumed)):
            set_gradients(its_policy, 77)
            infos.append(each.step())
        assert infos[0] == infos[1]
        pairs = zip(policy.trainable(), resumed.trainable(), strict=True)
        assert all(torch.equal(one, two) for (_, one), (_, two) in pairs)


def test_fp16_scales_the_loss_and_lowers_the_scale_on_overflow(policy: Policy) -> None:
    policy.placement = Placement(torch.device("cpu"), torch.float16)
    updater = updater_of(policy, max_grad_norm=0)
    scale = updater.scaler.get_scale()
    (name, parameter), *_ = policy.trainable()
    found: list[float] = []
    updater.optimizer.register_step_pre_hook(lambda *_: found.append(float(parameter.grad.max())))
    updater.backward(1e-9 * parameter.sum())
    assert float(parameter.grad.max()) == pytest.approx(scale * 1e-9)
    assert updater.step().applied
    assert found == [pytest.approx(1e-9)]

    before = weights(policy)
    updater.backward(math.inf * parameter.sum())
    assert not updater.step().applied
    assert torch.equal(parameter.detach(), before[name])
    assert updater.scaler.get_scale() == scale / 2
    saved = updater.state_dict()
    again = updater_of(policy)
    again.load_state_dict(saved)
    assert again.scaler.get_scale() == scale / 2
    # Once there is nothing left to lower, it is the gradient itself that overflows.
    updater.scaler.update(1.0)
    updater.backward(math.inf * parameter.sum())
    with pytest.raises(NumericalError, match="norm is (inf|nan)"):
        updater.step()
    assert torch.equal(parameter.detach(), before[name])
