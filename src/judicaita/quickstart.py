"""The quick start: one small model from its first legal question to an explained answer."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from judicaita.legal.tasks import best_single_factor, generate
from judicaita.reasoning_trace import ReasoningTraceGenerator
from judicaita.training.config import TrainingConfig
from judicaita.training.console import TrainingConsole
from judicaita.training.grpo_trainer import GRPOTrainer
from judicaita.training.metrics import read_events
from judicaita.training.plots import plot_run
from judicaita.types import Sample

FAMILY = "diversity"
LEVELS = (5, 6)
"""The hard levels: several parties and several claims, which the warm start never traced."""
STEPS = 120
HELD_OUT = 300
SHOWN = ("accuracy", "format_compliance", "reward", "mean_tokens")


def run_quickstart(output_dir: Path, *, seed: int = 0) -> str:
    """Train, evaluate and explain; returns what to tell the person.

    ``output_dir`` gets a number where it holds a run already.
    """
    began = perf_counter()
    folder = _unused(output_dir)
    config = TrainingConfig(
        base_model="tiny",
        checkpoint_dir=folder,
        tasks=[str(level) for level in LEVELS],
        max_steps=STEPS,
        eval_steps=STEPS // 4,
        eval_samples=HELD_OUT,
        logging_steps=STEPS // 4,
        seed=seed,
    )
    train = generate(
        FAMILY, STEPS * config.samples_per_step, split="train", seed=seed, levels=LEVELS
    )
    held_out = generate(FAMILY, HELD_OUT, split="eval", seed=seed, levels=LEVELS)
    trainer = GRPOTrainer(config, train, held_out)
    trainer.initialize()
    trainer.train()
    before, after = _first_and_last(trainer.folder.events)
    TrainingConsole(0).print_comparison(
        f"{HELD_OUT} held-out questions; none of their fact patterns was trained on",
        {"before GRPO": before, "after": after},
        SHOWN,
    )
    explained = asyncio.run(_explain(trainer.folder.final, held_out[0]))
    curves = "none, without judicaita[eval]"
    if find_spec("matplotlib"):
        curves = str(plot_run(trainer.folder.events, folder / "progress.png"))
    factor, baseline = best_single_factor(held_out)
    minutes = (perf_counter() - began) / 60
    return (
        f"{explained}\n"
        f"Held-out accuracy went from {before['accuracy']:.3f} to {after['accuracy']:.3f} in "
        f"{minutes:.1f} minutes.\n"
        f"Looking at one fact alone ({factor}) would give {baseline:.3f}: accuracy says that "
        "answers improved, not that the reasons are right.\n"
        f"The run: {folder}   its curves: {curves}\n"
        f"Next: judicaita evaluate-model {trainer.folder.final}"
    )


def _unused(folder: Path) -> Path:
    """The folder, or the first of ``folder-2``, ``folder-3`` … that holds no run."""
    candidate, number = folder, 1
    while (candidate / "config.yaml").exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _first_and_last(events: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    evaluations = [event for event in read_events(events) if event["event"] == "eval"]
    return evaluations[0], evaluations[-1]


async def _explain(checkpoint: Path, sample: Sample) -> str:
    generator = ReasoningTraceGenerator(checkpoint_path=checkpoint)
    await generator.initialize()
    facts, _, question = str(sample.prompt).rpartition(". ")
    trace = await generator.generate_trace(query=question, context=f"{facts}.")
    return trace.to_markdown()
