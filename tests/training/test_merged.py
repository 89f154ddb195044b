"""Generation's linear layers against the model's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from judicaita.training import kernels
from judicaita.training.policy import Policy, quietly
from judicaita.training.rollouts.merged import FEW, merged

MakePolicy = Callable[..., Policy]
IDS = torch.arange(40, 40 + FEW + 6)


def adapted(make_policy: MakePolicy, **lora: Any) -> Any:
    """A model whose adapter does something."""
    lora = {"target_modules": ["q_proj", "down_proj"], **lora}
    config = LoraConfig(task_type="CAUSAL_LM", r=4, **lora)
    torch.manual_seed(0)
    with quietly():
        model = get_peft_model(make_policy("qwen2").model, config).eval()  # with biases
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3, generator=generator)
    return model


@torch.no_grad()
def logits(model: Any, tokens: int) -> torch.Tensor:
    return model(IDS[None, :tokens], use_cache=False).logits.double()


@pytest.mark.parametrize("tokens", [1, 8, FEW, FEW + 6])
@pytest.mark.parametrize("built", [True, False], ids=["C++", "plain"])
def test_the_same_logits(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch, tokens: int, built: bool
) -> None:
    assert kernels.is_built(), "the tests need a C++ compiler"
    monkeypatch.setattr(kernels, "is_built", lambda: built)
    model = adapted(make_policy)
    expected = logits(model, tokens)
    with model.disable_adapter():
        assert (logits(model, tokens) - expected).abs().max() > 0.05
    with merged(model):
        found = logits(model, tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert torch.equal(logits(model, tokens), expected)


def test_the_weights_do_not_drift(make_policy: MakePolicy) -> None:
    model = adapted(make_policy)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for _ in range(20):
        with merged(model):
            logits(model, 3)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_error_leaves_the_model_as_it_was(make_policy: MakePolicy) -> None:
    model = adapted(make_policy)
    with pytest.raises(KeyboardInterrupt), merged(model):
        raise KeyboardInterrupt
    assert not any("forward" in vars(module) for module in model.modules())


def replaced(model: nn.Module) -> set[str]:
    with merged(model):
        return {name for name, module in model.named_modules() if "forward" in vars(module)}


def test_which_layers_are_replaced(make_policy: MakePolicy) -> None:
    found = replaced(adapted(make_policy))
    assert {name.rpartition(".")[2] for name in found} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
    }


@pytest.mark.parametrize(
    "lora", [{"use_dora": True}, {"lora_bias": True, "target_modules": ["q_proj"]}]
)
def test_more_than_two_matrices_stay_as_they_are(make_policy: MakePolicy, lora: Any) -> None:
    model = adapted(make_policy, **lora)
    expected = logits(model, 8)
    targets = tuple(model.peft_config["default"].target_modules)
    assert not {name for name in replaced(model) if name.endswith(targets)}
    with merged(model):
        torch.testing.assert_close(logits(model, 8), expected, rtol=0, atol=1e-5)


def test_float16_stays_as_it_is(make_policy: MakePolicy) -> None:
    assert not replaced(adapted(make_policy).half())


def test_weights_of_16_bits_are_merged_in_32(make_policy: MakePolicy) -> None:
    """Few rows round as little as the layers do by themselves."""
    model = adapted(make_policy)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.bfloat16().float()
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = logits(model, 8)
        with merged(model):
            found, many = logits(model, 8), logits(model, FEW + 6)
        assert torch.equal(many, logits(model, FEW + 6)), "many rows go through the layers"
    exact = logits(model.double(), 8)
    assert float((plain - exact).norm() / exact.norm()) < 0.02
    assert float((found - exact).norm() / exact.norm()) < 0.02
    assert float((plain - found).norm()) > 0


def test_an_adapter_that_is_off_stays_off(make_policy: MakePolicy) -> None:
    model = adapted(make_policy)
    with model.disable_adapter():
        expected = logits(model, 8)
        with merged(model):
            torch.testing.assert_close(logits(model, 8), expected, rtol=0, atol=1e-5)
