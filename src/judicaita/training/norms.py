"""RMSNorm of the known architectures as one operator, in place of the modules' ten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from judicaita.training import kernels
from judicaita.training.forwards import replaced_forwards

_OFFSETS = {
    **dict.fromkeys(("Gemma2RMSNorm", "Gemma3RMSNorm"), 1.0),
    **dict.fromkeys(("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"), 0.0),
}
"""What is added to the weights, by transformers' classes."""


@contextmanager
def fused_norms(model: nn.Module) -> Iterator[None]:
    """Within it `kernels.rms_norm` takes float32 and bfloat16 on a processor, in 32 bits as the
    modules do; all else is as ever."""
    found = ((module, _OFFSETS.get(type(module).__name__)) for module in model.modules())
    with replaced_forwards(
        (module, partial(_normalise, module, offset))
        for module, offset in found
        if offset is not None and kernels.is_built()
    ):
        yield


def _normalise(module: nn.Module, offset: float, x: Tensor) -> Tensor:
    weight: Tensor = module.weight  # type: ignore[assignment]
    if x.device.type != "cpu" or {x.dtype, weight.dtype} - {torch.float32, torch.bfloat16}:
        found: Tensor = type(module).forward(module, x)
        return found
    eps: float = module.eps if hasattr(module, "eps") else module.variance_epsilon  # type: ignore[assignment]
    return kernels.rms_norm(x.float(), weight.float(), eps, offset).to(x.dtype)
