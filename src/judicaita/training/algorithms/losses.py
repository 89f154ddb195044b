"""Policy losses. One class each: its name, its knobs with their bounds, its paper, its maths.

A loss gives a value per token; `reduction.py` turns them into one number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LossOutput:
    """What a loss says of each token. Both [B, T]; entries outside the mask are to be ignored."""

    per_token_B_T: Tensor
    clipped_B_T: Tensor
    """True where the bound cut the gradient off."""


class ClippedLoss(BaseModel):
    """PPO's clipped surrogate, −min(rA, clip(r, 1−low, 1+high)·A), r = π/π_old per token.

    PPO: arXiv 1707.06347 eq. 7. Separate bounds: DAPO, arXiv 2503.14476 §3.1. The bounds bite only
    once the policy has moved since it sampled, that is from the second update on a batch on
    (``num_iterations`` above 1).
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    type: Literal["clipped"] = "clipped"
    """Which loss."""
    clip_low: float = Field(0.2, gt=0, lt=1)
    """The ratio is cut below 1 − clip_low where the advantage is negative."""
    clip_high: float = Field(0.2, gt=0)
    """The ratio is cut above 1 + clip_high where the advantage is positive."""

    def __call__(
        self, logprobs_B_T: Tensor, old_logprobs_B_T: Tensor, advantages_B_T: Tensor
    ) -> LossOutput:
        """Log-probabilities in nats; the gradient flows through ``logprobs_B_T`` alone."""
        ratio_B_T = (logprobs_B_T - old_logprobs_B_T.detach()).exp()
        bounded_B_T = ratio_B_T.clamp(1 - self.clip_low, 1 + self.clip_high)
        plain_B_T = ratio_B_T * advantages_B_T
        cut_B_T = bounded_B_T * advantages_B_T
        return LossOutput(-plain_B_T.minimum(cut_B_T), cut_B_T < plain_B_T)
