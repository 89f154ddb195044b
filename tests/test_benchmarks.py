"""Benchmarks run where they can: without TRL, and without datasets."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "benchmarks" / "engine"

WITHOUT_DATASETS = """
import runpy, sys
sys.modules["datasets"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def engine(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_DATASETS, str(ENGINE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def measured(kind: str, **shape: Any) -> dict[str, Any]:
    task = {"kind": kind, "shape": shape, "side": "ours", "threads": 1, "count": 1}
    run = engine("--one", json.dumps(task))
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_the_engine_s_cost_is_measured_without_trl_and_datasets() -> None:
    found = measured("growth", prompt_tokens=40, group=3, completion_tokens=12, prompts=2)
    parts = found["split"]
    assert parts.keys() == {"generation", "reference", "forward", "backward", "optimizer", "other"}
    assert 0 <= parts["other"] < 0.2 * found["seconds"]
    assert all(parts[name] > 0 for name in ("generation", "forward", "backward", "optimizer"))
    assert 0 < found["share_of_peak"] < 1
    assert 100 < found["memory"] < 10_000


def test_the_comparison_says_that_it_needs_trl() -> None:
    if importlib.util.find_spec("trl"):
        pytest.skip("TRL is installed here")
    run = engine("--rows", "0")
    assert run.stderr.strip() == (
        "TRL is not installed here: run `make bench`, or --growth without it."
    )


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_lora_takes_sixty_percent_less() -> None:
    """Of Gemma-2-2b, whose 2,614,341,888 parameters take 16 bytes each in full fine-tuning."""
    compare = runpy.run_path(str(ROOT / "benchmarks" / "lora_memory.py"))["compare"]
    found = compare()
    assert found["full fine-tuning"] == 2_614_341_888 * 16
    # Rank 16 on 26 layers: q 2304 + 2048, k and v 2304 + 1024 each, o 2048 + 2304, 16 each.
    adapter = 26 * 16 * (2 * (2304 + 2048) + 2 * (2304 + 1024))
    assert found["LoRA, bfloat16 (GPU)"] == 2_614_341_888 * 2 + adapter * 16
    for name in ("LoRA, float32 (CPU)", "LoRA, bfloat16 (GPU)"):
        assert found[name] < 0.4 * found["full fine-tuning"]


def test_the_script_for_a_gpu_runs_on_a_processor(tmp_path: Path) -> None:
    results = tmp_path / "gpu.json"
    script = ROOT / "benchmarks" / "gpu.py"
    command = [sys.executable, str(script), "--device", "cpu", "--small", "--steps", "1"]
    command += ["--output", str(results)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "tokens/s" in run.stdout
    [row] = json.loads(results.read_text())["rows"]
    assert row["tokens_per_second_generation"] > row["tokens_per_second"] > 0
    assert row["tokens_per_second"] * row["seconds"] == pytest.approx(4 * 16, rel=0.2)


def test_losses_and_advantages_are_those_of_trl(tmp_path: Path) -> None:
    """In the environment that ``make bench`` makes, since TRL is not installed in this one."""
    python, results = ROOT / ".venv-bench" / "bin" / "python", tmp_path / "losses.json"
    find = "import importlib.util, sys; sys.exit(importlib.util.find_spec('trl') is None)"
    if not python.exists() or subprocess.run([python, "-c", find], check=False).returncode:
        pytest.skip("no TRL in .venv-bench: make bench installs it")
    command = [python, ROOT / "benchmarks" / "losses.py", "--json", results]
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    rows = json.loads(results.read_text())["rows"]
    compared = [row for row in rows if not row["differs"]]
    assert {"dapo", "grpo", "bnpo", "dr_grpo", "gspo", "gspo_token", "sapo", "z_score"} <= {
        row["name"] for row in compared
    }
    assert all(row["value"] <= 1e-6 and (row["gradient"] or 0) <= 1e-6 for row in compared)
