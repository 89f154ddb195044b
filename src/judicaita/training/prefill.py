"""Generation's pass over the prompts, kept with its graph for the update that learns from it.

On policy the training pass would forward the same prompts through the same weights once more. Here
it begins where the prompts end, with their keys and values as leaves; once all micro-batches have
added to the leaves' gradients, one backward pass goes on from there through what was kept.

The activations of the prompts stay in memory while completions are drawn and scored. They are kept
as long as they are of no more tokens than a micro-batch may have, which at most doubles them; under
autocast each of these passes also keeps its own casts of weights that learn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from judicaita.training.rollouts.decoding import Decoder, SharedDecoder
from judicaita.training.shared_prefix import Forwarded

if TYPE_CHECKING:
    from judicaita.training.batching import Batch
    from judicaita.training.config import TrainingConfig
    from judicaita.training.policy import Policy

_USED = 2 / 3
"""Of a pass's prompt tokens the groups must have that enter the loss. The others save no forward
pass, and cost a backward pass, which takes up to twice as long."""


@dataclass(frozen=True)
class _Pass:
    """Prompts as `generate` forwarded them, B of S tokens."""

    prompts: tuple[tuple[int, ...], ...]
    version: int
    """Of the policy."""
    last_B_D: Tensor
    states: dict[int, tuple[Tensor, Tensor]]
    """Keys and values of each layer, [1, K, S, D]."""

    @property
    def tokens(self) -> int:
        """S."""
        return sum(map(len, self.prompts))

    def tensors(self) -> list[Tensor]:
        """Where it joins what is behind it, in a fixed order."""
        return [self.last_B_D, *itertools.chain(*self.states.values())]


class KeptPrefill:
    """What generation hands to the update that follows it."""

    def __init__(self, policy: Policy, config: TrainingConfig) -> None:
        self.policy, self.config = policy, config
        self._passes: list[_Pass] = []
        self._keeps = False

    @contextmanager
    def for_update(self) -> Iterator[None]:
        """Within it, what is generated is what the next update learns from."""
        self._passes = []
        self._keeps = True
        try:
            yield
        finally:
            self._keeps = False

    def drop(self) -> None:
        """Let go of what no update has taken."""
        self._passes = []

    def wants(self, decoder: Decoder, n: int) -> bool:
        """Whether the decoder's prompts, of ``n`` completions each, are to go through `forward`."""
        if not (self._keeps and isinstance(decoder, SharedDecoder) and self._is_exact()):
            return False
        prompts, config = decoder.prompt_ids, self.config
        known = {prompt for each in self._passes for prompt in each.prompts}
        if len(known.union(prompts)) < len(known) + len(prompts):  # one came twice
            return False
        tokens = sum(map(len, prompts))
        budget = config.micro_batch_tokens
        if budget is None:
            budget = tokens + len(prompts) * n * config.generation_max_length
        return tokens + sum(each.tokens for each in self._passes) <= budget

    def _is_exact(self) -> bool:
        """Whether the training pass would do the same with the prompts."""
        drops = any(isinstance(m, nn.Dropout) and m.p > 0 for m in self.policy.model.modules())
        return not drops and not self.config.gradient_checkpointing

    def forward(self, decoder: Decoder) -> Tensor:
        """The decoder's first logits, by the policy's own modules and with gradients."""
        assert isinstance(decoder, SharedDecoder)
        with torch.enable_grad():
            logits_R_V = decoder.prefill()
        self._passes.append(
            _Pass(
                tuple(decoder.prompt_ids),
                self.policy.version,
                decoder.last_B_D,
                decoder.states,
            )
        )
        # The decoder lives on for as long as completions are drawn, the graph until the update.
        decoder.states = {}
        return logits_R_V

    def take(self, batches: Sequence[Batch]) -> TakenPrefill | None:
        """What of it is worth going on from for these batches; it is there once."""
        passes, self._passes = self._passes, []
        entering = {prompt for batch in batches for prompt, _ in batch.rows}
        used = [
            each
            for each in passes
            if each.version == self.policy.version
            and sum(len(p) for p in each.prompts if p in entering) >= _USED * each.tokens
        ]
        return TakenPrefill(used) if used else None


class TakenPrefill:
    """The passes as one, behind which micro-batches go on."""

    def __init__(self, passes: Sequence[_Pass]) -> None:
        self._passes = passes
        prompts = [prompt for each in passes for prompt in each.prompts]
        starts = itertools.accumulate(map(len, prompts), initial=0)
        self.forwarded = Forwarded(
            dict(zip(prompts, starts, strict=False)),
            sum(each.tokens for each in passes),
            _leaf([each.last_B_D for each in passes], dim=0),
            {
                layer: (
                    _leaf([each.states[layer][0] for each in passes], dim=2),
                    _leaf([each.states[layer][1] for each in passes], dim=2),
                )
                for layer in passes[0].states
            },
        )

    def backward(self) -> None:
        """From the gradients that the leaves have collected to those of the weights."""
        last_B_D, states = self.forwarded.last_B_D, self.forwarded.states
        counts_B = [len(each.prompts) for each in self._passes]
        counts_S = [each.tokens for each in self._passes]
        leaves = [(last_B_D, 0, counts_B)]
        leaves += [(leaf, 2, counts_S) for leaf in itertools.chain(*states.values())]
        pairs = [
            (tensor, gradient)
            for place, (leaf, dim, counts) in enumerate(leaves)
            if leaf.grad is not None
            for tensor, gradient in zip(
                (each.tensors()[place] for each in self._passes),
                leaf.grad.split(counts, dim=dim),
                strict=True,
            )
        ]
        tensors, gradients = zip(*pairs, strict=True)
        torch.autograd.backward(tensors, gradients)


def _leaf(tensors: Sequence[Tensor], dim: int) -> Any:
    """Their values behind each other, to collect gradients if they have any to hand on."""
    values = torch.cat([tensor.detach() for tensor in tensors], dim=dim)
    return values.requires_grad_(any(tensor.requires_grad for tensor in tensors))
