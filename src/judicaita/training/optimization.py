"""One optimizer step: scale, clip, schedule, update; for GRPO and the supervised stage alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from judicaita.errors import NumericalError, OutOfMemory
from judicaita.training.algorithms.schedules import learning_rate_factor
from judicaita.training.devices import is_out_of_memory

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
    """L2 norm before clipping."""
    grad_norm_clipped: float
    """L2 norm of what the optimizer saw."""
    learning_rate: float
    applied: bool
    """False when the scaled gradient overflowed and the weights were left as they are."""


def halvings_told(step: int, halvings: int) -> str:
    """What a person is told when memory ran out in a step."""
    return (
        f"step {step} ran out of memory: from now on a micro-batch is divided by {2**halvings}; "
        "the gradient stays the same. A lower batch_size or micro_batch_tokens spares a run the "
        "first attempt."
    )


class Updater:
    """AdamW with clipping, a learning-rate schedule and, at fp16, loss scaling."""

    def __init__(self, policy: Policy, config: RunConfig, total_steps: int) -> None:
        self.config, self.total_steps = config, total_steps
        self.parameters = [parameter for _, parameter in policy.trainable()]
        matrices = [p for p in self.parameters if p.ndim >= 2]
        vectors = [p for p in self.parameters if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, config.adam_beta2),
        )
        # fp16 underflows below 6e-8: gradients are computed of a scaled loss.
        self.scaler = torch.amp.GradScaler(
            policy.placement.device.type, enabled=policy.placement.compute == torch.float16
        )
        self.step_count = 0
        self.halvings = 0
        """How often memory ran out: micro-batches have been halved as often."""
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
            self.optimizer.zero_grad(set_to_none=True)
            self.policy.placement.free_memory()
            self.policy.placement.set_rng_state(before)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro-batch's share of the loss."""
        self.scaler.scale(loss).backward()
        self.policy.placement.flush()

    def step(self) -> UpdateInfo:
        """Update the weights with the gradients collected since the last call.

        A gradient that is not finite leaves weights and moments as they are. `NumericalError` says
        so, unless it comes of a loss scale that was too high and is lowered now.
        """
        rate = self.config.learning_rate * learning_rate_factor(
            self.step_count,
            total_steps=self.total_steps,
            warmup_steps=self.config.warmup_steps,
            schedule=self.config.lr_scheduler,
            floor=self.config.lr_floor,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.unscale_(self.optimizer)
        limit = self.config.max_grad_norm or math.inf
        total = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        self.policy.placement.flush()
        norm = float(total)
        applied = math.isfinite(norm)
        # Scales that overflow are how the right one is found; at 1 there is nothing left to lower.
        was_scaled = self.scaler.is_enabled() and self.scaler.get_scale() > 1
        if applied:
            self.scaler.step(self.optimizer)
            self.policy.version += 1
        self.scaler.update()
        self.skip_to(self.step_count + 1)
        if not applied and not was_scaled:
            raise NumericalError(
                "gradient",
                f"the gradient's norm is {norm}, so the weights were left as they are. Lower "
                "learning_rate if this goes on.",
            )
        return UpdateInfo(norm, min(norm, limit), rate, applied)

    def skip_to(self, step_count: int) -> None:
        """Let go of the gradients collected so far; the schedule stands after ``step_count``
        updates."""
        self.optimizer.zero_grad(set_to_none=True)
        self.policy.placement.flush()
        self.step_count = step_count

    def state_dict(self) -> dict[str, Any]:
        """Moments, loss scale, place in the schedule, and how micro-batches are split."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step_count": self.step_count,
            "halvings": self.halvings,
            "version": self.policy.version,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take `state_dict` back; the parameters must be the same in number and shape."""
        # JSON has no integer keys, and torch numbers its parameters.
        moments = {int(index): values for index, values in state["optimizer"]["state"].items()}
        # The groups stay those of the present configuration: decay and betas may have changed.
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if state["scaler"]:  # empty where the checkpoint's run scaled no loss
            self.scaler.load_state_dict(state["scaler"])
        self.step_count = int(state["step_count"])
        self.halvings = int(state.get("halvings", 0))
        self.policy.version = int(state["version"])
