"""What is refused before any weights are loaded: there are none in these folders."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PretrainedConfig

from judicaita.errors import ConfigError, ModelError
from judicaita.training.compatibility import refuse_unfit
from judicaita.training.config import SFTConfig, TrainingConfig
from judicaita.training.devices import Placement
from judicaita.training.loading import load_policy

MakeModel = Callable[..., Any]


@pytest.fixture
def folder(make_model: MakeModel, tmp_path: Path) -> Callable[[str], Path]:
    """A model's configuration, and nothing else."""

    def make(architecture: str) -> Path:
        make_model(architecture).config.save_pretrained(tmp_path / architecture)
        return tmp_path / architecture

    return make


SHORT: dict[str, Any] = {"device": "cpu", "generation_max_length": 32}


@pytest.mark.parametrize(
    ("architecture", "settings", "sentence"),
    [
        (
            "gemma2",
            {"attention": "sdpa"},
            "attention=sdpa: gemma2 has none in transformers. Set attention=auto.",
        ),
        (
            "llama",
            {"attention": "flash_attention_2"},
            "attention=flash_attention_2 needs CUDA and bf16 or fp16, and this is cpu with "
            "float32. Set attention=auto.",
        ),
        (
            "llama",
            {"optimizer": "adamw_8bit"},
            "optimizer=adamw_8bit needs CUDA, and this is cpu. Set optimizer=adamw.",
        ),
        (
            "gemma3",
            {"precision": "fp16"},
            "precision=fp16: the hidden states of gemma3_text overflow float16. Set "
            "precision=bf16, or fp32.",
        ),
        (
            "llama",
            {"model_max_length": 225},
            "model_max_length=225 and generation_max_length=32 together exceed the model's 256 "
            "positions. Lower model_max_length to 224.",
        ),
        (
            "gpt2",
            {"generation_max_length": 256},
            "generation_max_length=256 leaves no room for a prompt in the model's 256 positions. "
            "Lower it.",
        ),
    ],
)
def test_refused_before_weights_are_loaded(
    folder: Callable[[str], Path], architecture: str, settings: dict[str, Any], sentence: str
) -> None:
    config = TrainingConfig(base_model=str(folder(architecture)), **SHORT | settings)
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        load_policy(config)


def test_a_supervised_row_may_fill_the_model(folder: Callable[[str], Path]) -> None:
    path = str(folder("llama"))
    with pytest.raises(ConfigError, match="^model_max_length=257 exceed.*Lower .* to 256.$"):
        load_policy(SFTConfig(base_model=path, device="cpu", model_max_length=257))
    with pytest.raises(ModelError):  # which has no tokenizer, and no weights
        load_policy(SFTConfig(base_model=path, device="cpu", model_max_length=256))


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("llama", {"attention": "sdpa"}),
        ("gemma2", {"attention": "eager"}),
        ("gemma2", {"precision": "fp16"}),
        ("gemma3", {"precision": "bf16"}),
        ("llama", {"optimizer": "muon"}),
        ("llama", {"model_max_length": 224}),
        ("llama", {}),  # the default of 2,048 is a bound, and asks for nothing
    ],
)
def test_what_fits_is_let_through(
    make_model: MakeModel, architecture: str, settings: dict[str, Any]
) -> None:
    config = TrainingConfig(**SHORT | settings)
    precisions = {"fp16": torch.float16, "bf16": torch.bfloat16}
    compute = precisions.get(config.precision, torch.float32)
    refuse_unfit(config, make_model(architecture).config, Placement(torch.device("cpu"), compute))


def test_eight_bits_need_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainingConfig(optimizer="adamw_8bit")
    placement = Placement(torch.device("cuda"), torch.bfloat16)
    sentence = (
        "optimizer=adamw_8bit: bitsandbytes is not installed. Install it with `pip install "
        '"judicaita[gpu]"`, or set optimizer=adamw.'
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        refuse_unfit(config, PretrainedConfig(), placement)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "bitsandbytes")
    refuse_unfit(config, PretrainedConfig(), placement)


def test_a_model_without_a_limit_has_room_for_anything() -> None:
    config = TrainingConfig(model_max_length=10**6, generation_max_length=10**6)
    refuse_unfit(config, PretrainedConfig(), Placement(torch.device("cpu"), torch.float32))


def test_the_chosen_attention_is_the_model_s(
    make_policy: Callable[..., Any], tmp_path: Path
) -> None:
    make_policy("llama").save(tmp_path / "llama")
    for attention, expected in (("auto", "sdpa"), ("eager", "eager"), ("sdpa", "sdpa")):
        config = TrainingConfig(
            base_model=str(tmp_path / "llama"), attention=attention, **SHORT | {"use_lora": False}
        )
        assert load_policy(config).model.config._attn_implementation == expected
