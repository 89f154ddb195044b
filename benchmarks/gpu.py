"""GRPO steps of the Gemma-2-2b architecture at full size, with random weights, on one GPU.

    python benchmarks/gpu.py                        this engine
    python benchmarks/gpu.py --peer                 and TRL at its defaults, where it is installed
    python benchmarks/gpu.py --device cpu --small   a model of two layers, to try the script

LoRA r 16 on the attention, bf16, completions of full length. Prints tokens per second of generation
and of the whole step, peak memory, and how long the guide's job would take: 1,000 samples, three
epochs, four rollouts, prompts and completions of 512 tokens.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import Gemma2Config, Gemma2ForCausalLM

sys.path.insert(0, str(Path(__file__).parent / "engine"))

from ours import Ours
from workload import BOS, EOS, PAD, Shape, Step, lora_config, prompt_texts

SHAPES = (
    Shape(512, 4, 512, prompts=1, exact=True),
    Shape(512, 8, 512, prompts=1, exact=True),
    Shape(2048, 8, 256, prompts=1, exact=True),
)
SMALL = (Shape(32, 4, 16, prompts=1, exact=True),)
JOB = 1000 * 3
"""Prompts of the guide's job, each with the group of the first shape."""


def full_model(device: str, *, small: bool) -> Any:
    """Without a download: what matters for speed are sizes."""
    sizes: dict[str, Any] = {}
    if small:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
        sizes |= {"vocab_size": 16_384}
    config = Gemma2Config(
        **sizes,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
        attn_implementation="eager",
        dtype=torch.float32 if device == "cpu" else torch.bfloat16,
    )
    torch.manual_seed(0)
    with torch.device(device):
        base = Gemma2ForCausalLM(config).to(config.dtype)
    return get_peft_model(base, lora_config())


def steps_of(side: str, shape: Shape, count: int, device: str, *, small: bool) -> list[Step]:
    """The first warms up and is left out."""
    model = full_model(device, small=small)
    if side == "ours":
        ours = Ours(model, shape, device=device)
        return [ours.step([text]) for text in prompt_texts(shape, count + 1)][1:]
    from peer import Peer

    found: list[Step] = []

    def note() -> None:
        trl.now.tokens = sum(map(len, trl.tokens))
        found.append(trl.now)

    trl = Peer(model, shape, side, count + 1, after=note, cpu=device == "cpu")
    trl.trainer.train()
    return found[1:]


def measure(side: str, shape: Shape, count: int, device: str, *, small: bool) -> dict[str, Any]:
    """One row of the table."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    steps = steps_of(side, shape, count, device, small=small)
    seconds = statistics.median(step.seconds["total"] for step in steps)
    generation = statistics.median(step.seconds["generation"] for step in steps)
    tokens = statistics.median(step.tokens for step in steps)
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    return {
        **shape.as_fields(),
        "side": side,
        "seconds": seconds,
        "split": {k: statistics.median(s.split[k] for s in steps) for k in steps[0].split},
        "tokens_per_second_generation": tokens / generation,
        "tokens_per_second": tokens / seconds,
        "memory_mib": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a model of two layers")
    parser.add_argument("--peer", action="store_true", help="TRL, too")
    parser.add_argument("--steps", type=int, default=5, help="of a row (default 5)")
    parser.add_argument("--output", type=Path, help="a JSON file for the rows")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no GPU here: use --device cpu --small to try the script.")
    rows = []
    for shape in SMALL if arguments.small else SHAPES:
        for side in ("ours", "trl_default") if arguments.peer else ("ours",):
            row = measure(side, shape, arguments.steps, arguments.device, small=arguments.small)
            rows.append(row)
            print(
                f"{side}, P {shape.prompt_tokens}, C {shape.completion_tokens}, G {shape.group}: "
                f"{row['seconds']:.2f} s a step, {row['tokens_per_second']:.0f} tokens/s, "
                f"{row['tokens_per_second_generation']:.0f} of generation alone, "
                f"{row['memory_mib']:.0f} MiB",
                flush=True,
            )
    for row in rows:
        if (row["prompt_tokens"], row["group"]) == (SHAPES[0].prompt_tokens, SHAPES[0].group):
            print(f"the guide's job, {row['side']}: {JOB * row['seconds'] / 3600:.1f} hours")
    if arguments.output:
        name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
        arguments.output.write_text(json.dumps({"device": name, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
