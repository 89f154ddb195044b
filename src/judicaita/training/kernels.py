"""Operators in C++ for processors, each beside its equal in plain operations.

They are built at first use, once for each machine and release of torch, and kept where torch keeps
its extensions. Where nothing can build them the plain operations serve, slower and equal up to
rounding.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import functional

_SOURCE = Path(__file__).with_name("kernels.cpp")

_FLAGS = {
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma", "-mf16c"),
}
"""For a compiler, by what torch calls the processor."""


def weigh_(scores: Tensor, place: int, window: int | None, softcap: float | None) -> Tensor:
    """Make weights of scores, in place.

    Args:
        scores: [..., R, T] of queries and keys, contiguous; over the cap where there is one.
        place: Of the first query among the keys. Each next one stands one further, and sees what
            stands before it and itself.
        window: As many keys as a query sees, itself included.
        softcap: Scores become softcap · tanh(score).

    Returns:
        log Σ exp of the scores, [..., R].
    """
    if softcap is not None:
        scores.tanh_()
    if _is_native(scores):
        log_sum: Tensor = torch.ops.judicaita.weigh_(scores, place, window, softcap)
        return log_sum
    if softcap is not None:
        scores.mul_(softcap)
    scores.masked_fill_(_hidden(scores, place, window), float("-inf"))
    log_sum = scores.logsumexp(-1)
    scores.sub_(log_sum[..., None]).exp_()
    return log_sum


def weigh_backward_(
    scores: Tensor,
    d_weights: Tensor,
    log_sum: Tensor,
    place: int,
    window: int | None,
    softcap: float | None,
) -> None:
    """Make weights of scores again, and gradients of scores of those of weights, both in place."""
    if softcap is not None:
        scores.tanh_()
    if _is_native(scores):
        torch.ops.judicaita.weigh_backward_(scores, d_weights, log_sum, place, window, softcap)
        return
    capped = None
    if softcap is not None:
        capped = scores.clone()
        scores.mul_(softcap)
    scores.masked_fill_(_hidden(scores, place, window), float("-inf"))
    scores.sub_(log_sum[..., None]).exp_()
    d_scores = torch.ops.aten._softmax_backward_data(d_weights, scores, -1, scores.dtype)
    if capped is not None:
        d_scores = torch.ops.aten.tanh_backward(d_scores, capped).mul_(softcap)
    d_weights.copy_(d_scores)


def multiply_few(rows: Tensor, weight_O_I: Tensor, bias_O: Tensor | None) -> Tensor:
    """A linear layer over few rows: each weight comes from memory once.

    With so little to do for a weight the libraries' products, made for many rows, reach a half of
    the memory's speed or less.

    Args:
        rows: [..., I].
        weight_O_I: Contiguous, of the rows' type, or one of them of 16 bits and the other of 32.
        bias_O: Added where there is one; of the weights' type.

    Returns:
        [..., O], of the rows' type; products and sums have 32 bits at least.
    """
    wide = at_least_float32(rows)
    if _is_native(rows):
        found: Tensor = torch.ops.judicaita.multiply_few(wide.contiguous(), weight_O_I, bias_O)
        return found.to(rows.dtype)
    bias_O = None if bias_O is None else bias_O.to(wide.dtype)
    return functional.linear(wide, weight_O_I.to(wide.dtype), bias_O).to(rows.dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """The same numbers, in 32 bits where they have fewer."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def attend_next(
    query_R_H_D: Tensor,
    key_R_K_D: Tensor,
    value_R_K_D: Tensor,
    prompt_keys_K_D_S: Tensor,
    prompt_values_K_S_D: Tensor,
    own_keys_N_K_D_C: Tensor,
    own_values_N_K_C_D: Tensor,
    starts_R: Tensor,
    lengths_R: Tensor,
    slots_R: Tensor,
    place: int,
    window: int | None,
    scaling: float,
    softcap: float | None,
) -> Tensor:
    """What one more token of each row sees; its key and value are put among the row's own.

    It is there in C++ alone: without it a row's caches have to be whole.

    Args:
        query_R_H_D: Of the token.
        key_R_K_D: Of the token.
        value_R_K_D: Of the token.
        prompt_keys_K_D_S: Of all prompts, one behind the other.
        prompt_values_K_S_D: The same.
        own_keys_N_K_D_C: Of what rows have behind their prompts; changed.
        own_values_N_K_C_D: The same.
        starts_R: Where among the prompts each row's begins; int64, as the next two.
        lengths_R: Of each row's prompt.
        slots_R: Where among the own caches each row's stand.
        place: Of the token behind the prompt, for all rows the same.
        window: As many keys as a query sees, itself included.
        scaling: Of products of queries and keys.
        softcap: Scores become softcap · tanh(score / softcap).

    Returns:
        [R, H, D].
    """
    seen_R_H_D: Tensor = torch.ops.judicaita.attend_next(
        *(query_R_H_D, key_R_K_D, value_R_K_D, prompt_keys_K_D_S, prompt_values_K_S_D),
        *(own_keys_N_K_D_C, own_values_N_K_C_D, starts_R, lengths_R, slots_R),
        *(place, window, scaling, softcap),
    )
    return seen_R_H_D


def rms_norm(x: Tensor, weight_D: Tensor, eps: float, offset: float) -> Tensor:
    """x / √(mean of x² + eps) · (offset + weight), over the last dimension D; differentiable.

    There in C++ alone, for float32 and float64. What it keeps for the backward pass is x and a
    number for each row, where the modules keep three tensors of x's size.
    """
    found: Tensor
    if torch.is_grad_enabled():
        found = _RMSNorm.apply(x, weight_D, eps, offset)  # type: ignore[no-untyped-call]
    else:  # without the cost of a node, which is that of the operator
        found, _ = torch.ops.judicaita.rms_norm(x.contiguous(), weight_D, eps, offset)
    return found


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, weight, eps, offset = arguments
        x = x.contiguous()
        found, inverse = torch.ops.judicaita.rms_norm(x, weight, eps, offset)
        ctx.save_for_backward(x, weight, inverse)
        ctx.offset = offset
        result: Tensor = found
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        d_found = gradients[0].contiguous()
        d_x = torch.ops.judicaita.rms_norm_backward(d_found, x, weight, inverse, ctx.offset)
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = (d_found * x * inverse[..., None]).flatten(0, -2).sum(0)
        return d_x, d_weight, None, None


def use_large_pages(tensors: Iterable[Tensor]) -> None:
    """Put tensors on pages of two MiB where the system has them.

    Generation reads all weights for every token. With pages of four KiB it waits for addresses to
    be looked up, longest in a virtual machine, which has to look up each one twice.
    """
    own = [x for x in tensors if x.device.type == "cpu"]
    if not own or not is_built():
        return
    spans: list[list[int]] = []
    for first, last in sorted((x.data_ptr(), x.data_ptr() + x.nbytes) for x in own):
        # What stands closely together shares pages, and is told as one.
        if spans and first - spans[-1][1] < _LARGE_PAGE:
            spans[-1][1] = max(spans[-1][1], last)
        else:
            spans.append([first, last])
    for first, last in spans:
        torch.ops.judicaita.use_large_pages(first, last)


_LARGE_PAGE = 1 << 21


def _hidden(scores: Tensor, place: int, window: int | None) -> Tensor:
    """[R, T]: what a query must not see."""
    rows, keys = scores.shape[-2:]
    query_R = torch.arange(place, place + rows, device=scores.device)
    distance_R_T = query_R[:, None] - torch.arange(keys, device=scores.device)
    hidden_R_T = distance_R_T < 0
    return hidden_R_T if window is None else hidden_R_T | (distance_R_T >= window)


def _is_native(x: Tensor) -> bool:
    return x.device.type == "cpu" and is_built()


@cache
def is_built() -> bool:
    """Whether the operators in C++ are there; the first call builds or loads them."""
    try:
        torch.ops.load_library(_build())
    # No compiler, one that fails, no place to write, a library that doesn't fit.
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        told = [line for line in lines if "error" in line] or lines
        warnings.warn(
            f"the operators in C++ can't be built ({told[0] if told else type(error).__name__}), "
            "so that plain ones take their place: slower, equal; a C++ compiler mends it.",
            stacklevel=2,
        )
        return False
    return True


def _build() -> Path:
    """The library, compiled unless it lies there: about ten seconds."""
    from torch.utils import cpp_extension

    processor = torch.backends.cpu.get_cpu_capability()
    defined = (f"-DCPU_CAPABILITY={processor}", f"-DCPU_CAPABILITY_{processor}")
    flags = ["-O3", *_FLAGS[processor], *defined] if processor in _FLAGS else ["-O3"]
    compiler = cpp_extension.get_cxx_compiler()
    recipe = "\n".join([_SOURCE.read_text(), torch.__version__, compiler, *flags])
    name = f"judicaita_{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root())
    root.mkdir(parents=True, exist_ok=True)
    library = root / f"{name}.so"
    # Goes when its process is killed, where torch's own lock would make the next one wait for ever.
    with FileLock(root / f"{name}.lock"):
        if not library.exists():
            half = library.with_suffix(".half")
            includes = (f"-I{path}" for path in cpp_extension.include_paths())
            libraries = (f"-L{path}" for path in cpp_extension.library_paths())
            command = [compiler, "-std=c++20", "-shared", "-fPIC", *flags, *includes, str(_SOURCE)]
            command += ["-o", str(half), *libraries, "-ltorch_cpu", "-lc10"]
            subprocess.run(command, check=True, capture_output=True, text=True)
            half.replace(library)
    return library
