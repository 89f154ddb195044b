"""What a model cannot be combined with, found in its configuration before weights are loaded."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from judicaita.errors import ConfigError
from judicaita.training.config import RunConfig, TrainingConfig
from judicaita.training.devices import Placement

_OVERFLOWS_FLOAT16 = ("gemma3", "gemma3_text")
"""Model types whose hidden states exceed float16's 65,504, and become NaN there: known of Gemma 3,
which was trained in bfloat16 (github.com/huggingface/transformers/issues/36822)."""


def refuse_unfit(config: RunConfig, model: PretrainedConfig, placement: Placement) -> None:
    """`ConfigError` for settings that this model or device does not allow."""
    _refuse_long_context(config, model)
    _refuse_attention(config.attention, model, placement)
    _refuse_optimizer(config.optimizer, placement)
    if placement.compute == torch.float16 and model.model_type in _OVERFLOWS_FLOAT16:
        raise ConfigError(
            f"precision=fp16: the hidden states of {model.model_type} overflow float16. Set "
            "precision=bf16, or fp32."
        )


def positions_of(model: PretrainedConfig) -> int | None:
    """Prompt and completion together fit into so many tokens, as far as the model says."""
    limit = getattr(model.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def _refuse_long_context(config: RunConfig, model: PretrainedConfig) -> None:
    positions = positions_of(model)
    if positions is None:
        return
    completion = config.generation_max_length if isinstance(config, TrainingConfig) else 0
    if completion >= positions:
        raise ConfigError(
            f"generation_max_length={completion} leaves no room for a prompt in the model's "
            f"{positions} positions. Lower it."
        )
    # The default asks for nothing: prompts then have what the model leaves them.
    is_asked_for = config.model_max_length != type(config).model_fields["model_max_length"].default
    if is_asked_for and config.model_max_length + completion > positions:
        own = f" and generation_max_length={completion}" if completion else ""
        together = " together" if completion else ""
        raise ConfigError(
            f"model_max_length={config.model_max_length}{own}{together} exceed the model's "
            f"{positions} positions. Lower model_max_length to {positions - completion}."
        )


def _refuse_attention(attention: str, model: PretrainedConfig, placement: Placement) -> None:
    if attention in ("auto", "eager"):
        return
    # A configuration that transformers knows no causal model for is refused as it is loaded.
    model_class: Any = AutoModelForCausalLM._model_mapping.get(type(model), None)
    name = "_supports_sdpa" if attention == "sdpa" else "_supports_flash_attn"
    if model_class is not None and not getattr(model_class, name, False):
        raise ConfigError(
            f"attention={attention}: {model.model_type} has none in transformers. Set "
            "attention=auto."
        )
    if attention == "sdpa":
        return
    if placement.device.type != "cuda" or not placement.mixed:
        raise ConfigError(
            f"attention={attention} needs CUDA and bf16 or fp16, and this is "
            f"{placement.device.type} with {str(placement.compute).removeprefix('torch.')}. Set "
            "attention=auto."
        )
    if importlib.util.find_spec("flash_attn") is None:
        raise ConfigError(
            f"attention={attention}: flash-attn is not installed. Install it, or set "
            "attention=auto."
        )


def _refuse_optimizer(optimizer: str, placement: Placement) -> None:
    if optimizer != "adamw_8bit":
        return
    if placement.device.type != "cuda":
        raise ConfigError(
            f"optimizer=adamw_8bit needs CUDA, and this is {placement.device.type}. Set "
            "optimizer=adamw."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "optimizer=adamw_8bit: bitsandbytes is not installed. Install it with `pip install "
            '"judicaita[gpu]"`, or set optimizer=adamw.'
        )
