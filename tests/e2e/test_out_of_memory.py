"""A process whose memory is really limited, by the operating system: it goes on in halves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from judicaita.training.metrics import read_events

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

CHILD = """
import json, re, resource, sys
from pathlib import Path
from judicaita.training.config import TrainingConfig
from judicaita.training.grpo_trainer import GRPOTrainer

def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

settings, halvings, limit = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rows = [{"prompt": f"{n} " + "word " * 30, "reference": "Yes"} for n in range(8)]
reward = lambda prompt, response, reference: sum(map(ord, response)) % 7 / 7
trainer = GRPOTrainer(TrainingConfig(**settings), rows, rows[:1], reward, show_progress=False)
trainer.initialize()
trainer.updater.halvings = halvings
before = memory("VmSize")
if limit:
    resource.setrlimit(resource.RLIMIT_AS, (before + limit, before + limit))
trainer.train()
print(memory("VmPeak") - before, trainer.updater.halvings)
"""


@pytest.fixture
def base(make_tokenizer: Callable[..., Any], tmp_path: Path) -> Path:
    """A model whose activations take some hundred MiB, of an architecture that repeats prompts."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        **{"vocab_size": 320, "n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 256},
        **{"eos_token_id": 1, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_a_process_short_of_memory_goes_on_in_halves(base: Path, tmp_path: Path) -> None:
    def run(name: str, halvings: int, limit: int = 0) -> tuple[int, int]:
        settings = {
            **{"base_model": str(base), "checkpoint_dir": str(tmp_path / name), "device": "cpu"},
            **{"use_lora": False, "num_threads": 1, "batch_size": 4, "num_rollouts": 8},
            **{"gradient_accumulation_steps": 1, "generation_max_length": 8, "max_steps": 1},
            **{"model_max_length": 200, "system_prompt": "", "eval_samples": 1},
        }
        command = [sys.executable, "-c", CHILD, json.dumps(settings), str(halvings), str(limit)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        needed, halved = process.stdout.split()[-2:]
        return int(needed), int(halved)

    whole, _ = run("whole", 0)
    half, _ = run("half", 1)
    assert whole - half > 50 * 2**20, (whole, half)
    _, halved = run("short", 0, limit=(whole + half) // 2)
    assert halved == 1
    events = read_events(tmp_path / "short" / "events.jsonl")
    assert [e["micro_batches_divided_by"] for e in events if e["event"] == "out_of_memory"] == [2]

    def losses(name: str) -> list[float]:
        events = read_events(tmp_path / name / "events.jsonl")
        return [event["loss"] for event in events if event["event"] == "step"]

    assert losses("short") == losses("half")
    assert losses("short") == pytest.approx(losses("whole"), rel=1e-4, abs=1e-6)
