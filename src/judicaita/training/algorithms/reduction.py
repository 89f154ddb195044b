"""From a value per token to one number.

What a sum is divided by belongs to the whole optimizer step, over all its micro-batches, so that
the gradient of 1 × 8 prompts equals that of 8 × 1: a mean per micro-batch would weigh a token by
how many others happened to share its micro-batch. The numbers of all micro-batches add up. Masked
entries count as 0 whatever they hold, NaN included (its gradient is another matter).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StepSizes:
    """Of all completions of an update, those included that do not enter the loss."""

    tokens: int
    sequences: int
    longest: int
    """Tokens that a completion may have."""
    passes: int = 1
    """Micro-batches."""
    pass_tokens: int = 0
    """Of the present micro-batch."""


def token_mean(values_B_T: Tensor, mask_B_T: Tensor, token_count: int) -> Tensor:
    """Sum over the unmasked tokens divided by ``token_count``: with the number of completion tokens
    of the whole optimizer step, DAPO's (arXiv 2503.14476 §3.3)."""
    return values_B_T.masked_fill(~mask_B_T, 0.0).sum() / token_count


def sequence_mean(values_B_T: Tensor, mask_B_T: Tensor, sequence_count: int) -> Tensor:
    """Sum over completions of the mean over their tokens, divided by ``sequence_count``
    (DeepSeekMath, arXiv 2402.03300 eq. 3); a token of a long completion weighs less."""
    lengths_B = mask_B_T.sum(dim=-1).clamp(min=1)
    means_B = values_B_T.masked_fill(~mask_B_T, 0.0).sum(dim=-1) / lengths_B
    return means_B.sum() / sequence_count
