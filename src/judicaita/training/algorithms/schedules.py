"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "constant"]


def learning_rate_factor(
    step: int, *, total_steps: int, warmup_steps: int, schedule: Schedule, floor: float
) -> float:
    """Share of the peak learning rate at optimizer step ``step`` (0-based).

    Rises linearly over the warm-up, (step + 1) / (warmup_steps + 1), so that the first update is
    not lost to a rate of 0; then falls along half a cosine or a line and reaches ``floor`` (a share
    of the peak) one step after the last, which therefore still learns; or stays at 1.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    span = max(1, total_steps - warmup_steps)
    progress = min(1.0, (step - warmup_steps) / span)
    remaining = 1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return floor + (1 - floor) * remaining
