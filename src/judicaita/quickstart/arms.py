"""The three ways on from one warm start. Each runs in a process of its own, on one core."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from judicaita.legal.tasks import generate_mixture
from judicaita.training.config import TrainingConfig
from judicaita.training.console import progress
from judicaita.training.embedded import HARD_LEVELS, RECIPE, TAUGHT, Recipe, continue_lessons
from judicaita.training.grpo_trainer import GRPOTrainer
from judicaita.training.metrics import read_events
from judicaita.types import Sample

VERIFIED, OUTCOME, CONTROL = "verified", "outcome_only", "supervised_control"


@dataclass(frozen=True)
class Scale:
    """How large a comparison is. The default takes minutes on two CPU cores."""

    recipe: Recipe = RECIPE
    """Of the warm start; each seed is put in its place."""
    steps: int = 360
    """Optimizer steps of a GRPO arm."""
    held_out_each: int = 100
    """Held-out questions of each taught family, half of them of each hard level."""
    curve: int = 105
    """As many of them are evaluated during a run, which only its own curve needs."""
    words_from: int = 5_000
    """Training questions that the bag-of-words classifier is fitted on."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the GRPO arms beside those of the `tiny` profile."""

    def seeded(self, seed: int) -> Recipe:
        """The warm start of a seed."""
        return replace(self.recipe, seed=seed)


_POLL_SECONDS = 0.5


def run_arms(
    base: Path, output: Path, held_out: list[Sample], seed: int, scale: Scale
) -> dict[str, Path]:
    """Train every arm, all at the same time; returns the model folder of each.

    They share the cores evenly, and the control ends with the step reward's arm: equal time.
    """
    # A spawned process sets its number of threads before it loads torch.
    context = multiprocessing.get_context("spawn")
    clock = output / VERIFIED
    with ProcessPoolExecutor(3, context, use_one_thread) as pool:
        futures: dict[str, Future[float] | Future[int]] = {}
        for name, rewards in ((VERIFIED, {}), (OUTCOME, {"step_weight": 0.0})):
            arguments = (base, output / name, held_out[: scale.curve], seed, scale)
            futures[name] = pool.submit(grpo_arm, *arguments, rewards)
        final = output / CONTROL / "final"
        futures[CONTROL] = pool.submit(control_arm, base, final, seed, scale, clock)
        try:
            _watch(futures, output, scale.steps)
        finally:
            # Without the other arm there is no end that the control could wait for.
            (output / CONTROL).mkdir(parents=True, exist_ok=True)
            _stop(clock).touch()
        for future in futures.values():
            future.result()
    return {name: output / name / "final" for name in (VERIFIED, OUTCOME, CONTROL)}


def training_samples(seed: int, count: int) -> list[Sample]:
    """Hard questions to train on: every taught family and level equally often."""
    levels = dict.fromkeys(TAUGHT, HARD_LEVELS)
    return generate_mixture(levels, count, split="train", seed=seed)


def grpo_arm(
    base: Path,
    folder: Path,
    curve: list[Sample],
    seed: int,
    scale: Scale,
    rewards: Mapping[str, Any],
) -> float:
    """A GRPO run with the settings of the `tiny` profile, the scale's and ``rewards``; returns its
    CPU seconds."""
    config = TrainingConfig(
        base_model=str(base),
        checkpoint_dir=folder,
        max_steps=scale.steps,
        eval_steps=scale.steps // 4,
        save_steps=scale.steps,
        eval_samples=None,
        probe_coverage=False,
        seed=seed,
        **{**scale.settings, **rewards},
    )
    train = training_samples(seed, scale.steps * config.samples_per_step)
    trainer = GRPOTrainer(config, train, curve, show_progress=False)
    trainer.initialize()
    began = time.process_time()
    trainer.train()
    return time.process_time() - began


def control_arm(base: Path, final: Path, seed: int, scale: Scale, clock: Path) -> int:
    """More of the warm start's lessons for as long as the run in ``clock`` takes; returns the
    optimizer steps."""

    def passed() -> float:
        return 1.0 if _stop(clock).exists() else _steps_done(clock) / scale.steps

    return continue_lessons(base, final, passed, scale.seeded(seed))


def _stop(clock: Path) -> Path:
    return clock.with_name(f"{clock.name}.ended")


def use_one_thread() -> None:
    """Set a worker process up: arms run side by side, and threads of one would slow the other."""
    import torch

    torch.set_num_threads(1)


def _steps_done(folder: Path) -> int:
    events = folder / "events.jsonl"
    return sum(event["event"] == "step" for event in read_events(events)) if events.exists() else 0


def _watch(futures: Mapping[str, Future[Any]], output: Path, steps: int) -> None:
    """Show how far the GRPO arms are until all arms have ended, or one has failed."""
    names, shown = (VERIFIED, OUTCOME), 0
    with progress("GRPO with and without the step reward", len(names) * steps) as bar:
        while not all(future.done() for future in futures.values()):
            if any(future.done() and future.exception() for future in futures.values()):
                return
            time.sleep(_POLL_SECONDS)
            count = sum(_steps_done(output / name) for name in names)
            if count > shown:
                bar.update(count)
                shown = count
