"""Generation with the policy's own modules, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from judicaita.errors import NumericalError, RolloutError
from judicaita.training.policy import Policy
from judicaita.training.rollouts.base import SamplingParams
from judicaita.training.rollouts.decoding import decoder_of
from judicaita.training.rollouts.merged import merged
from judicaita.types import Completion


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
        with self.policy.inference(), merged(self.policy.model):
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
    """One batch from its prompts to its last token. R live rows, oldest first."""

    def __init__(
        self, policy: Policy, prompts: Sequence[tuple[int, ...]], n: int, sampling: SamplingParams
    ) -> None:
        self.decoder = decoder_of(policy, prompts, n)
        self.sampling, self.version, self.eos = sampling, policy.version, policy.eos_ids
        self.generator = policy.placement.generator(sampling.seed)
        self.rows = [_Row() for _ in range(len(prompts) * n)]

    def run(self, pulse: Callable[[], None]) -> list[Completion]:
        logits_R_V = self.decoder.prefill()
        live = list(range(len(self.rows)))
        for place in range(1, self.sampling.max_tokens + 1):
            pulse()
            tokens_R, logprobs_R = sample_tokens(
                logits_R_V.to(self.generator.device), self.sampling, self.generator
            )
            self._append(live, tokens_R, logprobs_R)
            going = [r for r, index in enumerate(live) if not self.rows[index].stopped]
            if not going or place == self.sampling.max_tokens:
                break
            if len(going) < len(live) and self.decoder.keep(going):
                tokens_R = tokens_R[going]
                live = [live[r] for r in going]
            logits_R_V = self.decoder.step(tokens_R)
        return [self._completion(row) for row in self.rows]

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
            self.version,
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
