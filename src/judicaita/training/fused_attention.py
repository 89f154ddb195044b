"""Attention of a packed row by one fused kernel (flex_attention), where there is a GPU for it.

Who may see whom is the same as in `shared_prefix.py`, told as a mask of blocks: those of which
nothing can be seen are never computed, and scores are never stored.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

_VARIANTS = 64
"""Past torch's limit of 8 it would go on without a kernel, with scores of all tokens over all."""


@cache
def is_fused(device: torch.device, head_dim: int, dtype: torch.dtype) -> bool:
    """Whether the kernel runs on a device for heads of this size: tried once, forward and backward.

    Large heads need more shared memory than some GPUs have, which only the compiler knows.
    """
    from torch.utils._triton import has_triton

    if device.type != "cuda" or not has_triton():
        return False
    states = torch.zeros(1, 2, 256, head_dim, device=device, dtype=dtype, requires_grad=True)
    places = torch.arange(256, device=device)
    try:
        mask = visible(places * 0, places * 0, places, None, compiled=True)
        seen = fused(states, states, states, mask, scaling=1.0, softcap=1.0, compiled=True)
        seen.sum().backward()
    except RuntimeError as error:  # the compiler's errors are of this kind
        warnings.warn(
            f"attention of heads of {head_dim} numbers has no fused kernel on this GPU "
            f"({str(error).splitlines()[0]}), so that it is computed by blocks: slower, equal.",
            stacklevel=2,
        )
        return False
    return True


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
    create: Callable[..., Any] = create_block_mask
    if compiled:
        create = _compiled(create)
    mask: BlockMask = create(may_see, None, None, length, length, device=span_S.device)
    return mask


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
    kernel: Callable[..., Any] = flex_attention
    if compiled:
        kernel = _compiled(kernel)
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
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """For lengths of any kind, and without trials of what is fastest: a resumed run has to get the
    same kernel. Each window, with and without gradients, is a variant of its own."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VARIANTS)
    compiled: Callable[..., Any] = torch.compile(function, dynamic=True, fullgraph=True)
    return compiled


@cache
def _capped(softcap: float) -> Callable[..., Tensor]:
    def cap(score: Tensor, *_place: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap
