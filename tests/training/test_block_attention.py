"""The backward pass that is written out, against autograd and against numerical differences."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from judicaita.training.block_attention import Rule, attend_block

K, M, G, R, P, D = 2, 3, 2, 4, 5, 3
CPU = torch.device("cpu")


def states(*, own: bool) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(K, G, M, R, D), (K, P, D), (K, P, D)]
    shapes += [(K, G, R, D)] * 2 if own else []
    made: list[Tensor | None] = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    ]
    return made if own else [*made, None, None]


def plainly(
    query: Tensor,
    prefix_key: Tensor,
    prefix_value: Tensor,
    own_key: Tensor | None,
    own_value: Tensor | None,
    hidden: Tensor,
    rule: Rule,
) -> Tensor:
    """The definition, every sequence and head by itself."""
    seen = torch.empty(K, G, M, R, D, dtype=query.dtype)
    for k in range(K):
        for g in range(G):
            own = [] if own_key is None or own_value is None else [(own_key[k, g], own_value[k, g])]
            keys = torch.cat([prefix_key[k], *(key for key, _ in own)])
            values = torch.cat([prefix_value[k], *(value for _, value in own)])
            for m in range(M):
                scores = rule.scaling * query[k, g, m] @ keys.T
                if rule.softcap is not None:
                    scores = rule.softcap * (scores / rule.softcap).tanh()
                scores[:, -hidden.shape[1] :].masked_fill_(hidden, float("-inf"))
                weights = scores.softmax(-1)
                seen[k, g, m] = weights @ values
    return seen


@pytest.mark.parametrize("own", [False, True], ids=["prefix", "prefix and own"])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 3])
def test_the_same_as_autograd(own: bool, softcap: float | None, window: int | None) -> None:
    rule = Rule(0.7, softcap, window)
    first = P if own else P - R
    keys = range(P + R) if own else range(P)
    hidden = rule.hidden(range(first, first + R), keys, CPU)
    results = []
    for attention in (plainly, partial(attend_block, keep=True), partial(attend_block, keep=False)):
        tensors = states(own=own)
        seen = attention(*tensors, hidden, rule)  # type: ignore[arg-type]
        weights = torch.arange(seen.numel(), dtype=seen.dtype).view_as(seen).cos()
        (seen * weights).sum().backward()
        results.append([seen, *(x.grad for x in tensors if x is not None)])
    for expected, kept, made_again in zip(*results, strict=True):
        assert expected is not None
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(made_again, expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(kept, made_again)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_the_gradient_by_differences(own: bool, keep: bool) -> None:
    rule = Rule(0.7, 1.5, 4)
    hidden = rule.hidden(range(P, P + R), range(P + R if own else P), CPU)
    hidden[:, 0] = False  # else a query behind the window would see nothing
    tensors = states(own=own)
    assert torch.autograd.gradcheck(
        lambda *given: attend_block(*given, hidden, rule, keep=keep), tensors
    )


def test_what_is_hidden_by_hand() -> None:
    # Queries at 2 and 3, keys at 0 to 3; each sees itself and the one before.
    assert Rule(1.0, None, 2).hidden(range(2, 4), range(4), CPU).tolist() == [
        [True, False, False, True],
        [True, True, False, False],
    ]
    # Without a window all that stands before the first query is seen.
    assert Rule(1.0, None, None).hidden(range(2, 4), range(4), CPU).tolist() == [
        [False, True],
        [False, False],
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gets_gradients_of_its_own_type(dtype: torch.dtype) -> None:
    rule = Rule(0.7, None, None)
    hidden = rule.hidden(range(P, P + R), range(P + R), CPU)
    results = []
    for target in (torch.float64, dtype):
        tensors = [
            x.detach().to(target).requires_grad_() for x in states(own=True) if x is not None
        ]
        with torch.autocast("cpu", dtype=dtype, enabled=target == dtype):
            seen = attend_block(*tensors, hidden, rule, keep=True)
        seen.sum().backward()
        assert seen.dtype == target
        results.append([seen, *(x.grad for x in tensors)])
    for expected, found in zip(*results, strict=True):
        assert found is not None
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=0.05, atol=0.05)
