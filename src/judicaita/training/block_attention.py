"""Attention of a block of queries, with a backward pass of its own.

Autograd would keep half a dozen tensors of the size of the scores for each layer. Here that are
two at most, and none of longer texts: there the backward pass makes the scores again, as
FlashAttention does (Dao et al., arXiv 2205.14135, §3.1).

    K  key heads       M  query heads for each      G  sequences that share a prefix
    R  queries         P  keys of the prefix        N  keys of a sequence's own       T  P + N
    L  the last keys, of which a query may not see all
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """How the scores of a layer become weights."""

    scaling: float
    softcap: float | None
    window: int | None

    def hidden(self, queries: range, keys: range, device: torch.device) -> Tensor:
        """Which of the last keys a query must not see, by true positions; every query sees all of
        those before. [queries, last keys]."""
        first = keys.start if self.window is not None else max(keys.start, queries.start)
        query_R = torch.arange(queries.start, queries.stop, device=device)
        distance_R_L = query_R[:, None] - torch.arange(first, keys.stop, device=device)
        hidden_R_L = distance_R_L < 0
        return hidden_R_L if self.window is None else hidden_R_L | (distance_R_L >= self.window)


def attend_block(
    query_K_G_M_R_D: Tensor,
    prefix_key_K_P_D: Tensor,
    prefix_value_K_P_D: Tensor,
    own_key_K_G_N_D: Tensor | None,
    own_value_K_G_N_D: Tensor | None,
    hidden_R_L: Tensor,
    rule: Rule,
    *,
    keep: bool,
) -> Tensor:
    """What queries see of a prefix that they share and, if given, of their own sequence.

    With ``keep`` weights and capped scores are kept for the backward pass, else made again there.
    Returns [K, G, M, R, D] of the values' type. Scores and weights are float32 at least: Qwen 2's
    scores overflow float16, and bfloat16 rounds them by whole units before the softmax.
    """
    seen: Tensor = _Block.apply(  # type: ignore[no-untyped-call]
        query_K_G_M_R_D,
        prefix_key_K_P_D,
        prefix_value_K_P_D,
        own_key_K_G_N_D,
        own_value_K_G_N_D,
        hidden_R_L,
        rule,
        keep,
    )
    return seen


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, hidden_R_L, rule, keep = arguments
        ctx.rule = rule
        query, prefix_key, prefix_value, own_key, own_value = tensors
        dtype = prefix_value.dtype
        with torch.autocast(query.device.type, enabled=False):
            weights, capped = _weights(
                _exact(query), _exact(prefix_key), _exact(own_key), hidden_R_L, rule
            )
            made = (weights, capped) if keep else (None, None)
            ctx.save_for_backward(*tensors, hidden_R_L, *made)
            return _times(weights.to(dtype), prefix_value, own_value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, hidden_R_L, weights, capped = ctx.saved_tensors
        rule: Rule = ctx.rule
        query, prefix_key, prefix_value, own_key, own_value = (_exact(x) for x in tensors)
        d_seen = _exact(gradients[0])
        with torch.autocast(d_seen.device.type, enabled=False):
            if weights is None:
                weights, capped = _weights(query, prefix_key, own_key, hidden_R_L, rule)
            d_prefix_value, d_own_value = _transposed_times(weights, d_seen, own_value)
            d_weights = _products(d_seen, prefix_value, own_value)
            # Of the softmax: w · (dw − Σ dw · w); of the cap: 1 − tanh².
            d_scores = d_weights.mul_(weights)
            d_scores.addcmul_(weights, d_scores.sum(dim=-1, keepdim=True), value=-1)
            if capped is not None:
                d_scores.addcmul_(d_scores, capped.square(), value=-1)
            d_query = _times(d_scores, prefix_key, own_key).mul_(rule.scaling)
            d_prefix_key, d_own_key = _transposed_times(d_scores, query * rule.scaling, own_key)
        found = (d_query, d_prefix_key, d_prefix_value, d_own_key, d_own_value)
        return (
            *(
                None if own is None or x is None else own.to(x.dtype)
                for own, x in zip(found, tensors, strict=True)
            ),
            *(None, None, None),
        )


def _exact(x: Any) -> Any:
    """In float32 at least; None stays."""
    return x.float() if x is not None and x.dtype.itemsize < 4 else x


def _weights(
    query: Tensor, prefix_key: Tensor, own_key: Tensor | None, hidden_R_L: Tensor, rule: Rule
) -> tuple[Tensor, Tensor | None]:
    """[K, G, M, R, T], and the scores over the cap before they were stretched to it."""
    # Scaled as queries, of which there are fewer numbers than of scores.
    scores = _products(query * (rule.scaling / (rule.softcap or 1.0)), prefix_key, own_key)
    capped = None
    if rule.softcap is not None:
        capped = scores.tanh_()
        scores = capped * rule.softcap
    scores[..., -hidden_R_L.shape[1] :].masked_fill_(hidden_R_L, float("-inf"))
    return scores.softmax(dim=-1), capped


def _products(rows: Tensor, prefix_K_P_D: Tensor, own_K_G_N_D: Tensor | None) -> Tensor:
    """Of every row [K, G, M, R, D] with every key or value that it may meet, [K, G, M, R, T]."""
    prefix: Tensor = (rows.flatten(1, 3) @ prefix_K_P_D.mT).unflatten(1, rows.shape[1:4])
    if own_K_G_N_D is None:
        return prefix
    own = (rows.flatten(2, 3) @ own_K_G_N_D.mT).unflatten(2, rows.shape[2:4])
    return torch.cat([prefix, own], dim=-1)


def _times(weights: Tensor, prefix_K_P_D: Tensor, own_K_G_N_D: Tensor | None) -> Tensor:
    """Sums over keys or values, weighed, [K, G, M, R, D]."""
    length_P = prefix_K_P_D.shape[1]
    seen: Tensor = weights[..., :length_P].flatten(1, 3) @ prefix_K_P_D
    seen = seen.unflatten(1, weights.shape[1:4])
    if own_K_G_N_D is not None:
        of_own = weights[..., length_P:].flatten(2, 3) @ own_K_G_N_D
        seen = seen + of_own.unflatten(2, weights.shape[2:4])
    return seen


def _transposed_times(
    weights: Tensor, rows: Tensor, own_K_G_N_D: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Sums over rows, weighed: [K, P, D] for the prefix, [K, G, N, D] for each sequence's own."""
    length_P = weights.shape[-1] - (0 if own_K_G_N_D is None else own_K_G_N_D.shape[2])
    of_prefix = weights[..., :length_P].flatten(1, 3).mT @ rows.flatten(1, 3)
    if own_K_G_N_D is None:
        return of_prefix, None
    return of_prefix, weights[..., length_P:].flatten(2, 3).mT @ rows.flatten(2, 3)
