"""Learning a worked solution word by word: cross-entropy on the completion's tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from judicaita.errors import DataError
from judicaita.training.algorithms.reduction import token_mean
from judicaita.training.batching import collate
from judicaita.training.config import RunConfig
from judicaita.training.optimization import UpdateInfo, Updater, require_finite
from judicaita.training.policy import Policy
from judicaita.types import Sample


@dataclass(frozen=True)
class SupervisedStep:
    """Figures of one optimizer step."""

    step: int
    loss: float
    """Nats per completion token."""
    tokens: int
    update: UpdateInfo


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


def text_row(policy: Policy, sample: Sample) -> Row:
    """Tokenize a sample to be read from end to end, prompt and trace alike, as a language model's
    training text: all tokens but the first are learned, and no template stands around them."""
    assert isinstance(sample.prompt, str), "a conversation is refused before"
    text = f"{sample.prompt}\n{sample.trace}" if sample.trace else sample.prompt
    first, *others = policy.tokenizer(text)["input_ids"]
    return (first,), (*others, policy.eos_id)


def fitting_rows(
    rows: Sequence[Row], policy: Policy, config: RunConfig, name: str = "row"
) -> list[Row]:
    """Rows of at most ``model_max_length`` tokens, and no more than the model has positions.

    Long ones are refused, or left out if so configured; never cut. ``name`` is what a row is called
    in the `DataError`.
    """
    limit = min(config.model_max_length, policy.max_positions or config.model_max_length)
    lengths = [len(prompt) + len(completion) for prompt, completion in rows]
    fitting = [row for row, length in zip(rows, lengths, strict=True) if length <= limit]
    if len(fitting) < len(rows) and (config.long_prompts == "error" or not fitting):
        number = next(n for n, length in enumerate(lengths, start=1) if length > limit)
        raise DataError(
            f"{name} {number}: prompt and trace are over the {limit} tokens that fit "
            f"({len(rows) - len(fitting)} of {len(rows)} rows are, the longest has {max(lengths)}),"
            " and are never cut. Raise model_max_length as far as the model allows, or set "
            "long_prompts=drop to learn from the others."
        )
    return fitting


def supervised_backward(
    policy: Policy, updater: Updater, rows: Sequence[Row], micro_batch: int, weight: float = 1.0
) -> tuple[float, int]:
    """Add ``weight`` times the gradient of the loss of some rows, ``micro_batch`` at a time; fewer
    where memory has run out before.

    The loss is the mean over all completion tokens of the rows, however they are split. Returns it
    without the weight, in nats per token, and the number of these tokens. `NumericalError` if it is
    not finite.
    """
    token_count = sum(len(completion) for _, completion in rows)
    total = 0.0
    size = max(1, micro_batch >> updater.halvings)
    for start in range(0, len(rows), size):
        tokens = collate(rows[start : start + size], policy.pad_id, policy.placement.device)
        with policy.training_pass(tokens):
            logprobs_B_T, _ = policy.logprobs(tokens, temperature=1.0)
            loss = token_mean(-logprobs_B_T, tokens.mask_B_T, token_count)
            updater.backward(weight * loss)
        total += require_finite(float(loss.detach()))
    return total, token_count


def supervised_step(
    policy: Policy, updater: Updater, rows: Sequence[Row], micro_batch: int
) -> SupervisedStep:
    """One optimizer step on some rows; see `supervised_backward`."""
    policy.model.train()
    loss, tokens = updater.collect(
        partial(supervised_backward, policy, updater, rows, micro_batch),
        min(micro_batch, len(rows)),
    )
    info = updater.step()
    return SupervisedStep(updater.step_count, loss, tokens, info)
