"""The training pass in which a prompt is forwarded once for all of its completions.

A micro-batch is packed into one row without padding: each prompt, and behind it its completions.
What works on each token alone (projections, norms, MLP) runs over that row as it is, through the
model's own modules. Attention alone has to know who may see whom, and goes by blocks: a prompt
attends to itself, a completion to its prompt and to itself. Scores of all tokens over all tokens
are never made: they would cost more than the repeated prompt does as soon as completions are longer
than P / √G.

    S  tokens of the packed row      P  tokens of a prompt      R  of its longest completion
    G  completions of a prompt       H  heads, K of keys        D  numbers of a head

Gradients are those of the plain pass, in which every completion stands behind a prompt of its own,
up to rounding; with dropout, a prompt has one mask for its whole group.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ATTENTION = "judicaita_shared_prefix"
"""The name under which transformers finds `attend`."""

ARCHITECTURES = ("gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3")
"""Model types whose attention takes all it needs from `attend`'s arguments. Another model may have
biases, sinks or chunks that it would not see."""

QUERIES_AT_ONCE = 256
"""Rows of scores that are made at a time: memory grows with their number, not with its square."""

KEPT_SCORES = 2**22
"""Scores of a layer that are kept for the backward pass; of more, all are made again there."""


@dataclass(frozen=True)
class Span:
    """Where a prompt and its completions stand in the packed row."""

    start: int
    prompt: int
    """P."""
    completions: tuple[int, ...]
    """Tokens of each completion but the last one, which predicts nothing."""

    @property
    def end(self) -> int:
        """Where the next prompt starts."""
        return self.start + self.prompt + sum(self.completions)

    @property
    def scores(self) -> int:
        """Pairs of a query and a key that are looked at, about, of each head."""
        length = sum(self.completions)
        own = sum(count * count for count in self.completions)
        return self.prompt**2 + length * self.prompt + own


@dataclass(frozen=True)
class Packed:
    """A micro-batch in one row."""

    input_ids_1_S: Tensor
    position_ids_1_S: Tensor
    spans: tuple[Span, ...]
    sources_N: Tensor
    """For every completion token, row by row: the place of the token that predicts it."""


def pack(rows: Sequence[tuple[Sequence[int], Sequence[int]]], device: torch.device) -> Packed:
    """Pack (prompt ids, completion ids) rows; neighbours with equal prompts share one."""
    ids: list[int] = []
    positions: list[int] = []
    sources: list[int] = []
    spans = []
    for prompt, group in itertools.groupby(rows, key=lambda row: tuple(row[0])):
        start = len(ids)
        ids += prompt
        positions += range(len(prompt))
        lengths = []
        for _, completion in group:
            assert completion, "a completion has one token at least, its end"
            sources += [start + len(prompt) - 1, *range(len(ids), len(ids) + len(completion) - 1)]
            ids += completion[:-1]
            positions += range(len(prompt), len(prompt) + len(completion) - 1)
            lengths.append(len(completion) - 1)
        spans.append(Span(start, len(prompt), tuple(lengths)))
    input_ids, position_ids, sources_N = (
        torch.tensor(values, device=device) for values in (ids, positions, sources)
    )
    return Packed(input_ids[None], position_ids[None], tuple(spans), sources_N)


def can_share(model: PreTrainedModel) -> bool:
    """Whether the model is one whose attention can be replaced by `attend`."""
    config = model.config
    is_bidirectional = getattr(config, "use_bidirectional_attention", False)
    return config.model_type in ARCHITECTURES and not is_bidirectional


@contextmanager
def shared_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model attends by blocks."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def attend(
    module: nn.Module,
    query_1_H_S_D: Tensor,
    key_1_K_S_D: Tensor,
    value_1_K_S_D: Tensor,
    attention_mask: Tensor | None,
    *,
    spans: Sequence[Span],
    scaling: float,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row, as transformers calls it; returns [1, S, H, D] and no weights."""
    del module, attention_mask, rest
    heads = query_1_H_S_D.shape[1]
    scores = heads * sum(span.scores for span in spans)
    run = _again if torch.is_grad_enabled() and scores > KEPT_SCORES else _once
    rule = _Rule(scaling, softcap, sliding_window, dropout)
    outputs = []
    for span in spans:
        place = slice(span.start, span.end)
        query, key, value = (x[0, :, place] for x in (query_1_H_S_D, key_1_K_S_D, value_1_K_S_D))
        outputs += _of_span(query, key, value, span, rule, run)
    return torch.cat(outputs, dim=1).transpose(0, 1)[None], None


@dataclass(frozen=True)
class _Rule:
    """How scores become weights."""

    scaling: float
    softcap: float | None
    window: int | None
    dropout: float

    def weights(self, scores: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """[…, Q, keys] → the same."""
        scores = scores * self.scaling
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        distance = query_positions[:, None] - key_positions
        hidden = distance < 0
        if self.window is not None:
            hidden = hidden | (distance >= self.window)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
        return nn.functional.dropout(weights, self.dropout) if self.dropout else weights


Run = Callable[..., Tensor]
"""Calls a block with its arguments."""


def _once(block: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return block(*arguments)


def _again(block: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Run a block now, and again in the backward pass instead of keeping its scores."""
    result: Tensor = checkpoint(block, *arguments, use_reentrant=False)
    return result


def _of_span(
    query_H_L_D: Tensor,
    key_K_L_D: Tensor,
    value_K_L_D: Tensor,
    span: Span,
    rule: _Rule,
    run: Run,
) -> list[Tensor]:
    """What a prompt and its completions see, [H, tokens, D] each, in the order of the row."""
    length_P = span.prompt
    own = [x[:, :length_P] for x in (query_H_L_D, key_K_L_D, value_K_L_D)]
    outputs = [
        run(_prompt_block, *own, first, rule) for first in range(0, length_P, QUERIES_AT_ONCE)
    ]
    if not sum(span.completions):
        return outputs
    behind = [x[:, length_P:] for x in (query_H_L_D, key_K_L_D, value_K_L_D)]
    seen, places = [], []
    for index_G_R, valid_G_R in _blocks_of_completions(span.completions, query_H_L_D.device):
        padded = [x[:, index_G_R] for x in behind]
        seen.append(run(_completion_block, *padded, *own[1:], rule)[:, valid_G_R])
        places.append(index_G_R[valid_G_R])
    in_order = torch.cat(places).argsort()
    outputs.append(torch.cat(seen, dim=1).index_select(1, in_order))
    return outputs


def _prompt_block(
    query_H_P_D: Tensor, key_K_P_D: Tensor, value_K_P_D: Tensor, first: int, rule: _Rule
) -> Tensor:
    """Some of a prompt's queries over the keys that they can see, [H, Q, D]."""
    heads, length, _ = query_H_P_D.shape
    last = min(first + QUERIES_AT_ONCE, length)
    begin = max(0, first - rule.window + 1) if rule.window else 0
    query_K_M_Q_D = query_H_P_D[:, first:last].unflatten(0, (len(key_K_P_D), -1))
    scores = _scores(query_K_M_Q_D, key_K_P_D[:, None, begin:last])
    positions = torch.arange(length, device=scores.device)
    weights = rule.weights(scores, positions[first:last], positions[begin:last])
    weights = weights.to(value_K_P_D.dtype)
    return (weights @ value_K_P_D[:, None, begin:last]).reshape(heads, last - first, -1)


def _completion_block(
    query_H_G_R_D: Tensor,
    key_K_G_R_D: Tensor,
    value_K_G_R_D: Tensor,
    prompt_key_K_P_D: Tensor,
    prompt_value_K_P_D: Tensor,
    rule: _Rule,
) -> Tensor:
    """Some completions over their prompt and themselves, [H, G, R, D]."""
    heads, count, length, size = query_H_G_R_D.shape
    groups, length_P, _ = prompt_key_K_P_D.shape
    # From the window's edge of the first token on: what lies before, no completion sees.
    begin = max(0, length_P - rule.window + 1) if rule.window else 0
    query_K_M_G_R_D = query_H_G_R_D.unflatten(0, (groups, -1))
    to_prompt = _scores(query_K_M_G_R_D.flatten(1, 3), prompt_key_K_P_D[:, begin:])
    to_itself = _scores(query_K_M_G_R_D, key_K_G_R_D[:, None])
    shape = (*query_K_M_G_R_D.shape[:-1], length_P - begin)
    scores = torch.cat([to_prompt.view(shape), to_itself], dim=-1)
    positions = torch.arange(begin, length_P + length, device=scores.device)
    weights = rule.weights(scores, positions[-length:], positions).to(key_K_G_R_D.dtype)
    of_prompt, of_itself = weights.split([length_P - begin, length], dim=-1)
    seen_in_prompt = of_prompt.flatten(1, 3) @ prompt_value_K_P_D[:, begin:]
    seen_in_itself = of_itself @ value_K_G_R_D[:, None]
    seen: Tensor = seen_in_prompt.view_as(seen_in_itself) + seen_in_itself
    return seen.reshape(heads, count, length, size)


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """[…, Q, D] and […, keys, D] → […, Q, keys], in float32 at least.

    Qwen 2's scores overflow float16, and bfloat16 rounds them by whole units before the softmax.
    """
    exact = query.dtype if query.dtype.itemsize >= 4 else torch.float32
    with torch.autocast(query.device.type, enabled=False):
        return query.to(exact) @ key.to(exact).transpose(-1, -2)


def _blocks_of_completions(
    lengths: Sequence[int], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Completions of about the same length, as many at a time as have `QUERIES_AT_ONCE` tokens.

    For each block the places of their tokens behind the prompt, [G, R], and which are places at
    all; the others repeat a token, which nothing valid sees, being behind it.
    """
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    longest_first = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    while longest_first and (longest := lengths[longest_first[0]]):
        count = max(1, QUERIES_AT_ONCE // longest)
        block, longest_first = longest_first[:count], longest_first[count:]
        starts_G, lengths_G = (
            torch.tensor([values[number] for number in block], device=device)
            for values in (starts, lengths)
        )
        places_R = torch.arange(longest, device=device)
        index_G_R = (starts_G[:, None] + places_R).clamp(max=sum(lengths) - 1)
        yield index_G_R, places_R < lengths_G[:, None]


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
