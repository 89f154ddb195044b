"""Runs of three steps in which one write fails, and what can be made of the folder afterwards.

    LD_PRELOAD=faults.so python worker.py MODEL FOLDER ERRNO STAY FIRST STRIDE

Prints a JSON line for every STRIDE-th write from the FIRST on: how the run ended in which it
failed, and whether the run that went on from there ended like one that nothing disturbed.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from judicaita.errors import JudicaitaError
from judicaita.training.config import TrainingConfig
from judicaita.training.grpo_trainer import GRPOTrainer
from judicaita.training.metrics import read_events, read_rollouts

ROWS = [{"prompt": f"Is {n} odd?", "reference": "Yes" if n % 2 else "No"} for n in range(6)]
CLOCK = ("time", "tokens_per_second")
ARM = ctypes.CDLL(None).faults_arm
DISARM = ctypes.CDLL(None).faults_disarm
ARM.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
DISARM.restype = ctypes.c_long


def reward(prompt: str, response: str, reference: str) -> float:
    return sum(ord(c) % 7 for c in response) / (6 * max(1, len(response)))


def train(model: str, folder: Path, resume: str = "never") -> GRPOTrainer:
    config = TrainingConfig(
        base_model=model,
        checkpoint_dir=folder,
        device="cpu",
        system_prompt="",
        lora_dropout=0.0,
        generation_max_length=6,
        batch_size=2,
        gradient_accumulation_steps=1,
        max_steps=3,
        save_steps=1,
        save_total_limit=1,
        eval_steps=2,
        stall_seconds=0,
        allow_contamination=True,
        resume=resume,
    )
    trainer = GRPOTrainer(config, ROWS, ROWS[:1], reward, show_progress=False)
    trainer.initialize()
    trainer.train()
    return trainer


def result(trainer: GRPOTrainer) -> tuple[str, Any, Any]:
    weights = hashlib.sha256((trainer.folder.final / "adapter_model.safetensors").read_bytes())
    events = [
        {k: v for k, v in event.items() if k not in CLOCK and not k.startswith("seconds/")}
        for event in read_events(trainer.folder.events)
    ]
    return weights.hexdigest(), events, list(read_rollouts(trainer.folder.rollouts))


def disturbed(model: str, folder: Path, nth: int, code: int, stay: int) -> str:
    """How a run ends whose ``nth`` write fails."""
    ARM(str(folder).encode(), nth, code, stay)
    try:
        train(model, folder)
        return "finished"
    except JudicaitaError as error:
        return f"one sentence: {error}"
    except BaseException as error:  # noqa: BLE001 - whatever else comes is a defect
        return f"DEFECT: {error!r}"
    finally:
        DISARM()


def main() -> None:
    model, root, code, stay, first, stride = sys.argv[1:]
    torch.set_num_threads(1)
    whole = Path(root) / "whole"
    ARM(str(whole).encode(), 0, 0, 0)
    expected = result(train(model, whole))
    calls = DISARM()
    for nth in range(int(first), calls + 1, int(stride)):
        folder = Path(root) / f"fault-{nth}"
        ended = disturbed(model, folder, nth, int(code), int(stay))
        outcome = {"nth": nth, "ended": ended, "same": False, "resumed": ""}
        try:
            outcome["same"] = result(train(model, folder, "auto")) == expected
        except Exception as error:  # noqa: BLE001 - told to the test
            outcome["resumed"] = repr(error)
        print(json.dumps(outcome), flush=True)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
