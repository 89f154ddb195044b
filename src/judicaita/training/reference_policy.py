"""The reference of the KL penalty where it is a copy: of the start, or one that follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from judicaita.training.config import TrainingConfig
from judicaita.training.policy import Policy


def reference_copy(policy: Policy, config: TrainingConfig) -> ReferenceCopy | None:
    """The copy that a run needs; None where there is no penalty, or switching an adapter off does.

    To be made before the first update.
    """
    if config.beta == 0 or (config.use_lora and config.reference_sync_steps is None):
        return None
    return ReferenceCopy(policy, config)


class ReferenceCopy:
    """Copies of the parameters that learn, mixed with them every ``reference_sync_steps`` steps.

    Hard and soft updates of Gorbatovski et al., "Learn Your Reference Model", arXiv 2404.09656.
    """

    def __init__(self, policy: Policy, config: TrainingConfig) -> None:
        self.policy = policy
        self.sync_steps, self.mixup = config.reference_sync_steps, config.reference_mixup
        self.weights = {name: p.detach().clone() for name, p in policy.trainable()}

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Within it the policy's model is the reference: dropout off, no gradients."""
        with self._exchanged(), torch.no_grad():
            was_training = self.policy.model.training
            self.policy.model.eval()
            try:
                yield
            finally:
                self.policy.model.train(was_training)

    @contextmanager
    def _exchanged(self) -> Iterator[None]:
        own = {name: parameter.data for name, parameter in self.policy.trainable()}
        try:
            self._put(self.weights)
            yield
        finally:
            self._put(own)

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.policy.trainable():
            parameter.data = weights[name]

    def follow(self, step: int) -> None:
        """After a step, counted from 1: come nearer to the policy where that is due."""
        if self.sync_steps is None or step % self.sync_steps:
            return
        for name, parameter in self.policy.trainable():
            self.weights[name].lerp_(parameter.detach(), self.mixup)
        self.policy.placement.flush()

    def state_dict(self) -> dict[str, Any]:
        """The copies."""
        return dict(self.weights)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take `state_dict` back."""
        for name, weight in self.weights.items():
            weight.copy_(state[name])
