"""Kullback-Leibler divergence to the reference policy, estimated from sampled tokens.

With q the reference, p the policy and x = log(p/q) of a token that p drew (J. Schulman,
"Approximating KL divergence", 2020):

    k1 = x                    unbiased, often negative
    k2 = x²/2                 biased, low variance
    k3 = e^−x − 1 + x         unbiased, never negative, low variance

As a loss, an estimator's own gradient is another question. That of k1 is ∇log p, 0 on average: it
penalises nothing. That of k2 is x·∇log p, which is the divergence's own, unbiased. That of k3 is
(1 − e^−x)·∇log p, the gradient of the *forward* divergence KL(q‖p): close to k2's while x is small,
and bounded by 1 where the policy is far more certain than the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


class KLPenalty(BaseModel):
    """How the divergence is estimated and where it counts; ``beta`` weighs it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    estimator: Estimator = "k3"
    """``k1`` = x, ``k2`` = x²/2, ``k3`` = e^−x − 1 + x, where x is the log-ratio of a token."""
    place: Literal["loss", "reward"] = "loss"
    """``loss``: a term of its own (GRPO, arXiv 2402.03300 eq. 4). ``reward``: the sum over a
    completion's tokens is taken from its reward before advantages (PPO, arXiv 2203.02155), so that
    a group learns which of its completions left the reference."""
    gradient: Literal["own", "exact"] = "own"
    """In the loss: the estimator's own gradient, as in GRPO, or that of the divergence itself,
    which k2 has (k1 has to have ``exact``: its own is 0 on average)."""
    target: float = Field(0.0, ge=0)
    """Nats per token that ``beta`` adapts to (arXiv 1909.08593 §2.2): more, and it rises. 0 leaves
    it fixed."""
    gain: float = Field(0.1, gt=0, le=1)
    """Of the adaptation: a step changes ``beta`` by a fifth of the gain at most, 2 % at .1."""

    @model_validator(mode="after")
    def _has_meaning(self) -> Self:
        if self.place == "loss" and self.estimator == "k1" and self.gradient == "own":
            raise ValueError(
                "k1's own gradient is 0 on average, so that nothing would be penalised. Set "
                "gradient=exact, or another estimator"
            )
        if self.place == "reward" and self.gradient == "exact":
            raise ValueError(
                "gradient=exact is for place=loss: a reward has no gradient. Leave one of them out"
            )
        if self.target == 0 and self.gain != type(self).model_fields["gain"].default:
            raise ValueError("gain is for a beta that adapts. Set target, or leave gain out")
        return self

    def __call__(self, logprobs_B_T: Tensor, reference_logprobs_B_T: Tensor) -> Tensor:
        """The estimate of each token, [B, T], in nats, with the gradient that was chosen."""
        reference_B_T = reference_logprobs_B_T.detach()
        value_B_T = estimate(self.estimator, logprobs_B_T, reference_B_T)
        if self.gradient == "own" or self.estimator == "k2":
            return value_B_T
        exact_B_T = estimate("k2", logprobs_B_T, reference_B_T)
        return value_B_T.detach() + exact_B_T - exact_B_T.detach()

    def adapted(self, beta: float, kl: float) -> float:
        """The next ``beta``, once an update has found so many nats per token."""
        if self.target == 0:
            return beta
        error = min(0.2, max(-0.2, kl / self.target - 1))
        return beta * (1 + self.gain * error)


def estimate(estimator: Estimator, logprobs_B_T: Tensor, reference_logprobs_B_T: Tensor) -> Tensor:
    """Of each token, in nats, [B, T]; differentiable."""
    log_ratio_B_T = logprobs_B_T - reference_logprobs_B_T
    if estimator == "k1":
        return log_ratio_B_T
    if estimator == "k2":
        return log_ratio_B_T.square() / 2
    return (-log_ratio_B_T).expm1() + log_ratio_B_T
