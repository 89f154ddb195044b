"""The backward pass that is written out, against autograd and against numerical differences."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from judicaita.training.block_attention import Block, Part, Rule, attend_parts

K, M, D, D_VALUE = 2, 3, 3, 2
"""Values have a width of their own, so that none is taken for the other."""

OWNERS = "pppppaaaabbb"
"""Of each token of the row: the prompt, or one of two completions of unequal length."""

POSITIONS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7]


def parts(queries_at_once: int) -> tuple[Part, Part]:
    prompt = Part(slice(0, 0), (0,), (5,), queries_at_once)
    return prompt, Part(slice(0, 5), (5, 9), (4, 3), queries_at_once)


def states() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    length = len(OWNERS)
    shapes = [(K, M, length, D), (K, length, D), (K, length, D_VALUE)]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    ]


def plainly(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """The definition, every query and head by itself."""
    seen = torch.empty(*query.shape[:-1], D_VALUE, dtype=query.dtype)
    for k in range(K):
        for m in range(M):
            for place, (owner, position) in enumerate(zip(OWNERS, POSITIONS, strict=True)):
                visible = [
                    other
                    for other, (its_owner, its_position) in enumerate(
                        zip(OWNERS, POSITIONS, strict=True)
                    )
                    if its_owner in ("p", owner)
                    and its_position <= position
                    and (rule.window is None or position - its_position < rule.window)
                ]
                scores = rule.scaling * key[k, visible] @ query[k, m, place]
                if rule.softcap is not None:
                    scores = rule.softcap * (scores / rule.softcap).tanh()
                seen[k, m, place] = scores.softmax(-1) @ value[k, visible]
    return seen


@pytest.mark.parametrize("queries_at_once", [2, 3, 99])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 2, 4, 7], ids=lambda window: f"window {window}")
def test_the_same_as_autograd(
    queries_at_once: int, softcap: float | None, window: int | None
) -> None:
    rule = Rule(0.7, softcap, window)
    results = []
    for attention in (
        partial(plainly, rule=rule),
        partial(attend_parts, parts=parts(queries_at_once), rule=rule),
    ):
        tensors = states()
        seen = attention(*tensors)
        weights = torch.arange(seen.numel(), dtype=seen.dtype).view_as(seen).cos()
        (seen * weights).sum().backward()
        results.append([seen, *(x.grad for x in tensors)])
    for expected, found in zip(*results, strict=True):
        assert expected is not None
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("window", [None, 4])
def test_the_gradient_by_differences(window: int | None) -> None:
    rule = Rule(0.7, 1.5, window)
    assert torch.autograd.gradcheck(lambda *given: attend_parts(*given, parts(3), rule), states())


def test_what_a_block_sees_by_hand() -> None:
    _, completions = parts(2)
    first, second = completions.blocks(2)
    # Queries at 7 and 8 of a completion that begins at 5: with a window of 2 they see 6 to 8, of
    # which the one at 7 is the second.
    assert second == Block(slice(2, 4), slice(5, 5), slice(1, 4), 1)
    # Those at 5 and 6 see the prefix's last token, and themselves.
    assert first == Block(slice(0, 2), slice(4, 5), slice(0, 2), 1)
    # Without a window all that stands before the block is seen.
    _, second = completions.blocks(None)
    assert second == Block(slice(2, 4), slice(0, 5), slice(0, 4), 7)
    # With one of 8 the query at 8 no longer sees the first token, and the one at 7 does.
    _, second = completions.blocks(8)
    assert second == Block(slice(2, 4), slice(0, 5), slice(0, 4), 7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gets_gradients_of_its_own_type(dtype: torch.dtype) -> None:
    rule = Rule(0.7, None, None)
    results = []
    for target in (torch.float64, dtype):
        tensors = [x.detach().to(target).requires_grad_() for x in states()]
        with torch.autocast("cpu", dtype=dtype, enabled=target == dtype):
            seen = attend_parts(*tensors, parts(3), rule)
        seen.sum().backward()
        assert seen.dtype == target
        results.append([seen, *(x.grad for x in tensors)])
    for expected, found in zip(*results, strict=True):
        assert found is not None
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=0.05, atol=0.05)
