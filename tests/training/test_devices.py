"""Which device and precision a setting means; XLA on the CPU against torch's own CPU kernels."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from judicaita.errors import ConfigError
from judicaita.training.devices import Placement, place

if TYPE_CHECKING:
    from judicaita.training.config import TrainingConfig
    from judicaita.training.policy import Policy

CPU = torch.device("cpu")
SETTINGS = {"LoRA": {"use_lora": True, "beta": 0.1}, "full": {"use_lora": False}}


@pytest.mark.parametrize(
    ("precision", "compute"),
    [
        ("auto", torch.float32),
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
    ],
)
def test_precision_on_the_cpu(precision: str, compute: torch.dtype) -> None:
    placement = place("cpu", precision)
    assert placement == Placement(CPU, compute)
    with placement.autocast():
        assert torch.is_autocast_enabled("cpu") is placement.mixed
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == compute


@pytest.mark.parametrize(
    ("cuda", "mps", "found"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, found: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert place("auto", "fp32").device.type == found


@pytest.mark.parametrize(
    ("capability", "hip", "compute"),
    [
        ((9, 0), None, torch.bfloat16),
        ((8, 0), None, torch.bfloat16),
        ((7, 5), None, torch.float16),
        ((7, 0), "6.2", torch.bfloat16),  # AMD counts otherwise
    ],
)
def test_precision_of_cuda_cards(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    hip: str | None,
    compute: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert place("cuda", "auto").compute == compute
    assert place("cuda", "fp32").compute == torch.float32


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"^device={name}: torch finds no such device here. Set "):
        place(name, "auto")


def test_the_generator_is_as_seeded() -> None:
    draws = [torch.rand(3, generator=place("cpu", "fp32").generator(seed)) for seed in (4, 4, 5)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_global_generators_go_on_where_they_were() -> None:
    placement = place("cpu", "fp32")
    with torch.random.fork_rng(devices=[]):
        placement.seed(3)
        first = torch.rand(2)
        state = placement.rng_state()
        then = torch.rand(2)
        placement.set_rng_state({**state, "cuda_rng": "of a run elsewhere"})
        assert torch.equal(torch.rand(2), then)
        placement.seed(3)
        assert torch.equal(torch.rand(2), first)


# ── TPU ──────────────────────────────────────────────────────────────────────────────────────────


class Blocked:
    """Finds torch_xla and fails to import it."""

    def __init__(self, error: ImportError) -> None:
        self.error = error

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "torch_xla":
            raise self.error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            ModuleNotFoundError("No module named 'torch_xla'"),
            "^device=tpu: torch_xla is not installed. Install it with `pip install ",
        ),
        (
            ImportError("undefined symbol: _ZN5torch"),
            r"^device=tpu: torch_xla does not fit this torch \(undefined symbol: _ZN5torch\). Inst",
        ),
    ],
)
def test_tpu_without_a_torch_xla_that_imports(
    monkeypatch: pytest.MonkeyPatch, error: ImportError, sentence: str
) -> None:
    monkeypatch.delitem(sys.modules, "torch_xla", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Blocked(error), *sys.meta_path])
    with pytest.raises(ConfigError, match=sentence):
        place("tpu", "auto")


@pytest.fixture
def fake_xla(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A torch_xla whose device and machine a test sets; it notes its choice in the environment."""
    fake = SimpleNamespace(device=torch.device("xla", 0), machine="TPU")

    def device() -> torch.device:
        if isinstance(fake.device, Exception):
            raise fake.device
        os.environ.setdefault("PJRT_DEVICE", fake.machine)
        return fake.device

    package, runtime = ModuleType("torch_xla"), ModuleType("torch_xla.runtime")
    package.device, package.runtime = device, runtime  # type: ignore[attr-defined]
    runtime.device_type = lambda: os.environ.get("PJRT_DEVICE")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_xla", package)
    monkeypatch.setitem(sys.modules, "torch_xla.runtime", runtime)
    monkeypatch.delenv("PJRT_DEVICE", raising=False)
    yield fake
    os.environ.pop("PJRT_DEVICE", None)


@pytest.mark.parametrize(
    ("precision", "compute"),
    [("auto", torch.bfloat16), ("bf16", torch.bfloat16), ("fp32", torch.float32)],
)
def test_precision_on_a_tpu(
    fake_xla: SimpleNamespace, precision: str, compute: torch.dtype
) -> None:
    assert place("tpu", precision) == Placement(torch.device("xla", 0), compute)


def test_tpu_without_fp16(fake_xla: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match="^precision=fp16: XLA has no such autocast. Set "):
        place("tpu", "fp16")


def test_torch_xla_without_a_tpu(
    fake_xla: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_xla.machine = "CPU"
    for _ in range(2):  # its choice is not taken for the user's the second time
        with pytest.raises(ConfigError, match="^device=tpu: torch_xla finds no TPU here. Set "):
            place("tpu", "auto")
    monkeypatch.setenv("PJRT_DEVICE", "CPU")
    assert place("tpu", "auto").device.type == "xla"


def test_torch_xla_that_cannot_start(fake_xla: SimpleNamespace) -> None:
    fake_xla.device = OSError("libtpu not found")
    with pytest.raises(ConfigError, match=r"finds no device \(libtpu not found\). Run it on a TPU"):
        place("tpu", "auto")


def test_no_gradient_checkpointing_on_a_tpu(fake_xla: SimpleNamespace) -> None:
    from judicaita.training.config import TrainingConfig
    from judicaita.training.loading import load_policy

    with pytest.raises(ConfigError, match="^gradient_checkpointing: torch has none on device=tpu."):
        load_policy(TrainingConfig(device="tpu", gradient_checkpointing=True))


@pytest.mark.skipif(importlib.util.find_spec("torch_xla") is None, reason="needs torch_xla")
@pytest.mark.parametrize("kind", SETTINGS)
def test_xla_computes_what_the_cpu_does(
    make_model: Callable[..., Any],
    make_tokenizer: Callable[..., Any],
    tmp_path: Path,
    kind: str,
) -> None:
    """In a process of its own: XLA has to be there before torch's first backward pass."""
    make_model().save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    done = subprocess.run(
        [sys.executable, __file__, tmp_path, kind],
        env={**os.environ, "PJRT_DEVICE": "CPU"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout.splitlines()[-1])
    # Adam divides by the gradient's size, and so enlarges its rounding where it is near 0.
    limits = {name: 1e-4 if name == "weights" else 1e-5 for name in differences}
    assert all(differences[name] <= limits[name] for name in limits), differences


def compare(folder: Path, kind: str) -> None:
    """Print how far one update on XLA is from the same on the CPU, as JSON."""
    from judicaita.training.config import TrainingConfig

    results = []
    for device in ("tpu", "cpu"):  # in this order, see above
        config = TrainingConfig(
            **{"base_model": str(folder / "base"), "device": device, "precision": "fp32"},
            **{"lora_dropout": 0.0, "max_grad_norm": 0.0, "learning_rate": 1e-3},
            **SETTINGS[kind],
        )
        results.append(update(config, folder / device))
    on_xla, on_cpu = results
    assert on_xla["tokens"] == on_cpu["tokens"]
    assert on_xla["files"] == on_cpu["files"]

    def largest(name: str) -> float:
        """Of all entries, as a share of the largest one of its tensor where that exceeds 1."""
        return max(
            float((on_xla[name][key] - value).abs().max() / value.abs().max().clamp(min=1))
            for key, value in on_cpu[name].items()
        )

    names = ("logprobs", "figures", "gradients", "weights", "sampled")
    print(json.dumps({name: largest(name) for name in names}))


def update(config: TrainingConfig, folder: Path) -> dict[str, Any]:
    """Sample, take one optimizer step, save and load; all that came of it, on the CPU."""
    from judicaita.training.batching import Batch, collate
    from judicaita.training.loading import load_policy
    from judicaita.training.optimization import Updater
    from judicaita.training.rollouts.base import SamplingParams
    from judicaita.training.rollouts.native import NativeEngine
    from judicaita.training.supervision import Supervisor
    from judicaita.training.update import PolicyUpdate

    place(config.device, config.precision).seed(0)
    policy = load_policy(config)
    move_adapter(policy)
    # From below the sliding window of 6 to beyond it.
    prompts = [(2, 50, 60), (2, 33)]
    sampling = SamplingParams(max_tokens=6, temperature=0.8, top_p=0.9, seed=3)
    completions = [
        c for group in NativeEngine(policy).generate(prompts, 2, sampling) for c in group
    ]

    draw = random.Random(0)
    rows = [
        (prompt, [draw.randrange(7, 300) for _ in range(length)])
        for prompt, length in zip(prompts * 2, (8, 1, 5, 3), strict=True)
    ]
    tokens = collate(rows, policy.pad_id, policy.placement.device)
    generator = torch.Generator().manual_seed(1)
    advantages_B_T, sampled_B_T = (
        torch.randn(tokens.mask_B_T.shape, generator=generator).to(policy.placement.device)
        for _ in range(2)
    )
    batch = Batch(
        **vars(tokens),
        advantages_B_T=advantages_B_T,
        rollout_logprobs_B_T=sampled_B_T,
        drawn_logprobs_B_T=sampled_B_T,
    )
    mask = tokens.mask_B_T.cpu()
    with torch.no_grad():
        logprobs, entropy = (t.cpu()[mask] for t in policy.logprobs(batch, config.temperature))
    updater = Updater(policy, config, total_steps=10)
    gradients: dict[str, torch.Tensor] = {}
    updater.optimizers["adamw"].register_step_pre_hook(
        lambda *_: gradients.update({name: p.grad.cpu() for name, p in policy.trainable()})
    )
    supervisor = Supervisor(None, 0, folder / "stalls.txt", print)
    update = PolicyUpdate(policy, updater, config, None, policy.reference, supervisor)
    figures = update([batch], int(mask.sum()))
    weights = {name: p.detach().cpu().clone() for name, p in policy.trainable()}
    policy.save(folder)
    for _, parameter in policy.trainable():
        parameter.data.zero_()
    policy.load_weights(folder)
    for name, parameter in policy.trainable():
        assert torch.equal(parameter.detach().cpu(), weights[name])
    return {
        "tokens": [completion.token_ids for completion in completions],
        "files": sorted((path.name, path.stat().st_size) for path in folder.glob("*.safetensors")),
        "logprobs": {"logprobs": logprobs, "entropy": entropy},
        "figures": {name: torch.tensor(value) for name, value in figures.items()},
        "gradients": gradients,
        "weights": weights,
        "sampled": {i: torch.tensor(c.logprobs) for i, c in enumerate(completions)},
    }


def move_adapter(policy: Policy) -> None:
    """Off its start, where B is 0 and A has no gradient."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in policy.trainable():
        if "lora" in name:
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


if __name__ == "__main__":
    compare(Path(sys.argv[1]), sys.argv[2])
