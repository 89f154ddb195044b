"""Advantages of groups, and the credit of single steps, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from judicaita.errors import ConfigError
from judicaita.training.config import TrainingConfig
from judicaita.training.credit import refuse_other_step_mode, weigh_groups
from judicaita.training.rewards import CompositeReward, as_reward, composite_from_config
from judicaita.types import Completion, Group, RewardResult, Sample

PER_STEP: dict[str, Any] = {
    "step_mode": "per_step",
    "step_weight": 0.6,
    "grpo_tau": 0.5,
    "grpo_gamma": 0.5,
    "format_weight": 0.3,
    "outcome_weight": 0.5,
    "verbosity_weight": 0.4,
}
"""Steps weigh 0.6 / 1.2 = 1/2."""

HIT, MISS = 0.25 / (0.5 + 1e-4) / 0.5, -0.75 / (0.5 + 1e-4) / 0.5
"""Credits 1, 0, 1, 1 of a group at tau 1/2: mean 3/4, σ 1/2."""


def group_of(*scored: tuple[float | None, list[float] | None]) -> Group:
    """One completion for each score and its credits; None where the steps cannot be checked."""
    results = []
    for score, credits in scored:
        details = {"credits": credits} if credits is not None else {"reason": "no family"}
        steps = {"score": 0.0 if credits is not None else None, "weight": 0.0, "details": details}
        results.append(RewardResult(score, {"steps": steps}))
    completion = Completion((1,), (-1.0,), "stop", 0)
    count = len(scored)
    return Group(Sample("?", "No"), (2,), (completion,) * count, ("",) * count, tuple(results))


def weigh_group(group: Group, config: TrainingConfig) -> Group:
    [weighed] = weigh_groups([group], config)
    return weighed


def test_per_step_by_hand() -> None:
    """Rewards 1 and 0: σ is √½. Steps: right, wrong, right in the one answer, right in the other;
    each earns its own z-score and half of what the next one does, all times 1/2."""
    group = weigh_group(group_of((1.0, [1, 0, 1]), (0.0, [1])), TrainingConfig(**PER_STEP))
    outcome = 0.5 / (0.5**0.5 + 1e-4) / 0.5
    assert group.advantages == pytest.approx((outcome, -outcome), abs=1e-12)
    last, second = HIT, MISS + HIT / 2
    expected = [x / 2 for x in (HIT + second / 2, second, last)]
    assert group.step_returns[0] == pytest.approx(expected, abs=1e-12)
    assert group.step_returns[1] == pytest.approx([HIT / 2], abs=1e-12)
    assert group.has_signal


def test_credits_alone_are_a_signal() -> None:
    config = TrainingConfig(**PER_STEP)
    differing = weigh_group(group_of((0.5, [1, 0]), (0.5, [1, 1])), config)
    assert differing.advantages == (0, 0)
    assert differing.has_signal
    # A step more or less is no difference in truth.
    equal = weigh_group(group_of((0.5, [1, 1]), (0.5, [1])), config)
    assert not equal.has_signal
    assert equal.step_returns == ((0, 0), (0,))


def test_answers_without_steps() -> None:
    config = TrainingConfig(**PER_STEP)
    some = weigh_group(group_of((1.0, []), (0.0, [1, 0])), config)
    assert some.step_returns[0] == ()
    # 1, 0: mean 1/2, σ √½.
    z = 0.5 / (0.5**0.5 + 1e-4) / 0.5
    assert some.step_returns[1] == pytest.approx([(z - z / 2) / 2, -z / 2], abs=1e-12)
    none = weigh_group(group_of((1.0, []), (0.0, [])), config)
    assert none.step_returns == ()
    assert none.has_signal


def test_steps_that_cannot_be_checked_earn_nothing() -> None:
    group = weigh_group(group_of((1.0, None), (0.0, None)), TrainingConfig(**PER_STEP))
    assert group.step_returns == ()
    assert group.has_signal
    silent = weigh_group(group_of((None, None), (None, None)), TrainingConfig(**PER_STEP))
    assert (silent.advantages, silent.step_returns, silent.has_signal) == ((0, 0), (), False)


@pytest.mark.parametrize("mode", ["additive", "gated"])
def test_other_modes_credit_whole_answers(mode: str) -> None:
    config = TrainingConfig(**{**PER_STEP, "step_mode": mode})
    group = weigh_group(group_of((0.5, [1, 0]), (0.5, [1, 1])), config)
    assert group.step_returns == ()
    assert not group.has_signal


def test_reward_and_trainer_must_mean_the_same() -> None:
    config = TrainingConfig(**PER_STEP)
    refuse_other_step_mode(config, composite_from_config(config))
    refuse_other_step_mode(TrainingConfig(), as_reward(lambda p, r, reference: 1.0))
    refuse_other_step_mode(TrainingConfig(), CompositeReward(step_weight=1.0, step_mode="gated"))
    with pytest.raises(ConfigError, match="step_mode=per_step, but that of the reward composite"):
        refuse_other_step_mode(config, CompositeReward())
    with pytest.raises(ConfigError, match="step_mode=additive, but .* is per_step"):
        refuse_other_step_mode(
            TrainingConfig(), CompositeReward(step_weight=1.0, step_mode="per_step")
        )
