"""What a run learns from and what it is measured on, kept apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from judicaita.errors import DataError
from judicaita.training.contamination import Contamination, find_overlap
from judicaita.training.data_curation import split_samples, to_samples
from judicaita.types import Sample

if TYPE_CHECKING:
    from judicaita.training.config import TrainingConfig

Rows = Iterable[Mapping[str, Any] | Sample]


@dataclass(frozen=True)
class Divided:
    """The samples of a run."""

    train: list[Sample]
    held_out: list[Sample]
    contamination: Contamination
    """What of the held-out samples stands among those that are learned from."""


def divide(
    train: Rows, evaluation: Rows | None, rehearsed: Sequence[Sample], config: TrainingConfig
) -> Divided:
    """Samples to train on, and to measure on: those of ``evaluation``, or a part of the others.

    Which part is chosen here, so that training samples that are like one of it are left out;
    `DataError` where none remains. What is ``rehearsed`` is learned from, too.
    """
    samples = to_samples(train)
    if evaluation is not None:
        held_out = to_samples(evaluation)
        return Divided(samples, held_out, find_overlap([*samples, *rehearsed], held_out))
    samples, held_out = split_samples(samples, config.eval_fraction, config.seed)
    found = find_overlap([*samples, *rehearsed], held_out)
    alike = set(found.train_ids)
    apart = [sample for sample in samples if sample.id not in alike]
    if not apart:
        raise DataError(
            "every training sample is like one that was held out, so nothing is left to train on. "
            "Give more varied samples, or an eval_dataset."
        )
    if len(apart) < len(samples):
        found = find_overlap([*apart, *rehearsed], held_out)
    return Divided(apart, held_out, found)
