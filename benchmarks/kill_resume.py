"""Kills runs at random moments and lets them go on: does each end exactly like one left alone?

    python benchmarks/kill_resume.py --kills 100 --output runs/kills

Several configurations run undisturbed first. Then processes that run ``judicaita train-grpo`` are
ended by SIGKILL, at moments drawn evenly from 20 to 90 % of the undisturbed run's time (a run that
ends before its moment gets an earlier one), and the run goes on by ``--resume auto`` in another
process. They are forked from one that has imported everything, so that kills fall into training.
``--while-saving`` waits from the moment on until a checkpoint is half written. Printed for each
configuration: how many ended with the same weights byte for byte, the same events but for what a
clock says, and the same rollouts; how many were hit while a checkpoint was being written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from judicaita.cli import main as main_of_the_command
from judicaita.training import data_curation, grpo_trainer
from judicaita.training.embedded import resolve_base_model
from judicaita.training.metrics import read_events, read_rollouts

COMMON = (
    *("--device", "cpu", "--num-threads", "1", "--batch-size", "4", "--num-rollouts", "4"),
    *("--dataset", "hearsay,negligence", "--max-samples", "200", "--generation-max-length", "48"),
    *("--save-steps", "1", "--eval-samples", "8", "--eval-steps", "4", "--no-probe-coverage"),
)
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "full": ("--max-steps", "12"),
    "lora": (
        *("--max-steps", "10", "--use-lora", "--lora-dropout", "0.1", "--beta", "0.05"),
        *("--num-iterations", "2"),
    ),
    "curriculum": ("--max-steps", "12", "--sampler", "curriculum", "--rehearsal-weight", "0.1"),
    "two threads": (
        *("--max-steps", "12", "--save-total-limit", "1", "--sampler", "difficulty"),
        *("--num-threads", "2"),
    ),
}
"""All of them save after every step, so that many a kill falls into the writing of a checkpoint."""

_IMPORTED = (data_curation, grpo_trainer)
"""Rooms that the command would import by itself, later."""

_CLOCK = ("time", "tokens_per_second")


@dataclass(frozen=True)
class Ended:
    """How a killed and resumed run ended, beside the one that was left alone."""

    moment: float
    """Seconds after its start at which it was killed."""
    was_saving: bool
    """Whether a checkpoint was half written then."""
    is_same: bool
    told: str
    """What the resumed run said, where it did not end the same."""


def start(settings: tuple[str, ...], folder: Path, *more: str) -> multiprocessing.Process:
    """A forked process in which the command runs."""
    arguments = ("train-grpo", "--base-model", base_model(), *COMMON, *settings)
    target = partial(_run, [*arguments, "--output-dir", str(folder), *more], folder)
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    return process  # type: ignore[return-value]


def _run(arguments: list[str], folder: Path) -> None:
    log = folder.with_suffix(".log").open("w")
    for number in (1, 2):
        os.dup2(log.fileno(), number)
    main_of_the_command(arguments)


@cache
def base_model() -> str:
    """The folder of the embedded model."""
    return resolve_base_model("tiny")


def result(folder: Path) -> dict[str, Any]:
    """What must not differ."""
    events = [
        {k: v for k, v in event.items() if k not in _CLOCK and not k.startswith("seconds/")}
        for event in read_events(folder / "events.jsonl")
    ]
    return {
        "weights": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (folder / "final").glob("*.safetensors")
        },
        "events": events,
        "rollouts": list(read_rollouts(folder / "rollouts")),
    }


def undisturbed(settings: tuple[str, ...], folder: Path) -> tuple[dict[str, Any], float]:
    """What a run ends with that nobody kills, and its seconds."""
    began = time.monotonic()
    folder.parent.mkdir(parents=True, exist_ok=True)
    process = start(settings, folder)
    process.join()
    assert process.exitcode == 0, folder.with_suffix(".log").read_text()
    return result(folder), time.monotonic() - began


def killed_and_resumed(
    settings: tuple[str, ...],
    folder: Path,
    moment: float,
    expected: dict[str, Any],
    *,
    while_saving: bool,
) -> Ended:
    """Kill a run after ``moment`` seconds, let it go on, and compare."""
    while not killed(start(settings, folder), folder, moment, while_saving=while_saving):
        moment *= 0.7
        shutil.rmtree(folder)
    was_saving = is_saving(folder)
    resumed = start(settings, folder, "--resume", "auto")
    resumed.join()
    is_same = (folder / "final").is_dir() and result(folder) == expected
    if is_same:
        shutil.rmtree(folder)
    told = "" if is_same else folder.with_suffix(".log").read_text()[-2000:]
    return Ended(moment, was_saving, is_same, told)


def killed(
    process: multiprocessing.Process, folder: Path, moment: float, *, while_saving: bool
) -> bool:
    """Whether the process still ran at the moment, and so was killed."""
    process.join(moment)
    while while_saving and process.is_alive() and not is_saving(folder):
        time.sleep(0.001)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def is_saving(folder: Path) -> bool:
    """Whether a checkpoint stands aside, half written."""
    return any((folder / "checkpoints").glob(".*.tmp"))


def compare(
    name: str, kills: int, output: Path, jobs: int, seed: int, *, while_saving: bool
) -> list[Ended]:
    """Kill a configuration ``kills`` times."""
    settings, root = CONFIGURATIONS[name], output / name.replace(" ", "-")
    expected, seconds = undisturbed(settings, root / "undisturbed")
    rng = random.Random(f"{seed}/{name}")
    moments = [rng.uniform(0.2 * seconds, 0.9 * seconds) for _ in range(kills)]
    with ThreadPoolExecutor(jobs) as pool:
        return list(
            pool.map(
                lambda job: killed_and_resumed(
                    settings, root / f"kill-{job[0]}", job[1], expected, while_saving=while_saving
                ),
                enumerate(moments),
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="over all configurations")
    parser.add_argument("--output", type=Path, default=Path("runs/kills"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at the same time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--while-saving", action="store_true", help="only into checkpoints")
    arguments = parser.parse_args()
    shares = [arguments.kills // len(CONFIGURATIONS)] * len(CONFIGURATIONS)
    shares[0] += arguments.kills - sum(shares)
    rows = {}
    for name, kills in zip(CONFIGURATIONS, shares, strict=True):
        ends = compare(
            name,
            kills,
            arguments.output,
            arguments.jobs,
            arguments.seed,
            while_saving=arguments.while_saving,
        )
        same, saving = sum(end.is_same for end in ends), sum(end.was_saving for end in ends)
        rows[name] = {"kills": kills, "same": same, "while saving": saving}
        print(f"{name}: {kills} kills, {saving} while saving, {same} ended the same", flush=True)
        for end in ends:
            if not end.is_same:
                print(f"  after {end.moment:.2f} s: {end.told}", flush=True)
    total = {key: sum(row[key] for row in rows.values()) for key in next(iter(rows.values()))}
    print(json.dumps({**rows, "all": total}))


if __name__ == "__main__":
    main()
