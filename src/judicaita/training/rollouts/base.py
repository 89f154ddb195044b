"""The protocol that every rollout engine follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from judicaita.types import Completion


@dataclass(frozen=True)
class SamplingParams:
    """How completions are drawn."""

    max_tokens: int
    temperature: float = 1.0
    """0 is greedy decoding; log-probabilities are then the model's own, at temperature 1."""
    top_p: float = 1.0
    """The smallest set of tokens whose probability reaches top_p is kept (arXiv 1904.09751)."""
    top_k: int = 0
    """As many of the likeliest tokens are kept, and those as likely as the last; 0 keeps all."""
    min_p: float = 0.0
    """Tokens less likely than min_p times the likeliest are left out (arXiv 2407.01082)."""
    stop_strings: tuple[str, ...] = ()
    """A completion ends with the token in whose text one of them is complete."""
    seed: int = 0

    @property
    def cuts(self) -> bool:
        """Whether tokens are drawn from less than the whole distribution."""
        return self.temperature > 0 and (self.top_p < 1 or self.top_k > 0 or self.min_p > 0)


class RolloutEngine(Protocol):
    """Generates completions from the present policy."""

    def generate(
        self, prompts: Sequence[tuple[int, ...]], n: int, sampling: SamplingParams
    ) -> list[tuple[Completion, ...]]:
        """``n`` completions of each prompt, in the order of the prompts."""
        ...

    def sync(self) -> None:
        """Take over the policy's weights after an update."""
        ...

    def close(self) -> None:
        """Free what the engine holds; it is not used afterwards."""
        ...
