"""Which samples come next.

``shuffle`` knows one heap of samples. The other strategies know strata, the tasks that samples name
("hearsay_3"), and families of them (the fact ``family``, else the task itself): they weigh strata,
each in a function of its own that stands in `STRATEGIES`. Within a stratum, samples come in seeded
shuffles, one after another, so that none is lost. What is drawn depends on the seed, the position
and what was observed, all of which `state_dict` holds: there is no hidden random state.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from judicaita.errors import CheckpointError
from judicaita.legal.tasks import FAMILIES
from judicaita.training.rewards import reward_parts
from judicaita.types import Group, Sample

if TYPE_CHECKING:
    from judicaita.training.config import TrainingConfig

T = TypeVar("T")
Rest = TypeVar("Rest")

_UNKNOWN = 0.5
"""Success and reward of a stratum that nothing was observed of."""

_CHANCE = 0.03
"""Added to p(1 − p), so that what is mastered, or beyond reach, still comes now and then."""

_UNREWARDED = 1.1
"""Above 1 for the same reason: a stratum that earns everything keeps a weight of 0.1."""

_NEWEST = 2.0
"""How many times as often as each older level of its family the newest unlocked one comes."""


class Shuffles(Generic[T]):
    """Endless seeded shuffles of some items, one after another; item k depends on the seed alone.

    Every run of ``len(items)`` items that starts at a multiple of it holds each item once.
    """

    def __init__(self, items: Sequence[T], seed: str) -> None:
        self.items, self.seed = items, seed
        self._epoch = -1
        self._order: list[int] = []

    def __getitem__(self, index: int) -> T:
        """The item at a place of the endless row."""
        epoch, place = divmod(index, len(self.items))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(len(self.items)))
            random.Random(f"{self.seed}/{epoch}").shuffle(self._order)
        return self.items[self._order[place]]


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
        self.further = 0
        """Samples drawn beside these, in place of others."""
        self._shuffles = Shuffles(items, str(seed))
        self._further = Shuffles(items, f"{seed}/further")

    @property
    def total_batches(self) -> int:
        """Batches from the first to the last, the short one counted."""
        return math.ceil(self.total / self.batch_size)

    def draw(self) -> list[T]:
        """The next batch; empty at the end."""
        end = min(self.position + self.batch_size, self.total)
        batch = [self._shuffles[index] for index in range(self.position, end)]
        self.position = end
        return batch

    def draw_further(self, count: int) -> list[T]:
        """So many more, of shuffles that never end and leave those of `draw` alone."""
        batch = [self._further[self.further + place] for place in range(count)]
        self.further += count
        return batch

    def observe(self, groups: Iterable[Group]) -> None:
        """Learn how scored groups fared; a plain shuffle pays no attention."""

    def figures(self) -> dict[str, float]:
        """What there is to tell of the last draw; of a plain shuffle nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the next sample."""
        return {
            "position": self.position,
            "further": self.further,
            "total": self.total,
            "seed": self.seed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; samples and strategy must be the same."""
        if (state["total"], state["seed"]) != (self.total, self.seed):
            raise CheckpointError(
                f"the checkpoint was drawing from {state['total']} samples (all epochs) with seed "
                f"{state['seed']}, and here are {self.total} with seed {self.seed}. Resume with "
                "the data, num_epochs and seed of that run."
            )
        before, now = state.get("strategy", "shuffle"), self.strategy
        if before != now:
            raise CheckpointError(
                f"the checkpoint was drawing with sampler={before}, whose state says nothing to "
                f"sampler={now}. Resume with sampler={before}."
            )
        self.position, self.further = int(state["position"]), int(state.get("further", 0))

    @property
    def strategy(self) -> str:
        """The name of the strategy, as the configuration has it."""
        return "shuffle"


@dataclass
class Stratum:
    """A task among the samples, and how it has fared."""

    name: str
    family: str
    drawn: int = 0
    """Samples drawn from it so far."""
    success: float = _UNKNOWN
    """Moving average of the share of right conclusions."""
    reward: float = _UNKNOWN
    """Moving average of the mean reward."""
    unlocked: bool = False
    """Whether a curriculum has come so far."""

    def remember(self, groups: Sequence[Group], memory: float) -> None:
        """Move the averages towards some groups of one step: n of them count 1 − memoryⁿ."""
        kept = memory ** len(groups)
        self.success = kept * self.success + (1 - kept) * fmean(map(_success, groups))
        self.reward = kept * self.reward + (1 - kept) * fmean(map(_reward, groups))


Ladders = Mapping[str, Sequence[Stratum]]
"""Family → its strata, easiest first."""


def balance(ladders: Ladders) -> dict[str, float]:
    """Families equally often, and within a family its strata."""
    return {s.name: 1 / len(ladder) for ladder in ladders.values() for s in ladder}


def difficulty(ladders: Ladders) -> dict[str, float]:
    """p(1 − p) + 0.03, p the success: most where right and wrong are even, and groups differ."""
    return {s.name: s.success * (1 - s.success) + _CHANCE for s in _all(ladders)}


def unrewarded(ladders: Ladders) -> dict[str, float]:
    """1.1 − r, r the reward: the more of it is still to be had. Rewards above 1 count as 1."""
    return {s.name: _UNREWARDED - min(s.reward, 1.0) for s in _all(ladders)}


def curriculum(ladders: Ladders) -> dict[str, float]:
    """Families equally often; in each the unlocked levels, the newest twice as often as others."""
    weights: dict[str, float] = {}
    for ladder in ladders.values():
        rungs = [stratum for stratum in ladder if stratum.unlocked]
        own = {s.name: _NEWEST if s is rungs[-1] else 1.0 for s in rungs}
        weights |= {name: weight / sum(own.values()) for name, weight in own.items()}
    return weights


STRATEGIES: Mapping[str, Callable[[Ladders], dict[str, float]]] = MappingProxyType(
    {each.__name__: each for each in (balance, difficulty, unrewarded, curriculum)}
)
"""Weights of the strata, by the name that the configuration's ``sampler`` knows beside
``shuffle``; what is left out is not drawn."""


class StratifiedSampler(ShuffleSampler[T]):
    """Draws strata by the weights of a strategy, and from each stratum its next sample.

    There are as many batches as a plain shuffle has. A stratum comes at least ⌊nw⌋ and at most ⌈nw⌉
    times in a batch of n, w its share of the weights; the one whose samples are used up starts over
    in another order.
    """

    def __init__(
        self,
        items: Sequence[T],
        samples: Sequence[Sample],
        *,
        strategy: str,
        memory: float,
        mastery: float,
        batch_size: int,
        num_epochs: int,
        seed: int,
    ) -> None:
        """
        Args:
            items: What is drawn.
            samples: The sample of each item, which says what stratum it belongs to.
            strategy: A name in `STRATEGIES`.
            memory: Of the moving averages; they remember about the last 1 / (1 − memory) groups.
            mastery: Success on a level that unlocks the next one of its family.
            batch_size, num_epochs, seed: As for `ShuffleSampler`.
        """
        super().__init__(items, batch_size=batch_size, num_epochs=num_epochs, seed=seed)
        self.weigh = STRATEGIES[strategy]
        self.memory, self.mastery = memory, mastery
        self.ladders = _ladders(samples)
        self.strata = {stratum.name: stratum for stratum in _all(self.ladders)}
        members: dict[str, list[T]] = {name: [] for name in self.strata}
        for item, sample in zip(items, samples, strict=True):
            members[_task(sample)].append(item)
        self._rows = {name: Shuffles(own, f"{seed}/{name}") for name, own in members.items()}
        self._chosen: dict[str, int] = {}
        self._shares: dict[str, float] = {}
        self._unlock()

    @property
    def strategy(self) -> str:
        """See `ShuffleSampler`."""
        return self.weigh.__name__

    def draw(self) -> list[T]:
        """The next batch; empty at the end."""
        count = min(self.batch_size, self.total - self.position)
        self._shares, self._chosen = self._spread(count, str(self.position))
        self.position += count
        return self._take(self._chosen)

    def draw_further(self, count: int) -> list[T]:
        """So many more by the same strategy, the next ones of their strata."""
        _, chosen = self._spread(count, f"further/{self.further}")
        self.further += count
        return self._take(chosen)

    def _spread(self, count: int, name: str) -> tuple[dict[str, float], dict[str, int]]:
        """Each stratum's share of the weights, and how many samples it gives."""
        weights = self.weigh(self.ladders)
        total = math.fsum(weights.values())
        shares = {stratum: weight / total for stratum, weight in weights.items()}
        return shares, spread(shares, count, random.Random(f"{self.seed}/{name}"))

    def _take(self, chosen: Mapping[str, int]) -> list[T]:
        batch = []
        for name, times in chosen.items():
            stratum = self.strata[name]
            batch += [self._rows[name][stratum.drawn + k] for k in range(times)]
            stratum.drawn += times
        return batch

    def observe(self, groups: Iterable[Group]) -> None:
        """Learn how scored groups fared; one whose reward abstained says nothing."""
        scored: dict[str, list[Group]] = {}
        for group in groups:
            if group.results[0].score is not None:
                scored.setdefault(_task(group.sample), []).append(group)
        for name, own in scored.items():
            self.strata[name].remember(own, self.memory)
        self._unlock()

    def _unlock(self) -> None:
        """Every family's first level is open, and each next one once the one before is mastered."""
        for ladder in self.ladders.values():
            opens = True
            for stratum in ladder:
                stratum.unlocked = stratum.unlocked or opens
                opens = stratum.unlocked and stratum.success >= self.mastery

    def figures(self) -> dict[str, float]:
        """Of each stratum in the last draw: how many samples, its share of the weights when it was
        drawn, and its averages now; of a curriculum also how many levels are open."""
        figures: dict[str, float] = {}
        for name in sorted(self._chosen):
            figures[f"sampler/count/{name}"] = float(self._chosen[name])
            figures[f"sampler/weight/{name}"] = self._shares[name]
            figures[f"sampler/success/{name}"] = self.strata[name].success
            figures[f"sampler/reward/{name}"] = self.strata[name].reward
        if self.weigh is curriculum:
            for family, ladder in self.ladders.items():
                figures[f"sampler/unlocked/{family}"] = float(sum(s.unlocked for s in ladder))
        return figures

    def state_dict(self) -> dict[str, Any]:
        """See `ShuffleSampler`; and how each stratum has fared."""
        strata = {
            name: {
                "drawn": stratum.drawn,
                "success": stratum.success,
                "reward": stratum.reward,
                "unlocked": stratum.unlocked,
            }
            for name, stratum in self.strata.items()
        }
        return {**super().state_dict(), "strategy": self.strategy, "strata": strata}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `ShuffleSampler`."""
        super().load_state_dict(state)
        if state["strata"].keys() != self.strata.keys():
            raise CheckpointError(
                f"the checkpoint was drawing from the tasks {', '.join(state['strata'])}, and here "
                f"are {', '.join(self.strata)}. Resume with the data of that run."
            )
        for name, values in state["strata"].items():
            for field, value in values.items():
                setattr(self.strata[name], field, value)


def make_sampler(
    items: Sequence[tuple[Sample, Rest]], config: TrainingConfig
) -> ShuffleSampler[tuple[Sample, Rest]]:
    """The sampler that a configuration names, over samples and what goes with each."""
    sizes = {
        "batch_size": config.samples_per_step,
        "num_epochs": config.num_epochs,
        "seed": config.seed,
    }
    if config.sampler == "shuffle":
        return ShuffleSampler(items, **sizes)
    return StratifiedSampler(
        items,
        [sample for sample, _ in items],
        strategy=config.sampler,
        memory=config.sampler_ema,
        mastery=config.sampler_mastery,
        **sizes,
    )


def spread(shares: Mapping[str, float], count: int, rng: random.Random) -> dict[str, int]:
    """Divide ``count`` draws by shares that sum to 1: systematic sampling.

    Each name gets ``count`` times its share, rounded down or up, that much on average; names that
    get none are left out. Independent draws would now and then leave a family out of a whole step.
    """
    names = sorted(name for name, share in shares.items() if share > 0)
    rng.shuffle(names)
    reached, taken = rng.random(), 0
    counts = {}
    for name in names:
        reached += count * shares[name]
        # The sum of the shares is 1 up to rounding, so the last one takes what is left.
        up_to = count if name == names[-1] else min(count, math.floor(reached))
        counts[name] = up_to - taken
        taken = up_to
    return {name: times for name, times in counts.items() if times}


def _ladders(samples: Sequence[Sample]) -> dict[str, list[Stratum]]:
    """The strata of some samples by family, easiest first."""
    levels: dict[str, Any] = {}
    strata: dict[str, Stratum] = {}
    for sample in samples:
        name = _task(sample)
        if name not in strata:
            strata[name] = Stratum(name, str(sample.facts.get("family") or name))
            levels[name] = sample.facts.get("level")
    ladders: dict[str, list[Stratum]] = {}
    for stratum in sorted(strata.values(), key=lambda s: _rung(s, levels[s.name])):
        ladders.setdefault(stratum.family, []).append(stratum)
    return ladders


def _rung(stratum: Stratum, level: Any) -> tuple[str, int, list[tuple[int, str]]]:
    """Sorts by family, by the family's own order of levels, then by name, numbers as numbers."""
    family = FAMILIES.get(stratum.family)
    known = [str(each) for each in family.levels] if family else []
    place = known.index(str(level)) if str(level) in known else len(known)
    parts = re.split(r"(\d+)", stratum.name)
    return stratum.family, place, [(int(part) if part.isdigit() else -1, part) for part in parts]


def _all(ladders: Ladders) -> list[Stratum]:
    return [stratum for ladder in ladders.values() for stratum in ladder]


def _task(sample: Sample) -> str:
    return sample.task or "no task"


def _reward(group: Group) -> float:
    """Mean reward of a group that was scored."""
    return fmean(result.score or 0.0 for result in group.results)


def _success(group: Group) -> float:
    """Mean of the outcome part where the reward has one, else of the reward, kept in [0, 1]."""
    parts = [reward_parts(result) for result in group.results]
    outcomes = [part["outcome"] for part in parts if "outcome" in part]
    return min(1.0, max(0.0, fmean(outcomes) if outcomes else _reward(group)))
