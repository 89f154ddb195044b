"""The operator against the definition, and against the modules whose place it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from judicaita.training import kernels
from judicaita.training.norms import fused_norms

MakeModel = Callable[..., Any]
ARCHITECTURES = ("gemma2", "gemma3", "llama", "mistral", "qwen2", "qwen3")


@pytest.fixture(autouse=True)
def _built() -> None:
    assert kernels.is_built(), "the tests need a C++ compiler"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_by_hand() -> None:
    """(3, 4) has the mean square 12.5; with eps .5 its root is √13."""
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    weight = torch.tensor([1.0, -2.0], dtype=torch.float64)
    found = kernels.rms_norm(x, weight, 0.5, 1.0)
    assert found[0].tolist() == pytest.approx([3 / 13**0.5 * 2, 4 / 13**0.5 * -1])


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (2, 3, 40)])
def test_gradients_by_differences(shape: tuple[int, ...], offset: float) -> None:
    x, weight = drawn(*shape).requires_grad_(), drawn(shape[-1], seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *given: kernels.rms_norm(*given, 0.1, offset), (x, weight)
    )


def test_a_view_is_taken_as_it_reads() -> None:
    x, weight = drawn(6, 9), drawn(6, seed=1)
    expected = kernels.rms_norm(x.T.contiguous(), weight, 1e-6, 0.0)
    assert torch.equal(kernels.rms_norm(x.T, weight, 1e-6, 0.0), expected)


def norms(model: nn.Module) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in model.named_modules()
        if type(module).__name__.endswith("RMSNorm")
    }


def results(module: nn.Module) -> list[Tensor]:
    """Output and gradients for a large and a small row."""
    weight: Any = module.weight
    x = (drawn(2, len(weight)) * torch.tensor([[30.0], [1e-3]])).float().requires_grad_()
    weight.grad = None
    found = module(x)
    (found * drawn(2, len(weight), seed=2)).sum().backward()
    return [found.detach(), x.grad, weight.grad]  # type: ignore[list-item]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_as_the_modules(make_model: MakeModel, architecture: str) -> None:
    model = make_model(architecture)
    assert len(norms(model)) >= 5
    for module in norms(model).values():
        expected = results(module)
        with fused_norms(model):
            assert "forward" in vars(module)
            found = results(module)
        for one, other in zip(found, expected, strict=True):
            assert float((one - other).norm() / other.norm()) < 1e-6
        assert "forward" not in vars(module)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_16_bits_are_normalised_in_32(make_model: MakeModel, architecture: str) -> None:
    for module in norms(make_model(architecture).bfloat16()).values():
        x = drawn(3, len(module.weight)).bfloat16()  # type: ignore[arg-type]
        expected = module(x)
        with fused_norms(module):
            found = module(x)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found, expected, rtol=2**-7, atol=0)


def test_a_pass_within_a_pass_then_an_error(make_model: MakeModel) -> None:
    model = make_model()
    [first, *_] = norms(model).values()
    with fused_norms(model):
        with fused_norms(model):
            pass
        assert "forward" in vars(first)
    assert "forward" not in vars(first)
    with pytest.raises(KeyboardInterrupt), fused_norms(model):
        raise KeyboardInterrupt
    assert "forward" not in vars(first)


def test_what_stays_with_the_modules(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other types run the module's own code; without a compiler all do."""
    for dtype in (torch.float16, torch.float64):
        [module, *_] = norms(make_model().to(dtype)).values()
        x = drawn(2, len(module.weight)).to(dtype)  # type: ignore[arg-type]
        expected = module(x)
        with fused_norms(module):
            assert torch.equal(module(x), expected)
    monkeypatch.setattr(kernels, "is_built", lambda: False)
    with fused_norms(module):
        assert "forward" not in vars(module)
