"""Real processes of the command, killed, stopped and started again."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from judicaita.training.metrics import read_events

REWARD = """
import pathlib, time

def score(prompt, response, reference):
    if pathlib.Path("hang").exists():
        time.sleep(600)
    time.sleep(0.01)
    return sum(ord(c) % 7 for c in response) / (6 * max(1, len(response)))
"""
TRAIN = (
    *("train-grpo", "--dataset", "questions.jsonl", "--reward", "reward.py:score"),
    *("--device", "cpu", "--max-steps", "6", "--epochs", "9", "--batch-size", "2"),
    *("--gradient-accumulation-steps", "1", "--num-rollouts", "3", "--num-threads", "1"),
    *("--generation-max-length", "8", "--model-max-length", "240", "--save-steps", "1"),
    *("--eval-steps", "3", "--output-dir", "run"),
)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(gemma: Path, questions: Path, workspace: Path) -> Iterator[Start]:
    """Start the command in a process of its own, in the workspace."""
    (workspace / "reward.py").write_text(REWARD)
    processes = []

    def run(*more: str, resume: str = "never", output: str = "run") -> subprocess.Popen[str]:
        settings = ("--base-model", str(gemma), "--resume", resume, "--output-dir", output, *more)
        process = subprocess.Popen(
            [sys.executable, "-m", "judicaita.cli", *TRAIN, *settings],
            cwd=workspace,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def result() -> Callable[[Path], dict[str, Any]]:
    """What must not differ, as the benchmark of a hundred kills has it."""
    path = Path(__file__).parents[2] / "benchmarks" / "kill_resume.py"
    return runpy.run_path(str(path))["result"]  # type: ignore[no-any-return]


@contextmanager
def within(seconds: float) -> Iterator[Callable[[], None]]:
    """Wait in turns, for at most so long."""
    end = time.monotonic() + seconds

    def wait() -> None:
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)

    yield wait


def wait_for(sign: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    with within(100) as wait:
        while not sign():
            assert process.poll() is None, process.communicate()
            wait()


def steps_written(run: Path) -> int:
    path = run / "events.jsonl"
    return sum(e["event"] == "step" for e in read_events(path)) if path.exists() else 0


def finish(process: subprocess.Popen[str]) -> str:
    """What a run said that ended well."""
    _, told = process.communicate(timeout=100)
    assert process.returncode == 0, told
    return told


def test_killed_and_resumed_is_as_if_nothing_had_happened(
    start: Start, workspace: Path, result: Callable[[Path], dict[str, Any]]
) -> None:
    """Killed in its midst, and as soon as a checkpoint is being written; and once more later. Then
    the same run again, but stopped in good order and with other checkpoints."""
    finish(start(output="whole"))
    run = workspace / "run"
    process = start()
    wait_for(lambda: steps_written(run) >= 2, process)
    process.kill()
    process.wait()
    for step in (3, 5):
        process = start(resume="auto")
        wait_for(lambda step=step: (run / f"checkpoints/.step-{step}.tmp").exists(), process)  # type: ignore[misc]
        process.kill()
        process.wait()
    told = finish(start(resume="auto"))
    assert "going on from" in told
    assert result(run) == result(workspace / "whole")
    assert not list(run.rglob(".*.tmp"))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert "nothing is left to do" in finish(start(resume="auto"))
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert {path.name for path in before if after.get(path) != before[path]} <= {".run.lock"}

    stopped = workspace / "stopped"
    process = start("--save-steps", "100", output="stopped")
    wait_for(lambda: steps_written(stopped) >= 2, process)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 75, told
    last = told.strip().splitlines()[-1]
    assert last.startswith("SIGTERM: the run stopped after step ")
    assert last.endswith("Go on by resume=auto.")
    assert "Traceback" not in told
    finish(start("--save-steps", "100", output="stopped", resume="auto"))
    assert result(stopped) == result(workspace / "whole")


def test_a_time_limit_is_kept(start: Start, workspace: Path) -> None:
    process = start("--time-limit", "6s", "--max-steps", "1000", "--epochs", "1000")
    wait_for(lambda: (workspace / "run" / ".run.lock").exists(), process)
    locked = time.monotonic()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 75, told
    assert time.monotonic() - locked < 9
    assert "time_limit=6 s: the run stopped after step" in told


def test_a_run_that_hangs(start: Start, workspace: Path) -> None:
    """It says where it stands, keeps its folder, and a second Ctrl-C ends it."""
    run = workspace / "run"
    process = start("--stall-seconds", "2")
    wait_for(lambda: steps_written(run) >= 1, process)
    (workspace / "hang").touch()
    second = start(resume="auto")
    _, told = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"process {process.pid} on {os.uname().nodename}" in told
    stalls = run / "stalls.txt"
    wait_for(lambda: stalls.exists() and "in score" in stalls.read_text(), process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None, "the reward hangs, and the run waits for it"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert "The run has stood still" in told.replace("\n", " ")
    assert "SIGINT: stopping and saving" in told
