"""The folder of a run: what is refused, who may write, which checkpoints stay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from judicaita.errors import CheckpointError, ConfigError
from judicaita.training.config import TrainingConfig
from judicaita.training.durable import remove_folder, writing_folder
from judicaita.training.metrics import EventLog
from judicaita.training.run_folder import RunFolder

RECORDS = ["config.yaml", "events.jsonl", "rollouts", "checkpoints", "final", "eval.jsonl"]


def save(run: RunFolder, step: int, **evaluation: float) -> Path:
    """A checkpoint with a card alone."""
    folder = run.step(step)
    with writing_folder(folder) as aside:
        card = {"step": step, **({"evaluation": evaluation} if evaluation else {})}
        (aside / "judicaita.json").write_text(json.dumps(card))
    return folder


def kept(run: RunFolder) -> list[int]:
    return [number for number, _ in run.steps()]


# ── what it is ───────────────────────────────────────────────────────────────────────────────────


def test_the_folder_says_what_the_run_is(tmp_path: Path) -> None:
    config = TrainingConfig(tasks=["§ 1332"], checkpoint_dir=tmp_path / "deep" / "run")
    run = RunFolder(config.checkpoint_dir)
    run.refuse_if_used()
    run.lock()
    run.begin(config, {"seed": "flag"})
    run.unlock()
    written = yaml.safe_load((run.root / "config.yaml").read_text(encoding="utf-8"))
    assert TrainingConfig(**written) == config
    assert json.loads((run.root / "manifest.json").read_text()) == {"seed": "flag"}


@pytest.mark.parametrize("name", RECORDS)
def test_a_folder_with_anything_of_a_run_is_refused(tmp_path: Path, name: str) -> None:
    """All of these would be overwritten."""
    (tmp_path / "notes.txt").touch()
    RunFolder(tmp_path).refuse_if_used()
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f"holds another run .{name}.*Name a new folder"):
        RunFolder(tmp_path).refuse_if_used()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="it is a file. Name a new folder"):
        RunFolder(tmp_path / "file").refuse_if_used()
    with pytest.raises(ConfigError, match="it cannot be made and locked .Not a directory"):
        RunFolder(tmp_path / "file" / "run").lock()


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    RunFolder(tmp_path).require()
    with pytest.raises(CheckpointError, match="is gone: .* Bring it back"):
        RunFolder(tmp_path / "gone").require()


def test_steps_are_numbers(tmp_path: Path) -> None:
    for name in ("step-9", "step-10", "step-2", ".step-40.tmp", "step-50-copy", "step-x"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert kept(RunFolder(tmp_path)) == [2, 9, 10]


def test_only_a_grpo_run_is_begun_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.lock()
    run.begin(TrainingConfig(), {})
    EventLog(run.events).close()
    run.refuse_if_not_grpo()
    run.begin_again()
    run.refuse_if_used()
    run.refuse_if_not_grpo()
    (tmp_path / "config.yaml").write_text("base_model: tiny\n")  # of a supervised run, say
    EventLog(run.events).close()
    with pytest.raises(ConfigError, match="holds another run"):
        run.refuse_if_not_grpo()
    run.unlock()


# ── one run at a time ────────────────────────────────────────────────────────────────────────────

HOLD = """
import sys, time
from pathlib import Path
from judicaita.training.run_folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
run.lock()
print("locked", flush=True)
time.sleep(600)
"""


def test_a_second_run_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.root)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        owner = rf"process {other.pid} on .* is writing there"
        with pytest.raises(ConfigError, match=owner):
            run.lock()
        run.unlock()  # takes nothing from the one who has it
        with pytest.raises(ConfigError, match=owner):
            run.lock()
        other.send_signal(signal.SIGKILL)
    assert (run.root / ".run.owner.json").exists()
    run.lock()
    assert json.loads((run.root / ".run.owner.json").read_text())["pid"] == os.getpid()
    run.unlock()
    assert not run.root.exists(), "nothing was begun in it"


def test_a_folder_with_a_run_stays_when_it_is_unlocked(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.lock()
    EventLog(run.events).close()
    run.unlock()
    assert {path.name for path in run.root.iterdir()} == {".run.lock", "events.jsonl"}
    RunFolder(run.root).lock()


def test_what_a_killed_writer_left_is_cleared_up(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    save(run, 1)
    run.step(1).replace(run.checkpoints / ".step-1.old")  # it was about to be replaced
    (run.checkpoints / ".step-2.tmp").mkdir()  # it was half written, or half removed
    (tmp_path / ".mine.old").mkdir()
    run.lock()
    run.unlock()
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-1"]
    assert (tmp_path / ".mine.old").exists(), "what is not the run's is left alone"


# ── which checkpoints stay ───────────────────────────────────────────────────────────────────────


def test_the_last_and_the_best_stay(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step, reward in ((1, 0.2), (2, 0.9), (3, 0.5), (4, 0.6)):
        save(run, step, reward=reward, accuracy=1 - reward)
    save(run, 5)  # not evaluated
    run.rotate(None, "reward")
    assert kept(run) == [1, 2, 3, 4, 5]
    assert run.best("reward") == run.step(2)
    assert run.best("accuracy") == run.step(1)
    assert run.best("sound") is None
    run.rotate(2, "reward")
    assert kept(run) == [2, 4, 5]
    save(run, 6, reward=0.9)
    assert run.best("reward") == run.step(6), "the later one of equals"
    run.rotate(1, "reward")
    assert kept(run) == [6]


def test_damage_in_an_old_checkpoint_does_not_stop_a_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        save(run, step, reward=1 / step)
    (run.step(1) / "judicaita.json").write_text("{")
    run.rotate(1, "reward")
    assert kept(run) == [2, 3]


def test_what_will_be_written_again_is_removed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        save(run, step)
    run.final.mkdir()
    run.remove_checkpoints_after(2)
    assert kept(run) == [1, 2]
    assert not run.final.exists()
    remove_folder(run.step(1))
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-2"]
