"""Learning a worked solution word by word: cross-entropy on the completion's tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from judicaita.errors import DataError
from judicaita.training.algorithms.reduction import token_mean
from judicaita.training.batching import collate
from judicaita.training.optimization import Updater
from judicaita.training.policy import Policy
from judicaita.types import Sample


@dataclass(frozen=True)
class SupervisedStep:
    """Figures of one optimizer step."""

    step: int
    loss: float
    """Nats per completion token."""
    tokens: int
    grad_norm: float
    learning_rate: float


Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt, and of the completion to learn with an EOS at its end."""


def supervised_row(policy: Policy, sample: Sample) -> Row:
    """Tokenize one sample; `DataError` without a worked solution to learn."""
    if not sample.trace:
        raise DataError(
            f"sample {sample.id} ({sample.task or 'no task'}) has no trace, so there is nothing to "
            "learn word by word. Add a column `trace` with a worked solution."
        )
    trace = policy.tokenizer(sample.trace, add_special_tokens=False)["input_ids"]
    return policy.encode(sample.prompt), (*trace, policy.eos_id)


def supervised_step(
    policy: Policy, updater: Updater, rows: Sequence[Row], micro_batch: int
) -> SupervisedStep:
    """One optimizer step on some rows, ``micro_batch`` of them at a time.

    The loss is the mean over all completion tokens of the step, however the rows are split.
    """
    policy.model.train()
    token_count = sum(len(completion) for _, completion in rows)
    total = 0.0
    for start in range(0, len(rows), micro_batch):
        tokens = collate(rows[start : start + micro_batch], policy.pad_id, policy.placement.device)
        logprobs_B_T, _ = policy.logprobs(tokens, temperature=1.0)
        loss = token_mean(-logprobs_B_T, tokens.mask_B_T, token_count)
        updater.backward(loss)
        total += float(loss.detach())
    info = updater.step()
    return SupervisedStep(
        updater.step_count, total, token_count, info.grad_norm, info.learning_rate
    )
