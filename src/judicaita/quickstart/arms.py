"""The three ways on from one warm start. Each runs in a process of its own, on one core."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from judicaita.legal.tasks import generate_mixture
from judicaita.training.config import TrainingConfig
from judicaita.training.console import progress
from judicaita.training.embedded import RECIPE, TAUGHT, continue_lessons
from judicaita.training.grpo_trainer import GRPOTrainer
from judicaita.training.metrics import read_events
from judicaita.types import Sample

VERIFIED, OUTCOME, CONTROL = "verified", "outcome_only", "supervised_control"

STEPS = 200
"""Optimizer steps of a GRPO arm."""

CURVE_SAMPLES = 210
"""Held-out questions of the evaluations during a run, which only its curve needs."""

_POLL_SECONDS = 0.5


def run_arms(base: Path, output: Path, held_out: list[Sample], seed: int) -> dict[str, Path]:
    """Train every arm, two at a time; returns the model folder of each."""
    workers = min(2, os.cpu_count() or 1)
    steps = {VERIFIED: STEPS, OUTCOME: STEPS}
    # A spawned process sets its number of threads before it loads torch.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _use_one_thread) as pool:
        futures: dict[str, Future[float]] = {}
        for name, rewards in ((VERIFIED, {}), (OUTCOME, {"step_weight": 0.0})):
            arguments = (base, output / name, held_out[:CURVE_SAMPLES], seed, rewards)
            futures[name] = pool.submit(grpo_arm, *arguments)
        _watch(futures, lambda name: _steps_done(output / name), steps, "GRPO, two arms")
        seconds = futures[VERIFIED].result()
        futures[OUTCOME].result()
        final = output / CONTROL / "final"
        control = pool.submit(control_arm, base, final, seconds, seed)
        began = time.monotonic()
        _watch(
            {CONTROL: control},
            lambda _: min(round(time.monotonic() - began), round(seconds)),
            {CONTROL: round(seconds)},
            "supervised control, seconds",
        )
        control.result()
    return {name: output / name / "final" for name in (VERIFIED, OUTCOME, CONTROL)}


def training_samples(seed: int, count: int) -> list[Sample]:
    """Hard questions to train on: every taught family and level equally often."""
    levels = dict.fromkeys(TAUGHT, RECIPE.hard_levels)
    return generate_mixture(levels, count, split="train", seed=seed)


def grpo_arm(
    base: Path, folder: Path, curve: list[Sample], seed: int, settings: Mapping[str, Any]
) -> float:
    """A GRPO run with the settings of the `tiny` profile and these; returns its CPU seconds."""
    config = TrainingConfig(
        base_model=str(base),
        checkpoint_dir=folder,
        max_steps=STEPS,
        eval_steps=STEPS // 4,
        save_steps=STEPS,
        eval_samples=None,
        probe_coverage=False,
        seed=seed,
        **settings,
    )
    train = training_samples(seed, STEPS * config.samples_per_step)
    trainer = GRPOTrainer(config, train, curve, show_progress=False)
    trainer.initialize()
    began = time.process_time()
    trainer.train()
    return time.process_time() - began


def control_arm(base: Path, final: Path, cpu_seconds: float, seed: int) -> float:
    """More of the warm start's lessons for as long; returns the optimizer steps that took."""
    return continue_lessons(base, final, cpu_seconds, recipe=replace(RECIPE, seed=seed))


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _steps_done(folder: Path) -> int:
    events = folder / "events.jsonl"
    return sum(event["event"] == "step" for event in read_events(events)) if events.exists() else 0


def _watch(
    futures: Mapping[str, Future[float]],
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
