"""Log-probabilities and entropies of tokens from logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def token_logprobs(
    logits_B_T_V: Tensor, targets_B_T: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of its distribution, both [B, T], in nats.

    The distribution is softmax(logits / temperature), the one that was sampled from at top_p 1.
    Computed in float32 at least: bfloat16 keeps 3 decimal digits, less than a policy moves in one
    update. The entropy carries no gradient.
    """
    logits = logits_B_T_V if logits_B_T_V.dtype.itemsize >= 4 else logits_B_T_V.float()
    log_p_B_T_V = (logits / temperature).log_softmax(dim=-1)
    chosen_B_T = log_p_B_T_V.gather(-1, targets_B_T[..., None]).squeeze(-1)
    detached = log_p_B_T_V.detach()
    entropy_B_T = -(detached.exp() * detached).sum(dim=-1)
    return chosen_B_T, entropy_B_T
