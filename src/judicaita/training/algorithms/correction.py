"""What tokens count for that another distribution than the policy's was drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor


class ImportanceCorrection(BaseModel):
    """Weights w of tokens by the ratio ρ of the policy to what was drawn from.

    An engine that rounds otherwise than the training pass, or cuts the tail off, draws from a
    distribution μ that is not the policy's π. With ρ = π/μ of a token, or the product of a
    completion's, as a weight the gradient is again that of π, of large variance where ρ is large.
    Truncated per token: F. Yao et al., "Your efficient RL framework secretly brings you off-policy
    RL training", 2025. Masked by the whole completion: J. Liu et al., "When speed kills stability",
    2025.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    type: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = (
        "none"
    )
    """ρ of each token or of the whole completion; over the cap it is set to the cap
    (``truncate``), or the token or completion is left out (``mask``). ``none`` weighs all alike."""
    cap: float = Field(3.0, ge=1)
    """Of ρ."""

    def __call__(
        self, logprobs_B_T: Tensor, drawn_logprobs_B_T: Tensor, mask_B_T: Tensor
    ) -> Tensor:
        """Weights, [B, T], without gradients; those outside the mask are to be ignored.

        Args:
            logprobs_B_T: The policy's when it sampled, as the training pass finds them (nats).
            drawn_logprobs_B_T: What the engine says of the distribution it drew from.
            mask_B_T: Tokens of the completions.
        """
        log_ratio_B_T = (logprobs_B_T.detach() - drawn_logprobs_B_T).where(mask_B_T, 0)
        if self.type == "none":
            return log_ratio_B_T.new_ones(log_ratio_B_T.shape)
        if self.type.startswith("sequence"):
            log_ratio_B_T = log_ratio_B_T.sum(dim=-1, keepdim=True).expand_as(log_ratio_B_T)
        ratio_B_T = log_ratio_B_T.exp()
        if self.type.endswith("truncate"):
            return ratio_B_T.clamp(max=self.cap)
        return ratio_B_T.where(ratio_B_T <= self.cap, 0)
