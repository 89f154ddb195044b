"""The quick start: one small model from its first legal question to an explained answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import perf_counter
from typing import Any

from judicaita.legal.tasks import best_single_factor, generate
from judicaita.reasoning_trace import ReasoningTraceGenerator
from judicaita.training.config import TrainingConfig
from judicaita.training.console import TrainingConsole
from judicaita.training.grpo_trainer import GRPOTrainer
from judicaita.training.metrics import read_events
from judicaita.types import Sample

FAMILY = "diversity"
STEPS = 120
HELD_OUT = 300


def run_quickstart(output_dir: Path, *, seed: int = 0) -> str:
    """Train, evaluate and explain; returns what to tell the person."""
    began = perf_counter()
    folder = _unused(output_dir)
    config = TrainingConfig(
        base_model="tiny",
        checkpoint_dir=folder,
        dataset=FAMILY,
        max_steps=STEPS,
        eval_samples=HELD_OUT,
        seed=seed,
    )
    train = generate(FAMILY, STEPS * config.samples_per_step, split="train", seed=seed + 1000)
    held_out = generate(FAMILY, HELD_OUT, split="eval", seed=seed)
    trainer = GRPOTrainer(config, train, held_out)
    trainer.initialize()
    trainer.train()
    before, after = _first_and_last(folder)
    factor, baseline = best_single_factor(held_out)
    with TrainingConsole(0) as console:
        console.print_comparison(
            f"{len(held_out)} held-out questions whose fact patterns were never trained on",
            {"before": before, "after": after},
            ("accuracy", "format_compliance", "reward", "mean_length"),
        )
    explained = asyncio.run(_explain(folder / "final", held_out[-1]))
    minutes = (perf_counter() - began) / 60
    return "\n".join(
        [
            explained,
            "",
            f"Accuracy {before['accuracy']:.3f} → {after['accuracy']:.3f} in {minutes:.1f} minutes. "
            f"Answering by the best single factor ({factor}) would give {baseline:.3f}.",
            f"The run is in {folder}, the model in {folder / 'final'}.",
            f"Next: judicaita evaluate-model {folder / 'final'}",
        ]
    )


def _unused(folder: Path) -> Path:
    number = 1
    candidate = folder
    while (candidate / "config.yaml").exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _first_and_last(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    evaluations = [e for e in read_events(folder / "events.jsonl") if e["event"] == "eval"]
    return evaluations[0], evaluations[-1]


async def _explain(checkpoint: Path, sample: Sample) -> str:
    generator = ReasoningTraceGenerator(checkpoint_path=checkpoint)
    await generator.initialize()
    facts, _, question = str(sample.prompt).rpartition(". ")
    trace = await generator.generate_trace(query=question, context=f"{facts}.")
    return trace.to_markdown()
