"""What both trainers are given: one model, prompts, lengths and rewards, all from seeds.

The model is a Gemma-2 of 23.6 million random weights (grouped queries, alternating windows,
soft-caps and tied embeddings, as the large ones have them), or a Llama of the same sizes.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import wraps
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

VOCABULARY = 16_384
PAD, EOS, BOS, UNKNOWN = range(4)
_FIRST_WORD = 4
MEAN_LENGTH = 45
"""Of completions that end by themselves, in tokens."""
LEARNING_RATE = 1e-5
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Shape:
    """One optimizer step."""

    prompt_tokens: int
    group: int
    completion_tokens: int
    """The longest one."""
    prompts: int = 2
    exact: bool = False
    """Whether all completions are that long; else they end by themselves, after about 45 tokens."""
    architecture: str = "gemma2"
    """``gemma2``, whose soft-caps leave the library its slowest attention, or ``llama``."""

    def lengths(self, step: int) -> list[int]:
        """Tokens of each completion, its end included, prompt by prompt."""
        count = self.prompts * self.group
        if self.exact:
            return [self.completion_tokens] * count
        draw = random.Random(f"{self}/{step}")
        drawn = (math.ceil(draw.expovariate(1 / MEAN_LENGTH)) for _ in range(count))
        return [min(max(1, length), self.completion_tokens) for length in drawn]

    def as_fields(self) -> dict[str, Any]:
        """For a row of results."""
        return asdict(self)


def make_model(architecture: str) -> PeftModel:
    """The model with its adapter, whose B is not 0: else the gradient of A would be."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        **{"vocab_size": VOCABULARY, "hidden_size": 384, "intermediate_size": 1536},
        **{"num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 2},
        **{"head_dim": 64, "max_position_embeddings": 8192, "tie_word_embeddings": True},
        **{"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": BOS},
    }
    base: Any
    if architecture == "llama":
        base = LlamaForCausalLM(LlamaConfig(**sizes, attn_implementation="sdpa"))
    else:
        config = Gemma2Config(**sizes, query_pre_attn_scalar=64, attn_implementation="eager")
        base = Gemma2ForCausalLM(config)
    model = get_peft_model(base, lora_config())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model  # type: ignore[return-value]


def lora_config() -> LoraConfig:
    """Rank 16 on the attention."""
    return LoraConfig(
        task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.0, target_modules=[*TARGETS]
    )


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word for every id, so that text and ids are the same thing."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>"]
    words += [f"w{number}" for number in range(_FIRST_WORD, VOCABULARY)]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side="left",
    )


def draw_ids(count: int, seed: str) -> tuple[int, ...]:
    """Token ids that are words."""
    draw = random.Random(seed)
    return tuple(draw.randrange(_FIRST_WORD, VOCABULARY) for _ in range(count))


def prompt_texts(shape: Shape, steps: int) -> list[str]:
    """All prompts of a run, in their order."""
    return [
        " ".join(f"w{token}" for token in draw_ids(shape.prompt_tokens, f"{shape}/{number}"))
        for number in range(shape.prompts * steps)
    ]


def reward(token_ids: Sequence[int]) -> float:
    """In [0, 1), another one for nearly every completion."""
    return sum(token_ids) % 1000 / 1000


@dataclass
class Step:
    """What an optimizer step took, in seconds, and what it found."""

    seconds: dict[str, float] = field(default_factory=dict)
    """``total``, and its parts."""
    gradient: dict[str, torch.Tensor] = field(default_factory=dict)
    tokens: int = 0
    """Of its completions."""

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time within to a part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def move(self, part: str, source: str, target: str) -> None:
        """Count what a part of ``source`` took to ``target`` instead."""
        taken = self.seconds.pop(part, 0.0)
        self.seconds[source] -= taken
        self.seconds[target] = self.seconds.get(target, 0.0) + taken

    @property
    def split(self) -> dict[str, float]:
        """The parts; ``other`` is what is in none of them."""
        names = ("generation", "reference", "forward", "backward", "optimizer")
        parts = {name: self.seconds.get(name, 0.0) for name in names}
        return {**parts, "other": self.seconds["total"] - sum(parts.values())}

    @property
    def training(self) -> float:
        """Forward and backward together."""
        return self.split["forward"] + self.split["backward"]


def timed_call(step: Callable[[], Step], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call, its time added to a part of whichever step is on."""

    @wraps(call)
    def timed(*args: Any, **kwargs: Any) -> Any:
        with step().timed(name):
            return call(*args, **kwargs)

    return timed


def gradient_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every gradient, by the parameter's name."""
    return {
        name: parameter.grad.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def relative_l2(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """‖found − expected‖ / ‖expected‖ over all parameters."""
    assert found.keys() == expected.keys()
    difference = sum(float((found[name] - expected[name]).double().norm() ** 2) for name in found)
    whole = sum(float(value.double().norm() ** 2) for value in expected.values())
    return math.sqrt(difference / whole)


def matmul_peak() -> float:
    """The best that a product of float32 matrices reaches on the present threads, FLOP/s."""
    best = 0.0
    for size in (768, 1536, 3072):
        one, other = torch.randn(size, size), torch.randn(size, size)
        for _ in range(12 if size < 3072 else 4):
            began = time.perf_counter()
            torch.mm(one, other)
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best
