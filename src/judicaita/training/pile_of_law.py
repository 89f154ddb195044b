"""`PileOfLawDataset`: the place that Pile of Law will have. Nothing of it is read yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

from judicaita.errors import DataError

SUBSETS = ("courtlistener_opinions", "uscode", "contracts")
"""The training guide's."""


class PileOfLawDataset:
    """Texts of Pile of Law for domain adaptation, which a later release will read.

    It holds what was asked for, so that code that is written for it runs until the texts are
    needed; reading them is a `DataError`.
    """

    def __init__(
        self, subsets: Sequence[str] = SUBSETS, *, samples_per_subset: int | None = None
    ) -> None:
        self.subsets, self.samples_per_subset = tuple(subsets), samples_per_subset

    def load(self) -> NoReturn:
        """Refuses."""
        raise DataError(
            f"Pile of Law ({', '.join(self.subsets)}) cannot be read by this release, and follows "
            "in a later one: give texts of your own by rehearsal_dataset with rehearsal_on=text."
        )

    def __iter__(self) -> Iterator[NoReturn]:
        self.load()

    def __len__(self) -> int:
        self.load()

    def __getitem__(self, index: int) -> NoReturn:
        self.load()

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"PileOfLawDataset({', '.join(self.subsets)}; not read by this release)"
