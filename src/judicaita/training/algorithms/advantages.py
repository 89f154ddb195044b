"""Advantages of outcomes and of steps (DeepSeekMath, arXiv 2402.03300 §4.1.2–3).

The order is fixed, for every estimator: estimate over the group → divide by tau → bound → discount
per reasoning step. tau = gamma = 1 is the papers'. A new estimator is a class here and an entry in
`AdvantageEstimator`, a new bound one in `AdvantageBound`.

P groups of G completions; K rewards that are told apart. Here S is the number of reasoning steps of
the completion that has the most of them in its group.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

SIGNAL_TOLERANCE = 1e-6
"""Rewards of a group that spread less than this are equal: sums of floats are noisy, and a noise of
1e-17 passes ``std == 0`` as signal."""

_NORMAL_MAD = 1.4826
"""σ of a normal distribution over its median absolute deviation, 1 / Φ⁻¹(3/4)."""

_NORMAL_MEAN_DEVIATION = 1.2533
"""σ of a normal distribution over its mean absolute deviation, √(π/2)."""


@dataclass(frozen=True)
class Rewards:
    """What the groups of an optimizer step were given, in float64."""

    total_P_G: Tensor
    parts_P_K_G: Tensor
    """Each reward of its own; K may be 0."""
    weights_P_K: Tensor
    """What each counts in the total; 0 where it abstained from the group."""


def spreads(rewards_X_G: Tensor) -> Tensor:
    """Whether rewards differ along the last axis, by more than noise."""
    return rewards_X_G.amax(dim=-1) - rewards_X_G.amin(dim=-1) > SIGNAL_TOLERANCE


def cancels(rewards: Rewards) -> Tensor:
    """In which groups rewards differ whose weighted sum does not, booleans [P]: nothing is learned
    from what one gives and the other takes."""
    counted_P_K = spreads(rewards.parts_P_K_G) & (rewards.weights_P_K > 0)
    return counted_P_K.any(dim=-1) & ~spreads(rewards.total_P_G)


# ── estimators ───────────────────────────────────────────────────────────────────────────────────


class _Estimator(BaseModel):
    """What all estimators are: rewards of a step's groups to advantages [P, G]."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    looks_beyond_the_group: ClassVar[bool] = False
    """Whether an advantage depends on other groups, or on more than the total."""

    def has_signal(self, rewards: Rewards) -> Tensor:
        """From which groups something can be learned, booleans [P]."""
        return self._has_signal(rewards)

    def __call__(self, rewards: Rewards) -> Tensor:
        """Before tau and bounds. Entries of groups without signal are to be ignored."""
        return self._estimate(rewards)

    def _has_signal(self, rewards: Rewards) -> Tensor:
        return spreads(rewards.total_P_G)

    @abstractmethod
    def _estimate(self, rewards: Rewards) -> Tensor: ...


class ZScore(_Estimator):
    """(r − mean) / (σ + ε), σ with ddof 1: GRPO (arXiv 2402.03300 §4.1.2), the default."""

    type: Literal["z_score"] = "z_score"
    """How rewards become advantages."""
    epsilon: float = Field(1e-4, gt=0)
    """Added to σ, 1e-4 as in TRL (verl: 1e-6); keeps a nearly constant group from being blown
    up."""

    def _estimate(self, rewards: Rewards) -> Tensor:
        return _centred(rewards.total_P_G) / (_sigma(rewards.total_P_G) + self.epsilon)


class Centred(_Estimator):
    """r − mean (Dr. GRPO, arXiv 2503.20783 §3.2): σ makes the questions that are nearly always, or
    never, answered right count more than others."""

    type: Literal["centred"] = "centred"
    """How rewards become advantages."""

    def _estimate(self, rewards: Rewards) -> Tensor:
        return _centred(rewards.total_P_G)


class LeaveOneOut(_Estimator):
    """r − the mean of the others (RLOO, arXiv 2402.14740): an unbiased baseline; G/(G − 1) times
    the centred reward."""

    type: Literal["leave_one_out"] = "leave_one_out"
    """How rewards become advantages."""

    def _estimate(self, rewards: Rewards) -> Tensor:
        count = rewards.total_P_G.shape[1]
        return _centred(rewards.total_P_G) * count / (count - 1)


class MedianDeviation(_Estimator):
    """(r − median) / (1.4826 · MAD + ε): one outlier moves neither centre nor scale (Iglewicz and
    Hoaglin 1993). Where more than half of a group are equal MAD is 0, and 1.2533 times the mean
    absolute deviation takes its place, as there. Advantages do not sum to 0."""

    type: Literal["mad"] = "mad"
    """How rewards become advantages."""
    epsilon: float = Field(1e-4, gt=0)
    """Added to the scale."""

    def _estimate(self, rewards: Rewards) -> Tensor:
        total_P_G = rewards.total_P_G
        off_P_G = total_P_G - total_P_G.quantile(0.5, dim=1, keepdim=True)
        median_P_1 = off_P_G.abs().quantile(0.5, dim=1, keepdim=True)
        mean_P_1 = off_P_G.abs().mean(dim=1, keepdim=True)
        scale_P_1 = (_NORMAL_MAD * median_P_1).where(
            median_P_1 > SIGNAL_TOLERANCE, _NORMAL_MEAN_DEVIATION * mean_P_1
        )
        return off_P_G / (scale_P_1 + self.epsilon)


class BatchSigma(_Estimator):
    """(r − mean of the group) / (σ + ε), σ of all rewards of the optimizer step (arXiv 2508.08221
    §4.1; TRL's ``scale_rewards="batch"``): a group's own σ is a poor estimate from few
    completions."""

    type: Literal["batch"] = "batch"
    """How rewards become advantages."""
    epsilon: float = Field(1e-4, gt=0)
    """Added to σ."""
    looks_beyond_the_group: ClassVar[bool] = True

    def _estimate(self, rewards: Rewards) -> Tensor:
        sigma = _sigma(rewards.total_P_G.flatten()[None])
        return _centred(rewards.total_P_G) / (sigma + self.epsilon)


class Decoupled(_Estimator):
    """Each part of the reward has a z-score of its own; their weighted sum is whitened over the
    step (GDPO, arXiv 2601.05242). Two parts that take from each other what they give still cancel
    where their weights are equal; elsewhere what a part decides does not drown in the spread of
    another."""

    type: Literal["gdpo"] = "gdpo"
    """How rewards become advantages."""
    epsilon: float = Field(1e-4, gt=0)
    """Added to each σ."""
    looks_beyond_the_group: ClassVar[bool] = True

    def _has_signal(self, rewards: Rewards) -> Tensor:
        return self._weighted(rewards).abs().amax(dim=1) > SIGNAL_TOLERANCE

    def _estimate(self, rewards: Rewards) -> Tensor:
        sum_P_G = self._weighted(rewards)
        sigma = _sigma(sum_P_G.flatten()[None])
        return (sum_P_G - sum_P_G.mean()) / (sigma + self.epsilon)

    def _weighted(self, rewards: Rewards) -> Tensor:
        parts_P_K_G = rewards.parts_P_K_G
        score_P_K_G = _centred(parts_P_K_G) / (_sigma(parts_P_K_G) + self.epsilon)
        score_P_K_G = score_P_K_G.masked_fill(~spreads(parts_P_K_G)[..., None], 0.0)
        return (score_P_K_G * rewards.weights_P_K[..., None]).sum(dim=1)


def _centred(rewards_X_G: Tensor) -> Tensor:
    return rewards_X_G - rewards_X_G.mean(dim=-1, keepdim=True)


def _sigma(rewards_X_G: Tensor) -> Tensor:
    return rewards_X_G.std(dim=-1, keepdim=True, correction=1)


AdvantageEstimator = Annotated[
    ZScore | Centred | LeaveOneOut | MedianDeviation | BatchSigma | Decoupled,
    Field(discriminator="type"),
]
"""Every estimator, by its ``type``; the first one is the default."""


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────


class _Bound(BaseModel):
    """What all bounds are: advantages to advantages of the same shape."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    def __call__(self, advantages_N: Tensor) -> Tensor:
        """Of all completions of the step whose group has a signal."""
        return self._bound(advantages_N) if advantages_N.numel() else advantages_N

    @abstractmethod
    def _bound(self, advantages_N: Tensor) -> Tensor: ...


class NoBound(_Bound):
    """Advantages stay as they are."""

    type: Literal["none"] = "none"
    """How advantages are bounded, after tau."""

    def _bound(self, advantages_N: Tensor) -> Tensor:
        return advantages_N


class Clip(_Bound):
    """Cut at −low and at high; symmetric where the two are equal."""

    type: Literal["clip"] = "clip"
    """How advantages are bounded, after tau."""
    low: float = Field(20.0, gt=0)
    """Advantages are no less than −low. Mind tau: 0.1 makes a z-score of 2 an advantage of 20."""
    high: float = Field(20.0, gt=0)
    """Advantages are no more."""

    def _bound(self, advantages_N: Tensor) -> Tensor:
        return advantages_N.clamp(-self.low, self.high)


class Squash(_Bound):
    """limit · tanh(A / limit): small ones hardly change, and the order stays."""

    type: Literal["tanh"] = "tanh"
    """How advantages are bounded, after tau."""
    limit: float = Field(20.0, gt=0)
    """Advantages come near to it and to its negative."""

    def _bound(self, advantages_N: Tensor) -> Tensor:
        return self.limit * (advantages_N / self.limit).tanh()


class Winsorise(_Bound):
    """What lies beyond the outer quantiles of the step's advantages is set to these (Hastings et
    al. 1947)."""

    type: Literal["winsorise"] = "winsorise"
    """How advantages are bounded, after tau."""
    share: float = Field(0.05, gt=0, lt=0.5)
    """Of the advantages at either end."""

    def _bound(self, advantages_N: Tensor) -> Tensor:
        low, high = advantages_N.quantile(self.share), advantages_N.quantile(1 - self.share)
        return advantages_N.clamp(low, high)


AdvantageBound = Annotated[NoBound | Clip | Squash | Winsorise, Field(discriminator="type")]
"""Every bound, by its ``type``; the first one is the default."""


# ── of outcomes, and of steps ────────────────────────────────────────────────────────────────────


def outcome_advantages(
    rewards: Rewards, estimator: _Estimator, tau: float, bound: _Bound
) -> Tensor:
    """Advantages [P, G] of a step's groups, in the dtype of the rewards; use float64.

    0 where a group has no signal. A smaller tau sharpens: 0.1 multiplies every advantage by ten.
    Needs G ≥ 2, since one reward equals its own mean.
    """
    if rewards.total_P_G.shape[1] < 2:
        raise ValueError(f"a group needs at least 2 rewards, got {rewards.total_P_G.shape[1]}")
    signal_P = estimator.has_signal(rewards)
    advantages_P_G = rewards.total_P_G.new_zeros(rewards.total_P_G.shape)
    found_N = (estimator(rewards) / tau)[signal_P]
    advantages_P_G[signal_P] = bound(found_N.flatten()).view_as(found_N)
    return advantages_P_G


def discount_per_step(advantages_B: Tensor, steps_to_end_B_T: Tensor, gamma: float) -> Tensor:
    """Advantage of every token: γ^k · A, k the number of reasoning steps after the token's own.

    The outcome is known at the conclusion (k = 0); a step before it earns γ of that, and so on.
    Returns [B, T] in the dtype of the advantages.
    """
    return advantages_B[:, None] * gamma ** steps_to_end_B_T.to(advantages_B.dtype)


def step_advantages(
    credits_G_S: Tensor, mask_G_S: Tensor, estimator: _Estimator, tau: float, bound: _Bound
) -> Tensor:
    """Advantage of each step's credit among all steps of all completions of a group.

    DeepSeekMath, arXiv 2402.03300 §4.1.3 (σ here with ddof 1, as for outcomes). 0 everywhere where
    the credits of the group are equal or fewer than two, and where the mask says there is no step.
    The estimator must be one that looks at the group alone. Returns [G, S] in the dtype of the
    credits; use float64.
    """
    assert not estimator.looks_beyond_the_group
    advantages_G_S = credits_G_S.new_zeros(credits_G_S.shape)
    credits_1_N = credits_G_S[mask_G_S][None]
    if credits_1_N.shape[1] >= 2:
        alone = Rewards(credits_1_N, credits_1_N.new_zeros(1, 0, 0), credits_1_N.new_zeros(1, 0))
        advantages_G_S[mask_G_S] = outcome_advantages(alone, estimator, tau, bound)[0]
    return advantages_G_S


def step_returns(advantages_G_S: Tensor, gamma: float) -> Tensor:
    """What each step earns by itself and by those after it: Σ_{i≥j} γ^{i−j} · ã_i for step j.

    DeepSeekMath, arXiv 2402.03300 §4.1.3, which has γ = 1. Entries of steps that do not exist must
    be 0. Returns [G, S].
    """
    returns_G_S = advantages_G_S.clone()
    for step in range(advantages_G_S.shape[1] - 2, -1, -1):
        returns_G_S[:, step] += gamma * returns_G_S[:, step + 1]
    return returns_G_S


# ── what is taken from a reward before ───────────────────────────────────────────────────────────


def overlong_penalty(length: int, longest: int, buffer: int) -> float:
    """What a completion of so many tokens loses: 0 up to longest − buffer, then linearly more, 1 at
    longest (soft overlong punishment, DAPO, arXiv 2503.14476 eq. 13)."""
    return min(1.0, max(0.0, (length - (longest - buffer)) / buffer))
