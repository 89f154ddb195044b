"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "constant", "wsd", "inverse_sqrt"]


def learning_rate_factor(
    step: int,
    *,
    total_steps: int,
    warmup_steps: int,
    schedule: Schedule,
    floor: float,
    decay_share: float,
) -> float:
    """Share of the peak learning rate at optimizer step ``step`` (0-based).

    Rises linearly over the warm-up, (step + 1) / (warmup_steps + 1), so that the first update is
    not lost to a rate of 0; then falls along half a cosine or a line and reaches ``floor`` (a share
    of the peak) one step after the last, which therefore still learns; or stays at 1. ``wsd``
    (warm-up, stable, decay: MiniCPM, arXiv 2404.06395 §4) stays at 1 until the last ``decay_share``
    of all steps, and falls along a line from the first of these, still at 1. ``inverse_sqrt`` falls
    as √((warmup_steps + 1) / (step + 1)) towards ``floor`` (arXiv 1706.03762 §5.3): where the run
    ends makes no difference.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    if schedule == "inverse_sqrt":
        return floor + (1 - floor) * math.sqrt((warmup_steps + 1) / (step + 1))
    start = float(warmup_steps)
    if schedule == "wsd":
        start = max(start, total_steps - max(1.0, decay_share * total_steps))
    progress = min(1.0, max(0.0, step - start) / max(1, total_steps - start))
    remaining = 0.5 * (1 + math.cos(math.pi * progress)) if schedule == "cosine" else 1 - progress
    return floor + (1 - floor) * remaining
