"""Where samples came from, as a run's manifest records it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from judicaita.types import Sample


class Loaded(list[Sample]):
    """Samples that know where they came from."""

    def __init__(
        self,
        samples: Iterable[Sample],
        origin: Mapping[str, Any] | None = None,
        notices: Sequence[str] = (),
    ) -> None:
        super().__init__(samples)
        self.origin: Mapping[str, Any] = dict(origin or {})
        """``source``, ``revision``, ``split`` and ``filters``, as far as they are known."""
        self.notices = tuple(notices)
        """What a person should know of them; a sentence each."""


def origin_of(dataset: Any) -> dict[str, Any]:
    """Where a data set says that it came from; {} for rows that were handed over."""
    origin = getattr(dataset, "origin", None)
    return dict(origin) if isinstance(origin, Mapping) else {}


def notices_of(dataset: Any) -> tuple[str, ...]:
    """What a data set has to tell a person."""
    return tuple(getattr(dataset, "notices", ()))


def chosen(**filters: Any) -> dict[str, Any]:
    """The filters that were set, as JSON-able values."""
    return {
        name: list(value) if isinstance(value, list | tuple) else value
        for name, value in filters.items()
        if value not in (None, False) and value != () and value != [] and value != {}
    }


def describe_samples(
    samples: Sequence[Sample], origin: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A data set for the manifest: origin, counts and fingerprint."""
    return {
        "samples": len(samples),
        "sha256": fingerprint(samples),
        "source": "rows that were handed over",
        **(origin or {}),
        "tasks": _counts(sample.task for sample in samples),
        "licenses": _counts(sample.license for sample in samples),
    }


def fingerprint(samples: Sequence[Sample]) -> str:
    """SHA-256 over the samples' ids, in their order."""
    return hashlib.sha256("\n".join(sample.id for sample in samples).encode()).hexdigest()


def _counts(values: Iterable[str]) -> dict[str, int]:
    return {value or "not stated": count for value, count in sorted(Counter(values).items())}
