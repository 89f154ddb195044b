"""Where tensors live and in what precision they are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from judicaita.errors import ConfigError


@dataclass(frozen=True)
class Placement:
    """A device and the precision of the forward pass on it."""

    device: torch.device
    compute: torch.dtype
    """float32, bfloat16 or float16."""

    @property
    def mixed(self) -> bool:
        """True when the forward pass runs under autocast."""
        return self.compute != torch.float32

    def autocast(self) -> torch.autocast:
        """The context of every forward pass; does nothing at float32."""
        return torch.autocast(self.device.type, dtype=self.compute, enabled=self.mixed)


def place(device: str, precision: str) -> Placement:
    """Resolve ``auto`` and refuse what this machine lacks, before a model is loaded."""
    chosen = _pick_device(device)
    return Placement(chosen, _pick_precision(chosen, precision))


def _pick_device(name: str) -> torch.device:
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    if name == "tpu":
        return _tpu()
    available: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if name in available and not available[name]():
        raise ConfigError(
            f"device={name}: torch finds no such device here. Set device=auto, or install a torch "
            "build that supports it."
        )
    return torch.device(name)


def _tpu() -> torch.device:
    try:
        import torch_xla
    except ImportError:
        raise ConfigError(
            "device=tpu: torch_xla is not installed. Install it with `pip install "
            '"judicaita[tpu]"` in an environment of its own, since it pins its own torch.'
        ) from None
    device: torch.device = torch_xla.device()
    return device


def _pick_precision(device: torch.device, precision: str) -> torch.dtype:
    if precision == "auto":
        if device.type == "xla":
            return torch.bfloat16
        if device.type != "cuda":
            return torch.float32
        # Compute capability 8.0 (Ampere) brought bf16 units; older cards only emulate them.
        native = torch.cuda.get_device_capability(device)[0] >= 8 or torch.version.hip is not None
        return torch.bfloat16 if native else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
