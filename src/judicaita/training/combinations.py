"""Settings that change nothing beside others, or cannot go together: one sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from judicaita.errors import ConfigError
from judicaita.training.algorithms.correction import ImportanceCorrection
from judicaita.training.algorithms.kl import KLPenalty

if TYPE_CHECKING:
    from judicaita.training.config import RunConfig, TrainingConfig

Refusal = tuple[bool, str]
"""Whether a sentence applies."""


def refuse_without_meaning(config: TrainingConfig) -> None:
    """`ConfigError` for the first combination of algorithms that means nothing."""
    for applies, sentence in (*_of_the_loss(config), *_of_work(config), *_of_advantages(config)):
        if applies:
            raise ConfigError(sentence)


def _of_the_loss(config: TrainingConfig) -> Iterator[Refusal]:
    yield (
        config.rehearsal_weight == 0 and config.rehearsal_on == "text",
        "rehearsal_on=text with rehearsal_weight=0: nothing is rehearsed. Set the weight above 0, "
        "or leave it out.",
    )
    yield (
        config.beta == 0 and config.kl != KLPenalty(),
        "kl.… with beta=0: there is no penalty. Set beta above 0, or leave kl out.",
    )
    yield (
        config.correction.type == "none" and config.correction != ImportanceCorrection(),
        f"correction.cap={config.correction.cap:g} with correction.type=none: nothing is weighed. "
        "Set correction.type, or leave it out.",
    )
    yield (
        config.loss.type == "gspo" and config.top_entropy < 1,
        f"loss.type=gspo with top_entropy={config.top_entropy:g}: its tokens move as one, so that "
        "none can be left out. Set loss.type=gspo_token.",
    )


def _of_work(config: TrainingConfig) -> Iterator[Refusal]:
    buffer, longest = config.overlong_buffer, config.generation_max_length
    yield (
        buffer is None and config.overlong_penalty != 1,
        f"overlong_penalty={config.overlong_penalty:g} without overlong_buffer: nothing is too "
        "long. Set overlong_buffer, or leave it out.",
    )
    yield (
        buffer is not None and buffer > longest,
        f"overlong_buffer={buffer} is more than generation_max_length={longest}, so that every "
        "completion would lose reward. Lower it.",
    )
    yield (
        buffer is not None and config.mask_truncated,
        "overlong_buffer with mask_truncated: what is punished most would stay out of the loss. "
        "Set one of them.",
    )
    yield (
        config.dynamic_sampling > 0 and config.num_rollouts == 2,
        "dynamic_sampling with num_rollouts=2: two completions are equal so often that most of "
        "what is drawn is thrown away. Set num_rollouts to 4 or more.",
    )
    yield (
        config.dynamic_sampling > 0 and config.loss.counts_all,
        f"dynamic_sampling with loss.type={config.loss.type}: one replaces groups without signal, "
        "the other counts them. Set another loss.type.",
    )
    yield (
        config.samples_per_step % config.mini_batches != 0,
        f"mini_batches={config.mini_batches} of {config.samples_per_step} groups a step: they "
        "cannot be divided evenly. Set one that divides batch_size × gradient_accumulation_steps.",
    )


def _of_advantages(config: TrainingConfig) -> Iterator[Refusal]:
    yield (
        config.advantage.looks_beyond_the_group and config.step_mode == "per_step",
        f"advantage.type={config.advantage.type} with step_mode=per_step: steps are compared "
        "within their group. Set another advantage.type.",
    )
    if config.advantage.type != "gdpo":
        return
    penalties = [
        *(["kl.place=reward"] if config.kl.place == "reward" else []),
        *([f"overlong_buffer={config.overlong_buffer}"] if config.overlong_buffer else []),
    ]
    yield (
        penalties != [],
        f"advantage.type=gdpo with {' and '.join(penalties)}: it looks at the parts of the reward, "
        "and a penalty is none. Leave one of them out.",
    )
    yield (
        config.step_mode == "gated",
        "advantage.type=gdpo with step_mode=gated: the gate is on the sum of parts, and it looks "
        "at each by itself. Set step_mode=additive, or another advantage.type.",
    )
    yield (
        config.reward is not None,
        f"advantage.type=gdpo with reward={config.reward}: it needs the parts of the composite. "
        "Leave reward out, or set another advantage.type.",
    )


def refuse_for_source(config: RunConfig) -> None:
    """`ConfigError` for the first setting that the source of the samples has no use for."""
    given = {
        "legalbench_split": None if config.legalbench_split == "train" else config.legalbench_split,
        "legalbench_prompts": ""
        if config.legalbench_prompts == "auto"
        else config.legalbench_prompts,
        "samples_per_task": config.samples_per_task,
        "licenses": ",".join(config.licenses),
        "commercial_only": config.commercial_only,
        "columns": ",".join(config.columns),
        "dataset_revision": config.dataset_revision,
    }
    if not any(given.values()):
        return  # and the families need not be imported
    from judicaita.errors import DataError
    from judicaita.training.columns import parse_columns
    from judicaita.training.sources import kind_of

    kind = kind_of(config.dataset)
    uses = {
        **dict.fromkeys(_OF_LEGALBENCH, (("legalbench", "checkout"), "LegalBench (legalbench)")),
        "columns": (("file", "hub"), "a file or a data set on the Hub (owner/name)"),
        "dataset_revision": (("legalbench", "hub"), "what comes from the Hub"),
    }
    for name, value in given.items():
        kinds, owner = uses[name]
        if value and kind not in kinds:
            raise ConfigError(
                f"{name}={value} with dataset={config.dataset}: only {owner} has a use for it. "
                "Leave it out, or set another dataset."
            )
    try:
        parse_columns(config.columns)
    except DataError as error:
        raise ConfigError(str(error)) from None
    if config.legalbench_split == "test":
        raise ConfigError(
            "legalbench_split=test: a run does not learn from all that published scores are "
            "measured on. Set eval_dataset=legalbench to measure on it, or "
            "legalbench_split=test_partition to learn from a part."
        )
    measured_on = getattr(config, "eval_dataset", None)
    if config.legalbench_split == "test_partition" and measured_on is not None:
        raise ConfigError(
            f"legalbench_split=test_partition with eval_dataset={measured_on}: it is measured on "
            "the rest of the test rows. Leave one of them out."
        )


_OF_LEGALBENCH = (
    *("legalbench_split", "legalbench_prompts", "samples_per_task", "licenses", "commercial_only"),
)
