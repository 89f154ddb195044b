"""Every sample as often as it should come, and the same order after an interruption."""

import json
import math
import random
from collections import Counter
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.errors import CheckpointError
from judicaita.training.config import TrainingConfig
from judicaita.training.sampler import (
    STRATEGIES,
    ShuffleSampler,
    StratifiedSampler,
    make_sampler,
    spread,
)
from judicaita.types import Completion, Group, RewardResult, Sample

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 7), st.integers(1, 4), st.integers(0, 3))


def make(items: int, batch: int, epochs: int, seed: int) -> ShuffleSampler[int]:
    return ShuffleSampler(range(items), batch_size=batch, num_epochs=epochs, seed=seed)


def drain(sampler: ShuffleSampler[int]) -> list[list[int]]:
    batches = []
    while batch := sampler.draw():
        batches.append(batch)
    return batches


@settings(max_examples=100, deadline=None)
@given(SIZES)
def test_every_item_once_an_epoch(sizes: tuple[int, int, int, int]) -> None:
    items, batch, epochs, _ = sizes
    sampler = make(*sizes)
    total = sampler.total_batches
    batches = drain(sampler)
    stream = [item for drawn in batches for item in drawn]
    assert Counter(stream) == dict.fromkeys(range(items), epochs)
    for epoch in range(epochs):
        assert sorted(stream[epoch * items : (epoch + 1) * items]) == list(range(items))
    # All batches are full, but for the very last.
    assert [len(drawn) for drawn in batches[:-1]] == [batch] * (len(batches) - 1)
    assert len(batches[-1]) == (items * epochs - 1) % batch + 1
    assert len(batches) == total
    assert sampler.draw() == []


@settings(max_examples=100, deadline=None)
@given(SIZES, st.integers(0, 50))
def test_goes_on_where_it_was(sizes: tuple[int, int, int, int], steps: int) -> None:
    whole = drain(make(*sizes))
    interrupted = make(*sizes)
    before = [interrupted.draw() for _ in range(min(steps, len(whole)))]
    resumed = make(*sizes)
    resumed.load_state_dict(interrupted.state_dict())
    assert before + drain(resumed) == whole


def test_going_back_on_the_same_sampler() -> None:
    sampler = make(5, 3, 3, 0)
    sampler.draw()
    state = sampler.state_dict()
    rest = drain(sampler)
    sampler.load_state_dict(state)
    assert drain(sampler) == rest


def test_epochs_and_seeds_differ() -> None:
    stream = [item for drawn in drain(make(50, 50, 2, 0)) for item in drawn]
    assert stream[:50] != stream[50:]
    assert stream[:50] != list(range(50))
    assert drain(make(50, 50, 2, 1)) != drain(make(50, 50, 2, 0))


def test_the_order_does_not_depend_on_the_batch_size() -> None:
    streams = [[i for drawn in drain(make(7, size, 3, 2)) for i in drawn] for size in (1, 3, 8, 21)]
    assert all(stream == streams[0] for stream in streams)


def test_another_run_s_state_is_refused() -> None:
    state = make(5, 2, 3, 0).state_dict()
    for other in (make(6, 2, 3, 0), make(5, 2, 2, 0), make(5, 2, 3, 1)):
        with pytest.raises(CheckpointError, match="from 15 samples .* with seed 0, and here"):
            other.load_state_dict(state)


# ── strata ───────────────────────────────────────────────────────────────────────────────────────


def samples_of(counts: dict[str, int]) -> list[Sample]:
    """So many samples a task; "hearsay_3" is level 3 of the family hearsay, others stand alone."""
    found = []
    for task, count in counts.items():
        family, _, level = task.rpartition("_")
        facts = {"family": family, "level": int(level)} if family else {}
        found += [Sample(f"{task} {n}", "Yes", task=task, facts=facts) for n in range(count)]
    return found


def stratified(
    strategy: str, counts: dict[str, int], *, batch: int = 8, epochs: int = 50, seed: int = 0
) -> StratifiedSampler[Sample]:
    samples = samples_of(counts)
    return StratifiedSampler(
        samples,
        samples,
        strategy=strategy,
        memory=0.5,
        mastery=0.8,
        batch_size=batch,
        num_epochs=epochs,
        seed=seed,
    )


def scored(sample: Sample, *rewards: float | None, outcomes: tuple[float, ...] = ()) -> Group:
    """A group with these rewards, of a composite if outcomes are given."""

    def part(outcome: float) -> dict[str, Any]:
        return {"outcome": {"score": outcome, "weight": 0.5, "details": {}}}

    details = [part(outcome) for outcome in outcomes] or [{}] * len(rewards)
    completion = Completion((1,), (-1.0,), "stop", 0)
    results = tuple(RewardResult(r, d) for r, d in zip(rewards, details, strict=True))
    return Group(sample, (2,), (completion,) * len(rewards), ("",) * len(rewards), results)


def shares(sampler: StratifiedSampler[Sample]) -> dict[str, float]:
    """What the next draw goes by."""
    weights = sampler.weigh(sampler.ladders)
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def test_the_configuration_knows_every_strategy() -> None:
    names = get_args(TrainingConfig.model_fields["sampler"].annotation)
    assert set(names) == {"shuffle", *STRATEGIES}
    items = [(sample, ()) for sample in samples_of({"hearsay_1": 3})]
    for name in names:
        sampler = make_sampler(items, TrainingConfig(sampler=name, batch_size=2))
        assert sampler.strategy == name
        assert sampler.total_batches == 2  # 3 samples × 3 epochs, 2 × 4 a step


def test_balance_by_hand() -> None:
    """Two levels of one family, one of another: 1/4, 1/4, 1/2, however many samples each has."""
    sampler = stratified("balance", {"hearsay_1": 50, "hearsay_2": 3, "ucc_1": 10}, epochs=10)
    assert shares(sampler) == {"hearsay_1": 0.25, "hearsay_2": 0.25, "ucc_1": 0.5}
    batches = drain_samples(sampler)
    assert len(batches) == math.ceil(63 * 10 / 8)
    for batch in batches[:-1]:
        drawn = Counter(sample.task for sample in batch)
        assert drawn == {"hearsay_1": 2, "hearsay_2": 2, "ucc_1": 4}


def drain_samples(sampler: StratifiedSampler[Sample]) -> list[list[Sample]]:
    batches = []
    while batch := sampler.draw():
        batches.append(batch)
    return batches


def test_success_and_reward_by_hand() -> None:
    """Memory 1/2, both from 1/2. Two groups of one step count as one each: 1 − 1/4 of the way."""
    sampler = stratified("difficulty", {"a": 2, "b": 2, "c": 2})
    a, b, c = (next(s for s in sampler.items if s.task == task) for task in "abc")
    sampler.observe(
        [
            scored(a, 0.25, 0.75, outcomes=(1.0, 1.0)),
            scored(a, 0.25, 0.25, outcomes=(1.0, 0.0)),
            scored(b, 0.0, 0.5),
            scored(c, None, None),
        ]
    )
    strata = sampler.strata
    # success: 1/4 · 1/2 + 3/4 · mean(1, 1/2); reward: 1/4 · 1/2 + 3/4 · mean(1/2, 1/4)
    assert (strata["a"].success, strata["a"].reward) == (0.6875, 0.40625)
    # No parts: the reward is the success. 1/2 · 1/2 + 1/2 · 1/4.
    assert (strata["b"].success, strata["b"].reward) == (0.375, 0.375)
    assert (strata["c"].success, strata["c"].reward) == (0.5, 0.5)
    weights = {"a": 0.6875 * 0.3125 + 0.03, "b": 0.375 * 0.625 + 0.03, "c": 0.28}
    assert STRATEGIES["difficulty"](sampler.ladders) == pytest.approx(weights, abs=1e-15)
    unrewarded = STRATEGIES["unrewarded"](sampler.ladders)
    assert unrewarded == pytest.approx({"a": 0.69375, "b": 0.725, "c": 0.6}, abs=1e-15)


def test_rewards_beyond_the_convention_keep_weights_above_zero() -> None:
    for strategy in ("difficulty", "unrewarded"):
        sampler = stratified(strategy, {"a": 2, "b": 2})
        for _ in range(20):
            sampler.observe([scored(sampler.items[0], 5.0, 9.0), scored(sampler.items[2], -4, -8)])
        assert all(weight > 0 for weight in shares(sampler).values())


def test_a_curriculum_by_hand() -> None:
    """Levels 2, 10 and 9 of hearsay: the family knows 2 alone, so the others count as numbers."""
    sampler = stratified(
        "curriculum", {"hearsay_10": 4, "hearsay_2": 4, "ucc_1": 4, "hearsay_9": 4}
    )
    by_task = {sample.task: sample for sample in sampler.items}
    assert shares(sampler) == {"hearsay_2": 0.5, "ucc_1": 0.5}
    assert {sample.task for sample in sampler.draw()} == {"hearsay_2", "ucc_1"}

    sampler.observe([scored(by_task["hearsay_2"], 1.0)])  # success 0.75
    assert shares(sampler).keys() == {"hearsay_2", "ucc_1"}
    sampler.observe([scored(by_task["hearsay_2"], 1.0)])  # 0.875: mastered
    expected = {"hearsay_2": 1 / 6, "hearsay_9": 1 / 3, "ucc_1": 1 / 2}
    assert shares(sampler) == pytest.approx(expected, abs=1e-15)
    # What was unlocked stays so, and a level that fails opens nothing.
    sampler.observe([scored(by_task["hearsay_2"], 0.0), scored(by_task["hearsay_9"], 0.0)])
    assert shares(sampler) == pytest.approx(expected, abs=1e-15)
    for _ in range(3):
        sampler.observe([scored(by_task["hearsay_9"], 1.0)])
    expected = {"hearsay_2": 1 / 8, "hearsay_9": 1 / 8, "hearsay_10": 1 / 4, "ucc_1": 1 / 2}
    assert shares(sampler) == pytest.approx(expected, abs=1e-15)
    sampler.draw()
    opened = {k: v for k, v in sampler.figures().items() if "unlocked" in k}
    assert opened == {"sampler/unlocked/hearsay": 3, "sampler/unlocked/ucc": 1}


def test_levels_stand_in_their_family_s_own_order() -> None:
    sampler = stratified("curriculum", {f"hearsay_{level}": 1 for level in (3, 5, 1)})
    assert [s.name for s in sampler.ladders["hearsay"]] == ["hearsay_1", "hearsay_3", "hearsay_5"]


def test_figures_of_the_last_draw_by_hand() -> None:
    sampler = stratified("difficulty", {"a": 4, "b": 4}, batch=4)
    assert sampler.figures() == {}
    drawn = sampler.draw()
    sampler.observe([scored(sample, 1.0) for sample in drawn if sample.task == "a"])
    figures = sampler.figures()
    assert figures.pop("sampler/success/a") == 0.875  # 1 − 1/4 · 1/2
    assert figures.pop("sampler/reward/a") == 0.875
    assert figures == {
        **{f"sampler/count/{name}": 2 for name in "ab"},
        **{f"sampler/weight/{name}": 0.5 for name in "ab"},
        **{f"sampler/{figure}/b": 0.5 for figure in ("success", "reward")},
    }


COUNTS = st.dictionaries(
    st.sampled_from(["hearsay_1", "hearsay_2", "hearsay_5", "ucc_1", "ucc_3", "plain"]),
    st.integers(1, 5),
    min_size=1,
)


def answer(sampler: ShuffleSampler[Sample], batch: list[Sample]) -> None:
    """Rewards that differ from sample to sample and from step to step."""
    sampler.observe(
        scored(sample, random.Random(f"{sample.prompt} {sampler.position}").random(), 1.0)
        for sample in batch
    )


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(STRATEGIES)), COUNTS, st.integers(1, 9), st.integers(0, 12))
def test_interrupted_draws_are_uninterrupted_ones(
    strategy: str, counts: dict[str, int], batch: int, steps: int
) -> None:
    def drain_with_answers(sampler: StratifiedSampler[Sample]) -> list[Any]:
        seen = []
        while drawn := sampler.draw():
            answer(sampler, drawn)
            seen.append((drawn, sampler.figures()))
        return seen

    def make_one() -> StratifiedSampler[Sample]:
        return stratified(strategy, counts, batch=batch, epochs=4)

    whole = drain_with_answers(make_one())
    assert [len(drawn) for drawn, _ in whole[:-1]] == [batch] * (len(whole) - 1)
    assert sum(len(drawn) for drawn, _ in whole) == 4 * sum(counts.values())
    first = make_one()
    for _ in range(min(steps, len(whole))):
        answer(first, first.draw())
    second = make_one()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert whole[min(steps, len(whole)) :] == drain_with_answers(second)
    assert second.draw() == []


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(STRATEGIES)), COUNTS, st.integers(1, 9))
def test_no_stratum_loses_a_sample(strategy: str, counts: dict[str, int], batch: int) -> None:
    sampler = stratified(strategy, counts, batch=batch, epochs=6)
    drawn: dict[str, list[str]] = {task: [] for task in counts}
    while chosen := sampler.draw():
        for sample in chosen:
            drawn[sample.task].append(str(sample.prompt))
        answer(sampler, chosen)
    for task, prompts in drawn.items():
        count = counts[task]
        for start in range(0, len(prompts) - count + 1, count):
            assert len(set(prompts[start : start + count])) == count


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(0, 40), st.integers(0, 99))
def test_spread_rounds_every_share_up_or_down(weights: list[int], count: int, seed: int) -> None:
    if not sum(weights):
        weights = [1]
    parts = {str(n): weight / sum(weights) for n, weight in enumerate(weights)}
    counts = spread(parts, count, random.Random(seed))
    assert sum(counts.values()) == count
    for name, share in parts.items():
        assert abs(counts.get(name, 0) - share * count) < 1 + 1e-9
        assert share or name not in counts


def test_spread_gives_each_its_share_on_average() -> None:
    drawn = Counter[str]()
    for seed in range(2000):
        drawn.update(spread({"a": 0.7, "b": 0.25, "c": 0.05}, 3, random.Random(seed)))
    # A count varies by less than 1/2 a draw: 2000 of them by 4 · 1/2 · √2000 = 90 at most.
    for name, share in (("a", 0.7), ("b", 0.25), ("c", 0.05)):
        assert drawn[name] == pytest.approx(6000 * share, abs=90)


def test_the_state_of_another_strategy_or_of_other_tasks_is_refused() -> None:
    state = stratified("balance", {"a": 3, "b": 3}).state_dict()
    with pytest.raises(CheckpointError, match="sampler=balance, whose state says nothing to .*cur"):
        stratified("curriculum", {"a": 3, "b": 3}).load_state_dict(state)
    with pytest.raises(CheckpointError, match="from the tasks a, b, and here are a, c"):
        stratified("balance", {"a": 3, "c": 3}).load_state_dict(state)
    plain = make(6, 8, 50, 0)
    with pytest.raises(CheckpointError, match="Resume with sampler=balance"):
        plain.load_state_dict(state)
    with pytest.raises(CheckpointError, match="Resume with sampler=shuffle"):
        stratified("balance", {"a": 3, "b": 3}).load_state_dict(plain.state_dict())
