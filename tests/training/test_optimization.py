"""Updates whose outcome can be worked out by hand: AdamW's first step moves by the rate."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from judicaita.errors import CheckpointError, NumericalError
from judicaita.training.algorithms.spikes import SpikeHistory
from judicaita.training.config import TrainingConfig
from judicaita.training.devices import Placement
from judicaita.training.optimization import UpdateInfo, Updater
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

    updater.optimizers["adamw"].register_step_pre_hook(measure)
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
    before, moments = (
        weights(policy),
        copy.deepcopy(updater.optimizers["adamw"].state_dict()["state"]),
    )
    set_gradients(policy, 1)
    next(iter(policy.trainable()))[1].grad[0] = bad
    with pytest.raises(NumericalError, match="the gradient's norm is (inf|nan), so") as error:
        updater.step()
    assert error.value.kind == "gradient"
    assert policy.version == 1
    assert updater.step_count == 2, "the schedule goes on"
    for name, parameter in policy.trainable():
        assert torch.equal(parameter.detach(), before[name])
    after = updater.optimizers["adamw"].state_dict()["state"]
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
    updater.optimizers["adamw"].register_step_pre_hook(
        lambda *_: found.append(parameter.grad.clone())
    )
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


SPIKES = {"factor": 1.001, "window": 2, "backoff": 0.7}
"""A guard to which about every second of random gradients is a spike."""


@pytest.mark.parametrize("keys", [int, str])
@pytest.mark.parametrize(
    "more",
    [{}, {"optimizer": "muon"}, {"spikes": SPIKES}, {"spikes": SPIKES | {"skip": False}}],
    ids=["adamw", "muon", "spikes", "spikes made"],
)
def test_the_next_step_after_a_round_trip_is_bit_identical(
    make_policy: MakePolicy, tmp_path: Path, keys: Callable[[int], Any], more: dict[str, Any]
) -> None:
    """``str``: as a file of JSON gives the parameters' numbers back."""
    settings = {"lr_scheduler": "cosine", "warmup_steps": 1, "weight_decay": 0.1, **more}
    policy = make_policy("qwen2")
    updater = updater_of(policy, **settings)
    for step in range(3):
        set_gradients(policy, step)
        updater.step()
    updater.skip_to(4)
    state = updater.state_dict()
    for each in state["optimizers"].values():
        each["state"] = {keys(index): values for index, values in each["state"].items()}
    torch.save(state, tmp_path / "state.pt")

    resumed = make_policy("qwen2", seed=9)
    resumed.model.load_state_dict(policy.model.state_dict())
    other = updater_of(resumed, **settings)
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert (other.step_count, resumed.version) == (4, policy.version)
    assert other.spike_history == updater.spike_history
    for step in range(4):
        infos = []
        for each, its_policy in ((updater, policy), (other, resumed)):
            set_gradients(its_policy, 77 + step)
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
    updater.optimizers["adamw"].register_step_pre_hook(
        lambda *_: found.append(float(parameter.grad.max()))
    )
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


# ── numbers cut ──────────────────────────────────────────────────────────────────────────────────


def seen_by(updater: Updater) -> dict[str, torch.Tensor]:
    """Filled with the gradients that the optimizers see."""
    seen: dict[str, torch.Tensor] = {}
    for optimizer in updater.optimizers.values():
        optimizer.register_step_pre_hook(
            lambda *_: seen.update({n: p.grad.clone() for n, p in updater.policy.trainable()})
        )
    return seen


def norm_of(gradients: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float(g.double().pow(2).sum()) for g in gradients.values()))


@pytest.mark.parametrize("limit", [0.0, 2.0])
def test_numbers_are_cut_before_the_norm_is(policy: Policy, limit: float) -> None:
    updater = updater_of(policy, max_grad_value=0.25, max_grad_norm=limit)
    seen = seen_by(updater)
    set_gradients(policy, 0)
    given = {name: p.grad.double() for name, p in policy.trainable()}
    cut = {name: g.clamp(-0.25, 0.25) for name, g in given.items()}
    scale = min(1.0, limit / norm_of(cut)) if limit else 1.0
    info = updater.step()
    for name, gradient in seen.items():
        torch.testing.assert_close(gradient.double(), cut[name] * scale, rtol=1e-5, atol=0)
    assert norm_of(cut) > 2
    assert info.grad_norm == pytest.approx(norm_of(given), rel=1e-6)
    assert info.grad_norm_clipped == pytest.approx(norm_of(seen), rel=1e-5)


def test_an_infinite_number_is_not_cut_to_a_finite_one(policy: Policy) -> None:
    updater, before = updater_of(policy, max_grad_value=1.0), weights(policy)
    set_gradients(policy, 0)
    policy.trainable()[0][1].grad[0] = math.inf
    with pytest.raises(NumericalError, match="norm is inf"):
        updater.step()
    assert all(torch.equal(p, before[name]) for name, p in policy.trainable())


def test_numbers_are_cut_once_the_loss_s_scale_is_taken_out(policy: Policy) -> None:
    policy.placement = Placement(torch.device("cpu"), torch.float16)
    updater = updater_of(policy, max_grad_norm=0, max_grad_value=3.0)
    seen = seen_by(updater)
    (name, parameter), *_ = policy.trainable()
    updater.backward(2.0 * parameter[0].sum() + 5.0 * parameter[1].sum())
    for _, other in policy.trainable()[1:]:
        other.grad = torch.zeros_like(other)
    info = updater.step()
    assert info.applied
    assert torch.equal(seen[name][0], torch.full_like(seen[name][0], 2.0))
    assert torch.equal(seen[name][1], torch.full_like(seen[name][1], 3.0))
    width = parameter.shape[1]
    assert info.grad_norm == pytest.approx(math.sqrt(29 * width))
    assert info.grad_norm_clipped == pytest.approx(math.sqrt(13 * width))


# ── spikes ───────────────────────────────────────────────────────────────────────────────────────


def run_of(updater: Updater, *norms: float) -> list[UpdateInfo]:
    """Updates with gradients of these norms."""
    infos = []
    for step, norm in enumerate(norms):
        set_gradients(updater.policy, step, norm)
        infos.append(updater.step())
    return infos


def test_a_spike_is_left_out(policy: Policy) -> None:
    spikes = {"factor": 3, "window": 2}
    updater = updater_of(policy, 10, spikes=spikes, lr_scheduler="linear", max_grad_norm=0.5)
    run_of(updater, 1.0, 1.0)
    before, moments = weights(policy), copy.deepcopy(updater.optimizers["adamw"].state_dict())
    [info] = run_of(updater, 4.0)
    assert (info.spike, info.applied, info.rate_factor) == (True, False, 1.0)
    # What counts is the norm before clipping.
    assert info.grad_norm == pytest.approx(4.0, rel=1e-6)
    assert info.grad_norm_clipped == 0.5
    assert (policy.version, updater.step_count) == (2, 3), "the schedule goes on"
    assert all(torch.equal(p, before[name]) for name, p in policy.trainable())
    for index, moment in moments["state"].items():
        after = updater.optimizers["adamw"].state_dict()["state"][index]
        assert all(torch.equal(moment[key], after[key]) for key in moment)
    assert updater.take_spikes() == [info]
    assert updater.take_spikes() == []
    [info] = run_of(updater, 1.0)
    assert (info.spike, info.applied) == (False, True)
    assert info.learning_rate == pytest.approx(0.7 * RATE, rel=1e-12)
    assert policy.version == 3


def test_a_spike_may_be_made_at_a_lower_rate(policy: Policy) -> None:
    spikes = {"factor": 3, "window": 2, "skip": False, "backoff": 0.25, "recovery": 2}
    updater = updater_of(policy, spikes=spikes, max_grad_norm=0)
    infos = run_of(updater, 1.0, 1.0, 7.0)
    assert (infos[2].spike, infos[2].applied, infos[2].rate_factor) == (True, True, 0.25)
    assert policy.version == 3
    assert {group["lr"] for group in updater.optimizers["adamw"].param_groups} == {RATE / 4}
    infos += run_of(updater, 1.0, 1.0, 1.0)
    rates = [info.learning_rate for info in infos]
    assert rates == [RATE, RATE, RATE / 4, RATE / 4, RATE / 2, RATE]


def test_an_overflow_of_the_scaled_loss_is_no_spike(policy: Policy) -> None:
    policy.placement = Placement(torch.device("cpu"), torch.float16)
    updater = updater_of(policy, spikes={"factor": 3, "window": 2, "backoff": 0.5})
    (_, parameter), *_ = policy.trainable()
    found = []
    for size in (1.0, 1.0, math.inf, 9.0, 1.0):
        updater.backward(size * parameter.sum())
        found.append(updater.step())
    assert [info.applied for info in found] == [True, True, False, False, True]
    assert [info.spike for info in found] == [False, False, False, True, False]
    assert [info.rate_factor for info in found] == [1, 1, 1, 0.5, 0.5]
    assert policy.version == 3


def test_a_checkpoint_of_before_spikes_and_optimizers_had_a_place(make_policy: MakePolicy) -> None:
    policy, other = make_policy("qwen2"), make_policy("qwen2")
    updater = updater_of(policy)
    set_gradients(policy, 0)
    updater.step()
    state = copy.deepcopy(updater.state_dict())
    state["optimizer"] = state.pop("optimizers")["adamw"]
    del state["spikes"]
    other.model.load_state_dict(policy.model.state_dict())
    resumed = updater_of(other, spikes={"factor": 3})
    resumed.load_state_dict(state)
    assert resumed.spike_history == SpikeHistory()
    for each in (updater, resumed):
        set_gradients(each.policy, 1)
        each.step()
    pairs = zip(policy.trainable(), other.trainable(), strict=True)
    assert all(torch.equal(one, two) for (_, one), (_, two) in pairs)


def test_moments_of_another_optimizer_are_refused(policy: Policy) -> None:
    updater = updater_of(policy)
    set_gradients(policy, 0)
    updater.step()
    with pytest.raises(CheckpointError) as error:
        updater_of(policy, optimizer="muon").load_state_dict(updater.state_dict())
    assert str(error.value) == (
        "optimizer=muon: the checkpoint holds the moments of adamw, which are of no use to it. "
        "Resume with the optimizer of that run."
    )


def test_at_fp16_both_optimizers_of_muon_wait_for_the_right_scale(policy: Policy) -> None:
    policy.placement = Placement(torch.device("cpu"), torch.float16)
    updater = updater_of(policy, optimizer="muon", max_grad_norm=0)
    scale, seen = updater.scaler.get_scale(), seen_by(updater)
    # Of the two that overflow, the one knows nothing of the other's gradients.
    matrix = next(p for n, p in policy.trainable() if n.endswith("q_proj.weight"))
    vector = next(p for n, p in policy.trainable() if n.endswith("q_proj.bias"))
    for broken in (matrix, vector):
        before = weights(policy)
        updater.backward(sum(p.sum() for _, p in policy.trainable()) + math.inf * broken.sum())
        assert not updater.step().applied
        assert all(torch.equal(p, before[name]) for name, p in policy.trainable())
    assert updater.scaler.get_scale() == scale / 4
    updater.backward(sum(p.sum() for _, p in policy.trainable()))
    assert updater.step().applied
    assert all(torch.equal(gradient, torch.ones_like(gradient)) for gradient in seen.values())
    assert all(not torch.equal(p, before[name]) for name, p in policy.trainable())
