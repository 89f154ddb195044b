"""Groups on their way to the loss: sampled, then scored; `credit.py` weighs them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from judicaita.errors import RewardError
from judicaita.training.batching import Item
from judicaita.training.config import TrainingConfig
from judicaita.training.policy import Policy
from judicaita.training.rewards import Reward, columns_of, score_safely
from judicaita.training.rollouts.base import RolloutEngine, SamplingParams
from judicaita.types import Group, RewardResult


def sample_groups(
    policy: Policy,
    engine: RolloutEngine,
    items: Sequence[Item],
    config: TrainingConfig,
    seeds: random.Random,
) -> list[Group]:
    """``num_rollouts`` completions of every prompt, ``batch_size`` prompts at a time.

    ``seeds`` gives each of these calls its own.
    """
    groups = []
    for start in range(0, len(items), config.batch_size):
        chunk = items[start : start + config.batch_size]
        sampling = SamplingParams(
            config.generation_max_length,
            config.temperature,
            config.top_p,
            config.top_k,
            config.min_p,
            tuple(config.stop_strings),
            seeds.getrandbits(63),
        )
        completed = engine.generate([ids for _, ids in chunk], config.num_rollouts, sampling)
        for (sample, ids), completions in zip(chunk, completed, strict=True):
            texts = tuple(policy.decode(c.token_ids) for c in completions)
            groups.append(Group(sample, ids, completions, texts))
    return groups


def score_group(group: Group, reward: Reward, pulse: Callable[[], None] = lambda: None) -> Group:
    """The group with a reward for every completion; it abstains as a whole or not at all.

    ``pulse`` is called before each one; what it raises ends the scoring.
    """
    results: tuple[RewardResult, ...] = ()
    for completion, text in zip(group.completions, group.texts, strict=True):
        pulse()
        columns = columns_of(group.sample, len(completion.token_ids), completion.finish_reason)
        sample = group.sample
        results += (score_safely(reward, sample.prompt, text, sample.reference, columns),)
    if len({result.score is None for result in results}) > 1:
        raise RewardError(
            f"{reward.name} abstained on some completions of sample {group.sample.id} "
            "only: it may abstain for a property of the sample, never of a completion."
        )
    return replace(group, results=results)
