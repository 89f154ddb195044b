"""The fused kernel's mask and cap, by plain operations, against attention by blocks."""

from __future__ import annotations

import pytest
import torch

from judicaita.training.fused_attention import fused, is_fused
from judicaita.training.shared_prefix import attend, pack

CPU = torch.device("cpu")


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 3, 6])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_same_as_by_blocks(window: int | None, softcap: float | None) -> None:
    rows = [((1,) * 7, (2,) * count) for count in (5, 1, 9)] + [((3,) * 4, (4,) * 6)]
    packed = pack(rows, CPU)
    length = packed.input_ids_1_S.numel()
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, length, 16, generator=generator) for heads in (6, 2, 2)
    )
    expected, _ = attend(
        *(torch.nn.Module(), query, key, value, None),
        **{"packed": packed, "scaling": 0.5, "softcap": softcap, "sliding_window": window},
    )
    mask = packed.mask(window, compiled=False)
    found = fused(query, key, value, mask, scaling=0.5, softcap=softcap, compiled=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_window_has_one_mask() -> None:
    packed = pack([((1, 2), (3, 4)), ((1, 2), (5,))], CPU)
    assert packed.mask(None, compiled=False) is packed.mask(None, compiled=False)
    assert packed.mask(1, compiled=False) is not packed.mask(None, compiled=False)


def test_a_cpu_has_no_fused_kernel() -> None:
    assert not is_fused(CPU, 16, torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (3, 2.0)])
def test_its_gradient_on_a_gpu(window: int | None, softcap: float | None) -> None:
    """The compiled kernel, forward and backward, against blocks in float64 on the CPU."""
    rows = [((1,) * 40, (2,) * count) for count in (50, 1, 90)] + [((3,) * 30, (4,) * 60)]
    gpu = torch.device("cuda")
    states = [torch.randn(1, heads, 300, 16, dtype=torch.float64) for heads in (6, 2, 2)]
    results = []
    for device, dtype in ((CPU, torch.float64), (gpu, torch.float32)):
        packed = pack(rows, device)
        length = packed.input_ids_1_S.numel()
        own = [x[:, :, :length].to(device, dtype).requires_grad_() for x in states]
        seen, _ = attend(
            *(torch.nn.Module(), *own, None),
            **{"packed": packed, "scaling": 0.25, "softcap": softcap, "sliding_window": window},
        )
        seen.square().sum().backward()
        results.append([seen, *(x.grad for x in own)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-3, atol=1e-3)
