"""Rehearsal: worked solutions that a GRPO run goes on learning from, lest it forgets them.

What is rehearsed next depends on the seed and the position alone, so that a resumed run goes on
with the very next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from judicaita.errors import CheckpointError, ConfigError, DataError
from judicaita.legal.tasks import generate_mixture
from judicaita.legal.tasks.selection import select_families, select_levels
from judicaita.training.checkpoints import fingerprint
from judicaita.training.config import TrainingConfig
from judicaita.training.data_curation import load_dataset_source, to_samples
from judicaita.training.policy import Policy
from judicaita.training.sampler import Shuffles
from judicaita.training.supervised import Row, fitting_rows, supervised_row, text_row
from judicaita.types import Sample

_BLOCK = 1_000
"""Fresh samples are generated so many at a time, evenly mixed; a resumed run makes one block."""

_SEEDS_APART = 2**32
"""The configuration's seeds lie below, so that no data set is drawn with the seed of a block."""


class Source(Protocol):
    """An endless row of samples with worked solutions."""

    name: str
    """What tells it from others, for a resumed run."""

    def __getitem__(self, index: int) -> Sample:
        """The sample at a place; the same one whenever it is asked for."""


class FreshSource:
    """Samples of generated families, new ones without end; families and levels equally often."""

    def __init__(self, families: Sequence[str], tasks: Sequence[str], seed: int) -> None:
        self.levels, self.seed = select_levels(families, tasks), seed
        self.name = f"{', '.join(families)} ({', '.join(tasks)}) with seed {seed}"
        self._number = -1
        self._block: list[Sample] = []

    def __getitem__(self, index: int) -> Sample:
        """See `Source`."""
        number, place = divmod(index, _BLOCK)
        if number != self._number:
            seed = self.seed + _SEEDS_APART * (number + 1)
            self._block = generate_mixture(self.levels, _BLOCK, split="train", seed=seed)
            self._number = number
        return self._block[place]


class DataSource(Shuffles[Sample]):
    """The samples of a data set in seeded shuffles, one after another."""

    def __init__(self, samples: list[Sample], seed: int) -> None:
        super().__init__(samples, f"{seed}/rehearsal")
        self.name = f"{len(samples)} samples ({fingerprint(samples)[:16]}) with seed {seed}"


class Rehearsal:
    """Draws the worked solutions of an optimizer step, tokenized."""

    def __init__(self, policy: Policy, config: TrainingConfig, source: Source) -> None:
        self.policy, self.config, self.source = policy, config, source
        self.position = 0
        """Samples drawn so far."""

    def __call__(self) -> list[Row]:
        """The next ``rehearsal_samples`` rows, fewer where long ones are dropped; `DataError` for
        one without what is to be learned, or one that does not fit."""
        end = self.position + self.config.rehearsal_samples
        samples = [self.source[index] for index in range(self.position, end)]
        self.position = end
        as_row = text_row if self.config.rehearsal_on == "text" else supervised_row
        rows = [as_row(self.policy, sample) for sample in samples]
        return fitting_rows(rows, self.policy, self.config, "rehearsal row")

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the next one."""
        return {"position": self.position, "source": self.source.name}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on where `state_dict` was taken; from the start if the run did not rehearse yet."""
        if state is None:
            return
        if state["source"] != self.source.name:
            raise CheckpointError(
                f"the checkpoint was rehearsing {state['source']}, and here is {self.source.name}: "
                "its position says nothing there. Resume with that run's rehearsal data and seed."
            )
        self.position = int(state["position"])


def rehearsal_source(
    config: TrainingConfig, given: Iterable[Mapping[str, Any] | Sample] | None = None
) -> Source | None:
    """Where a run's rehearsal comes from, None without any.

    ``given`` are samples in place of ``rehearsal_dataset``. `ConfigError` for a weight without
    samples, or samples without a weight.
    """
    if given is not None and config.rehearsal_dataset is not None:
        raise ConfigError(
            f"rehearsal_dataset={config.rehearsal_dataset}, and samples to rehearse were given "
            "besides. Leave one of them out."
        )
    dataset = config.rehearsal_dataset
    if config.rehearsal_weight == 0:
        if given is not None:
            raise ConfigError(
                "rehearsal_weight=0: the samples given would not be rehearsed. Set it above 0."
            )
        return None
    if given is not None:
        return _data_source(to_samples(given), config)
    if dataset is None:
        raise ConfigError(
            f"rehearsal_weight={config.rehearsal_weight} with nothing to rehearse. Set "
            "rehearsal_dataset (a generated family such as diversity, or a file with traces)."
        )
    if families := select_families(dataset):
        return FreshSource(families, config.rehearsal_tasks or ["easy"], config.seed)
    return _data_source(load_dataset_source(dataset, tasks=config.rehearsal_tasks), config)


def _data_source(samples: list[Sample], config: TrainingConfig) -> DataSource:
    conversations = [sample.id for sample in samples if not isinstance(sample.prompt, str)]
    if config.rehearsal_on == "text" and conversations:
        raise DataError(
            f"rehearsal_on=text: sample {conversations[0]} is a conversation, and is to be read as "
            "plain text. Give its text as the prompt, or set rehearsal_on=solution."
        )
    return DataSource(samples, config.seed)
