"""What checkpoints cost: a step of a run that saves every 20 steps, beside one that saves nothing.

    python benchmarks/checkpoint_cost.py --steps 200 --output runs/cost

One run of ``tiny``, all weights of which are trained and saved. The events say when each step was
done; one that follows a checkpoint took as much longer as the checkpoint did, and one in 20 does.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import pairwise
from pathlib import Path

from judicaita.training.config import TrainingConfig
from judicaita.training.data_curation import load_dataset_source
from judicaita.training.grpo_trainer import GRPOTrainer
from judicaita.training.metrics import read_events

SAVE_STEPS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--base-model", default="tiny")
    parser.add_argument("--output", type=Path, default=Path("runs/checkpoint-cost"))
    arguments = parser.parse_args()
    config = TrainingConfig(
        base_model=arguments.base_model,
        checkpoint_dir=arguments.output,
        max_steps=arguments.steps,
        save_steps=SAVE_STEPS,
        eval_steps=10 * arguments.steps,
        eval_samples=1,
        probe_coverage=False,
        num_threads=1,
    )
    samples = load_dataset_source("hearsay", max_samples=arguments.steps * config.samples_per_step)
    trainer = GRPOTrainer(config, samples, samples[:1])
    trainer.initialize()
    trainer.train()
    times = [e["time"] for e in read_events(trainer.folder.events) if e["event"] == "step"]
    seconds = {step: after - before for step, (before, after) in enumerate(pairwise(times), 2)}
    after_saving = [s for step, s in seconds.items() if step % SAVE_STEPS == 1]
    others = [s for step, s in seconds.items() if step % SAVE_STEPS != 1]
    step = statistics.fmean(others)
    figures = {
        "seconds a step": step,
        "seconds a checkpoint": statistics.fmean(after_saving) - step,
        "ratio": 1 + (statistics.fmean(after_saving) - step) / SAVE_STEPS / step,
        "checkpoints": len(after_saving),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
