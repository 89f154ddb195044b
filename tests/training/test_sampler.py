"""Every sample as often as it should come, and the same order after an interruption."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.errors import CheckpointError
from judicaita.training.sampler import ShuffleSampler

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
