"""What other settings make of the quick start's warm start, beside its own.

    python benchmarks/settings.py step_modes --seeds 0 1        how true steps are rewarded
    python benchmarks/settings.py algorithms --steps 30         every loss, advantage, penalty, …

Each row starts from the same weights and asks the same questions, as many steps. Prints a row each:
the mean reward of the first and of the last five steps, what the last steps' updates looked like,
faults, and the held-out figures of hard levels; and writes them to ``settings.json``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from judicaita.quickstart.arms import Scale, grpo_arm, use_one_thread
from judicaita.quickstart.report import SHOWN
from judicaita.quickstart.run import evaluate, questions
from judicaita.training.embedded import HARD_LEVELS, TAUGHT, tiny_folder
from judicaita.training.metrics import read_events

Settings = dict[str, Any]

OUTCOME: Settings = {"step_weight": 0.0, "step_mode": "additive"}
TWICE: Settings = {"num_iterations": 2}
"""Two updates on each batch, without which no bound would ever bite."""

SETS: dict[str, dict[str, Settings]] = {
    "step_modes": {
        "additive": {"step_mode": "additive"},
        "gated": {"step_mode": "gated"},
        "per_step": {"step_mode": "per_step"},
        "outcome only": OUTCOME,
    },
    "algorithms": {
        "as it is": {},
        **{
            f"loss {name}": {"loss": name, **TWICE}
            for name in ("dapo", "grpo", "bnpo", "dr_grpo", "cispo", "gspo", "gspo_token", "sapo")
        },
        "loss dapo, clip_high .28, dual_clip 3": {
            "loss": {"clip_high": 0.28, "dual_clip": 3.0},
            **TWICE,
        },
        "loss cispo, interval": {"loss": {"type": "cispo", "bound": "interval"}, **TWICE},
        **{
            f"advantage {name}": {"advantage": name}
            for name in ("centred", "leave_one_out", "mad", "batch", "gdpo")
        },
        "bound clip 1.5": {"advantage_bound": {"type": "clip", "low": 1.5, "high": 1.5}},
        "bound tanh 1.5": {"advantage_bound": {"type": "tanh", "limit": 1.5}},
        "bound winsorise .05": {"advantage_bound": "winsorise"},
        "kl k3 in the loss": {"beta": 0.02},
        "kl k2 in the loss": {"beta": 0.02, "kl": {"estimator": "k2"}},
        "kl k1 in the reward": {"beta": 0.02, "kl": {"place": "reward", "estimator": "k1"}},
        "kl adaptive, target .02": {"beta": 0.02, "kl": {"target": 0.02}},
        "mini_batches 2": {"mini_batches": 2},
        "dynamic_sampling 2": {"dynamic_sampling": 2},
        "entropy_bonus .01": {"entropy_bonus": 0.01},
        "top_entropy .2": {"top_entropy": 0.2},
        "mask_truncated": {"mask_truncated": True},
        "overlong_buffer 32": {"overlong_buffer": 32},
        "muon": {"optimizer": "muon"},
        "spikes over 3 medians": {"spikes": {"factor": 3.0, "backoff": 0.5}},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=Scale().steps)
    parser.add_argument("--only", nargs="+", help="rows, by their names")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/settings"))
    arguments = parser.parse_args()
    chosen = arguments.only or list(SETS[arguments.set])
    if unknown := set(chosen) - set(SETS[arguments.set]):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    rows = [row for seed in arguments.seeds for row in run_seed(seed, chosen, arguments)]
    names = [name for name in rows[0] if name not in ("seed", "settings")]
    print(f"| seed | settings | {' | '.join(names)} |")
    print("|---" * (len(names) + 2) + "|")
    for row in rows:
        cells = " | ".join(f"{row[name]:.3f}" for name in names)
        print(f"| {row['seed']} | {row['settings']} | {cells} |")
    (arguments.output / "settings.json").write_text(json.dumps(rows, indent=2) + "\n")


def run_seed(
    seed: int, chosen: Sequence[str], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    scale = Scale(steps=arguments.steps)
    base = tiny_folder(scale.seeded(seed))
    held_out = questions(TAUGHT, HARD_LEVELS, scale.held_out_each, seed)
    folders = {
        name: arguments.output / f"seed-{seed}" / f"{number:02d}"
        for number, name in enumerate(chosen)
    }
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, context, use_one_thread) as pool:
        runs = [
            pool.submit(grpo_arm, base, folder, held_out[:70], seed, scale, of_row(name))
            for name, folder in folders.items()
        ]
        seconds = [run.result() for run in runs]
    rows = []
    for (name, folder), spent in zip(folders.items(), seconds, strict=True):
        events = list(read_events(folder / "events.jsonl"))
        metrics = evaluate(folder / "final", held_out).metrics
        row = {"seed": seed, "settings": name, **figures(events), "cpu_seconds": spent}
        rows.append({**row, **{shown: metrics[shown] for shown in SHOWN}})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def of_row(name: str) -> Settings:
    """The settings of a row."""
    return next(own[name] for own in SETS.values() if name in own)


def figures(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What a run's own records say."""
    steps = [event for event in events if event["event"] == "step"]
    last = steps[-5:]
    return {
        "reward_first": fmean(step["reward"] for step in steps[:5]),
        "reward_last": fmean(step["reward"] for step in last),
        "clip_fraction": fmean(step.get("clip_fraction", 0.0) for step in last),
        "entropy": fmean(step.get("entropy", 0.0) for step in last),
        "grad_norm": fmean(step.get("grad_norm", 0.0) for step in last),
        "faults": float(sum(event["event"] == "fault" for event in events)),
    }


if __name__ == "__main__":
    main()
