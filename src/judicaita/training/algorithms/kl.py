"""Kullback-Leibler divergence to the reference policy, estimated from sampled tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def k3(logprobs_B_T: Tensor, reference_logprobs_B_T: Tensor) -> Tensor:
    """Schulman's k3 per token, q/p − 1 − log(q/p) with q the reference, p the policy; in nats.

    Unbiased for KL(p‖q) under samples of p, never negative, low in variance
    (J. Schulman, "Approximating KL divergence", 2020); GRPO's penalty (arXiv 2402.03300 eq. 4).
    Returns [B, T].
    """
    log_ratio_B_T = reference_logprobs_B_T.detach() - logprobs_B_T
    return log_ratio_B_T.expm1() - log_ratio_B_T
