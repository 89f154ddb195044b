"""Which samples come next: seeded shuffles, one after another, without losing a sample."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from judicaita.errors import CheckpointError

T = TypeVar("T")


class ShuffleSampler(Generic[T]):
    """Draws the samples of ``num_epochs`` seeded shuffles as one stream.

    A batch may cross from one epoch into the next; only the very last one may be short, and nothing
    is dropped. The order depends on the seed and the number of samples alone.
    """

    def __init__(self, items: Sequence[T], *, batch_size: int, num_epochs: int, seed: int) -> None:
        self.items = items
        self.batch_size = batch_size
        self.total = len(items) * num_epochs
        self.seed = seed
        self.position = 0
        """Samples drawn so far, over all epochs."""
        self._epoch = -1
        self._order: list[int] = []

    @property
    def total_batches(self) -> int:
        """Batches from the first to the last, the short one counted."""
        return math.ceil(self.total / self.batch_size)

    def draw(self) -> list[T]:
        """The next batch; empty at the end."""
        end = min(self.position + self.batch_size, self.total)
        batch = [self._item(index) for index in range(self.position, end)]
        self.position = end
        return batch

    def _item(self, index: int) -> T:
        epoch, place = divmod(index, len(self.items))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(len(self.items)))
            random.Random(f"{self.seed}/{epoch}").shuffle(self._order)
        return self.items[self._order[place]]

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the next sample."""
        return {"position": self.position, "total": self.total, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the samples must be the same in number."""
        if (state["total"], state["seed"]) != (self.total, self.seed):
            raise CheckpointError(
                f"the checkpoint was drawing from {state['total']} samples (all epochs) with seed "
                f"{state['seed']}, and here are {self.total} with seed {self.seed}. Resume with "
                "the data, num_epochs and seed of that run."
            )
        self.position = int(state["position"])
