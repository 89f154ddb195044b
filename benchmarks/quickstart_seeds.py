"""The quick start over several seeds: does held-out accuracy rise in each?

    python benchmarks/quickstart_seeds.py --seeds 3 --output runs/seeds

Every seed draws other training questions, other held-out questions and other completions; the
warm-started model is the same. Prints a row a seed, and writes them to ``seeds.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from judicaita.training.metrics import read_events

FIGURES = ("accuracy", "accuracy_low", "accuracy_high", "format_compliance", "reward")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/quickstart-seeds"))
    arguments = parser.parse_args()
    rows = [run(seed, arguments.output / f"seed-{seed}") for seed in range(arguments.seeds)]
    print("| seed | accuracy before | after | format before | after | minutes |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        before, after = row["before"], row["after"]
        cells = [
            f"{figures[name]:.3f}"
            for name in ("accuracy", "format_compliance")
            for figures in (before, after)
        ]
        print(f"| {row['seed']} | {' | '.join(cells)} | {row['minutes']:.1f} |")
    (arguments.output / "seeds.json").write_text(json.dumps(rows, indent=2) + "\n")
    risen = sum(row["after"]["accuracy"] > row["before"]["accuracy"] for row in rows)
    print(f"accuracy rose in {risen} of {len(rows)}")


def run(seed: int, folder: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "judicaita.cli", "quickstart", "--seed", str(seed)]
    subprocess.run([*command, "--output-dir", str(folder)], check=True, stdout=subprocess.DEVNULL)
    events = read_events(folder / "events.jsonl")
    evaluations = [event for event in events if event["event"] == "eval"]
    before, after = (
        {name: evaluation[name] for name in FIGURES}
        for evaluation in (evaluations[0], evaluations[-1])
    )
    minutes = (events[-1]["time"] - events[0]["time"]) / 60
    return {"seed": seed, "before": before, "after": after, "minutes": minutes}


if __name__ == "__main__":
    main()
