"""Generation with the policy's own modules: a prompt is prefilled once, its cache expanded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from judicaita.errors import NumericalError, RolloutError
from judicaita.training.policy import Policy
from judicaita.training.rollouts.base import SamplingParams
from judicaita.types import Completion

# A cache is compacted when at least this share of its rows has finished: each compaction copies it.
_COMPACT_SHARE = 0.25


class NativeEngine:
    """The engine that is always there; it shares the policy's weights, so `sync` does nothing."""

    def __init__(self, policy: Policy, pulse: Callable[[], None] = lambda: None) -> None:
        """``pulse`` is called before every token of a batch; what it raises ends the batch."""
        self.policy, self.pulse = policy, pulse

    def generate(
        self, prompts: Sequence[tuple[int, ...]], n: int, sampling: SamplingParams
    ) -> list[tuple[Completion, ...]]:
        """``n`` completions of each prompt; equal seeds, weights and prompts give equal tokens."""
        if not prompts:
            return []
        self._refuse_too_long(max(map(len, prompts)), sampling.max_tokens)
        with self.policy.inference():
            rows = _Decoding(self.policy, prompts, n, sampling).run(self.pulse)
        return [tuple(rows[i * n : (i + 1) * n]) for i in range(len(prompts))]

    def _refuse_too_long(self, prompt: int, completion: int) -> None:
        positions = self.policy.max_positions
        if positions is not None and prompt + completion > positions:
            raise RolloutError(
                f"a prompt of {prompt} tokens and {completion} to generate exceed the model's "
                f"{positions} positions, and prompts are never cut. Shorten the prompt, or lower "
                "generation_max_length."
            )

    def sync(self) -> None:
        """The weights are the policy's own."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class _Row:
    """One completion on its way."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False


class _Decoding:
    """One batch from its prompts to its last token. R live rows of the cache, oldest first."""

    def __init__(
        self, policy: Policy, prompts: Sequence[tuple[int, ...]], n: int, sampling: SamplingParams
    ) -> None:
        self.policy, self.sampling, self.n = policy, sampling, n
        self.prompts = prompts
        self.eos = policy.eos_ids
        self.device = policy.placement.device
        self.generator = policy.placement.generator(sampling.seed)
        self.rows = [_Row() for _ in range(len(prompts) * n)]

    def run(self, pulse: Callable[[], None]) -> list[Completion]:
        logits_R_V, cache, attention_R_L, position_R = self._prefill()
        live = list(range(len(self.rows)))
        for _ in range(self.sampling.max_tokens):
            pulse()
            tokens_R, logprobs_R = sample_tokens(logits_R_V, self.sampling, self.generator)
            self._append(live, tokens_R, logprobs_R)
            tokens_R = tokens_R.to(self.device)
            keep = [r for r, index in enumerate(live) if not self.rows[index].stopped]
            if not keep or len(self.rows[live[keep[0]]].token_ids) == self.sampling.max_tokens:
                break
            if len(keep) <= (1 - _COMPACT_SHARE) * len(live):
                index_R = torch.tensor(keep, device=self.device)
                cache.batch_select_indices(index_R)
                tokens_R, attention_R_L = tokens_R[index_R], attention_R_L[index_R]
                position_R = position_R[index_R]
                live = [live[r] for r in keep]
            attention_R_L = torch.cat([attention_R_L, attention_R_L.new_ones(len(live), 1)], dim=1)
            position_R = position_R + 1
            logits_R_V = self._forward(tokens_R[:, None], attention_R_L, position_R[:, None], cache)
        return [self._completion(row) for row in self.rows]

    def _prefill(self) -> tuple[Tensor, Any, Tensor, Tensor]:
        """Run each prompt once, then give every one of its n rows a copy of the cache."""
        longest = max(len(prompt) for prompt in self.prompts)
        ids_P_L = torch.full((len(self.prompts), longest), self.policy.pad_id)
        attention_P_L = torch.zeros_like(ids_P_L)
        for row, prompt in enumerate(self.prompts):
            ids_P_L[row, longest - len(prompt) :] = torch.tensor(prompt)
            attention_P_L[row, longest - len(prompt) :] = 1
        positions_P_L = (attention_P_L.cumsum(dim=1) - 1).clamp(min=0)
        ids, attention, positions = (
            tensor.to(self.device) for tensor in (ids_P_L, attention_P_L, positions_P_L)
        )
        # Without the configuration every layer's cache is whole; the window is then in the mask.
        cuts = self.policy.placement.cuts_caches
        cache = DynamicCache(config=self.policy.model.config if cuts else None)
        logits_P_V = self._forward(ids, attention, positions, cache)
        cache.batch_repeat_interleave(self.n)
        repeat = (self.n, 0)
        return (
            logits_P_V.repeat_interleave(*repeat),
            cache,
            attention.repeat_interleave(*repeat),
            positions[:, -1].repeat_interleave(*repeat),
        )

    def _forward(self, ids: Tensor, attention: Tensor, positions: Tensor, cache: Any) -> Tensor:
        output = self.policy.model(
            input_ids=ids,
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1].float()
        self.policy.placement.flush()
        return logits.to(self.generator.device)

    def _append(self, live: list[int], tokens_R: Tensor, logprobs_R: Tensor) -> None:
        for index, token, logprob in zip(live, tokens_R.tolist(), logprobs_R.tolist(), strict=True):
            row = self.rows[index]
            if not row.stopped:
                row.token_ids.append(token)
                row.logprobs.append(logprob)
                row.stopped = token in self.eos

    def _completion(self, row: _Row) -> Completion:
        return Completion(
            tuple(row.token_ids),
            tuple(row.logprobs),
            "stop" if row.stopped else "length",
            self.policy.version,
        )


def sample_tokens(
    logits_R_V: Tensor, sampling: SamplingParams, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One token per row and its log-probability (nats) in the distribution it was drawn from."""
    if not bool(logits_R_V.amax(dim=-1).isfinite().all()):  # NaN passes through amax
        raise NumericalError(
            "log-probability",
            "the model's logits are no finite numbers any more, so no token can be drawn: its "
            "weights have diverged. Lower learning_rate, or go on from an earlier checkpoint.",
        )
    if sampling.temperature == 0:
        log_p_R_V = logits_R_V.log_softmax(dim=-1)
        tokens_R = log_p_R_V.argmax(dim=-1)
    else:
        log_p_R_V = (logits_R_V / sampling.temperature).log_softmax(dim=-1)
        if sampling.top_p < 1:
            log_p_R_V = _nucleus(log_p_R_V, sampling.top_p)
        tokens_R = _draw(log_p_R_V.exp(), generator)
    return tokens_R, log_p_R_V.gather(-1, tokens_R[:, None]).squeeze(-1)


def _draw(p_R_V: Tensor, generator: torch.Generator) -> Tensor:
    """A token per row, by where a uniform number falls among the cumulated probabilities.

    ``torch.multinomial`` draws a number for every token of the vocabulary instead, ten times slower
    on a CPU (128 rows of 1,280). Sums in float64 keep the rare tokens of large vocabularies apart.
    """
    up_to_R_V = p_R_V.cumsum(dim=-1, dtype=torch.float64)
    shape = (len(p_R_V), 1)
    drawn_R_1 = torch.rand(shape, generator=generator, dtype=torch.float64, device=p_R_V.device)
    tokens_R_1 = torch.searchsorted(up_to_R_V, drawn_R_1 * up_to_R_V[:, -1:], right=True)
    return tokens_R_1.squeeze(-1).clamp(max=p_R_V.shape[-1] - 1)


def _nucleus(log_p_R_V: Tensor, top_p: float) -> Tensor:
    """Cut to the smallest set of tokens that reaches ``top_p``, and renormalise."""
    sorted_R_V, order_R_V = log_p_R_V.sort(dim=-1, descending=True)
    before_R_V = sorted_R_V.exp().cumsum(dim=-1) - sorted_R_V.exp()
    cut_sorted_R_V = sorted_R_V.masked_fill(before_R_V >= top_p, float("-inf"))
    cut_R_V = torch.empty_like(log_p_R_V).scatter_(-1, order_R_V, cut_sorted_R_V)
    return cut_R_V.log_softmax(dim=-1)
