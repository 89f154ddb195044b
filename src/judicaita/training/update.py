"""From batches to moved weights: losses, their gradients, one optimizer step or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from judicaita.training.algorithms.reduction import StepSizes, token_mean
from judicaita.training.batching import Batch, MiniBatch, collate
from judicaita.training.config import TrainingConfig
from judicaita.training.optimization import Updater, require_finite
from judicaita.training.policy import Policy
from judicaita.training.prefill import KeptPrefill
from judicaita.training.shared_prefix import Forwarded
from judicaita.training.supervised import Row, supervised_backward
from judicaita.training.supervision import Supervisor
from judicaita.types import Group


@dataclass(frozen=True)
class _Asked:
    """A micro-batch, and what is known of it before its pass."""

    batch: Batch
    sizes: StepSizes
    old_logprobs_B_T: Tensor | None = None
    """What the ratio refers to; None where that is what the pass itself finds."""
    counted_B_T: Tensor | None = None
    """Which tokens enter the policy loss; None for all."""

    def pieces(self, halvings: int) -> Iterator[_Asked]:
        """It in 2^halvings pieces, fewer if it has fewer rows."""
        for rows, piece in self.batch.pieces(halvings):
            yield _Asked(
                piece,
                self.sizes,
                None if self.old_logprobs_B_T is None else self.old_logprobs_B_T[rows],
                None if self.counted_B_T is None else self.counted_B_T[rows],
            )


class PolicyUpdate:
    """The update of GRPO: the policy loss, optional penalty, bonus and rehearsal.

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

    def __call__(self, mini_batches: Sequence[MiniBatch], beta: float) -> dict[str, float]:
        """Move the weights once for each mini-batch, ``num_iterations`` times over.

        ``beta`` weighs the KL penalty. Returns losses (nats per token) and norms. A mini-batch
        without any micro-batch leaves the weights, momentum included, and only the schedule goes
        on; but what is to be rehearsed is rehearsed all the same. `NumericalError` for a loss or
        gradient that is not finite: the weights then stay as the update before left them.
        """
        self.policy.model.train()
        asked = self._asked(mini_batches)
        info, applied, spikes = None, 0, 0
        rehearsed: list[tuple[float, int]] = []
        with ExitStack() as stack:
            for _ in range(self.config.num_iterations):
                sums = _Sums()
                for number, portion in enumerate(asked):
                    if not portion and self.rehearsal is None:
                        self.updater.skip_to(self.updater.step_count + 1)
                        continue
                    gradients = partial(self._gradients, portion, self._to_rehearse(), beta)
                    found = self.updater.collect(gradients, self._largest(portion))
                    asked[number] = [
                        replace(each, old_logprobs_B_T=old)
                        for each, old in zip(portion, found.old_logprobs, strict=True)
                    ]
                    sums.add(found.sums)
                    rehearsed += found.rehearsed
                    self.supervisor.pulse()
                    if not applied:
                        stack.enter_context(self.supervisor.uninterrupted())
                    info = self.updater.step()
                    applied += info.applied
                    spikes += info.spike
        return {
            **(sums.metrics(self.config, mini_batches) if any(asked) else {}),
            **_rehearsal_metrics(rehearsed),
            **(
                {
                    "grad_norm": info.grad_norm,
                    "grad_norm_clipped": info.grad_norm_clipped,
                    "learning_rate": info.learning_rate,
                    **self.updater.spike_figures(info, spikes),
                }
                if info
                else {}
            ),
            "updates": float(applied),
        }

    def _to_rehearse(self) -> Sequence[Row]:
        return () if self.rehearsal is None else self.rehearsal()

    def _largest(self, portion: Sequence[_Asked]) -> int:
        """Rows of the largest micro-batch before memory has run out."""
        rows = [len(each.batch.rows) for each in portion]
        return max(rows + [self._rehearsed_at_once] * (self.rehearsal is not None))

    @property
    def _rehearsed_at_once(self) -> int:
        """As many rows as a micro-batch has."""
        return self.config.batch_size * self.config.num_rollouts

    def divergences(self, groups: Sequence[Group]) -> list[list[float]]:
        """Of each completion from the reference, in nats, its tokens added up (`KLPenalty`);
        `NumericalError` for one that is not finite."""
        rows = [
            (group.prompt_ids, completion.token_ids)
            for group in groups
            for completion in group.completions
        ]

        def look() -> list[float]:
            size = max(1, self._rehearsed_at_once >> self.updater.halvings)
            together = (rows[start : start + size] for start in range(0, len(rows), size))
            return [value for each in together for value in self._divergences_of(each)]

        found = iter(self.updater.collect(look, min(len(rows), self._rehearsed_at_once)))
        return [[require_finite(next(found)) for _ in group.completions] for group in groups]

    def _divergences_of(self, rows: Sequence[Row]) -> list[float]:
        self.supervisor.pulse()
        batch = collate(rows, self.policy.pad_id, self.policy.placement.device)
        # One after the other: autocast keeps casts of weights, and a reference may be a copy that
        # stands in the place of the policy's.
        with self.policy.inference():
            own_B_T, _ = self.policy.logprobs(batch, self.config.temperature)
        with self.reference():
            reference_B_T, _ = self.policy.logprobs(batch, self.config.temperature)
        kl_B_T = self.config.kl(own_B_T, reference_B_T).masked_fill(~batch.mask_B_T, 0.0)
        return kl_B_T.double().sum(dim=-1).tolist()

    # ── before the first update ──────────────────────────────────────────────────────────────────

    def _asked(self, mini_batches: Sequence[MiniBatch]) -> list[list[_Asked]]:
        """The micro-batches of each mini-batch, with what one more forward pass has to find out.

        That is what the policy said of a mini-batch that comes after an update, and how uncertain
        it was of each token, where only some tokens enter.
        """
        asked = [
            [_Asked(batch, mini_batch.sizes_of(batch)) for batch in mini_batch.batches]
            for mini_batch in mini_batches
        ]
        by_entropy = self.config.top_entropy < 1
        later = [each for portion in asked[1:] for each in portion]
        if not by_entropy and not later:
            return asked
        first = asked[0] if by_entropy else []
        surveyed = [*first, *later]
        if not surveyed:
            return asked
        found = self._survey(surveyed)
        counted: list[Tensor | None] = [None] * len(surveyed)
        if by_entropy:
            masks = [each.batch.mask_B_T for each in surveyed]
            counted = [
                *top_tokens([entropy for _, entropy in found], masks, self.config.top_entropy)
            ]
        known = {
            id(each.batch): _Asked(
                each.batch,
                each.sizes,
                # The first mini-batch's own pass is the policy that sampled, to the last digit.
                None if number < len(asked[0]) and by_entropy else logprobs_B_T,
                counted_B_T,
            )
            for number, (each, (logprobs_B_T, _), counted_B_T) in enumerate(
                zip(surveyed, found, counted, strict=True)
            )
        }
        return [[known.get(id(each.batch), each) for each in portion] for portion in asked]

    def _survey(self, asked: Sequence[_Asked]) -> list[tuple[Tensor, Tensor]]:
        """Log-probabilities and entropies of each micro-batch by the policy as it is."""

        def look() -> list[tuple[Tensor, Tensor]]:
            found = []
            for each in asked:
                pieces = []
                for piece in each.pieces(self.updater.halvings):
                    self.supervisor.pulse()
                    pieces.append(self.policy.logprobs(piece.batch, self.config.temperature))
                    self.policy.placement.flush()
                logprobs, entropies = zip(*pieces, strict=True)
                found.append((torch.cat(logprobs), torch.cat(entropies)))
            return found

        with self.policy.inference():
            return self.updater.collect(look, max(len(each.batch.rows) for each in asked))

    # ── one update ───────────────────────────────────────────────────────────────────────────────

    def _gradients(self, portion: Sequence[_Asked], rows: Sequence[Row], beta: float) -> _Found:
        """Add the gradients of an update: of every micro-batch, then of what is rehearsed."""
        found = _Found()
        # Once: a second attempt, when memory ran out, does without, and so does a later update.
        taken = self.kept.take([each.batch for each in portion])
        forwarded = None if taken is None else taken.forwarded
        for each in portion:
            old = []
            for piece in each.pieces(self.updater.halvings):
                self.supervisor.pulse()
                with self.policy.training_pass(piece.batch):
                    old.append(self._backward(piece, forwarded, beta, found.sums))
            found.old_logprobs.append(torch.cat(old))
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
        self, asked: _Asked, forwarded: Forwarded | None, beta: float, sums: _Sums
    ) -> Tensor:
        """Add the gradients of a micro-batch; returns the log-probabilities the ratio refers to.

        On the first pass the policy is the one that sampled, so the ratio is 1 by definition and
        no second forward pass is needed.
        """
        config, batch, sizes, mask = self.config, asked.batch, asked.sizes, asked.batch.mask_B_T
        reference_B_T: Tensor | None = None
        if config.penalises:
            with self.reference():
                reference_B_T, _ = self.policy.logprobs(batch, config.temperature)
        logprobs_B_T, entropy_B_T = self.policy.logprobs(
            batch,
            config.temperature,
            forwarded,
            entropy_gradient=config.entropy_bonus > 0,
        )
        old_logprobs_B_T = asked.old_logprobs_B_T
        if old_logprobs_B_T is None:
            old_logprobs_B_T = logprobs_B_T.detach()
        output = config.loss(logprobs_B_T, old_logprobs_B_T, batch.advantages_B_T, mask)
        per_token_B_T = output.per_token_B_T
        if config.correction.type != "none":
            weights_B_T = config.correction(old_logprobs_B_T, batch.drawn_logprobs_B_T, mask)
            per_token_B_T = per_token_B_T * weights_B_T
            sums.weights += float(weights_B_T[mask].sum())
            sums.left_out += int((weights_B_T[mask] == 0).sum())
        counted_B_T = mask if asked.counted_B_T is None else asked.counted_B_T
        # What does not count is 0, and still part of what a sum is divided by.
        per_token_B_T = per_token_B_T.masked_fill(~counted_B_T, 0.0)
        policy_loss = loss = config.loss.reduce(per_token_B_T, mask, sizes)
        kl: Tensor | None = None
        if reference_B_T is not None:
            kl = config.kl(logprobs_B_T, reference_B_T)
            loss = loss + beta * config.loss.reduce(kl, mask, sizes)
        if config.entropy_bonus > 0:
            loss = loss - config.entropy_bonus * token_mean(entropy_B_T, counted_B_T, sizes.tokens)
        self.updater.backward(loss)
        # Figures are read after the backward pass: each is a wait for the device.
        if kl is not None:
            sums.kl += float(kl.detach()[mask].sum())
        sums.policy_loss += float(policy_loss.detach())
        sums.loss += require_finite(float(loss.detach()))
        sums.tokens += int(mask.sum())
        sums.counted += int(counted_B_T.sum())
        sums.clipped += int((output.clipped_B_T & counted_B_T).sum())
        sums.entropy += float(entropy_B_T.detach()[mask].sum())
        mismatch_B_T = (old_logprobs_B_T - batch.rollout_logprobs_B_T).abs()
        sums.mismatch += float(mismatch_B_T[mask].sum())
        return old_logprobs_B_T


def top_tokens(
    entropies: Sequence[Tensor], masks: Sequence[Tensor], share: float
) -> Iterator[Tensor]:
    """Which tokens are among this share of the most uncertain ones, all micro-batches together.

    arXiv 2506.01939 §5. Booleans [B, T] for each; ties with the last one belong to them.
    """
    together_N = torch.cat([e[m] for e, m in zip(entropies, masks, strict=True)]).float()
    rank = max(1, round(share * together_N.numel()))
    least = together_N.topk(rank).values[-1]
    for entropy_B_T, mask_B_T in zip(entropies, masks, strict=True):
        yield mask_B_T & (entropy_B_T >= least)


@dataclass
class _Sums:
    """Sums over the micro-batches of one optimizer step, or of several."""

    updates: int = 0
    policy_loss: float = 0.0
    loss: float = 0.0
    kl: float = 0.0
    entropy: float = 0.0
    mismatch: float = 0.0
    weights: float = 0.0
    left_out: int = 0
    clipped: int = 0
    tokens: int = 0
    counted: int = 0

    def add(self, other: _Sums) -> None:
        """Those of another update."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        self.updates += other.tokens > 0

    def metrics(
        self, config: TrainingConfig, mini_batches: Sequence[MiniBatch]
    ) -> dict[str, float]:
        """The losses are means over the updates; the others over the tokens that entered."""
        return {
            "policy_loss": self.policy_loss / self.updates,
            **({"kl": self.kl / self.tokens} if config.penalises else {}),
            "loss": self.loss / self.updates,
            "loss_tokens": float(self.counted),
            "loss_token_share": self.counted / sum(each.sizes.tokens for each in mini_batches),
            "entropy": self.entropy / self.tokens,
            "clip_fraction": self.clipped / max(1, self.counted),
            "rollout_mismatch": self.mismatch / self.tokens,
            **(self._correction if config.correction.type != "none" else {}),
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
    """Of each micro-batch, what the ratios refer to."""
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
