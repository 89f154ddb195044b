"""Legal reasoning for small language models: train with GRPO, evaluate, explain.

The rooms, in the order a question walks through them: `judicaita.legal` (where it comes from),
`judicaita.training` (how the model learns from it), `judicaita.reasoning_trace` (how an answer is
explained). Importing this package loads none of them, and no torch.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> str:
    """Read the version from the installed package's metadata when it is first asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("judicaita")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
