"""This engine beside TRL: the same model, prompts and completion tokens, step by step in turn.

    make bench                                       all rows, in an environment with TRL
    python benchmarks/engine --pairs 5               the same
    PYTHONPATH=src python benchmarks/engine --growth needs no TRL: how the cost grows

Every row runs in a process of its own, with its threads and its allocator's settings; its memory is
measured in further processes, one for each side, with the plain allocator. TRL's time is that of a
step of its trainer; this side's of generation, advantages, batching and update, which leaves out
the drawing of prompts and the writing of records. What is found takes its place, row by row, in
``benchmarks/results/engine.json``, which ``engine.png`` beside it draws.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from drawing import draw
from measure import measure, precision_beside
from workload import Shape

RESULTS = Path(__file__).parent.parent / "results"

ALLOCATORS = {
    "plain": {},
    "tuned": {
        "MALLOC_MMAP_THRESHOLD_": "4294967296",
        "MALLOC_TRIM_THRESHOLD_": "17179869184",
        "MALLOC_TOP_PAD_": "67108864",
    },
}
"""Of glibc. Tuned, it keeps large temporaries instead of asking for zeroed pages anew."""

ROWS = (
    (Shape(512, 8, 96), "trl_default", 1, "plain"),
    (Shape(512, 8, 96), "trl_tuned", 1, "tuned"),
    (Shape(512, 8, 512, prompts=1, exact=True), "trl_tuned", 1, "tuned"),
    (Shape(1024, 16, 96, prompts=1), "trl_tuned", 1, "tuned"),
    (Shape(128, 8, 96), "trl_tuned", 1, "tuned"),
    (Shape(512, 8, 96), "trl_tuned", 2, "tuned"),
    (Shape(512, 8, 96, architecture="llama"), "trl_tuned", 1, "tuned"),
)

_MIDDLE = Shape(512, 8, 96, prompts=1, exact=True)
GROWTH = {
    "prompt tokens": [replace(_MIDDLE, prompt_tokens=count) for count in (128, 512, 2048)],
    "group": [replace(_MIDDLE, group=count) for count in (2, 8, 32)],
    "completion tokens": [replace(_MIDDLE, completion_tokens=count) for count in (32, 128, 512)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5, help="of a row (default 5)")
    parser.add_argument("--rows", type=int, nargs="*", help="only these, from 0")
    parser.add_argument("--growth", action="store_true", help="only how the cost grows")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        task = json.loads(arguments.one)
        task["shape"] = Shape(**task["shape"])
        print(json.dumps(measure(**task)))
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    if not arguments.growth:
        if importlib.util.find_spec("trl") is None:
            sys.exit("TRL is not installed here: run `make bench`, or --growth without it.")
        for number in range(len(ROWS)) if arguments.rows is None else arguments.rows:
            keep(arguments.output, number, compare(*ROWS[number], arguments.pairs))
    if arguments.rows is None:
        for name, shapes in GROWTH.items():
            keep(arguments.output, name, grow(shapes))


def keep(folder: Path, key: int | str, found: Any) -> None:
    """Put a row, or how one cost grows, in its place in the results, and draw them anew."""
    path = folder / "engine.json"
    before = json.loads(path.read_text()) if path.exists() else {"rows": [], "growth": {}}
    rows, growth = before["rows"], before["growth"]
    if isinstance(key, int):
        rows = [row for row in rows if row["number"] != key] + [{"number": key, **found}]
        rows.sort(key=lambda row: row["number"])
    else:
        growth = {**growth, key: found}
    result = {"machine": machine(), "allocators": ALLOCATORS, "rows": rows, "growth": growth}
    path.write_text(json.dumps(result, indent=2) + "\n")
    draw(result, folder / "engine.png")


def compare(shape: Shape, peer: str, threads: int, allocator: str, count: int) -> dict[str, Any]:
    """A row, told as it is found."""
    found = run("pairs", shape, peer, threads, allocator, count)
    row = {
        **shape.as_fields(),
        "peer": peer,
        "precision": precision_beside(peer),
        "threads": threads,
        "allocator": allocator,
        **found,
        **memories(shape, peer, threads),
    }
    length = "" if shape.exact else "≤ "
    print(
        f"{shape.architecture}, P {shape.prompt_tokens}, G {shape.group}, "
        f"R {length}{shape.completion_tokens}, {peer}, "
        f"{threads} threads, {allocator} allocator: step {row['ratio_step']:.1f}×, "
        f"forward + backward {row['ratio_training']:.1f}×, "
        f"memory {row['memory_ours']:.0f} of {row['memory_peer']:.0f} MiB, "
        f"{row['share_of_peak']:.0%} of the peak, gradient {row['gradient_relative_l2']:.1e}",
        flush=True,
    )
    for side, split in row["split"].items():
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in split.items())
        print(f"    {side}: {row[f'seconds_{side}']:.2f} s: {parts}", flush=True)
    return row


def memories(shape: Shape, peer: str, threads: int) -> dict[str, Any]:
    """Peaks of both sides, and what they were before the first step; of the second row also
    with both prompts in one pass of ours, and each in a pass of its own of TRL's."""
    sides = {"ours": f"ours_beside_{peer}", "peer": peer}
    if (shape, peer, threads) == ROWS[1][:3]:
        sides |= {"ours_at_once": "ours_at_once", "peer_by_group": f"{peer}_by_group"}
    found = {name: run("memory", shape, side, threads, "plain") for name, side in sides.items()}
    return {
        **{f"memory_{name}": measured["memory"] for name, measured in found.items()},
        "memory_before": {name: measured["before"] for name, measured in found.items()},
    }


def grow(shapes: list[Shape]) -> list[dict[str, Any]]:
    """One row for each shape, this side alone on one thread."""
    rows = []
    for shape in shapes:
        found = run("growth", shape, "ours", 1, "tuned", 2)
        rows.append({**shape.as_fields(), **found})
        print(
            f"P {shape.prompt_tokens}, G {shape.group}, R {shape.completion_tokens}: "
            f"{found['seconds']:.2f} s, {found['share_of_peak']:.0%} of the peak, "
            f"{found['memory']:.0f} MiB",
            flush=True,
        )
    return rows


def run(
    kind: str, shape: Shape, side: str, threads: int, allocator: str, count: int = 1
) -> dict[str, Any]:
    """Measure in a process of its own."""
    task = {
        **{"kind": kind, "shape": shape.as_fields(), "side": side},
        **{"threads": threads, "count": count},
    }
    environment = {
        **os.environ,
        **ALLOCATORS[allocator],
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, __file__, "--one", json.dumps(task)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"{kind} of {shape} and {side} failed:\n{process.stderr}")
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    packages = ["torch", "transformers", "peft"]
    packages += ["trl"] if importlib.util.find_spec("trl") else []
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


if __name__ == "__main__":
    main()
