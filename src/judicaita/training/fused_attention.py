"""Attention of a packed row by one fused kernel (flex_attention), where there is a GPU for it.

Who may see whom is the same as in `shared_prefix.py`, told as a mask of blocks: those of which
nothing can be seen are never computed, and scores are never stored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention


def is_fused(device: torch.device) -> bool:
    """Whether the kernel can be compiled for a device."""
    from torch.utils._triton import has_triton

    return device.type == "cuda" and has_triton()


def visible(
    span_S: Tensor, part_S: Tensor, position_S: Tensor, window: int | None, *, compiled: bool
) -> BlockMask:
    """The blocks of a packed row.

    Of each token: which prompt's ``span`` it belongs to, which ``part`` of it (0 the prompt, then
    its completions), and its true position. ``window`` is that of the layer.
    """

    def may_see(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        distance = position_S[query] - position_S[key]
        is_own = (part_S[key] == 0) | (part_S[key] == part_S[query])
        seen = (span_S[query] == span_S[key]) & is_own & (distance >= 0)
        return seen if window is None else seen & (distance < window)

    length = len(span_S)
    return create_block_mask(
        may_see, None, None, length, length, device=span_S.device, _compile=compiled
    )


def fused(
    query_1_H_S_D: Tensor,
    key_1_K_S_D: Tensor,
    value_1_K_S_D: Tensor,
    mask: BlockMask,
    *,
    scaling: float,
    softcap: float | None,
    compiled: bool,
) -> Tensor:
    """[1, S, H, D]; without ``compiled`` by plain operations, for comparisons."""
    kernel: Callable[..., Any] = _compiled() if compiled else flex_attention
    # Rotary embeddings leave queries and keys in float32 under autocast, and values not.
    dtype = value_1_K_S_D.dtype
    seen_1_H_S_D: Tensor = kernel(
        query_1_H_S_D.to(dtype),
        key_1_K_S_D.to(dtype),
        value_1_K_S_D,
        score_mod=None if softcap is None else _capped(softcap),
        block_mask=mask,
        scale=scaling,
        enable_gqa=True,
    )
    return seen_1_H_S_D.transpose(1, 2)


@cache
def _compiled() -> Callable[..., Any]:
    """Once for all lengths, and without trials of what is fastest: a resumed run has to get the
    same kernel."""
    compiled: Callable[..., Any] = torch.compile(flex_attention, dynamic=True)
    return compiled


@cache
def _capped(softcap: float) -> Callable[..., Tensor]:
    def cap(score: Tensor, *_place: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap
