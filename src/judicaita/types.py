"""What travels between the rooms: frozen, torch-free records.

A `Sample` is a legal question; a rollout engine answers it with G `Completion`s; rewards give each
one a `RewardResult`; a `Group` holds all of it together on the way to the loss.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Message = Mapping[str, str]
"""One chat turn: ``{"role": "system" | "user" | "assistant", "content": text}``."""

Prompt = str | tuple[Message, ...]
"""Plain text, or the turns of a conversation."""

FinishReason = Literal["stop", "stop_string", "length"]
"""``stop``: the model ended the text with an EOS token; ``stop_string``: it wrote a text that ends
it; ``length``: the token limit cut it."""


@dataclass(frozen=True)
class Sample:
    """One question with what is needed to grade an answer to it."""

    prompt: Prompt
    reference: str
    """The gold answer, as short as the task states it: ``Yes``, a label, an amount, a passage."""
    trace: str = ""
    """A worked solution ("Step 1: … Conclusion: …"), if known; supervised runs learn it."""
    task: str = ""
    """The family or data set the sample belongs to, for figures per task."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able per-sample columns; handed to every reward as keyword arguments."""
    authorities: tuple[str, ...] = ()
    """The law that decides it: statutes, restatements, cases."""
    license: str = ""
    source: str = ""

    @property
    def id(self) -> str:
        """First 16 hexadecimal digits of SHA-256 of prompt and reference: equal text, equal id."""
        content = json.dumps(
            [self.prompt, self.reference], ensure_ascii=False, sort_keys=True, default=dict
        )
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Completion:
    """What an engine sampled for one prompt. Token ids are never decoded and encoded again."""

    token_ids: tuple[int, ...]
    """Includes the EOS token when `finish_reason` is ``stop``."""
    logprobs: tuple[float, ...]
    """Nats, one per token, of the distribution that was sampled from."""
    finish_reason: FinishReason
    policy_version: int
    """Number of optimizer updates behind the weights that sampled it."""
    uncut_logprobs: tuple[float, ...] | None = None
    """The same of the whole distribution at that temperature; None where `logprobs` are these."""

    @property
    def full_logprobs(self) -> tuple[float, ...]:
        """Of the whole distribution, whatever was drawn from."""
        return self.logprobs if self.uncut_logprobs is None else self.uncut_logprobs


@dataclass(frozen=True)
class RewardResult:
    """A score in [0, 1] by convention, with what led to it.

    ``score`` is None when a reward abstains, which it may do only for a property of the sample
    (no reference, say), never for one of the completion: then all of a group abstain together.
    """

    score: float | None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """One sample and its G completions, filled in from left to right as the step goes on."""

    sample: Sample
    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    texts: tuple[str, ...]
    """The completions decoded, without special tokens; what rewards and people read."""
    results: tuple[RewardResult, ...] = ()
    penalties: tuple[float, ...] = ()
    """What each completion loses of its score before advantages; () where none can."""
    advantages: tuple[float, ...] = ()
    step_returns: tuple[tuple[float, ...], ...] = ()
    """One number a reasoning step of each completion: what its tokens earn beside the advantage.
    () unless steps earn credit of their own."""
    has_signal: bool = False
    """False when the rewards, and the credits of steps, are equal within tolerance: nothing to
    learn from this group."""
    cancels: bool = False
    """True when parts of the reward differ and their sum does not."""
