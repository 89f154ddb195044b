"""From a value per token to one number."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def token_mean(values_B_T: Tensor, mask_B_T: Tensor, token_count: int) -> Tensor:
    """Sum over the unmasked tokens divided by ``token_count`` (DAPO, arXiv 2503.14476 §3.3).

    ``token_count`` is the number of completion tokens of the whole optimizer step, over all its
    micro-batches, so that the gradient of 1 × 8 prompts equals that of 8 × 1. A mean per
    micro-batch would weigh a token by how many others happened to share its micro-batch.
    Masked entries count as 0 whatever they hold, NaN included (its gradient is another matter).
    """
    return values_B_T.masked_fill(~mask_B_T, 0.0).sum() / token_count
