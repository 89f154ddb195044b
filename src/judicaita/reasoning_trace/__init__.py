"""An answer, explained. Public names load on first use: only the generator needs torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judicaita.reasoning_trace.generator import ReasoningTraceGenerator
    from judicaita.reasoning_trace.trace import ModelInfo, ReasoningStep, ReasoningTrace

_HOMES = {
    "ModelInfo": "trace",
    "ReasoningStep": "trace",
    "ReasoningTrace": "trace",
    "ReasoningTraceGenerator": "generator",
}

__all__ = ["ModelInfo", "ReasoningStep", "ReasoningTrace", "ReasoningTraceGenerator"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
