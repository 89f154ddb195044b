"""Attention of a packed row by blocks of queries, with a backward pass of its own.

Autograd would keep half a dozen tensors of the size of the scores for each layer. Here that is
none: the backward pass makes the scores again, and weights from them and the kept logarithms of the
sums, as FlashAttention does (Dao et al., arXiv 2205.14135, §3.1).

    S  tokens of the row       K  key heads     M  query heads for each     D  numbers of a head
    G  sequences of a part     R  tokens of the longest, or queries of a block
    P  keys of the prefix that they share       N  keys of a sequence's own       T  P + N
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from judicaita.training.kernels import weigh_, weigh_backward_


@dataclass(frozen=True)
class Rule:
    """How the scores of a layer become weights."""

    scaling: float
    softcap: float | None
    window: int | None

    @property
    def factor(self) -> float:
        """By which products of queries and keys are what `weigh_` takes."""
        return self.scaling / (self.softcap or 1.0)


@dataclass(frozen=True)
class Part:
    """Sequences side by side in the row, and what they share.

    Shorter ones are filled up with places that repeat a token. Nothing valid sees these, since they
    stand behind it, and what they see is dropped.
    """

    prefix: slice
    """Where in the row the prefix stands; empty for a sequence that begins by itself."""
    places_G_R: Tensor
    """Where in the row their tokens stand."""
    valid_N: Tensor
    """Which of all G·R places are tokens."""
    queries_at_once: int
    """Of each sequence: memory grows with their number, not with its square."""

    def queries(self, values_K_M_S_D: Tensor) -> Tensor:
        """[K, G, M, R, D]"""
        return values_K_M_S_D[:, :, self.places_G_R].transpose(1, 2)

    def gradients(self, values_K_M_S_D: Tensor) -> Tensor:
        """[K, G, M, R, D], and 0 for what is no token."""
        found = values_K_M_S_D.new_zeros(
            *values_K_M_S_D.shape[:2], self.places_G_R.numel(), values_K_M_S_D.shape[-1]
        )
        found[:, :, self.valid_N] = values_K_M_S_D[:, :, self.places_G_R.flatten()[self.valid_N]]
        return found.view(*found.shape[:2], *self.places_G_R.shape, -1).transpose(1, 2)

    def keys(self, values_K_S_D: Tensor) -> Tensor:
        """[K, G, R, D]"""
        return values_K_S_D[:, self.places_G_R]

    def put(self, row_S_D: Tensor, found_G_R_D: Tensor) -> None:
        """Add to the row's tokens what was found for the part's; leading axes are equal."""
        places_N = self.places_G_R.flatten()[self.valid_N]
        row_S_D[..., places_N, :] += found_G_R_D.flatten(-3, -2)[..., self.valid_N, :]

    def blocks(self, window: int | None) -> Iterator[Block]:
        """Queries, some of each sequence at a time, and the keys that one of them sees."""
        length_P, length_R = self.prefix.stop - self.prefix.start, self.places_G_R.shape[1]
        for first in range(0, length_R, self.queries_at_once):
            last = min(first + self.queries_at_once, length_R)
            begin = max(0, length_P + first - window + 1) if window is not None else 0
            yield Block(
                slice(first, last),
                slice(self.prefix.start + min(begin, length_P), self.prefix.stop),
                slice(max(0, begin - length_P), last),
                length_P + first - begin,
            )


@dataclass(frozen=True)
class Block:
    """Queries and what they see: slices of a part's sequences, and of the row for the prefix."""

    queries: slice
    prefix: slice
    own: slice
    place: int
    """Of the first query itself among the keys; each next one stands one further."""


def attend_parts(
    query_K_M_S_D: Tensor,
    key_K_S_D: Tensor,
    value_K_S_D: Tensor,
    parts: Sequence[Part],
    rule: Rule,
) -> Tensor:
    """What every token sees of its prefix and of its own sequence up to itself.

    ``parts`` hold each token once. Returns [K, M, S, D] of the values' type. Scores and weights are
    float32 at least: Qwen 2's scores overflow float16, and bfloat16 rounds them by whole units
    before the softmax.
    """
    seen: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        query_K_M_S_D, key_K_S_D, value_K_S_D, parts, rule
    )
    return seen


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        query, key, value, parts, rule = arguments
        ctx.parts, ctx.rule = parts, rule
        log_sums: list[Tensor] = []
        seen_K_M_S_D: Tensor = value.new_zeros(*query.shape[:-1], value.shape[-1])
        with torch.autocast(query.device.type, enabled=False):
            scaled, exact_key = _exact(query) * rule.factor, _exact(key)
            for part in parts:
                rows, own_key = part.queries(scaled), part.keys(exact_key)
                own_value = part.keys(value)
                seen = rows.new_empty(*rows.shape[:-1], value.shape[-1], dtype=value.dtype)
                for block in part.blocks(rule.window):
                    weights = _products(
                        rows[..., block.queries, :],
                        exact_key[:, block.prefix],
                        own_key[:, :, block.own],
                    )
                    log_sums.append(weigh_(weights, block.place, rule.window, rule.softcap))
                    seen[..., block.queries, :] = _times(
                        weights.to(value.dtype), value[:, block.prefix], own_value[:, :, block.own]
                    )
                part.put(seen_K_M_S_D, seen.transpose(1, 2))
        ctx.save_for_backward(query, key, value, *log_sums)
        return seen_K_M_S_D

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        given, log_sums = saved[:3], iter(saved[3:])
        rule: Rule = ctx.rule
        query, key, value = (_exact(x) for x in given)
        d_seen_K_M_S_D = _exact(gradients[0])
        d_query, d_key, d_value = map(torch.zeros_like, (query, key, value))
        with torch.autocast(query.device.type, enabled=False):
            scaled = query * rule.factor
            for part in ctx.parts:
                rows, d_seen = part.queries(scaled), part.gradients(d_seen_K_M_S_D)
                own_key, own_value = part.keys(key), part.keys(value)
                d_rows, d_own_key, d_own_value = map(torch.zeros_like, (rows, own_key, own_value))
                for block in part.blocks(rule.window):
                    asked = rows[..., block.queries, :], d_seen[..., block.queries, :]
                    prefix = key[:, block.prefix], value[:, block.prefix]
                    own = own_key[:, :, block.own], own_value[:, :, block.own]
                    weights, d_scores = (
                        _products(asked[side], prefix[side], own[side]) for side in (0, 1)
                    )
                    weigh_backward_(
                        weights, d_scores, next(log_sums), block.place, rule.window, rule.softcap
                    )
                    d_rows[..., block.queries, :] = _times(d_scores, prefix[0], own[0])
                    for d_all, d_own, left, right in (
                        (d_value, d_own_value, weights, asked[1]),
                        (d_key, d_own_key, d_scores, asked[0]),
                    ):
                        of_prefix, of_own = _transposed_times(left, right, own[0].shape[2])
                        d_all[:, block.prefix] += of_prefix
                        d_own[:, :, block.own] += of_own
                part.put(d_query, d_rows.transpose(1, 2))
                part.put(d_key, d_own_key)
                part.put(d_value, d_own_value)
        found = (d_query.mul_(rule.factor), d_key, d_value)
        return (*(x.to(own.dtype) for x, own in zip(found, given, strict=True)), None, None)


def _exact(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.float() if x.dtype.itemsize < 4 else x


def _products(rows_K_G_M_R_D: Tensor, prefix_K_P_D: Tensor, own_K_G_N_D: Tensor) -> Tensor:
    """Of every row with every key or value that it may meet, [K, G, M, R, T]."""
    length_P, length_N = prefix_K_P_D.shape[1], own_K_G_N_D.shape[2]
    found = rows_K_G_M_R_D.new_empty(*rows_K_G_M_R_D.shape[:-1], length_P + length_N)
    if length_P:
        of_prefix = found.flatten(1, 3)[..., :length_P]
        torch.bmm(rows_K_G_M_R_D.flatten(1, 3), prefix_K_P_D.mT, out=of_prefix)
    of_own = found.flatten(2, 3).flatten(0, 1)[..., length_P:]
    rows = rows_K_G_M_R_D.flatten(2, 3).flatten(0, 1)
    torch.bmm(rows, own_K_G_N_D.flatten(0, 1).mT, out=of_own)
    return found


def _times(weights_K_G_M_R_T: Tensor, prefix_K_P_D: Tensor, own_K_G_N_D: Tensor) -> Tensor:
    """Sums over keys or values, weighed, [K, G, M, R, D]."""
    length_P = prefix_K_P_D.shape[1]
    of_own = weights_K_G_M_R_T[..., length_P:].flatten(2, 3) @ own_K_G_N_D
    seen = of_own.view(*weights_K_G_M_R_T.shape[:-1], -1)
    if length_P:
        of_prefix = weights_K_G_M_R_T[..., :length_P].flatten(1, 3) @ prefix_K_P_D
        seen += of_prefix.view_as(seen)
    return seen


def _transposed_times(
    weights_K_G_M_R_T: Tensor, rows_K_G_M_R_D: Tensor, length_N: int
) -> tuple[Tensor, Tensor]:
    """Sums over rows, weighed: [K, P, D] for the prefix, [K, G, N, D] for each sequence's own."""
    of_prefix, of_own = weights_K_G_M_R_T.tensor_split([-length_N], dim=-1)
    return (
        of_prefix.flatten(1, 3).mT @ rows_K_G_M_R_D.flatten(1, 3),
        of_own.flatten(2, 3).mT @ rows_K_G_M_R_D.flatten(2, 3),
    )
