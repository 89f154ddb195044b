"""One number from a value per token: the split into micro-batches must not matter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.training.algorithms.reduction import sequence_mean, token_mean

NAN = float("nan")


def test_by_hand() -> None:
    values = torch.tensor([[1.0, 2.0, NAN], [4.0, NAN, float("inf")]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values.requires_grad_()
    # 7 over the 10 tokens of the whole step, of which this micro-batch holds three.
    mean = token_mean(values, mask, 10)
    assert float(mean.detach()) == pytest.approx(0.7, abs=1e-16)
    mean.backward()
    assert values.grad.tolist() == [[0.1, 0.1, 0.0], [0.1, 0.0, 0.0]]


def test_sequence_mean_by_hand() -> None:
    values = torch.tensor([[1.0, 2.0, NAN], [4.0, NAN, float("inf")]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values.requires_grad_()
    # 3/2 and 4/1 over the five completions of the whole step.
    mean = sequence_mean(values, mask, 5)
    assert float(mean.detach()) == pytest.approx(1.1, abs=1e-16)
    mean.backward()
    assert values.grad.tolist() == [[0.1, 0.1, 0.0], [0.2, 0.0, 0.0]]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(-100, 100), min_size=1, max_size=6), min_size=1, max_size=8),
    size=st.integers(1, 8),
)
def test_one_by_eight_is_eight_by_one(rows: list[list[int]], size: int) -> None:
    """Rows of unequal lengths, padded with NaN to the longest of each micro-batch."""
    count = sum(len(row) for row in rows)

    def reduced(chunk: list[list[int]]) -> float:
        width = max(map(len, chunk))
        padded = [[*map(float, row), *[NAN] * (width - len(row))] for row in chunk]
        values = torch.tensor(padded, dtype=torch.float64)
        return float(token_mean(values, ~values.isnan(), count))

    split = sum(reduced(rows[start : start + size]) for start in range(0, len(rows), size))
    assert split == pytest.approx(reduced(rows), abs=1e-12)
    assert split == pytest.approx(sum(map(sum, rows)) / count, abs=1e-12)
