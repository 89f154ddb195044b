"""From scores to advantages: what each completion of a group earned, and each of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from judicaita.errors import ConfigError
from judicaita.training.algorithms.advantages import (
    Rewards,
    cancels,
    outcome_advantages,
    overlong_penalty,
    step_advantages,
    step_returns,
)
from judicaita.training.config import TrainingConfig
from judicaita.training.metrics import ENTERED
from judicaita.training.reward_plugins import Reward
from judicaita.training.rewards import reward_parts
from judicaita.types import Group, RewardResult

NO_SIGNAL = "no signal"
CANCELLED = "rewards cancel"
"""Its parts differ, and what one gives the others take: the total is the same for all."""
EQUAL = (NO_SIGNAL, CANCELLED)
"""Why dynamic sampling replaces a group."""
ABSTAINED = "reward abstained"
REPLACED = "replaced"
"""Without signal, and another question's group has its place in the step."""
TRUNCATED = "truncated"
"""All of its completions were cut, and ``mask_truncated`` leaves these out."""


def refuse_other_step_mode(config: TrainingConfig, reward: Reward) -> None:
    """`ConfigError` where only one of reward and trainer means to credit step by step."""
    of_reward = getattr(reward, "step_mode", "additive")
    if (config.step_mode == "per_step") != (of_reward == "per_step"):
        raise ConfigError(
            f"step_mode={config.step_mode}, but that of the reward {reward.name} is {of_reward}: "
            "per_step needs both, one to check each step and one to credit it. Set step_mode and "
            "step_weight in the configuration and leave the reward out, or give both the same."
        )


def refuse_reward_without_parts(config: TrainingConfig, reward: Reward) -> None:
    """`ConfigError` where GDPO would have no parts to look at, or a gate that it cannot see."""
    if config.advantage.type != "gdpo":
        return
    if not reward.part_names or getattr(reward, "step_mode", "additive") == "gated":
        raise ConfigError(
            f"advantage.type=gdpo with the reward {reward.name}: it looks at each part by itself, "
            "and this one has none, or a gate on their sum. Give a CompositeReward without a gate, "
            "or set another advantage.type."
        )


def weigh_groups(
    groups: Sequence[Group],
    config: TrainingConfig,
    divergences: Sequence[Sequence[float]] | None = None,
) -> list[Group]:
    """A step's groups with their advantages and, with ``step_mode=per_step``, their steps' returns.

    Before advantages are estimated, a completion loses its overlong penalty, and beta times its
    divergence from the reference where ``divergences`` has one for each completion of each group. A
    group whose reward abstained has advantages of 0 and no signal.
    """
    of_each: Sequence[Sequence[float] | None] = divergences or [None] * len(groups)
    groups = [
        replace(group, penalties=_penalties(group, config, own))
        for group, own in zip(groups, of_each, strict=True)
    ]
    scored = [group for group in groups if group.results[0].score is not None]
    rewards = _rewards_of(scored) if scored else None
    weighed = iter(_weighed(scored, rewards, config) if rewards else ())
    return [
        next(weighed)
        if group.results[0].score is not None
        else replace(group, advantages=(0.0,) * len(group.completions))
        for group in groups
    ]


def _penalties(
    group: Group, config: TrainingConfig, divergences: Sequence[float] | None
) -> tuple[float, ...]:
    """What each completion loses of its reward; () where none can."""
    if divergences is None and config.overlong_buffer is None:
        return ()
    found = []
    for number, completion in enumerate(group.completions):
        lost = 0.0
        if config.overlong_buffer is not None:
            length, longest = len(completion.token_ids), config.generation_max_length
            part = overlong_penalty(length, longest, config.overlong_buffer)
            lost += config.overlong_penalty * part
        if divergences is not None:
            lost += divergences[number]
        found.append(lost)
    return tuple(found)


def _rewards_of(groups: Sequence[Group]) -> Rewards:
    """What groups of one size were given, penalties taken off the total."""
    names = sorted({name for group in groups for name in reward_parts(group.results[0])})
    total, parts, weights = [], [], []
    for group in groups:
        lost = group.penalties or (0.0,) * len(group.results)
        pairs = zip(group.results, lost, strict=True)
        total.append([(result.score or 0.0) - penalty for result, penalty in pairs])
        own = [reward_parts(result) for result in group.results]
        parts.append([[scores.get(name, 0.0) for scores in own] for name in names])
        details = group.results[0].details
        weights.append([details[name]["weight"] if name in own[0] else 0.0 for name in names])
    total_P_G = torch.tensor(total, dtype=torch.float64)
    return Rewards(
        total_P_G,
        torch.tensor(parts, dtype=torch.float64).reshape(len(groups), len(names), -1)
        if names
        else total_P_G.new_zeros(len(groups), 0, total_P_G.shape[1]),
        torch.tensor(weights, dtype=torch.float64).reshape(len(groups), len(names)),
    )


def _weighed(groups: Sequence[Group], rewards: Rewards, config: TrainingConfig) -> Iterator[Group]:
    advantages_P_G = outcome_advantages(
        rewards, config.advantage, config.grpo_tau, config.advantage_bound
    )
    signal_P, cancels_P = config.advantage.has_signal(rewards), cancels(rewards)
    for number, group in enumerate(groups):
        returns = _returns(group, config) if config.step_mode == "per_step" else ()
        yield replace(
            group,
            advantages=tuple(advantages_P_G[number].tolist()),
            step_returns=returns,
            has_signal=bool(signal_P[number]) or any(any(own) for own in returns),
            # What a gate takes is not what another part takes.
            cancels=bool(cancels_P[number]) and config.step_mode != "gated",
        )


def why(group: Group, config: TrainingConfig) -> str:
    """Why a group enters the loss, or not. With a KL penalty or an entropy bonus in it even equal
    rewards do, and so they do where the loss has to count their tokens."""
    if group.results[0].score is None:
        return ABSTAINED
    if config.mask_truncated and all(c.finish_reason == "length" for c in group.completions):
        return TRUNCATED
    if group.has_signal or config.penalises or config.entropy_bonus or config.loss.counts_all:
        return ENTERED
    return CANCELLED if group.cancels else NO_SIGNAL


def why_each(group: Group, config: TrainingConfig) -> tuple[str, ...]:
    """The same of each completion: of a group that enters, truncated ones may stay out."""
    reason = why(group, config)
    left_out = TRUNCATED if reason == ENTERED and config.mask_truncated else reason
    return tuple(
        left_out if completion.finish_reason == "length" else reason
        for completion in group.completions
    )


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
    advantages_G_S = step_advantages(
        credits_G_S, mask_G_S, config.advantage, config.grpo_tau, config.advantage_bound
    )
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
