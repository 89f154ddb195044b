"""One optimizer step: scale, clip, look for spikes, schedule, update; for GRPO and the supervised
stage alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from judicaita.errors import CheckpointError, NumericalError, OutOfMemory
from judicaita.training.algorithms.schedules import learning_rate_factor
from judicaita.training.algorithms.spikes import SpikeGuard, SpikeHistory
from judicaita.training.devices import is_out_of_memory
from judicaita.training.optimizers import make_optimizers

if TYPE_CHECKING:
    from judicaita.training.config import RunConfig
    from judicaita.training.policy import Policy

T = TypeVar("T")


def require_finite(loss: float) -> float:
    """The loss of a micro-batch, in nats per token; `NumericalError` if it is not finite."""
    if not math.isfinite(loss):
        raise NumericalError(
            "loss",
            f"the loss is {loss}, so the weights were left as they are. Lower learning_rate if "
            "this goes on.",
        )
    return loss


@dataclass(frozen=True)
class UpdateInfo:
    """What an update did."""

    grad_norm: float
    """L2 norm before any clipping."""
    grad_norm_clipped: float
    """L2 norm of what the optimizer saw, or would have."""
    learning_rate: float
    applied: bool
    """False when the weights were left as they are: the scaled gradient overflowed, or it was a
    spike."""
    spike: bool
    rate_factor: float
    """What spikes up to this one leave of the schedule's learning rate; part of
    ``learning_rate``."""


def halvings_told(step: int, halvings: int) -> str:
    """What a person is told when memory ran out in a step."""
    return (
        f"step {step} ran out of memory: from now on a micro-batch is divided by {2**halvings}; "
        "the gradient stays the same. A lower batch_size or micro_batch_tokens spares a run the "
        "first attempt."
    )


def spike_told(step: int, info: UpdateInfo, guard: SpikeGuard) -> str:
    """What a person is told of a spike."""
    rate = f", and the learning rate is multiplied by {info.rate_factor:g}"
    return (
        f"step {step}: the gradient's norm is {info.grad_norm:.3g}, over {guard.factor:g} times "
        "the median of those before it; the update was "
        f"{'made' if info.applied else 'left out'}{rate * (info.rate_factor < 1)}."
    )


def spike_fields(info: UpdateInfo) -> dict[str, Any]:
    """What the event of a spike says."""
    return {
        "grad_norm": info.grad_norm,
        "applied": info.applied,
        "learning_rate_factor": info.rate_factor,
    }


class Updater:
    """The optimizers of a run with clipping, a guard against spikes, a learning-rate schedule and,
    at fp16, loss scaling."""

    def __init__(self, policy: Policy, config: RunConfig, total_steps: int) -> None:
        self.config, self.total_steps = config, total_steps
        self.parameters = [parameter for _, parameter in policy.trainable()]
        self.optimizers = make_optimizers(policy, config)
        # fp16 underflows below 6e-8: gradients are computed of a scaled loss.
        self.scaler = torch.amp.GradScaler(
            policy.placement.device.type, enabled=policy.placement.compute == torch.float16
        )
        self.step_count = 0
        self.halvings = 0
        """How often memory ran out: micro-batches have been halved as often."""
        self.spike_history = SpikeHistory()
        self._untold_spikes: list[UpdateInfo] = []
        self.policy = policy

    def collect(self, gradients: Callable[[], T], largest: int) -> T:
        """Call ``gradients``, which adds those of one update to what there is: nothing.

        When memory runs out it is called again, with the same random numbers and one more of the
        `halvings` by which it is to split its micro-batches; ``largest`` is the number of rows of
        the largest one before any. `OutOfMemory` where one row is too much.
        """
        before = self.policy.placement.rng_state()
        while True:
            try:
                return gradients()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if largest <= 2**self.halvings:
                    raise OutOfMemory(
                        "one completion at a time does not fit into memory. Set "
                        "gradient_checkpointing or use_lora, lower model_max_length or "
                        "generation_max_length, or take a smaller model."
                    ) from error
            # Outside of the handler: its traceback holds on to the tensors of the pass.
            self.halvings += 1
            self._drop_gradients()
            self.policy.placement.free_memory()
            self.policy.placement.set_rng_state(before)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro-batch's share of the loss."""
        self.scaler.scale(loss).backward()
        self.policy.placement.flush()

    def step(self) -> UpdateInfo:
        """Update the weights with the gradients collected since the last call.

        A gradient that is not finite leaves weights and moments as they are. `NumericalError` says
        so, unless it comes of a loss scale that was too high and is lowered now. A spike leaves
        them, too, where it is to be skipped, and is no error.
        """
        for optimizer in self.optimizers.values():
            self.scaler.unscale_(optimizer)
        norm, clipped = self._clip()
        is_finite = math.isfinite(norm)
        verdict = self.config.spikes(norm, self.spike_history)
        self.spike_history = verdict.history
        rate = self._scheduled_rate() * verdict.rate_factor
        applied = is_finite and not (verdict.is_spike and self.config.spikes.skip)
        # Scales that overflow are how the right one is found; at 1 there is nothing left to lower.
        was_scaled = self.scaler.is_enabled() and self.scaler.get_scale() > 1
        if applied:
            self._move_weights(rate)
        self.scaler.update()
        self.skip_to(self.step_count + 1)
        if not is_finite and not was_scaled:
            raise NumericalError(
                "gradient",
                f"the gradient's norm is {norm}, so the weights were left as they are. Lower "
                "learning_rate if this goes on.",
            )
        info = UpdateInfo(norm, clipped, rate, applied, verdict.is_spike, verdict.rate_factor)
        if info.spike:
            self._untold_spikes.append(info)
        return info

    def _clip(self) -> tuple[float, float]:
        """Cut the gradients, number by number and then as a whole; their norm before and after."""
        limit = self.config.max_grad_norm or math.inf
        before: Tensor | None = None
        if self.config.max_grad_value:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            before = torch.nn.utils.get_total_norm(gradients)
            torch.nn.utils.clip_grad_value_(self.parameters, self.config.max_grad_value)
        total = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        self.policy.placement.flush()
        norm = float(total)
        return norm if before is None else float(before), min(norm, limit)

    def _scheduled_rate(self) -> float:
        return self.config.learning_rate * learning_rate_factor(
            self.step_count,
            total_steps=self.total_steps,
            warmup_steps=self.config.warmup_steps,
            schedule=self.config.lr_scheduler,
            floor=self.config.lr_floor,
            decay_share=self.config.lr_decay_share,
        )

    def _move_weights(self, rate: float) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
            self.scaler.step(optimizer)
        self.policy.version += 1

    def take_spikes(self) -> list[UpdateInfo]:
        """The spikes since the last call, to be told."""
        found, self._untold_spikes = self._untold_spikes, []
        return found

    def spike_figures(self, last: UpdateInfo, spikes: int) -> dict[str, float]:
        """What the records of a step say where spikes are looked for: how many of its updates
        were, and what they leave of the learning rate."""
        if not self.config.spikes.is_on:
            return {}
        return {"spike": float(spikes), "learning_rate_factor": last.rate_factor}

    def skip_to(self, step_count: int) -> None:
        """Let go of the gradients collected so far; the schedule stands after ``step_count``
        updates."""
        self._drop_gradients()
        self.policy.placement.flush()
        self.step_count = step_count

    def _drop_gradients(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Moments, loss scale, place in the schedule, spikes, and how micro-batches are split."""
        return {
            "optimizers": {name: each.state_dict() for name, each in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "step_count": self.step_count,
            "halvings": self.halvings,
            "spikes": asdict(self.spike_history),
            "version": self.policy.version,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take `state_dict` back; the parameters must be the same in number and shape.

        `CheckpointError` where they were moved by other optimizers.
        """
        # Checkpoints of before there was a choice have the one that there was.
        saved = state["optimizers"] if "optimizers" in state else {"adamw": state["optimizer"]}
        if saved.keys() != self.optimizers.keys():
            raise CheckpointError(
                f"optimizer={self.config.optimizer}: the checkpoint holds the moments of "
                f"{' and '.join(saved)}, which are of no use to it. Resume with the optimizer of "
                "that run."
            )
        for name, optimizer in self.optimizers.items():
            # JSON has no integer keys, and torch numbers its parameters.
            moments = {int(index): values for index, values in saved[name]["state"].items()}
            # Groups stay those of the present configuration: decay and betas may have changed.
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if state["scaler"]:  # empty where the checkpoint's run scaled no loss
            self.scaler.load_state_dict(state["scaler"])
        self.step_count = int(state["step_count"])
        self.halvings = int(state.get("halvings", 0))
        spikes = state.get("spikes", asdict(SpikeHistory()))
        self.spike_history = SpikeHistory(tuple(spikes["norms"]), float(spikes["rate_factor"]))
        self.policy.version = int(state["version"])
