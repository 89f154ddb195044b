"""The training pass in which a prompt is forwarded once for all of its completions.

A micro-batch is packed into one row without padding: each prompt, and behind it its completions.
What works on each token alone (projections, norms, MLP) runs over that row as it is, through the
model's own modules. Attention alone has to know who may see whom, and goes by blocks: a prompt
attends to itself, a completion to its prompt and to itself. Scores of all tokens over all tokens
are never made: they would cost more than the repeated prompt does as soon as completions are longer
than P / √G.

    S  tokens of the packed row      P  tokens of a prompt      R  of its longest completion
    G  completions of a prompt       H  heads, K of keys, M     D  numbers of a head
                                        of queries for each key

Gradients are those of the plain pass, in which every completion stands behind a prompt of its own,
up to rounding; with dropout, a prompt has one mask for its whole group.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from judicaita.training.block_attention import Part, Rule, attend_parts
from judicaita.training.fused_attention import fused, is_fused, visible

ATTENTION = "judicaita_shared_prefix"
"""The name under which transformers finds `attend`."""

ARCHITECTURES = ("gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3")
"""Model types whose attention takes all it needs from `attend`'s arguments. Another model may have
biases, sinks or chunks that it would not see."""

TOKENS_AT_ONCE = 256
"""Of short completions that go together."""

QUERIES_AT_ONCE = 128
"""Of a prompt or completion; smaller blocks have fewer scores that nobody may see."""


@dataclass(frozen=True)
class Span:
    """Where a prompt and its completions stand among the keys."""

    prompt: slice
    begin: int
    """Of the first completion: behind the prompt, unless that had been forwarded before."""
    completions: tuple[int, ...]
    """Tokens of each completion but the last one, which predicts nothing."""


@dataclass(frozen=True)
class Packed:
    """A micro-batch in one row."""

    input_ids_1_S: Tensor
    position_ids_1_S: Tensor
    spans: tuple[Span, ...]
    sources_N: Tensor
    """For every completion token, row by row: the place of the token that predicts it, behind the
    last tokens of the prompts that had been forwarded before."""
    parts: tuple[Part, ...]
    """The same spans, in pieces that attend at once."""
    masks: dict[int | None, BlockMask] = field(default_factory=dict, compare=False)
    """Of the fused kernel, by the layers' windows; the first layer that needs one makes it."""

    def mask(self, window: int | None, *, compiled: bool = True) -> BlockMask:
        """The blocks that the fused kernel looks at."""
        if window not in self.masks:
            lengths = [
                (span.prompt.stop - span.prompt.start, *span.completions) for span in self.spans
            ]
            owners = [
                (number, part)
                for number, own in enumerate(lengths)
                for part, length in enumerate(own)
                for _ in range(length)
            ]
            span_S, part_S = torch.tensor(owners, device=self.sources_N.device).unbind(dim=1)
            position_S = self.position_ids_1_S[0]
            self.masks[window] = visible(span_S, part_S, position_S, window, compiled=compiled)
        return self.masks[window]


@dataclass(frozen=True)
class Forwarded:
    """Prompts that a pass need not forward: one behind the other, before the row's own tokens."""

    places: Mapping[tuple[int, ...], int]
    """Where each begins, in their order."""
    tokens: int
    """Of all of them."""
    last_B_D: Tensor
    """The state behind the last layer of each one's last token."""
    states: Mapping[int, tuple[Tensor, Tensor]]
    """Keys and values of each layer, [1, K, tokens, D]."""


def pack(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]],
    device: torch.device,
    forwarded: Forwarded | None = None,
) -> Packed:
    """Pack (prompt ids, completion ids) rows; neighbours with equal prompts share one."""
    before = {} if forwarded is None else forwarded.places
    tokens_before = 0 if forwarded is None else forwarded.tokens
    last_before = {prompt: number for number, prompt in enumerate(before)}
    ids: list[int] = []
    positions: list[int] = []
    sources: list[int] = []
    spans = []
    for prompt, group in itertools.groupby(rows, key=lambda row: tuple(row[0])):
        if prompt in before:
            start, last = before[prompt], last_before[prompt]
        else:
            start = tokens_before + len(ids)
            ids += prompt
            positions += range(len(prompt))
            last = len(before) + len(ids) - 1
        begin, lengths = tokens_before + len(ids), []
        for _, completion in group:
            assert completion, "a completion has one token at least, its end"
            own = len(before) + len(ids)
            sources += [last, *range(own, own + len(completion) - 1)]
            ids += completion[:-1]
            positions += range(len(prompt), len(prompt) + len(completion) - 1)
            lengths.append(len(completion) - 1)
        spans.append(Span(slice(start, start + len(prompt)), begin, tuple(lengths)))
    input_ids, position_ids, sources_N = (
        torch.tensor(values, dtype=torch.long, device=device)
        for values in (ids, positions, sources)
    )
    parts = tuple(part for span in spans for part in _parts_of(span, tokens_before))
    return Packed(input_ids[None], position_ids[None], tuple(spans), sources_N, parts)


def _parts_of(span: Span, tokens_before: int) -> Iterator[Part]:
    """The prompt, if it is to be forwarded, then its completions: those of about the same length
    together, as many as have `TOKENS_AT_ONCE`."""
    start, stop = span.prompt.start, span.prompt.stop
    if start >= tokens_before:
        yield Part(slice(start, start), (start,), (stop - start,), QUERIES_AT_ONCE)
    starts = itertools.accumulate(span.completions, initial=span.begin)
    longest_first = sorted(zip(span.completions, starts, strict=False), reverse=True)
    while longest_first and (longest := longest_first[0][0]):
        count = max(1, TOKENS_AT_ONCE // longest)
        together, longest_first = longest_first[:count], longest_first[count:]
        lengths, begins = zip(*together, strict=True)
        yield Part(span.prompt, begins, lengths, QUERIES_AT_ONCE)


def can_share(model: PreTrainedModel) -> bool:
    """Whether the model is one whose attention can be replaced by `attend`."""
    config = model.config
    is_bidirectional = getattr(config, "use_bidirectional_attention", False)
    drops_weights = getattr(config, "attention_dropout", 0.0) > 0
    return config.model_type in ARCHITECTURES and not is_bidirectional and not drops_weights


@contextmanager
def attending(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Within it the model attends as what is registered under the name does."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = name
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
    packed: Packed,
    forwarded: Forwarded | None = None,
    scaling: float,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row, as transformers calls it; returns [1, S, H, D] and no weights.

    Where prompts have been ``forwarded`` before, the row has only what is behind them.
    """
    del attention_mask, rest
    tokens_before = 0
    if forwarded is not None:
        tokens_before = forwarded.tokens
        layer: int = module.layer_idx  # type: ignore[assignment]
        key_1_K_S_D, value_1_K_S_D = (
            torch.cat([before, own], dim=2)
            for before, own in zip(
                forwarded.states[layer], (key_1_K_S_D, value_1_K_S_D), strict=True
            )
        )
        # Nothing asks for the prompts, but queries stand where their keys do.
        query_1_H_S_D = functional.pad(query_1_H_S_D, (0, 0, tokens_before, 0))
    states = (query_1_H_S_D, key_1_K_S_D, value_1_K_S_D)
    if is_fused(query_1_H_S_D.device, query_1_H_S_D.shape[-1], value_1_K_S_D.dtype):
        mask = packed.mask(sliding_window)
        return fused(*states, mask, scaling=scaling, softcap=softcap, compiled=True), None
    rule = Rule(scaling, softcap, sliding_window)
    query_H_S_D, key_K_S_D, value_K_S_D = (x[0] for x in states)
    # Query heads by the key head that they share.
    query_K_M_S_D = query_H_S_D.unflatten(0, (len(key_K_S_D), -1))
    seen_K_M_S_D = attend_parts(query_K_M_S_D, key_K_S_D, value_K_S_D, packed.parts, rule)
    return seen_K_M_S_D.flatten(0, 1).transpose(0, 1)[None, tokens_before:], None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
