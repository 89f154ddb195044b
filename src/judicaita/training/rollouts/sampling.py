"""How a token is drawn from logits, and how likely it was.

R  rows     V  the vocabulary
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from judicaita.errors import NumericalError
from judicaita.training.rollouts.base import SamplingParams


def sample_tokens(
    logits_R_V: Tensor, sampling: SamplingParams, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """One token per row.

    Returns:
        The tokens and their log-probabilities (nats), [R] each: in the distribution that they were
        drawn from, and in the whole one, from which nothing is cut, at the same temperature.

    Raises:
        NumericalError: Where a logit is no finite number.
    """
    if not bool(logits_R_V.amax(dim=-1).isfinite().all()):  # NaN passes through amax
        raise NumericalError(
            "log-probability",
            "the model's logits are no finite numbers any more, so no token can be drawn: its "
            "weights have diverged. Lower learning_rate, or go on from an earlier checkpoint.",
        )
    if sampling.temperature == 0:
        whole_R_V = drawn_from_R_V = logits_R_V.log_softmax(dim=-1)
        tokens_R = whole_R_V.argmax(dim=-1)
    else:
        if sampling.temperature != 1:
            logits_R_V = logits_R_V / sampling.temperature
        whole_R_V = logits_R_V.log_softmax(dim=-1)
        drawn_from_R_V = cut(whole_R_V, sampling) if sampling.cuts else whole_R_V
        tokens_R = _draw(drawn_from_R_V.exp(), generator)
    logprobs_R, uncut_R = (
        log_p_R_V.gather(-1, tokens_R[:, None]).squeeze(-1)
        for log_p_R_V in (drawn_from_R_V, whole_R_V)
    )
    return tokens_R, logprobs_R, uncut_R


def cut(log_p_R_V: Tensor, sampling: SamplingParams) -> Tensor:
    """Log-probabilities of what min_p, top_k and top_p leave, in this order, as vLLM takes them."""
    if sampling.min_p > 0:
        least_R_1 = log_p_R_V.amax(dim=-1, keepdim=True) + math.log(sampling.min_p)
        log_p_R_V = log_p_R_V.masked_fill(log_p_R_V < least_R_1, float("-inf"))
    if 0 < sampling.top_k < log_p_R_V.shape[-1]:
        least_R_1 = log_p_R_V.topk(sampling.top_k, dim=-1).values[:, -1:]
        log_p_R_V = log_p_R_V.masked_fill(log_p_R_V < least_R_1, float("-inf"))
    log_p_R_V = log_p_R_V.log_softmax(dim=-1)
    return _nucleus(log_p_R_V, sampling.top_p) if sampling.top_p < 1 else log_p_R_V


def _nucleus(log_p_R_V: Tensor, top_p: float) -> Tensor:
    """Cut to the smallest set of tokens that reaches ``top_p``, and renormalise."""
    sorted_R_V, order_R_V = log_p_R_V.sort(dim=-1, descending=True)
    before_R_V = sorted_R_V.exp().cumsum(dim=-1) - sorted_R_V.exp()
    cut_sorted_R_V = sorted_R_V.masked_fill(before_R_V >= top_p, float("-inf"))
    cut_R_V = torch.empty_like(log_p_R_V).scatter_(-1, order_R_V, cut_sorted_R_V)
    return cut_R_V.log_softmax(dim=-1)


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
