"""How far a run has come: all that its next step depends on, but for the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from judicaita.errors import CheckpointError
from judicaita.training.batching import Item
from judicaita.training.devices import Placement
from judicaita.training.optimization import Updater
from judicaita.training.reference_policy import ReferenceCopy
from judicaita.training.rehearsal import Rehearsal
from judicaita.training.sampler import ShuffleSampler


@dataclass
class RunState:
    """The parts of a run that change from step to step; a checkpoint holds all of them.

    Rollouts never wait between two steps, so that there is nothing to hold of them.
    """

    placement: Placement
    updater: Updater
    sampler: ShuffleSampler[Item]
    rehearsal: Rehearsal | None
    reference: ReferenceCopy | None
    """None where there is no copy: no penalty, or the adapter is switched off for it."""
    beta: float
    """Weight of the KL penalty, which may adapt."""
    data: Mapping[str, str]
    """Fingerprints of the training and the held-out samples."""
    steps_done: int = 0
    faults_in_a_row: int = 0
    """Steps up to now that met numbers that were not finite, none between them that went well."""
    evaluated: tuple[int, dict[str, float]] | None = None
    """Step and figures of the last evaluation."""

    @property
    def evaluation(self) -> dict[str, float] | None:
        """The figures of the present weights, where they have been evaluated."""
        step, metrics = self.evaluated or (-1, {})
        return metrics if step == self.steps_done else None

    def position(self) -> dict[str, Any]:
        """What a step changes before it moves the weights."""
        return {
            "sampler": self.sampler.state_dict(),
            **({"rehearsal": self.rehearsal.state_dict()} if self.rehearsal else {}),
            "updates": self.updater.step_count,
            **self.placement.rng_state(),
        }

    def return_to(self, position: Mapping[str, Any]) -> None:
        """Forget a step that was begun: the next one begins in the same way."""
        self.sampler.load_state_dict(position["sampler"])
        if self.rehearsal is not None:
            self.rehearsal.load_state_dict(position.get("rehearsal"))
        self.updater.skip_to(int(position["updates"]))
        self.placement.set_rng_state(position)

    def state_dict(self) -> dict[str, Any]:
        """All of it, as `judicaita.training.checkpoints.save_checkpoint` takes it."""
        return {
            "steps_done": self.steps_done,
            "data": dict(self.data),
            "faults_in_a_row": self.faults_in_a_row,
            "evaluated": self.evaluated,
            "beta": self.beta,
            "updater": self.updater.state_dict(),
            **({"reference": self.reference.state_dict()} if self.reference else {}),
            **self.position(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take `state_dict` back; `CheckpointError` where it is of another run."""
        self.return_to(state)
        if state["data"] != self.data:
            raise CheckpointError(
                "the checkpoint was trained or evaluated on other samples than these. Resume with "
                "the data sets, tasks, max_samples and seed of that run."
            )
        self.updater.load_state_dict(state["updater"])
        if self.reference is not None:
            if "reference" not in state:
                raise CheckpointError(
                    "the checkpoint holds no reference model, since its run had no copy of one. "
                    "Resume with the beta, use_lora and reference_sync_steps of that run."
                )
            self.reference.load_state_dict(state["reference"])
        self.beta = float(state.get("beta", self.beta))
        self.steps_done = int(state["steps_done"])
        self.faults_in_a_row = int(state["faults_in_a_row"])
        step, metrics = state["evaluated"] or (-1, {})
        self.evaluated = (int(step), dict(metrics)) if step >= 0 else None
