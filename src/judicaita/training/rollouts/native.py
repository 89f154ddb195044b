"""Generation with the policy's own modules, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from judicaita.errors import RolloutError
from judicaita.training.kernels import use_large_pages
from judicaita.training.policy import Policy
from judicaita.training.prefill import KeptPrefill
from judicaita.training.rollouts.base import SamplingParams
from judicaita.training.rollouts.decoding import Decoder, decoder_of
from judicaita.training.rollouts.merged import merged
from judicaita.training.rollouts.sampling import sample_tokens
from judicaita.types import Completion, FinishReason


class NativeEngine:
    """The engine that is always there; it shares the policy's weights, so `sync` does nothing."""

    def __init__(
        self,
        policy: Policy,
        pulse: Callable[[], None] = lambda: None,
        kept: KeptPrefill | None = None,
    ) -> None:
        """``pulse`` is called before every token of a batch; what it raises ends the batch.
        ``kept`` is where an update finds what generation has forwarded already."""
        self.policy, self.pulse, self.kept = policy, pulse, kept
        use_large_pages(policy.model.parameters())

    def generate(
        self, prompts: Sequence[tuple[int, ...]], n: int, sampling: SamplingParams
    ) -> list[tuple[Completion, ...]]:
        """``n`` completions of each prompt; equal seeds, weights and prompts give equal tokens."""
        if not prompts:
            return []
        self._refuse_too_long(max(map(len, prompts)), sampling.max_tokens)
        with self.policy.inference():
            decoder = decoder_of(self.policy, prompts, n)
            first_R_V = None
            if self.kept is not None and self.kept.wants(decoder, n):
                first_R_V = self.kept.forward(decoder)
            with merged(self.policy.model):
                if first_R_V is None:
                    first_R_V = decoder.prefill()
                decoding = _Decoding(self.policy, decoder, len(prompts) * n, sampling)
                rows = decoding.run(first_R_V, self.pulse)
        return [tuple(rows[i * n : (i + 1) * n]) for i in range(len(prompts))]

    def _refuse_too_long(self, prompt: int, completion: int) -> None:
        positions = self.policy.max_positions
        if positions is not None and prompt + completion > positions:
            raise RolloutError(
                f"a prompt of {prompt} tokens and {completion} to generate exceed the model's "
                f"{positions} positions, and prompts are never cut. Shorten the prompt, or lower "
                "generation_max_length."
            )

    def sync(self) -> None:
        """The weights are the policy's own."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class _Row:
    """One completion on its way."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    uncut_logprobs: list[float] = field(default_factory=list)
    reason: FinishReason = "length"


class _Decoding:
    """One batch from its first token to its last. R live rows, oldest first."""

    def __init__(
        self, policy: Policy, decoder: Decoder, rows: int, sampling: SamplingParams
    ) -> None:
        self.policy, self.decoder, self.sampling = policy, decoder, sampling
        self.eos = policy.eos_ids
        self.generator = policy.placement.generator(sampling.seed)
        self.rows = [_Row() for _ in range(rows)]

    def run(self, logits_R_V: Tensor, pulse: Callable[[], None]) -> list[Completion]:
        live = list(range(len(self.rows)))
        for place in range(1, self.sampling.max_tokens + 1):
            pulse()
            drawn = sample_tokens(
                logits_R_V.to(self.generator.device), self.sampling, self.generator
            )
            self._append(live, *drawn)
            tokens_R = drawn[0]
            going = [r for r, index in enumerate(live) if self.rows[index].reason == "length"]
            if not going or place == self.sampling.max_tokens:
                break
            if len(going) < len(live) and self.decoder.keep(going):
                tokens_R = tokens_R[going]
                live = [live[r] for r in going]
            logits_R_V = self.decoder.step(tokens_R)
        return [self._completion(row) for row in self.rows]

    def _append(
        self, live: list[int], tokens_R: Tensor, logprobs_R: Tensor, uncut_R: Tensor
    ) -> None:
        drawn = zip(live, tokens_R.tolist(), logprobs_R.tolist(), uncut_R.tolist(), strict=True)
        for index, token, logprob, uncut in drawn:
            row = self.rows[index]
            if row.reason != "length":  # it waits for others to leave with
                continue
            row.token_ids.append(token)
            row.logprobs.append(logprob)
            row.uncut_logprobs.append(uncut)
            if token in self.eos:
                row.reason = "stop"
            elif self._has_stop_string(row):
                row.reason = "stop_string"

    def _has_stop_string(self, row: _Row) -> bool:
        stop = self.sampling.stop_strings
        if not stop:
            return False
        text = self.policy.decode(row.token_ids)
        return any(string in text for string in stop)

    def _completion(self, row: _Row) -> Completion:
        return Completion(
            tuple(row.token_ids),
            tuple(row.logprobs),
            row.reason,
            self.policy.version,
            tuple(row.uncut_logprobs) if self.sampling.cuts else None,
        )
