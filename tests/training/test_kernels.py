"""The operators in C++ and their equals in plain operations, against the definitions."""

from __future__ import annotations

import math
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from judicaita.training import kernels

R, T = 3, 40
"""More keys than the registers of any processor hold, and not a multiple of them."""


@pytest.fixture(autouse=True)
def _built() -> None:
    assert kernels.is_built(), "the tests need a C++ compiler"


@pytest.fixture(params=["C++", "plain"])
def _either(_built: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(kernels, "is_built", lambda: False)


def scores_of(dtype: torch.dtype) -> Tensor:
    return torch.randn(2, 5, R, T, generator=torch.Generator().manual_seed(0)).to(dtype)


def by_definition(
    scores: Tensor, place: int, window: int | None, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """Weights and logarithms of the sums, row by row."""
    weights, sums = torch.zeros_like(scores), scores.new_zeros(scores.shape[:-1])
    for row in range(R):
        first = 0 if window is None else max(0, place + row - window + 1)
        seen = slice(first, place + row + 1)
        score = scores[..., row, seen]
        if softcap is not None:
            score = softcap * score.tanh()
        weights[..., row, seen] = score.softmax(-1)
        sums[..., row] = score.exp().sum(-1).log()
    return weights, sums


CASES = [(0, None), (17, None), (37, None), (37, 1), (37, 20), (5, 7), (37, 99)]


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("softcap", [None, 2.5])
@pytest.mark.parametrize(("place", "window"), CASES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_weights_and_gradients(
    place: int, window: int | None, softcap: float | None, dtype: torch.dtype, bound: float
) -> None:
    exact = scores_of(torch.float64).requires_grad_()
    expected, sums = by_definition(exact, place, window, softcap)
    d_weights = torch.arange(exact.numel(), dtype=exact.dtype).view_as(exact).cos()
    (expected * d_weights).sum().backward()

    weights = scores_of(dtype)
    log_sum = kernels.weigh_(weights, place, window, softcap)
    again, d_scores = scores_of(dtype), d_weights.to(dtype)
    kernels.weigh_backward_(again, d_scores, log_sum, place, window, softcap)

    for found, right in (
        (weights, expected),
        (again, expected),
        (log_sum, sums),
        (d_scores, exact.grad),
    ):
        assert right is not None
        torch.testing.assert_close(found.double(), right, rtol=bound, atol=bound)


@pytest.mark.usefixtures("_either")
def test_large_scores_stay_finite() -> None:
    scores = torch.full((1, T), -1e4)
    scores[0, 3] = 1e4
    log_sum = kernels.weigh_(scores, T - 1, None, None)
    assert scores[0, 3] == 1
    assert scores.sum() == 1
    assert float(log_sum) == 1e4


def test_by_hand() -> None:
    """Scores ln 1, ln 3 and one that is hidden: weights 1/4 and 3/4."""
    scores = torch.tensor([[0.0, math.log(3), 9.0]], dtype=torch.float64)
    d_weights = torch.tensor([[1.0, 2.0, 5.0]], dtype=torch.float64)
    weights = scores.clone()
    log_sum = kernels.weigh_(weights, 1, None, None)
    assert weights[0].tolist() == pytest.approx([0.25, 0.75, 0.0])
    assert float(log_sum) == pytest.approx(math.log(4))
    kernels.weigh_backward_(scores, d_weights, log_sum, 1, None, None)
    # w (g − Σ w g), with Σ w g = 1/4 + 3/2.
    assert d_weights[0].tolist() == pytest.approx([0.25 * -0.75, 0.75 * 0.25, 0.0])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(RuntimeError, match="among its keys"):
        kernels.weigh_(torch.zeros(R, T), T - R + 1, None, None)
    with pytest.raises(RuntimeError, match="contiguous"):
        kernels.weigh_(torch.zeros(T, R).T, 0, None, None)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 13, 24])
@pytest.mark.parametrize(("inputs", "outputs"), [(7, 5), (32, 64), (97, 11)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_few_rows(rows: int, inputs: int, outputs: int, dtype: torch.dtype, bound: float) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((rows, 1, inputs), (outputs, inputs), (outputs,))
    )
    for added in (None, bias):
        expected = (x[..., None, :] * weight).sum(-1) + (0 if added is None else added)
        found = kernels.multiply_few(
            x.to(dtype), weight.to(dtype), None if added is None else added.to(dtype)
        )
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=bound, atol=bound * inputs)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 8, 13])
def test_few_rows_by_weights_of_16_bits(rows: int, dtype: torch.dtype) -> None:
    """Widened, not rounded again: sums are those of the same numbers in 32 bits."""
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (
        torch.randn(shape, generator=generator).bfloat16()
        for shape in ((rows, 97), (11, 97), (11,))
    )
    expected = x.double() @ weight.double().T + bias.double()
    found = kernels.multiply_few(x.to(dtype), weight, bias)
    assert found.dtype == dtype
    rounding = 2e-6 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(found.double(), expected, rtol=rounding, atol=1e-4)


def test_few_rows_of_another_type_are_refused() -> None:
    with pytest.raises(RuntimeError, match="Double"):
        kernels.multiply_few(torch.ones(2, 3), torch.ones(4, 3, dtype=torch.float64), None)
    with pytest.raises(RuntimeError, match="as many inputs"):
        kernels.multiply_few(torch.ones(2, 3), torch.ones(4, 5), None)


# ── one more token ───────────────────────────────────────────────────────────────────────────────

HEADS, KEY_HEADS, WIDTH, VALUE_WIDTH, CAPACITY = 14, 2, 5, 18, 4
"""Seven queries for a key: four, two and one at a time. Values are wider than a register."""


@pytest.mark.parametrize("softcap", [None, 2.5])
@pytest.mark.parametrize("window", [None, 1, 3, 6, 99])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_one_more_token(
    window: int | None, softcap: float | None, dtype: torch.dtype, bound: float
) -> None:
    """Three rows, two of them with a prompt in common, and a slot that has been left."""
    generator = torch.Generator().manual_seed(0)
    prompts = [(0, 21), (21, 2)]
    starts, lengths = zip(prompts[0], prompts[1], prompts[0], strict=True)
    slots = (3, 0, 1)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    prompt_keys, prompt_values = drawn(KEY_HEADS, 23, WIDTH), drawn(KEY_HEADS, 23, VALUE_WIDTH)
    own_keys = torch.full((4, KEY_HEADS, WIDTH, CAPACITY), math.nan, dtype=dtype)
    own_values = torch.full((4, KEY_HEADS, CAPACITY, VALUE_WIDTH), math.nan, dtype=dtype)
    keys = [
        prompt_keys[:, start : start + length]
        for start, length in zip(starts, lengths, strict=True)
    ]
    values = [
        prompt_values[:, start : start + length]
        for start, length in zip(starts, lengths, strict=True)
    ]
    for place in range(CAPACITY):
        query, key = drawn(3, HEADS, WIDTH), drawn(3, KEY_HEADS, WIDTH)
        value = drawn(3, KEY_HEADS, VALUE_WIDTH)
        found = kernels.attend_next(
            *(x.to(dtype) for x in (query, key, value)),
            *(prompt_keys.mT.contiguous().to(dtype), prompt_values.to(dtype)),
            *(own_keys, own_values),
            *(torch.tensor(own) for own in (starts, lengths, slots)),
            *(place, window, 0.7, softcap),
        )
        for row in range(3):
            keys[row] = torch.cat([keys[row], key[row][:, None]], dim=1)
            values[row] = torch.cat([values[row], value[row][:, None]], dim=1)
            for head in range(HEADS):
                key_head = head // (HEADS // KEY_HEADS)
                seen = slice(0 if window is None else -window, None)
                scores = 0.7 * keys[row][key_head, seen] @ query[row, head]
                if softcap is not None:
                    scores = softcap * (scores / softcap).tanh()
                expected = scores.softmax(-1) @ values[row][key_head, seen]
                torch.testing.assert_close(
                    found[row, head].double(), expected, rtol=bound, atol=bound
                )
    assert own_keys[2].isnan().all(), "nobody's slot"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"place": CAPACITY}, "full"),
        ({"slots": torch.tensor([4])}, "slot"),
        ({"lengths": torch.tensor([24])}, "slot"),
        ({"query": torch.zeros(1, HEADS, 2 * WIDTH)[..., ::2]}, "contiguous"),
    ],
)
def test_one_more_token_that_does_not_fit(changed: dict[str, Any], told: str) -> None:
    arguments = {
        "query": torch.zeros(1, HEADS, WIDTH),
        "key": torch.zeros(1, KEY_HEADS, WIDTH),
        "value": torch.zeros(1, KEY_HEADS, VALUE_WIDTH),
        "prompt_keys": torch.zeros(KEY_HEADS, WIDTH, 23),
        "prompt_values": torch.zeros(KEY_HEADS, 23, VALUE_WIDTH),
        "own_keys": torch.zeros(4, KEY_HEADS, WIDTH, CAPACITY),
        "own_values": torch.zeros(4, KEY_HEADS, CAPACITY, VALUE_WIDTH),
        "starts": torch.tensor([0]),
        "lengths": torch.tensor([23]),
        "slots": torch.tensor([0]),
        **{"place": 0, "window": None, "scaling": 1.0, "softcap": None},
    }
    kernels.attend_next(*arguments.values())
    with pytest.raises(RuntimeError, match=told):
        kernels.attend_next(*(arguments | changed).values())


# ── large pages ──────────────────────────────────────────────────────────────────────────────────


def on_large_pages() -> int:
    """KiB of this process that are."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("AnonHugePages")]
    return int(line.split()[1])


def test_weights_stand_on_large_pages() -> None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.is_file() or "[never]" in enabled.read_text():
        pytest.skip("this system has no transparent large pages")
    if tuple(map(int, platform.release().split(".")[:2])) < (6, 1):
        pytest.skip("this kernel can't collapse pages on demand")
    weights = [torch.arange(4_000_000.0), torch.arange(5.0)]  # 15 MiB: seven whole pages at least
    before, expected = on_large_pages(), [weight.clone() for weight in weights]
    kernels.use_large_pages(weights)
    assert on_large_pages() - before >= 6 * 2048
    assert all(map(torch.equal, weights, expected))


def test_large_pages_of_nothing() -> None:
    kernels.use_large_pages([])
    kernels.use_large_pages([torch.empty(0), torch.empty(3, device="meta")])


# ── how they are built ───────────────────────────────────────────────────────────────────────────

SCRIPT = "from judicaita.training import kernels; print(kernels.is_built())"


def environment(folder: Path, **own: str) -> dict[str, str]:
    return {**os.environ, "TORCH_EXTENSIONS_DIR": str(folder), **own}


def test_without_a_compiler_the_plain_ones_serve(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "always", "-c", SCRIPT],
        env=environment(tmp_path, CXX="no-such-compiler"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "False\n"
    assert "can't be built" in ran.stderr
    assert "no-such-compiler" in ran.stderr


def test_a_compiler_that_fails_is_told(tmp_path: Path) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    compiler.chmod(0o755)
    ran = subprocess.run(
        [sys.executable, "-W", "always", "-c", SCRIPT],
        env=environment(tmp_path / "cache", CXX=str(compiler)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "False\n"
    assert "(no room)" in ran.stderr


@pytest.mark.slow
def test_a_build_that_was_killed_is_made_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT]
    killed = subprocess.Popen(command, env=environment(tmp_path), start_new_session=True)
    while not list(tmp_path.glob("*.lock")):
        assert killed.poll() is None
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not list(tmp_path.glob("*.so"))
    ran = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, check=True, timeout=300
    )
    assert ran.stdout == "True\n"
