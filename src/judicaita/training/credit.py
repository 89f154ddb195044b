"""From scores to advantages: what each completion of a group earned, and each of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from judicaita.errors import ConfigError
from judicaita.training.algorithms.advantages import (
    group_advantages,
    has_signal,
    step_advantages,
    step_returns,
)
from judicaita.training.config import TrainingConfig
from judicaita.training.metrics import ENTERED
from judicaita.training.reward_plugins import Reward
from judicaita.types import Group, RewardResult

NO_SIGNAL = "no signal"
ABSTAINED = "reward abstained"


def refuse_other_step_mode(config: TrainingConfig, reward: Reward) -> None:
    """`ConfigError` where only one of reward and trainer means to credit step by step."""
    of_reward = getattr(reward, "step_mode", "additive")
    if (config.step_mode == "per_step") != (of_reward == "per_step"):
        raise ConfigError(
            f"step_mode={config.step_mode}, but that of the reward {reward.name} is {of_reward}: "
            "per_step needs both, one to check each step and one to credit it. Set step_mode and "
            "step_weight in the configuration and leave the reward out, or give both the same."
        )


def weigh_group(group: Group, config: TrainingConfig) -> Group:
    """The group with its advantages and, with ``step_mode=per_step``, the returns of its steps.

    A group whose reward abstained has advantages of 0 and no signal.
    """
    scores = [result.score for result in group.results if result.score is not None]
    if not scores:
        return replace(group, advantages=(0.0,) * len(group.completions))
    rewards_1_G = torch.tensor([scores], dtype=torch.float64)
    advantages_1_G = group_advantages(rewards_1_G, config.grpo_tau)
    returns = _returns(group, config) if config.step_mode == "per_step" else ()
    return replace(
        group,
        advantages=tuple(advantages_1_G[0].tolist()),
        step_returns=returns,
        has_signal=bool(has_signal(rewards_1_G)[0]) or any(any(own) for own in returns),
    )


def why(group: Group, config: TrainingConfig) -> str:
    """Why a group enters the loss, or not. With a KL penalty even equal rewards do."""
    if group.results[0].score is None:
        return ABSTAINED
    return ENTERED if group.has_signal or config.beta > 0 else NO_SIGNAL


def _returns(group: Group, config: TrainingConfig) -> tuple[tuple[float, ...], ...]:
    """What the steps of each completion earn, () where none of the group's can be checked.

    They weigh ``step_weight`` over the weights of the other parts, since the advantage is that of
    the other parts' weighted mean.
    """
    credits = [_credits(result) for result in group.results]
    lengths_G = torch.tensor([len(own) for own in credits])
    width = int(lengths_G.max())
    if width == 0:
        return ()
    credits_G_S = torch.tensor(
        [[*own, *[0.0] * (width - len(own))] for own in credits], dtype=torch.float64
    )
    mask_G_S = torch.arange(width) < lengths_G[:, None]
    advantages_G_S = step_advantages(credits_G_S, mask_G_S, config.grpo_tau)
    others = config.format_weight + config.outcome_weight + config.verbosity_weight
    returns_G_S = step_returns(advantages_G_S, config.grpo_gamma) * config.step_weight / others
    return tuple(
        tuple(row[: len(own)]) for row, own in zip(returns_G_S.tolist(), credits, strict=True)
    )


def _credits(result: RewardResult) -> Sequence[float]:
    """One number a step, as the composite's part ``steps`` gave it; () where that abstained."""
    part = result.details.get("steps")
    if not isinstance(part, Mapping) or part["score"] is None:
        return ()
    credits: Sequence[float] = part["details"]["credits"]
    return credits
