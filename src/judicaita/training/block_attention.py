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

    They are taken as long as the longest: places of shorter ones beyond their end hold 0. Nothing
    valid sees these, since they stand behind it, and what they see is dropped.
    """

    prefix: slice
    """Where in the row the prefix stands; empty for a sequence that begins by itself."""
    starts: tuple[int, ...]
    """Where in the row each sequence begins."""
    lengths: tuple[int, ...]
    """Tokens of each."""
    queries_at_once: int
    """Of each sequence: memory grows with their number, not with its square."""

    def take(self, values_S_D: Tensor, within: slice) -> Tensor:
        """[K, G, ..., R, D] of values [K, ..., S, D]: what stands ``within`` each sequence."""
        shape = [*values_S_D.shape[1:-2], within.stop - within.start, values_S_D.shape[-1]]
        found = values_S_D.new_zeros(len(values_S_D), len(self.starts), *shape)
        for number, (place, count) in enumerate(self._places(within)):
            found[:, number, ..., :count, :] = values_S_D[..., place : place + count, :]
        return found

    def add(self, values_S_D: Tensor, found: Tensor, within: slice) -> None:
        """To the row's values what was found for those that `take` took."""
        for number, (place, count) in enumerate(self._places(within)):
            values_S_D[..., place : place + count, :] += found[:, number, ..., :count, :]

    def _places(self, within: slice) -> Iterator[tuple[int, int]]:
        """Where in the row it begins for each sequence, and how many tokens of it there are."""
        for start, length in zip(self.starts, self.lengths, strict=True):
            yield start + within.start, max(0, min(length, within.stop) - within.start)

    @property
    def whole(self) -> slice:
        """Of a sequence."""
        return slice(0, max(self.lengths))

    def blocks(self, window: int | None) -> Iterator[Block]:
        """Queries, some of each sequence at a time, and the keys that one of them sees."""
        length_P, length_R = self.prefix.stop - self.prefix.start, self.whole.stop
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
                own_key, own_value = (part.take(x, part.whole) for x in (exact_key, value))
                for block in part.blocks(rule.window):
                    weights = _products(
                        part.take(scaled, block.queries),
                        exact_key[:, block.prefix],
                        own_key[:, :, block.own],
                    )
                    log_sums.append(weigh_(weights, block.place, rule.window, rule.softcap))
                    seen = _times(
                        weights.to(value.dtype), value[:, block.prefix], own_value[:, :, block.own]
                    )
                    part.add(seen_K_M_S_D, seen, block.queries)
        ctx.save_for_backward(query, key, value, *log_sums)
        return seen_K_M_S_D

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        given, log_sums = saved[:3], iter(saved[3:])
        rule: Rule = ctx.rule
        query, key, value = (_exact(x) for x in given)
        d_seen = _exact(gradients[0])
        d_query, d_key, d_value = map(torch.zeros_like, (query, key, value))
        with torch.autocast(query.device.type, enabled=False):
            scaled = query * rule.factor
            for part in ctx.parts:
                own_key, own_value = (part.take(x, part.whole) for x in (key, value))
                d_own_key, d_own_value = map(torch.zeros_like, (own_key, own_value))
                for block in part.blocks(rule.window):
                    asked = [part.take(x, block.queries) for x in (scaled, d_seen)]
                    prefix = key[:, block.prefix], value[:, block.prefix]
                    own = own_key[:, :, block.own], own_value[:, :, block.own]
                    weights, d_scores = map(_products, asked, prefix, own)
                    weigh_backward_(
                        weights, d_scores, next(log_sums), block.place, rule.window, rule.softcap
                    )
                    part.add(d_query, _times(d_scores, prefix[0], own[0]), block.queries)
                    _add_transposed_times(
                        d_key[:, block.prefix], d_own_key[:, :, block.own], d_scores, asked[0]
                    )
                    _add_transposed_times(
                        d_value[:, block.prefix], d_own_value[:, :, block.own], weights, asked[1]
                    )
                part.add(d_key, d_own_key, part.whole)
                part.add(d_value, d_own_value, part.whole)
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
        of_prefix = weights_K_G_M_R_T[..., :length_P].flatten(1, 3)
        flat = seen.flatten(1, 3)
        torch.baddbmm(flat, of_prefix, prefix_K_P_D, out=flat)
    return seen


def _add_transposed_times(
    prefix_K_P_D: Tensor, own_K_G_N_D: Tensor, weights_K_G_M_R_T: Tensor, rows_K_G_M_R_D: Tensor
) -> None:
    """Add sums over rows, weighed: to the prefix, and to each sequence's own."""
    of_prefix, of_own = weights_K_G_M_R_T.tensor_split([-own_K_G_N_D.shape[2]], dim=-1)
    torch.baddbmm(
        prefix_K_P_D,
        of_prefix.flatten(1, 3).mT,
        rows_K_G_M_R_D.flatten(1, 3),
        out=prefix_K_P_D,
    )
    own_K_G_N_D += of_own.flatten(2, 3).mT @ rows_K_G_M_R_D.flatten(2, 3)
