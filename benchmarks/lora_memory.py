"""Memory of LoRA and of full fine-tuning: weights, gradients, optimizer state, tensor by tensor.

    python benchmarks/lora_memory.py

Of the architecture of Gemma-2-2b, in the types that a run has them in: full fine-tuning keeps
weights in float32, since smaller types cannot take up small updates; LoRA keeps the frozen ones in
the type of the computation. Nothing is allocated. Activations, which both need, are left out.
"""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM

from judicaita.training.config import TrainingConfig

_MOMENTS = 2
"""AdamW's, each of the type of the weight."""

_GIB = 2**30


def bytes_needed(model: nn.Module) -> int:
    """Of all parameters, and of gradient and moments of those that learn."""
    weights = {id(p): p for p in model.parameters()}.values()  # tied ones once
    frozen = sum(p.numel() * p.element_size() for p in weights)
    learnt = sum(p.numel() * p.element_size() for p in weights if p.requires_grad)
    return frozen + (1 + _MOMENTS) * learnt


def gemma(dtype: torch.dtype) -> Gemma2ForCausalLM:
    """Gemma-2-2b without any numbers in it."""
    with torch.device("meta"):
        return Gemma2ForCausalLM(Gemma2Config()).to(dtype)


def with_adapter(model: Gemma2ForCausalLM) -> nn.Module:
    """As the defaults have it; adapters are float32 whatever the model is."""
    config = TrainingConfig()
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=config.lora_r, target_modules=config.lora_target_modules
    )
    with torch.device("meta"):
        adapted = get_peft_model(model, lora)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def compare() -> dict[str, int]:
    """Bytes of each way."""
    return {
        "full fine-tuning": bytes_needed(gemma(torch.float32)),
        "LoRA, float32 (CPU)": bytes_needed(with_adapter(gemma(torch.float32))),
        "LoRA, bfloat16 (GPU)": bytes_needed(with_adapter(gemma(torch.bfloat16))),
    }


def main() -> None:
    found = compare()
    whole = found["full fine-tuning"]
    for name, count in found.items():
        print(f"{name:22} {count / _GIB:6.2f} GiB  {1 - count / whole:6.1%} less")


if __name__ == "__main__":
    main()
