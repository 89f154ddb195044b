"""Does the reward rise while accuracy falls? Then it is earned by something else.

Two series are watched, each by itself: the steps (completions as sampled) and the evaluations
(held-out samples, always the same ones). The rule looks at a series' last `WINDOW` points that have
both figures, from `LEAST` points on, and holds if all of these do:

- the reward rises and accuracy falls by Mann and Kendall's test of trend (Mann 1945, Econometrica
  13, p. 245; Kendall 1975, §4), corrected for ties and continuity: z ≥ `LEAST_Z` and
  z ≤ −`LEAST_Z`, where chance alone reaches either with a probability of 0.00003;
- the mean accuracy of the later half of the points is at least `LEAST_FALL` below that of the
  earlier half (the one in the middle of an odd number is in neither).

The first looks at ranks alone, so that neither the scale of a reward nor an outlier counts; the
second keeps quiet about small drifts, which follow from the weights being those of the step before.
Once told, a series is watched anew: the points up to then count no more.

In 1,000 simulated runs of 1,000 steps, of 8 questions with 4 completions each, whose reward rises
all along while accuracy is noise about 0.5, the rule spoke up in 6. Where accuracy falls by 0.02
every ten steps it did in all, after 95 steps in the middle.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

WINDOW = 100
LEAST = 11
"""With fewer points not even a series without a single exception reaches `LEAST_Z`."""
LEAST_Z = 4.0
LEAST_FALL = 0.05

EVENT = "divergence"
"""The event that tells of it."""

_SERIES = {"step": "steps", "eval": "evaluations"}
"""The events whose figures are watched, and what a person calls them."""


@dataclass(frozen=True)
class Divergence:
    """Reward and accuracy have parted. Means are of the earlier and the later half of points."""

    of: str
    """``step`` or ``eval``: the series."""
    points: int
    first_step: int
    """Of the optimizer step at which the points begin."""
    reward_before: float
    reward_after: float
    accuracy_before: float
    accuracy_after: float
    reward_z: float
    accuracy_z: float

    def as_fields(self) -> dict[str, Any]:
        """For an event."""
        return asdict(self)

    def sentence(self, step: int) -> str:
        """For a person; ``step`` is the last one."""
        where = "on held-out samples " if self.of == "eval" else ""
        return (
            f"Warning: the reward rises while accuracy falls. Over the {self.points} "
            f"{_SERIES[self.of]} from step {self.first_step} to {step} the reward {where}went from "
            f"{self.reward_before:.3f} to {self.reward_after:.3f} and accuracy from "
            f"{self.accuracy_before:.3f} to {self.accuracy_after:.3f} (means of the earlier and "
            "the later half). Read some completions in rollouts/: what is rewarded there that is "
            "no right answer?"
        )


class DivergenceWatch:
    """Sees the events of a run one by one; what it knows follows from them alone."""

    def __init__(self, events: Iterable[Mapping[str, Any]] = ()) -> None:
        """Begin after the events of a run so far."""
        self._points = {name: deque[tuple[int, float, float]](maxlen=WINDOW) for name in _SERIES}
        for event in events:
            if event["event"] == EVENT:
                self._points[event["of"]].clear()
            else:
                self._take(event["event"], event["step"], event)

    def see(self, event: str, step: int, figures: Mapping[str, Any]) -> Divergence | None:
        """One more event, and what it shows."""
        if not self._take(event, step, figures):
            return None
        points = self._points[event]
        found = _find(event, list(points))
        if found:
            points.clear()
        return found

    def _take(self, event: str, step: int, figures: Mapping[str, Any]) -> bool:
        """Add a point, if the event is one with both figures."""
        if event not in self._points or not {"reward", "accuracy"} <= figures.keys():
            return False
        reward, accuracy = float(figures["reward"]), float(figures["accuracy"])
        is_point = math.isfinite(reward) and math.isfinite(accuracy)
        if is_point:
            self._points[event].append((step, reward, accuracy))
        return is_point


def trend(values: Sequence[float]) -> float:
    """z of the test of Mann and Kendall: above 0 for a rising series, 0 for a constant one.

    With S = Σ_{i<j} sign(x_j − x_i) over n values and t for the sizes of groups of equal ones:
    (S − sign S) / √((n(n − 1)(2n + 5) − Σ t(t − 1)(2t + 5)) / 18).
    """
    array = np.asarray(values, dtype=np.float64)
    s = int(np.triu(np.sign(array[None, :] - array[:, None])).sum())

    def weight(n: int) -> int:
        return n * (n - 1) * (2 * n + 5)

    variance = (weight(len(values)) - sum(map(weight, Counter(values).values()))) / 18
    return (s - int(np.sign(s))) / math.sqrt(variance) if s else 0.0


def _find(series: str, points: Sequence[tuple[int, float, float]]) -> Divergence | None:
    """The rule at the top of this page."""
    if len(points) < LEAST:
        return None
    steps, rewards, accuracies = zip(*points, strict=True)
    half = len(points) // 2
    before, after = (statistics.fmean(part) for part in (accuracies[:half], accuracies[-half:]))
    if before - after < LEAST_FALL:
        return None
    reward_z, accuracy_z = trend(rewards), trend(accuracies)
    if reward_z < LEAST_Z or accuracy_z > -LEAST_Z:
        return None
    return Divergence(
        of=series,
        points=len(points),
        first_step=steps[0],
        reward_before=statistics.fmean(rewards[:half]),
        reward_after=statistics.fmean(rewards[-half:]),
        accuracy_before=before,
        accuracy_after=after,
        reward_z=reward_z,
        accuracy_z=accuracy_z,
    )
