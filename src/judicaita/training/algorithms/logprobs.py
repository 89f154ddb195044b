"""Log-probabilities and entropies of tokens, from logits or from the hidden states behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LOGITS_AT_ONCE = 2**25
"""Numbers of one chunk of logits, 128 MiB in float32: about 130 tokens of Gemma's vocabulary."""

TOKENS_AT_ONCE = 128
"""Tokens of a chunk under a head that does not learn: fewer would leave a processor idle."""


_FLOAT16_SCALE = 2.0**12


def token_logprobs(
    logits_B_T_V: Tensor,
    targets_B_T: Tensor,
    temperature: float,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of its distribution, both [B, T], in nats.

    The distribution is softmax(logits / temperature), the one that was sampled from at top_p 1.
    Computed in float32 at least: bfloat16 keeps 3 decimal digits, less than a policy moves in one
    update. The entropy carries a gradient only where asked for: it takes two more tensors of the
    logits' size.
    """
    logits = logits_B_T_V if logits_B_T_V.dtype.itemsize >= 4 else logits_B_T_V.float()
    if temperature != 1:
        logits = logits / temperature
    log_p_B_T_V = logits.log_softmax(dim=-1)
    chosen_B_T = log_p_B_T_V.gather(-1, targets_B_T[..., None]).squeeze(-1)
    if entropy_gradient:
        return chosen_B_T, -(log_p_B_T_V.exp() * log_p_B_T_V).sum(dim=-1)
    detached = log_p_B_T_V.detach()
    return chosen_B_T, -detached.exp().mul_(detached).sum(dim=-1)


def chunked_logprobs(
    head: Callable[[Tensor], Tensor],
    hidden_N_D: Tensor,
    targets_N: Tensor,
    temperature: float,
    vocabulary: int,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """`token_logprobs` of N tokens, both [N], from the hidden states that predict them.

    ``head`` turns [C, D] into logits [C, V]. Chunks of at most `LOGITS_AT_ONCE` logits are made one
    after another, and made again in the backward pass: memory does not grow with N. One chunk is
    kept as it is, since there is nothing to save.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    def of_chunk(hidden_C_D: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
        return token_logprobs(head(hidden_C_D), targets_C, temperature, entropy_gradient)

    size = max(1, LOGITS_AT_ONCE // vocabulary)
    if len(targets_N) <= size:
        return of_chunk(hidden_N_D, targets_N)
    chunks = [
        checkpoint(of_chunk, hidden_C_D, targets_C, use_reentrant=False)
        for hidden_C_D, targets_C in zip(hidden_N_D.split(size), targets_N.split(size), strict=True)
    ]
    logprobs, entropies = zip(*chunks, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def frozen_head_logprobs(
    head: Callable[[Tensor], Tensor],
    hidden_N_D: Tensor,
    targets_N: Tensor,
    temperature: float,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """`chunked_logprobs` under a head that does not learn: no logits are kept, and none made again.

    A token's log-probability depends on its own hidden state alone, and so does its entropy. So
    their gradients by that state, [D], are known as soon as its logits are, whatever the loss will
    be: the loss only scales them.
    """
    import torch

    needs_gradient = torch.is_grad_enabled() and hidden_N_D.requires_grad
    # Loss scaling comes too late for these: float16 rounds probabilities below 6e-8 to 0.
    scale = _FLOAT16_SCALE if hidden_N_D.dtype == torch.float16 else 1.0
    values: tuple[list[Tensor], list[Tensor]] = ([], [])
    slopes: tuple[list[Tensor], list[Tensor]] = ([], [])
    differentiated = 0 if not needs_gradient else 2 if entropy_gradient else 1
    for hidden_C_D, targets_C in zip(
        hidden_N_D.detach().split(TOKENS_AT_ONCE), targets_N.split(TOKENS_AT_ONCE), strict=True
    ):
        hidden_C_D.requires_grad_(needs_gradient)
        found = token_logprobs(head(hidden_C_D), targets_C, temperature, differentiated == 2)
        for which, value_C in enumerate(found):
            values[which].append(value_C.detach())
        for which in range(differentiated):
            (slopes_C_D,) = torch.autograd.grad(
                found[which].sum() * scale, hidden_C_D, retain_graph=which + 1 < differentiated
            )
            slopes[which].append(slopes_C_D if scale == 1 else slopes_C_D.float() / scale)
    logprobs_N, entropy_N = (
        _with_slopes(torch.cat(value), torch.cat(slope), hidden_N_D) if slope else torch.cat(value)
        for value, slope in zip(values, slopes, strict=True)
    )
    return logprobs_N, entropy_N


def _with_slopes(values_N: Tensor, slopes_N_D: Tensor, hidden_N_D: Tensor) -> Tensor:
    """The values, with the slopes as their gradient by the hidden states."""
    linear_N = ((hidden_N_D - hidden_N_D.detach()) * slopes_N_D).sum(dim=-1)  # 0
    return values_N + linear_N.to(values_N.dtype)
