"""Linear layers as generation runs them: LoRA's products merged, few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from judicaita.training.kernels import multiply_few

FEW = 32
"""Rows up to which `multiply_few` is the faster one."""


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Within it LoRA's matrices are part of the weights: of copies that the context alone holds.

    In place, what merging adds and what taking it back subtracts are each rounded, and the weights
    drift. Adapters that are more than a product of two matrices, and weights of half precision, in
    which the sum would be rounded to what the training pass never sees, stay as they are.
    """
    replaced = []
    try:
        for module, weight_O_I, bias_O in list(_linears(model)):
            # An attribute of the instance goes before the class's method.
            module.forward = partial(_multiply, weight_O_I, bias_O)
            replaced.append(module)
        yield
    finally:
        for module in replaced:
            del module.forward


def _multiply(weight_O_I: Tensor, bias_O: Tensor | None, x: Tensor) -> Tensor:
    if x.numel() <= FEW * x.shape[-1]:
        return multiply_few(x, weight_O_I, bias_O)
    return functional.linear(x, weight_O_I, bias_O)


def _linears(model: nn.Module) -> Iterator[tuple[nn.Module, Tensor, Tensor | None]]:
    """Layers to replace, with the weights to multiply by."""
    parts: set[nn.Module] = set()  # of adapters, which run inside of these
    for module in model.modules():
        if hasattr(module, "lora_A"):
            parts.update(module.modules())
            if (weight_O_I := _merged_weight(module)) is not None:
                yield module, weight_O_I, cast("Any", module.base_layer).bias
        elif type(module) is nn.Linear and module not in parts and _is_exact(module):
            yield module, module.weight, module.bias


def _merged_weight(module: nn.Module) -> Tensor | None:
    """None where the layer is to stay as it is."""
    from peft.tuners.lora import Linear

    if (
        type(module) is not Linear
        or type(module.base_layer) is not nn.Linear
        or not _is_exact(module.base_layer)
        or module.disable_adapters
        or module.merged
        or module.lora_variant
        or any(module.lora_bias.values())
    ):
        return None
    adapters = [name for name in module.active_adapters if name in module.lora_A]
    return sum((module.get_delta_weight(name) for name in adapters), module.base_layer.weight)


def _is_exact(linear: nn.Linear) -> bool:
    weight = linear.weight
    return weight.dtype in (torch.float32, torch.float64) and weight.is_contiguous()
