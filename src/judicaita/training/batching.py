"""Groups → tensors.

A row is one completion behind its prompt. Prompts are padded on the left and completions on the
right, so that every completion starts in the same column and its log-probabilities are one slice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from judicaita.errors import DataError
from judicaita.legal.answers import parse_reasoning
from judicaita.training.algorithms.advantages import discount_per_step
from judicaita.training.algorithms.reduction import StepSizes
from judicaita.training.config import TrainingConfig
from judicaita.training.policy import Policy
from judicaita.training.shared_prefix import Forwarded, Packed, pack
from judicaita.types import Group, Sample

Item = tuple[Sample, tuple[int, ...]]
"""A sample and the token ids of its prompt."""


def encode_prompts(
    policy: Policy, samples: Sequence[Sample], name: str, config: TrainingConfig
) -> list[Item]:
    """Token ids of every prompt. Long ones are refused, or left out if so configured; never cut.

    A prompt is long over ``model_max_length``, or when it and ``generation_max_length`` tokens
    exceed the positions of the model. ``name`` says which data set it is, for `DataError`.
    """
    items = [(sample, policy.encode(sample.prompt)) for sample in samples]
    limit, positions = config.model_max_length, policy.max_positions
    if positions is not None:
        limit = min(limit, positions - config.generation_max_length)
    fitting = [item for item in items if len(item[1]) <= limit]
    if len(fitting) == len(items):
        return items
    lengths = [len(ids) for _, ids in items]
    if config.long_prompts == "error" or not fitting:
        sample = next(sample for sample, ids in items if len(ids) > limit)
        way_out = ", or set long_prompts=drop to leave those out" if fitting else ""
        raise DataError(
            f"{name} sample {sample.id} ({sample.task or 'no task'}): its prompt is over the "
            f"{limit} tokens that fit ({len(items) - len(fitting)} of {len(items)} are, the "
            f"longest has {max(lengths)}), and prompts are never cut. Raise model_max_length as "
            f"far as the model allows{way_out}."
        )
    return fitting


@dataclass(frozen=True)
class TokenBatch:
    """B rows of L tokens: a padded prompt, then a padded completion of T tokens.

    ``mask_B_T`` comes from lengths, never from token ids: a pad id may well be an EOS id.
    """

    input_ids_B_L: Tensor
    attention_mask_B_L: Tensor
    position_ids_B_L: Tensor
    completion_ids_B_T: Tensor
    mask_B_T: Tensor
    """True for the tokens of the completion, its EOS included."""
    rows: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    """Prompt and completion ids of each row."""

    @property
    def shares_prompts(self) -> bool:
        """Whether any neighbouring rows have the same prompt."""
        return any(one[0] == other[0] for one, other in pairwise(self.rows))

    def packed_behind(self, forwarded: Forwarded | None) -> Packed:
        """The same without padding, each prompt once for all of its neighbouring completions, or
        not at all where it has been forwarded."""
        if forwarded is None:
            return self.packed
        return pack(self.rows, self.input_ids_B_L.device, forwarded)

    @cached_property
    def packed(self) -> Packed:
        """Without padding, and with every prompt."""
        return pack(self.rows, self.input_ids_B_L.device)


@dataclass(frozen=True)
class Batch(TokenBatch):
    """A `TokenBatch` with what the policy loss needs of each token."""

    advantages_B_T: Tensor
    """float32; the advantage of each token, discounted per reasoning step."""
    rollout_logprobs_B_T: Tensor
    """float32, nats: what the rollout engine says of the whole distribution."""
    drawn_logprobs_B_T: Tensor
    """float32, nats: the same of the distribution that it drew from."""

    @property
    def shares_prompts(self) -> bool:
        """Always: a single row of a group that was divided goes the way of the others."""
        return True

    def pieces(self, halvings: int) -> Iterator[tuple[slice, Batch]]:
        """The batch in 2^halvings pieces, fewer if it has fewer rows, and which rows each has."""
        size = max(1, math.ceil(len(self.rows) / 2**halvings))
        for start in range(0, len(self.rows), size):
            rows = slice(start, start + size)
            yield rows, Batch(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class MiniBatch:
    """What one update learns from: its micro-batches, and the sizes of all of its groups, those
    included that do not enter the loss."""

    batches: tuple[Batch, ...]
    sizes: StepSizes

    def sizes_of(self, batch: Batch) -> StepSizes:
        """The sizes as one of the micro-batches has them."""
        return replace(self.sizes, pass_tokens=int(batch.mask_B_T.sum()))


def collate(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad_id: int, device: torch.device
) -> TokenBatch:
    """Pad (prompt ids, completion ids) rows into tensors."""
    longest_prompt = max(len(prompt) for prompt, _ in rows)
    longest_completion = max(len(completion) for _, completion in rows)
    ids_B_L = torch.full((len(rows), longest_prompt + longest_completion), pad_id)
    attention_B_L = torch.zeros_like(ids_B_L)
    for row, (prompt, completion) in enumerate(rows):
        start, end = longest_prompt - len(prompt), longest_prompt + len(completion)
        ids_B_L[row, start:end] = torch.tensor([*prompt, *completion])
        attention_B_L[row, start:end] = 1
    positions_B_L = (attention_B_L.cumsum(dim=1) - 1).clamp(min=0)
    ids_B_L, attention_B_L, positions_B_L = (
        tensor.to(device) for tensor in (ids_B_L, attention_B_L, positions_B_L)
    )
    return TokenBatch(
        ids_B_L,
        attention_B_L,
        positions_B_L,
        completion_ids_B_T=ids_B_L[:, longest_prompt:],
        mask_B_T=attention_B_L[:, longest_prompt:].bool(),
        rows=tuple((tuple(prompt), tuple(completion)) for prompt, completion in rows),
    )


def micro_batches(groups: Sequence[Group], config: TrainingConfig) -> list[list[Group]]:
    """Which groups go through a training pass together.

    ``batch_size`` at a time; with ``micro_batch_tokens`` as many as have so many tokens, the prompt
    counted once. Only a group of more is divided.
    """
    budget = config.micro_batch_tokens
    if budget is None:
        size = config.batch_size
        return [list(groups[start : start + size]) for start in range(0, len(groups), size)]
    batches: list[list[Group]] = []
    room = 0
    for group in groups:
        prompt, start = len(group.prompt_ids), 0
        lengths = [len(completion.token_ids) for completion in group.completions]
        while start < len(lengths):
            least = prompt + sum(lengths) if prompt + sum(lengths) <= budget else lengths[start]
            if not batches or room < max(least, prompt + lengths[start]):
                batches.append([])
                room = budget
            room -= prompt + lengths[start]
            end = start + 1
            while end < len(lengths) and lengths[end] <= room:
                room -= lengths[end]
                end += 1
            batches[-1].append(_part(group, range(start, end)))
            start = end
    return batches


def _part(group: Group, rows: Sequence[int]) -> Group:
    """Some of a group's completions, as they were weighed among all of them."""
    of_each = ("completions", "texts", "results", "penalties", "advantages", "step_returns")
    parts: dict[str, Any] = {
        name: tuple(values[row] for row in rows)
        for name in of_each
        if (values := getattr(group, name))  # () where there is nothing of the kind
    }
    return replace(group, **parts)


def make_mini_batch(
    entering: Sequence[Group], all_groups: Sequence[Group], policy: Policy, config: TrainingConfig
) -> MiniBatch:
    """Micro-batches of the groups that enter the loss, and the sizes of all groups.

    A group without signal adds nothing to the gradient and is left out, but its tokens count, as
    they would had it gone through the loss with advantages of 0; so do truncated completions where
    ``mask_truncated`` leaves them out.
    """
    if config.mask_truncated:
        entering = [_part(group, _whole(group)) for group in entering]
    batches = tuple(
        make_batch(together, policy, config.grpo_gamma)
        for together in micro_batches(entering, config)
    )
    completions = [completion for group in all_groups for completion in group.completions]
    sizes = StepSizes(
        tokens=sum(len(completion.token_ids) for completion in completions),
        sequences=len(completions),
        longest=config.generation_max_length,
        passes=len(batches),
    )
    return MiniBatch(batches, sizes)


def _whole(group: Group) -> list[int]:
    """Which completions ended by themselves."""
    return [n for n, each in enumerate(group.completions) if each.finish_reason != "length"]


def make_batch(groups: Sequence[Group], policy: Policy, gamma: float) -> Batch:
    """All completions of some groups as one batch."""
    rows = [
        (group.prompt_ids, completion.token_ids)
        for group in groups
        for completion in group.completions
    ]
    device = policy.placement.device
    tokens = collate(rows, policy.pad_id, device)
    width = tokens.completion_ids_B_T.shape[1]
    places = [
        place_tokens(text, completion.token_ids, policy)
        for group in groups
        for completion, text in zip(group.completions, group.texts, strict=True)
    ]
    steps_to_end_B_T = _padded((place.steps_to_end for place in places), width, torch.float64)
    advantages_B = torch.tensor(
        [advantage for group in groups for advantage in group.advantages], dtype=torch.float64
    )
    completions = [completion for group in groups for completion in group.completions]
    rollout_logprobs_B_T, drawn_logprobs_B_T = (
        _padded(values, width, torch.float32)
        for values in (
            (completion.full_logprobs for completion in completions),
            (completion.logprobs for completion in completions),
        )
    )
    returns = [own for group in groups for own in group.step_returns or ((),) * len(group.texts)]
    returns_B_T = _padded(
        (place.earning(own) for place, own in zip(places, returns, strict=True)),
        width,
        torch.float64,
    )
    advantages_B_T = discount_per_step(advantages_B, steps_to_end_B_T, gamma) + returns_B_T
    return Batch(
        **vars(tokens),
        advantages_B_T=advantages_B_T.float().to(device),
        rollout_logprobs_B_T=rollout_logprobs_B_T.to(device),
        drawn_logprobs_B_T=drawn_logprobs_B_T.to(device),
    )


@dataclass(frozen=True)
class TokenPlaces:
    """Where each token of a completion stands among its reasoning steps."""

    steps_to_end: list[int]
    """How many steps begin after the token's own one, the conclusion counted as one."""
    step: list[int | None]
    """Which step the token belongs to, from 0; None for the conclusion's."""

    def earning(self, returns: Sequence[float]) -> list[float]:
        """For each token its step's return, 0 for the conclusion; all 0 where there are none."""
        return [0.0 if step is None or not returns else returns[step] for step in self.step]


def place_tokens(text: str, token_ids: Sequence[int], policy: Policy) -> TokenPlaces:
    """Find the reasoning steps of a completion in its tokens.

    A token belongs to the step in whose text it ends; what precedes the first marker belongs to the
    first step. The tokens of "Conclusion: …" have no step after them.
    """
    reasoning = parse_reasoning(text)
    boundaries = reasoning.boundaries
    ordinals = {step.start: number for number, step in enumerate(reasoning.steps)}
    owners = [ordinals.get(start) for start in boundaries] or [None]
    first_tokens = [policy.token_at(token_ids, offset) for offset in boundaries[1:]]
    segments = [
        sum(1 for first in first_tokens if first <= position) for position in range(len(token_ids))
    ]
    return TokenPlaces(
        [len(first_tokens) - segment for segment in segments],
        [owners[segment] for segment in segments],
    )


def _padded(rows: Iterable[Sequence[float]], width: int, dtype: torch.dtype) -> Tensor:
    padded = [[*row, *[0] * (width - len(row))] for row in rows]
    return torch.tensor(padded, dtype=dtype)
