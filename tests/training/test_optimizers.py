"""Which parameters each optimizer moves, and how far Muon moves a matrix, by hand."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.optim import Optimizer

from judicaita.errors import ConfigError
from judicaita.training.config import TrainingConfig
from judicaita.training.optimizers import make_optimizers
from judicaita.training.policy import Policy

# peft's own use of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

MakePolicy = Callable[..., Policy]
RATE = 0.01


def optimizers_of(policy: Policy, **settings: Any) -> dict[str, Optimizer]:
    return make_optimizers(policy, TrainingConfig(**{"learning_rate": RATE, **settings}))


def names_of(policy: Policy, optimizer: Optimizer) -> set[str]:
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name for name, p in policy.trainable() if id(p) in moved}


def short(names: set[str]) -> set[str]:
    """Without the number of the layer, and what stands before it."""
    return {re.sub(r"^.*\.(\d+)\.", "", name) for name in names}


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2", "gpt2"])
def test_muon_has_the_matrices_of_hidden_layers(make_policy: MakePolicy, architecture: str) -> None:
    policy = make_policy(architecture)
    found = optimizers_of(policy, optimizer="muon")
    assert list(found) == ["muon", "adamw"]
    matrices, others = (names_of(policy, optimizer) for optimizer in found.values())
    assert matrices | others == {name for name, _ in policy.trainable()}
    assert not matrices & others
    hidden = {
        "qwen2": {f"self_attn.{which}_proj.weight" for which in "qkvo"}
        | {f"mlp.{which}_proj.weight" for which in ("gate", "up", "down")},
        "gpt2": {
            *("attn.c_attn.weight", "attn.c_proj.weight"),
            *("mlp.c_fc.weight", "mlp.c_proj.weight"),
        },
    }
    assert short(matrices) == hidden.get(architecture, hidden["qwen2"])


def test_muon_has_the_matrices_of_lora_but_for_those_of_tokens(make_policy: MakePolicy) -> None:
    policy = make_policy("qwen2")
    modules = ["q_proj", "embed_tokens", "lm_head"]
    policy.model = get_peft_model(policy.model, LoraConfig(r=2, target_modules=modules))  # type: ignore[assignment]
    found = optimizers_of(policy, optimizer="muon")
    assert short(names_of(policy, found["muon"])) == {
        "self_attn.q_proj.lora_A.default.weight",
        "self_attn.q_proj.lora_B.default.weight",
    }
    assert {name.split(".lora")[0].split(".")[-1] for name in names_of(policy, found["adamw"])} == {
        *("embed_tokens", "lm_head")
    }


def test_where_there_is_nothing_else_muon_is_alone(make_policy: MakePolicy) -> None:
    policy = make_policy("qwen2")
    policy.model = get_peft_model(policy.model, LoraConfig(r=2, target_modules=["q_proj"]))  # type: ignore[assignment]
    assert list(optimizers_of(policy, optimizer="muon")) == ["muon"]


def newton_schulz(sigma: float) -> float:
    """What becomes of a singular value: five times σ → 3.4445σ − 4.7750σ³ + 2.0315σ⁵."""
    for _ in range(5):
        sigma = 3.4445 * sigma - 4.7750 * sigma**3 + 2.0315 * sigma**5
    return sigma


def test_muon_s_first_update_by_hand(make_policy: MakePolicy) -> None:
    """A gradient whose r singular values are equal keeps its directions: as a whole it is scaled to
    norm 1, so that each is 1/√r, and then each goes the same way."""
    assert newton_schulz(1.0) == pytest.approx(0.696436, rel=1e-5)
    policy = make_policy("qwen2")
    muon = optimizers_of(policy, optimizer="muon", weight_decay=0.5)["muon"]
    matrices = names_of(policy, muon)
    generator = torch.Generator().manual_seed(0)
    shapes = set()
    for scale, (name, parameter) in enumerate(policy.trainable(), start=1):
        if name not in matrices:
            continue
        rows, columns = parameter.shape
        rank = min(rows, columns)
        tall = torch.randn(max(rows, columns), rank, generator=generator, dtype=torch.float64)
        directions = torch.linalg.qr(tall).Q
        directions = directions if rows > columns else directions.T
        parameter.grad = (scale * directions).float()
        step = RATE * 0.2 * math.sqrt(max(rows, columns)) * newton_schulz(1 / math.sqrt(rank))
        decayed = parameter.detach().double() * (1 - RATE * 0.5)
        muon.step()
        parameter.grad = None
        moved = decayed - parameter.detach()
        # It computes in bfloat16, which rounds to 8 bits, and does so in five turns.
        assert float((moved * directions).sum()) / rank == pytest.approx(step, rel=0.03)
        assert float((moved - step * directions).norm()) < 0.05 * step * math.sqrt(rank)
        shapes.add((rows > columns) - (rows < columns))
    assert shapes == {-1, 0, 1}


def test_muon_s_update_is_as_large_as_adamw_s(make_policy: MakePolicy) -> None:
    """Root mean square 0.2 · rate for a gradient of full rank, whatever the shape."""
    policy = make_policy("qwen2")
    muon = optimizers_of(policy, optimizer="muon", weight_decay=0.0)["muon"]
    parameters = muon.param_groups[0]["params"]
    before = [p.detach().clone() for p in parameters]
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    muon.step()
    for parameter, old in zip(parameters, before, strict=True):
        size = float((parameter.detach() - old).pow(2).mean().sqrt())
        assert size == pytest.approx(0.2 * RATE, rel=0.25)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_matrices_decay_whoever_moves_them(make_policy: MakePolicy, optimizer: str) -> None:
    policy = make_policy("qwen2")
    for each in optimizers_of(policy, optimizer=optimizer, weight_decay=0.3).values():
        for group in each.param_groups:
            dimensions = {parameter.ndim for parameter in group["params"]}
            assert dimensions == ({2} if group["weight_decay"] == 0.3 else {1})


def test_beta2_is_adamw_s(make_policy: MakePolicy) -> None:
    for optimizer in ("adamw", "muon"):
        found = optimizers_of(make_policy("qwen2"), optimizer=optimizer, adam_beta2=0.95)
        assert found["adamw"].param_groups[0]["betas"] == (0.9, 0.95)


def test_eight_bits_are_bitsandbytes_s(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made as AdamW is; a class of torch's stands in for the library, which needs CUDA."""

    class AdamW8bit(torch.optim.AdamW): ...

    stand_in = SimpleNamespace(optim=SimpleNamespace(AdamW8bit=AdamW8bit))
    monkeypatch.setitem(sys.modules, "bitsandbytes", stand_in)
    policy = make_policy("qwen2")
    found = optimizers_of(policy, optimizer="adamw_8bit", weight_decay=0.3)
    assert list(found) == ["adamw_8bit"]
    assert isinstance(found["adamw_8bit"], AdamW8bit)
    assert names_of(policy, found["adamw_8bit"]) == {name for name, _ in policy.trainable()}
    plain = optimizers_of(policy, weight_decay=0.3)["adamw"]
    assert found["adamw_8bit"].state_dict() == plain.state_dict()


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ConfigError, match="^optimizer='lion': should be 'adamw', 'adamw_8bit' or"):
        TrainingConfig(optimizer="lion")
