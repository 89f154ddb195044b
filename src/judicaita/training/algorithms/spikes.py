"""Gradients out of all proportion to those before: what is one, and what becomes of the rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from judicaita.errors import ConfigError


@dataclass(frozen=True)
class SpikeHistory:
    """What a guard goes by, from one update to the next."""

    norms: tuple[float, ...] = ()
    """Of the last gradients, the latest at the end."""
    rate_factor: float = 1.0
    """What the learning rate of the next update is multiplied by, unless that is a spike."""


@dataclass(frozen=True)
class Verdict:
    """What a guard makes of a gradient."""

    is_spike: bool
    rate_factor: float
    """What the learning rate of this update is multiplied by."""
    history: SpikeHistory
    """For the next one."""


class SpikeGuard(BaseModel):
    """Leaves updates out whose gradient is a spike, and lowers the learning rate for a while.

    A spike is a norm, before clipping, over ``factor`` times the median of the last ``window``
    ones, once half as many are known. To pass over the data of a spike is what PaLM's training did
    by hand (arXiv 2204.02311 §5.1); a median is not moved by the spikes themselves.

    An update that is made enters the window with its own norm, a spike that is left out with the
    largest norm that would have been none. Single spikes thus stay spikes, however many the run has
    seen; but a level that lasts is the usual one once it fills half of the window, in several turns
    where it is far above. Were such norms kept out, a run whose gradients have grown for good would
    never make an update again. Norms of 0 are kept out: to a median of 0 everything is a spike.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    factor: float = Field(0.0, ge=0)
    """A gradient norm over so many times the median of the last ones is a spike; 0 looks for
    none."""
    window: int = Field(20, ge=2)
    """Norms that the median is of."""
    skip: bool = True
    """Leave the update of a spike out; weights and moments stay as they are."""
    backoff: float = Field(1.0, gt=0, le=1)
    """Each spike multiplies the learning rate by it, that of its own update included; 1 leaves the
    rate alone."""
    recovery: float = Field(1.1, gt=1)
    """Each update without a spike multiplies the rate of the next one by it, until the schedule's
    own is reached."""
    floor: float = Field(0.01, gt=0, lt=1)
    """Share of the schedule's learning rate below which spikes do not lower it."""

    @field_validator("factor")
    @classmethod
    def _over_the_median(cls, value: float) -> float:
        if 0 < value <= 1:
            raise ValueError(
                "at most 1 times the median is what half of all norms are over. Set it above 1, or "
                "0 for no spikes (default 0)"
            )
        return value

    @model_validator(mode="after")
    def _knobs_are_used(self) -> Self:
        if not self.is_on:
            self._refuse("factor=0", "nothing is a spike. Set spikes.factor above 1", "factor")
        elif self.backoff == 1:
            knobs = ("factor", "window", "skip", "backoff")
            why = "spikes leave the learning rate alone. Set spikes.backoff below 1"
            self._refuse("backoff=1", why, *knobs)
        return self

    def _refuse(self, cause: str, why: str, *used: str) -> None:
        """`ConfigError` for a knob other than these that is not at its default."""
        for name, field in type(self).model_fields.items():
            if name not in used and (value := getattr(self, name)) != field.default:
                raise ConfigError(f"spikes.{name}={value} with {cause}: {why}, or leave it out.")

    @property
    def is_on(self) -> bool:
        """Whether spikes are looked for."""
        return self.factor > 0

    def limit(self, norms: tuple[float, ...]) -> float:
        """The largest norm that is no spike after these; infinite while they are too few."""
        known = norms[-self.window :]
        return self.factor * median(known) if 2 * len(known) >= self.window else math.inf

    def __call__(self, norm: float, history: SpikeHistory) -> Verdict:
        """A norm that is not finite is no spike: there is nothing to compare, or to remember."""
        if not self.is_on:
            return Verdict(False, 1.0, SpikeHistory())
        if not math.isfinite(norm):
            return Verdict(False, history.rate_factor, history)
        limit, rate = self.limit(history.norms), history.rate_factor
        is_spike = norm > limit
        if is_spike:
            rate = next_rate = max(self.floor, rate * self.backoff)
        else:
            next_rate = min(1.0, rate * self.recovery)
        entering = (min(norm, limit) if self.skip else norm,) if norm > 0 else ()
        norms = (*history.norms, *entering)[-self.window :]
        return Verdict(is_spike, rate, SpikeHistory(norms, next_rate))
