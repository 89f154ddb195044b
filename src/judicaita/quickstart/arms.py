"""The three ways on from one warm start. Each runs in a process of its own, on one core."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from judicaita.legal.tasks import generate_mixture
from judicaita.training.config import TrainingConfig
from judicaita.training.console import progress
from judicaita.training.embedded import HARD_LEVELS, RECIPE, TAUGHT, Recipe, continue_lessons
from judicaita.training.grpo_trainer import GRPOTrainer
from judicaita.training.metrics import read_events
from judicaita.types import Sample

T = TypeVar("T")

VERIFIED, OUTCOME, CONTROL = "verified", "outcome_only", "supervised_control"


@dataclass(frozen=True)
class Scale:
    """How large a comparison is. The default takes minutes on two CPU cores."""

    recipe: Recipe = RECIPE
    """Of the warm start; each seed is put in its place."""
    steps: int = 140
    """Optimizer steps of a GRPO arm."""
    held_out_each: int = 100
    """Held-out questions of each taught family, half of them of each hard level."""
    curve: int = 210
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
    base: Path,
    output: Path,
    held_out: list[Sample],
    seed: int,
    scale: Scale,
    meanwhile: Callable[[Mapping[str, Path]], T],
) -> tuple[Path, T]:
    """Train every arm, two at a time; returns the control's model, and what ``meanwhile`` did.

    The control takes as long as the step reward's arm took, so it starts when that has ended; then
    ``meanwhile`` is called with the models of the other two.
    """
    workers = min(2, os.cpu_count() or 1)
    steps = {VERIFIED: scale.steps, OUTCOME: scale.steps}
    # A spawned process sets its number of threads before it loads torch.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, use_one_thread) as pool:
        futures: dict[str, Future[float]] = {}
        for name, rewards in ((VERIFIED, {}), (OUTCOME, {"step_weight": 0.0})):
            arguments = (base, output / name, held_out[: scale.curve], seed, scale)
            futures[name] = pool.submit(grpo_arm, *arguments, rewards)
        _watch(futures, lambda name: _steps_done(output / name), steps, "GRPO, two arms")
        seconds = futures[VERIFIED].result()
        futures[OUTCOME].result()
        final = output / CONTROL / "final"
        control = pool.submit(continue_lessons, base, final, seconds, scale.seeded(seed))
        began = time.monotonic()
        done = meanwhile({name: output / name / "final" for name in (VERIFIED, OUTCOME)})
        _watch(
            {CONTROL: control},
            lambda _: min(round(time.monotonic() - began), round(seconds)),
            {CONTROL: round(seconds)},
            "supervised control, seconds",
        )
        control.result()
    return final, done


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


def use_one_thread() -> None:
    """Set a worker process up: arms run side by side, and threads of one would slow the other."""
    import torch

    torch.set_num_threads(1)


def _steps_done(folder: Path) -> int:
    events = folder / "events.jsonl"
    return sum(event["event"] == "step" for event in read_events(events)) if events.exists() else 0


def _watch(
    futures: Mapping[str, Future[float]] | Mapping[str, Future[int]],
    done: Callable[[str], int],
    totals: Mapping[str, int],
    title: str,
) -> None:
    """Show how far the futures are until all have ended, or one has failed."""
    total = sum(totals[name] for name in futures)
    with progress(title, total) as bar:
        shown = 0
        while not all(future.done() for future in futures.values()):
            if any(future.done() and future.exception() for future in futures.values()):
                return
            time.sleep(_POLL_SECONDS)
            count = sum(done(name) for name in futures)
            if count > shown:
                bar.update(count)
                shown = count
