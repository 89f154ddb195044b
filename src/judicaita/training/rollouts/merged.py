"""Linear layers as generation runs them: LoRA's products merged, few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from judicaita.training.forwards import replaced_forwards
from judicaita.training.kernels import at_least_float32, is_built, multiply_few

FEW = 32
"""Rows up to which `multiply_few` is the faster one."""


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Within it LoRA's matrices are part of the weights: of copies that the context alone holds.

    In place, what merging adds and what taking it back subtracts are each rounded, and the weights
    drift. Copies have 32 bits at least, so that nothing is rounded that the training pass sees; of
    weights of 16 bits they serve few rows, and many go through the layer as it is. Adapters that
    are more than a product of two matrices stay as they are.
    """
    with replaced_forwards(
        (module, partial(_multiply, module, weight_O_I, bias_O))
        for module, weight_O_I, bias_O in _linears(model)
    ):
        yield


def _multiply(module: nn.Module, weight_O_I: Tensor, bias_O: Tensor | None, x: Tensor) -> Tensor:
    if x.numel() <= FEW * x.shape[-1]:
        return multiply_few(x, weight_O_I, bias_O)
    if x.dtype == weight_O_I.dtype == torch.float32 or x.dtype == torch.float64:
        return functional.linear(x, weight_O_I, bias_O)
    found: Tensor = type(module).forward(module, x)
    return found


def _linears(model: nn.Module) -> Iterator[tuple[nn.Module, Tensor, Tensor | None]]:
    """Layers to replace, with the weights to multiply by."""
    parts: set[nn.Module] = set()  # of adapters, which run inside of these
    for module in model.modules():
        if hasattr(module, "lora_A"):
            parts.update(module.modules())
            if (weight_O_I := _merged_weight(module)) is not None:
                bias_O: Tensor | None = cast("Any", module.base_layer).bias
                yield module, weight_O_I, None if bias_O is None else at_least_float32(bias_O)
        elif type(module) is nn.Linear and module not in parts and _is_known(module):
            yield module, module.weight, module.bias


def _merged_weight(module: nn.Module) -> Tensor | None:
    """None where the layer is to stay as it is."""
    from peft.tuners.lora import Linear

    if (
        type(module) is not Linear
        or type(module.base_layer) is not nn.Linear
        or not _is_known(module.base_layer)
        or module.disable_adapters
        or module.merged
        or module.lora_variant
        or any(module.lora_bias.values())
    ):
        return None
    adapters = [name for name in module.active_adapters if name in module.lora_A]
    weight_O_I = at_least_float32(module.base_layer.weight)
    return sum((module.get_delta_weight(name) for name in adapters), weight_O_I)


def _is_known(linear: nn.Linear) -> bool:
    """Weights that products can be made of: of 16 bits, `multiply_few` has to widen them."""
    types = [torch.float32, torch.float64]
    if linear.weight.device.type == "cpu" and is_built():
        types.append(torch.bfloat16)
    return linear.weight.dtype in types and linear.weight.is_contiguous()
