"""Where tensors live and in what precision they are computed."""

from __future__ import annotations

import contextlib
import gc
import os
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy
import torch
from torch import Tensor, nn

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

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of every forward pass; does nothing at float32."""
        if not self.mixed:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute)

    @property
    def cuts_caches(self) -> bool:
        """False where a cache cannot be cut to a sliding window and is kept whole.

        Cutting slices from ``-window``, and XLA refuses that while the cache is shorter.
        """
        return self.device.type != "xla"

    @property
    def recomputes(self) -> bool:
        """False where torch.utils.checkpoint does not know the device."""
        return self.device.type != "xla"

    def flush(self) -> None:
        """Compute what was asked for so far; does nothing where that has happened already.

        XLA only records operations and runs them as one graph. A value read without this runs what
        it depends on and keeps nothing else of it: the next one read runs the same once more, and
        where tensors were changed in place it may find their memory taken, and be wrong.
        """
        if self.device.type == "xla":
            import torch_xla

            torch_xla.sync()

    def savable(self, model: nn.Module) -> dict[str, Tensor] | None:
        """The state of a model to save it from; None where it can be saved as it is.

        safetensors copies from addresses of memory, and tensors on XLA have none.
        """
        if self.device.type != "xla":
            return None
        moved: dict[int, Tensor] = {}  # tied weights stay one tensor, to be saved once
        state = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            if id(tensor) not in moved:
                moved[id(tensor)] = tensor.detach().cpu()
            state[name] = moved[id(tensor)]
        return state

    def free_memory(self) -> None:
        """Give what the allocator keeps for later back to the device."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def generator(self, seed: int) -> torch.Generator:
        """A generator for sampling, on the device where tokens are to be drawn."""
        # torch has no generators on XLA, and no float64 to draw in on MPS.
        own = torch.device("cpu") if self.device.type in ("xla", "mps") else self.device
        return torch.Generator(own).manual_seed(seed)

    def seed(self, seed: int) -> None:
        """Seed the global generators: torch's, from which new adapters and dropout are drawn, and
        those of Python and NumPy, which a reward may draw from."""
        torch.manual_seed(seed)
        random.seed(seed)
        numpy.random.seed(seed)
        if self.device.type == "xla":
            # torch.manual_seed reaches every device but this one.
            _xla_model().set_rng_state(seed)

    def rng_state(self) -> dict[str, Any]:
        """State of the global generators."""
        algorithm, keys, *rest = cast("tuple[Any, ...]", numpy.random.get_state())
        state: dict[str, Any] = {
            "torch_rng": torch.get_rng_state(),
            "python_rng": random.getstate(),
            "numpy_rng": (algorithm, keys.tolist(), *rest),
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        elif self.device.type == "mps":
            state["mps_rng"] = torch.mps.get_rng_state()
        elif self.device.type == "xla":
            state["xla_rng"] = _xla_model().get_rng_state()
        return state

    def set_rng_state(self, state: Mapping[str, Any]) -> None:
        """Take `rng_state` back; that of a device other than this one is passed over."""
        torch.set_rng_state(state["torch_rng"])
        version, internal, gauss = state["python_rng"]
        random.setstate((version, tuple(internal), gauss))
        numpy.random.set_state(tuple(state["numpy_rng"]))
        if self.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        elif self.device.type == "mps" and "mps_rng" in state:
            torch.mps.set_rng_state(state["mps_rng"])
        elif self.device.type == "xla" and "xla_rng" in state:
            _xla_model().set_rng_state(state["xla_rng"])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: torch has a class of its own for it on CUDA alone."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = (
        *("can't allocate memory", "not enough memory", "out of memory"),
        *("CUBLAS_STATUS_ALLOC_FAILED", "RESOURCE_EXHAUSTED"),
    )
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def use_threads(count: int | None) -> None:
    """Compute on the CPU in so many threads; None leaves the number as it is."""
    if count is not None:
        torch.set_num_threads(count)


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
    remedy = (
        'Install it with `pip install "judicaita[tpu]"` in an environment of its own, since it '
        "pins its own torch."
    )
    chosen = os.environ.get("PJRT_DEVICE")
    try:
        import torch_xla
        import torch_xla.runtime

        device: torch.device = torch_xla.device()
    except ModuleNotFoundError:
        raise ConfigError(f"device=tpu: torch_xla is not installed. {remedy}") from None
    except ImportError as error:
        raise ConfigError(
            f"device=tpu: torch_xla does not fit this torch ({error}). {remedy}"
        ) from error
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"device=tpu: torch_xla finds no device ({str(error).splitlines()[0]}). Run it on a "
            "TPU machine, or set device=auto."
        ) from error
    if chosen is None and torch_xla.runtime.device_type() != "TPU":
        # torch_xla falls back to the CPU and notes that in the environment, as if one had asked.
        os.environ.pop("PJRT_DEVICE", None)
        raise ConfigError(
            "device=tpu: torch_xla finds no TPU here. Set device=auto, or PJRT_DEVICE=CPU in the "
            "environment to try XLA without one."
        )
    return device


def _xla_model() -> Any:
    import torch_xla.core.xla_model

    return torch_xla.core.xla_model


def _pick_precision(device: torch.device, precision: str) -> torch.dtype:
    if precision == "auto":
        if device.type == "xla":
            return torch.bfloat16
        if device.type != "cuda":
            return torch.float32
        # Compute capability 8.0 (Ampere) brought bf16 units; older cards only emulate them.
        native = torch.cuda.get_device_capability(device)[0] >= 8 or torch.version.hip is not None
        return torch.bfloat16 if native else torch.float16
    if precision == "fp16" and device.type == "xla":
        # Its autocast would warn and go on in float32.
        raise ConfigError("precision=fp16: XLA has no such autocast. Set precision=bf16 or fp32.")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
