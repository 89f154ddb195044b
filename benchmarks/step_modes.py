"""What teaches true steps best: the step reward added, gating the outcome, or credited per step?

    python benchmarks/step_modes.py --seeds 2 --output runs/modes

Every mode starts from the quick start's warm start and runs with its settings, as many steps and
on the same questions; so does the outcome alone. Prints the held-out figures of hard levels, a row
each, and writes them to ``modes.json``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from judicaita.quickstart.arms import Scale, grpo_arm, use_one_thread
from judicaita.quickstart.report import SHOWN
from judicaita.quickstart.run import evaluate, questions
from judicaita.training.embedded import HARD_LEVELS, TAUGHT, tiny_folder

MODES: dict[str, dict[str, Any]] = {
    "additive": {"step_mode": "additive"},
    "gated": {"step_mode": "gated"},
    "per_step": {"step_mode": "per_step"},
    "outcome only": {"step_weight": 0.0, "step_mode": "additive"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--output", type=Path, default=Path("runs/step-modes"))
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    arguments = parser.parse_args()
    rows = [row for seed in arguments.seeds for row in run_seed(seed, arguments)]
    print(f"| seed | mode | {' | '.join(SHOWN)} |")
    print("|---" * (len(SHOWN) + 2) + "|")
    for row in rows:
        cells = " | ".join(f"{row[name]:.3f}" for name in SHOWN)
        print(f"| {row['seed']} | {row['mode']} | {cells} |")
    (arguments.output / "modes.json").write_text(json.dumps(rows, indent=2) + "\n")


def run_seed(seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    scale = Scale()
    base = tiny_folder(scale.seeded(seed))
    held_out = questions(TAUGHT, HARD_LEVELS, scale.held_out_each, seed)
    folders = {mode: arguments.output / f"seed-{seed}" / mode for mode in arguments.modes}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, use_one_thread) as pool:
        runs = [
            pool.submit(grpo_arm, base, folder, held_out[:70], seed, scale, MODES[mode])
            for mode, folder in folders.items()
        ]
        seconds = [run.result() for run in runs]
    rows = []
    for (mode, folder), spent in zip(folders.items(), seconds, strict=True):
        metrics = evaluate(folder / "final", held_out).metrics
        figures = {name: metrics[name] for name in SHOWN}
        rows.append({"seed": seed, "mode": mode, "cpu_seconds": spent, **figures})
        print(json.dumps(rows[-1]), flush=True)
    return rows


if __name__ == "__main__":
    main()
