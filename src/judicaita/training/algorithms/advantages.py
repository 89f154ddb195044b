"""Group-relative advantages of outcomes and of steps (DeepSeekMath, arXiv 2402.03300 §4.1.2–3).

The order is fixed, for every estimator: estimate over the group → divide by tau → discount per
reasoning step. tau = gamma = 1 is the paper's GRPO.

Here S is the number of reasoning steps of the completion that has the most of them in its group.
"""

from __future__ import annotations

import torch
from torch import Tensor

SIGMA_EPSILON = 1e-4
"""Added to σ, as in TRL; keeps a nearly constant group from being blown up."""

SIGNAL_TOLERANCE = 1e-6
"""Rewards of a group that spread less than this are equal: sums of floats are noisy, and a noise of
1e-17 passes ``std == 0`` as signal."""


def has_signal(rewards_P_G: Tensor) -> Tensor:
    """Which groups have rewards that differ. Returns booleans [P]."""
    spread_P = rewards_P_G.amax(dim=1) - rewards_P_G.amin(dim=1)
    return spread_P > SIGNAL_TOLERANCE


def group_advantages(rewards_P_G: Tensor, tau: float) -> Tensor:
    """Z-score within each group (σ with ddof 1), divided by tau; 0 where a group has no signal.

    A smaller tau sharpens: 0.1 multiplies every advantage by ten. Needs G ≥ 2, since one reward
    equals its own mean. Returns [P, G] in the dtype of the rewards; use float64.
    """
    if rewards_P_G.shape[1] < 2:
        raise ValueError(f"a group needs at least 2 rewards, got {rewards_P_G.shape[1]}")
    centred_P_G = rewards_P_G - rewards_P_G.mean(dim=1, keepdim=True)
    sigma_P_1 = rewards_P_G.std(dim=1, keepdim=True, correction=1)
    advantages_P_G = centred_P_G / (sigma_P_1 + SIGMA_EPSILON) / tau
    return advantages_P_G.masked_fill(~has_signal(rewards_P_G)[:, None], 0.0)


def discount_per_step(advantages_B: Tensor, steps_to_end_B_T: Tensor, gamma: float) -> Tensor:
    """Advantage of every token: γ^k · A, k the number of reasoning steps after the token's own.

    The outcome is known at the conclusion (k = 0); a step before it earns γ of that, and so on.
    Returns [B, T] in the dtype of the advantages.
    """
    return advantages_B[:, None] * gamma ** steps_to_end_B_T.to(advantages_B.dtype)


def step_advantages(credits_G_S: Tensor, mask_G_S: Tensor, tau: float) -> Tensor:
    """Z-score of each step's credit among all steps of all completions of a group, over tau.

    DeepSeekMath, arXiv 2402.03300 §4.1.3 (σ here with ddof 1, as for outcomes). 0 everywhere where
    the credits of the group are equal or fewer than two, and where the mask says there is no step.
    Returns [G, S] in the dtype of the credits; use float64.
    """
    advantages_G_S = torch.zeros_like(credits_G_S)
    credits_1_N = credits_G_S[mask_G_S][None]
    if credits_1_N.shape[1] >= 2:
        advantages_G_S[mask_G_S] = group_advantages(credits_1_N, tau)[0]
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
