"""From batches to moved weights: losses, their gradients, one optimizer step or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from judicaita.training.algorithms.kl import k3
from judicaita.training.algorithms.reduction import token_mean
from judicaita.training.batching import Batch
from judicaita.training.config import TrainingConfig
from judicaita.training.optimization import Updater, require_finite
from judicaita.training.policy import Policy
from judicaita.training.prefill import KeptPrefill
from judicaita.training.shared_prefix import Forwarded
from judicaita.training.supervised import Row, supervised_backward
from judicaita.training.supervision import Supervisor


class PolicyUpdate:
    """The update of GRPO: clipped loss per token, mean over all tokens of the step, optional KL.

    With ``rehearsal``, which draws the worked solutions of an optimizer step, `rehearsal_weight`
    times their supervised loss is added to each. ``reference`` is what the KL penalty compares
    with: within it the policy's model is the reference. ``kept`` has the prompts that generation
    has forwarded. ``supervisor`` may stop the run between micro-batches, until the weights have
    begun to move.
    """

    def __init__(
        self,
        policy: Policy,
        updater: Updater,
        config: TrainingConfig,
        rehearsal: Callable[[], Sequence[Row]] | None,
        reference: Callable[[], AbstractContextManager[None]],
        kept: KeptPrefill,
        supervisor: Supervisor,
    ) -> None:
        self.policy, self.updater, self.config = policy, updater, config
        self.rehearsal, self.reference = rehearsal, reference
        self.kept, self.supervisor = kept, supervisor

    def __call__(self, batches: Sequence[Batch], token_count: int) -> dict[str, float]:
        """Move the weights ``num_iterations`` times; returns losses (nats per token) and norms.

        ``token_count`` is that of the whole step, the groups that were left out included. Without
        any batch the weights stay, momentum included, and only the schedule goes on; but what is to
        be rehearsed is rehearsed all the same. `NumericalError` for a loss or gradient that is not
        finite: the weights then stay as the iteration before left them.
        """
        if batches or self.rehearsal is not None:
            return self._iterate(batches, token_count)
        self.updater.skip_to(self.updater.step_count + self.config.num_iterations)
        return {"updates": 0.0}

    def _iterate(self, batches: Sequence[Batch], token_count: int) -> dict[str, float]:
        self.policy.model.train()
        old: list[Tensor | None] = [None] * len(batches)
        applied = 0
        rehearsed: list[tuple[float, int]] = []
        with ExitStack() as stack:
            for _ in range(self.config.num_iterations):
                gradients = partial(self._gradients, batches, old, token_count, self._to_rehearse())
                found = self.updater.collect(gradients, self._largest(batches))
                old = [*found.old_logprobs]
                rehearsed += found.rehearsed
                self.supervisor.pulse()
                if not applied:
                    stack.enter_context(self.supervisor.uninterrupted())
                info = self.updater.step()
                applied += info.applied
        return {
            **(
                found.sums.metrics(
                    token_count,
                    with_kl=self.config.beta > 0,
                    corrected=self.config.correction.type != "none",
                )
                if batches
                else {}
            ),
            **_rehearsal_metrics(rehearsed),
            "grad_norm": info.grad_norm,
            "grad_norm_clipped": info.grad_norm_clipped,
            "learning_rate": info.learning_rate,
            "updates": float(applied),
        }

    def _to_rehearse(self) -> Sequence[Row]:
        return () if self.rehearsal is None else self.rehearsal()

    def _largest(self, batches: Sequence[Batch]) -> int:
        """Rows of the largest micro-batch before memory has run out."""
        return max(
            [self._rehearsed_at_once] * (self.rehearsal is not None)
            + [len(b.rows) for b in batches]
        )

    @property
    def _rehearsed_at_once(self) -> int:
        """As many rows as a micro-batch has."""
        return self.config.batch_size * self.config.num_rollouts

    def _gradients(
        self,
        batches: Sequence[Batch],
        old: Sequence[Tensor | None],
        token_count: int,
        rows: Sequence[Row],
    ) -> _Found:
        """Add the gradients of an update: of every micro-batch, then of what is rehearsed."""
        found = _Found()
        # Once: a second attempt, when memory ran out, does without, and so does a second iteration.
        taken = self.kept.take(batches)
        for batch, old_logprobs_B_T in zip(batches, old, strict=True):
            parts = []
            for place, piece in batch.pieces(self.updater.halvings):
                self.supervisor.pulse()
                known = None if old_logprobs_B_T is None else old_logprobs_B_T[place]
                forwarded = None if taken is None else taken.forwarded
                parts.append(self._backward(piece, forwarded, known, token_count, found.sums))
            found.old_logprobs.append(torch.cat(parts))
        if taken is not None:
            taken.backward()
        if rows:
            done = supervised_backward(
                self.policy,
                self.updater,
                rows,
                self._rehearsed_at_once,
                self.config.rehearsal_weight,
            )
            found.rehearsed.append(done)
        return found

    def _backward(
        self,
        batch: Batch,
        forwarded: Forwarded | None,
        old_logprobs_B_T: Tensor | None,
        token_count: int,
        sums: _Sums,
    ) -> Tensor:
        """Add the gradients of a micro-batch; returns the log-probabilities the ratio refers to.

        On the first pass the policy is the one that sampled, so the ratio is 1 by definition and
        no second forward pass is needed.
        """
        with self.policy.training_pass(batch):
            return self._backward_of(batch, forwarded, old_logprobs_B_T, token_count, sums)

    def _backward_of(
        self,
        batch: Batch,
        forwarded: Forwarded | None,
        old_logprobs_B_T: Tensor | None,
        token_count: int,
        sums: _Sums,
    ) -> Tensor:
        config, mask = self.config, batch.mask_B_T
        reference_B_T: Tensor | None = None
        if config.beta > 0:
            with self.reference():
                reference_B_T, _ = self.policy.logprobs(batch, config.temperature)
        logprobs_B_T, entropy_B_T = self.policy.logprobs(batch, config.temperature, forwarded)
        if old_logprobs_B_T is None:
            old_logprobs_B_T = logprobs_B_T.detach()
        output = config.loss(logprobs_B_T, old_logprobs_B_T, batch.advantages_B_T)
        per_token_B_T = output.per_token_B_T
        if config.correction.type != "none":
            weights_B_T = config.correction(old_logprobs_B_T, batch.drawn_logprobs_B_T, mask)
            per_token_B_T = per_token_B_T * weights_B_T
            sums.weights += float(weights_B_T[mask].sum())
            sums.left_out += int((weights_B_T[mask] == 0).sum())
        policy_loss = loss = token_mean(per_token_B_T, mask, token_count)
        kl: Tensor | None = None
        if reference_B_T is not None:
            kl = token_mean(k3(logprobs_B_T, reference_B_T), mask, token_count)
            loss = policy_loss + config.beta * kl
        self.updater.backward(loss)
        # Figures are read after the backward pass: each is a wait for the device.
        if kl is not None:
            sums.kl += float(kl.detach())
        sums.policy_loss += float(policy_loss.detach())
        sums.loss += require_finite(float(loss.detach()))
        sums.tokens += int(mask.sum())
        sums.clipped += int((output.clipped_B_T & mask).sum())
        sums.entropy += float(entropy_B_T[mask].sum())
        mismatch_B_T = (old_logprobs_B_T - batch.rollout_logprobs_B_T).abs()
        sums.mismatch += float(mismatch_B_T[mask].sum())
        return old_logprobs_B_T


@dataclass
class _Sums:
    """Sums over the micro-batches of one optimizer step."""

    policy_loss: float = 0.0
    kl: float = 0.0
    loss: float = 0.0
    entropy: float = 0.0
    mismatch: float = 0.0
    weights: float = 0.0
    left_out: int = 0
    clipped: int = 0
    tokens: int = 0

    def metrics(self, token_count: int, *, with_kl: bool, corrected: bool) -> dict[str, float]:
        """The first three are means over all ``token_count`` tokens, as the loss is; the others are
        means over the tokens that entered it."""
        return {
            "policy_loss": self.policy_loss,
            **({"kl": self.kl} if with_kl else {}),
            "loss": self.loss,
            "loss_tokens": float(self.tokens),
            "loss_token_share": self.tokens / token_count,
            "entropy": self.entropy / self.tokens,
            "clip_fraction": self.clipped / self.tokens,
            "rollout_mismatch": self.mismatch / self.tokens,
            **(self._correction if corrected else {}),
        }

    @property
    def _correction(self) -> dict[str, float]:
        return {
            "correction_weight": self.weights / self.tokens,
            "correction_left_out": self.left_out / self.tokens,
        }


@dataclass
class _Found:
    """What comes of the passes of an update, beside the gradients."""

    sums: _Sums = field(default_factory=_Sums)
    old_logprobs: list[Tensor] = field(default_factory=list)
    """Of each batch, what the ratios refer to."""
    rehearsed: list[tuple[float, int]] = field(default_factory=list)
    """Loss and tokens of the supervised term, if there is one."""


def _rehearsal_metrics(rehearsed: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Loss in nats per token, without its weight, over the optimizer steps of a GRPO step; and
    tokens, all together."""
    if not rehearsed:
        return {}
    tokens = sum(count for _, count in rehearsed)
    loss = sum(loss * count for loss, count in rehearsed) / tokens
    return {"rehearsal/loss": loss, "rehearsal/tokens": float(tokens)}
