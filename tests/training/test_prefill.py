"""The update that goes on from generation's pass over the prompts, against one that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from judicaita.training import kernels, prefill
from judicaita.training.batching import TokenBatch, collate
from judicaita.training.config import TrainingConfig
from judicaita.training.grpo_trainer import GRPOTrainer
from judicaita.training.policy import Policy
from judicaita.training.prefill import KeptPrefill, TakenPrefill
from judicaita.training.rollouts.base import SamplingParams
from judicaita.training.rollouts.native import NativeEngine

pytestmark = pytest.mark.skipif(not kernels.is_built(), reason="needs the operators in C++")

MakePolicy = Callable[..., Policy]
WithAdapter = Callable[..., Policy]
Upcasts = Callable[[str], AbstractContextManager[None]]
Rows = list[tuple[tuple[int, ...], tuple[int, ...]]]

ARCHITECTURES = ("gemma2", "gemma3", "llama", "mistral", "qwen2", "qwen3")
# Shorter and longer than the tests' window of 6.
PROMPTS = (tuple(range(20, 31)), (40, 41, 42), tuple(range(60, 80)))
TEMPERATURE = 0.7


def kept_of(policy: Policy, **settings: Any) -> KeptPrefill:
    config = TrainingConfig(generation_max_length=12, lora_dropout=0.0, **settings)
    return KeptPrefill(policy, config)


def generated(
    policy: Policy,
    kept: KeptPrefill,
    calls: Sequence[Sequence[tuple[int, ...]]] = (PROMPTS,),
    max_tokens: int = 12,
) -> Rows:
    """Three completions of each prompt, as a step draws them."""
    engine = NativeEngine(policy, kept=kept)
    rows: Rows = []
    with kept.for_update():
        for prompts in calls:
            groups = engine.generate(prompts, 3, SamplingParams(max_tokens, TEMPERATURE))
            rows += [
                (prompt, each.token_ids)
                for prompt, group in zip(prompts, groups, strict=True)
                for each in group
            ]
    return rows


def batches_of(rows: Rows, size: int) -> list[TokenBatch]:
    starts = range(0, len(rows), size)
    return [collate(rows[start : start + size], 0, torch.device("cpu")) for start in starts]


def results(
    policy: Policy, batches: Sequence[TokenBatch], taken: TakenPrefill | None
) -> dict[str, Tensor]:
    """Log-probabilities, and the gradient of a weighted sum of them."""
    policy.model.zero_grad()
    found = []
    forwarded = None if taken is None else taken.forwarded
    generator = torch.Generator().manual_seed(1)
    for batch in batches:
        with policy.training_pass(batch):
            logprobs_B_T, _ = policy.logprobs(batch, TEMPERATURE, forwarded)
            of_row_B = torch.randn(len(batch.rows), generator=generator, dtype=torch.float64)
            weights_B_T = of_row_B[:, None].to(logprobs_B_T.dtype) * batch.mask_B_T
            (logprobs_B_T * weights_B_T).sum().backward()
        found.append(logprobs_B_T[batch.mask_B_T].detach())
    if taken is not None:
        taken.backward()
    gradients = [p.grad.flatten() for _, p in policy.trainable() if p.grad is not None]
    return {"logprobs": torch.cat(found), "gradient": torch.cat(gradients)}


def differences(policy: Policy, batches: Sequence[TokenBatch], kept: KeptPrefill) -> list[float]:
    """Relative L2 between the update that goes on and the one that begins anew."""
    taken = kept.take(batches)
    assert taken is not None
    found, expected = results(policy, batches, taken), results(policy, batches, None)
    return [float((found[n] - expected[n]).norm() / expected[n].norm()) for n in expected]


@contextmanager
def forwarded_tokens(policy: Policy) -> Iterator[list[int]]:
    """How many tokens went through the layers in each call of the model."""
    counts: list[int] = []
    hidden = policy.hidden

    def count(ids: Tensor, *rest: Any, **more: Any) -> Tensor:
        counts.append(ids.numel())
        return hidden(ids, *rest, **more)

    with mock.patch.object(policy, "hidden", count):
        yield counts


# ── equal to a pass that forwards the prompts ────────────────────────────────────────────────────


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_in_float32(
    make_policy: MakePolicy, with_adapter: WithAdapter, architecture: str, lora: bool
) -> None:
    policy = with_adapter(make_policy(architecture)) if lora else make_policy(architecture)
    kept = kept_of(policy)
    found = differences(policy, batches_of(generated(policy, kept), 9), kept)
    assert max(found) < 1e-5, found
    print(f"\n{architecture}, {'LoRA' if lora else 'full'}, float32: {found}")


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("calls", "size"), [([PROMPTS], 9), ([PROMPTS[:2], PROMPTS[2:]], 2)])
def test_equal_in_float64(
    make_policy: MakePolicy,
    with_adapter: WithAdapter,
    upcasts: Upcasts,
    architecture: str,
    lora: bool,
    calls: list[list[tuple[int, ...]]],
    size: int,
) -> None:
    """Micro-batches of all, and of pieces of a group whose prompts came in two calls."""
    policy = with_adapter(make_policy(architecture)) if lora else make_policy(architecture)
    policy.model.double()
    kept = kept_of(policy)
    with upcasts("to float64"):
        found = differences(policy, batches_of(generated(policy, kept, calls), size), kept)
    assert max(found) < 1e-10, found


def test_equal_where_a_group_is_left_out_and_another_is_new(
    make_policy: MakePolicy, upcasts: Upcasts
) -> None:
    policy = make_policy()
    policy.model.double()
    kept = kept_of(policy)
    with upcasts("to float64"):
        rows = generated(policy, kept)
        rows = [row for row in rows if row[0] != PROMPTS[1]] + [((7, 8, 9), (30, 31))] * 2
        found = differences(policy, batches_of(rows, 4), kept)
    assert max(found) < 1e-10, found


def test_equal_where_every_completion_is_one_token(
    make_policy: MakePolicy, upcasts: Upcasts
) -> None:
    """Then nothing is left to forward."""
    policy = make_policy()
    policy.model.double()
    kept = kept_of(policy)
    with upcasts("to float64"), forwarded_tokens(policy) as counts:
        batches = batches_of(generated(policy, kept, max_tokens=1), 9)
        found = differences(policy, batches, kept)
    assert max(found) < 1e-10, found
    assert counts == [34, 34]  # by generation, and by the pass that it is compared with


def test_the_first_token_is_drawn_from_what_is_learnt_from(
    make_policy: MakePolicy, with_adapter: WithAdapter
) -> None:
    """The same states make both log-probabilities."""
    policy = with_adapter(make_policy())
    kept = kept_of(policy)
    engine = NativeEngine(policy, kept=kept)
    with kept.for_update():
        groups = engine.generate(PROMPTS, 3, SamplingParams(6))
    rows = [(p, c.token_ids) for p, g in zip(PROMPTS, groups, strict=True) for c in g]
    [batch] = batches_of(rows, 9)
    taken = kept.take([batch])
    assert taken is not None
    logprobs_B_T, _ = policy.logprobs(batch, 1.0, taken.forwarded)
    drawn = torch.tensor([c.logprobs[0] for group in groups for c in group])
    assert torch.allclose(logprobs_B_T[:, 0], drawn, rtol=0, atol=2e-6)


# ── what is kept, and until when ─────────────────────────────────────────────────────────────────


def test_no_prompt_is_forwarded_twice(make_policy: MakePolicy) -> None:
    policy = make_policy()
    kept = kept_of(policy)
    with forwarded_tokens(policy) as counts:
        batches = batches_of(generated(policy, kept), 9)
        drawn = len(counts)
        results(policy, batches, kept.take(batches))
    assert counts[0] == sum(map(len, PROMPTS))
    assert counts[drawn:] == [sum(len(completion) - 1 for _, completion in batches[0].rows)]


def taken_from(policy: Policy, kept: KeptPrefill) -> TakenPrefill | None:
    return kept.take(batches_of(generated(policy, kept), 9))


def test_it_is_taken_once(make_policy: MakePolicy) -> None:
    """A second attempt, when memory has run out, and a second iteration forward the prompts."""
    policy = make_policy()
    kept = kept_of(policy)
    batches = batches_of(generated(policy, kept), 9)
    assert kept.take(batches) is not None
    assert kept.take(batches) is None


def test_dropout_and_checkpoints_keep_nothing(
    make_policy: MakePolicy, with_adapter: WithAdapter
) -> None:
    policy = with_adapter(make_policy(), dropout=0.1)
    assert taken_from(policy, kept_of(policy)) is None
    policy = make_policy()
    assert taken_from(policy, kept_of(policy, gradient_checkpointing=True)) is None


def test_other_weights_keep_nothing(make_policy: MakePolicy) -> None:
    policy = make_policy()
    kept = kept_of(policy)
    batches = batches_of(generated(policy, kept), 9)
    policy.version += 1
    assert kept.take(batches) is None


def test_what_is_not_for_an_update_is_not_kept(make_policy: MakePolicy) -> None:
    """Evaluations and probes; and what is drawn anew replaces what was."""
    policy = make_policy()
    kept = kept_of(policy)
    NativeEngine(policy, kept=kept).generate(PROMPTS, 3, SamplingParams(4))
    assert kept.take(batches_of([(PROMPTS[0], (30, 31))], 1)) is None
    old = generated(policy, kept, [PROMPTS[:1]])
    generated(policy, kept, [PROMPTS[1:]])
    assert kept.take(batches_of(old, 9)) is None


def test_a_budget_of_tokens(make_policy: MakePolicy) -> None:
    """34 prompt tokens in two calls: as many as a micro-batch may have, and one less."""
    policy = make_policy()
    for budget, tokens in ((34, 34), (33, 14)):
        kept = kept_of(policy, micro_batch_tokens=budget)
        taken = kept.take(batches_of(generated(policy, kept, [PROMPTS[:2], PROMPTS[2:]]), 9))
        assert taken is not None
        assert taken.forwarded.tokens == tokens


def test_a_pass_of_which_little_enters_is_left_alone(make_policy: MakePolicy) -> None:
    """31 of 34 tokens are worth it, 14 are not."""
    policy = make_policy()
    for left_out, is_worth_it in ((PROMPTS[1], True), (PROMPTS[2], False)):
        kept = kept_of(policy)
        rows = [row for row in generated(policy, kept) if row[0] != left_out]
        assert (kept.take(batches_of(rows, 9)) is not None) == is_worth_it


def test_prompts_that_come_twice_are_not_kept(make_policy: MakePolicy) -> None:
    policy = make_policy()
    kept = kept_of(policy)
    rows = generated(policy, kept, [[PROMPTS[0], PROMPTS[0]]])
    assert kept.take(batches_of(rows, 9)) is None


# ── in the trainer ───────────────────────────────────────────────────────────────────────────────


def trained(folder: Path, model: Path, **settings: Any) -> tuple[GRPOTrainer, list[int]]:
    """Three steps, and how many passes were taken in each."""
    config = TrainingConfig(
        base_model=str(model),
        checkpoint_dir=folder,
        **{
            **{"device": "cpu", "use_lora": False, "batch_size": 2, "num_rollouts": 4},
            **{"gradient_accumulation_steps": 2, "generation_max_length": 10, "max_steps": 3},
            **{"learning_rate": 1e-3, "eval_steps": 1000, "save_steps": 1000, "system_prompt": ""},
            **settings,
        },
    )
    rows = [{"prompt": f"Is {number} even?", "reference": "Yes"} for number in range(18)]

    def by_length(prompt: str, response: str, reference: str) -> float:
        return len(response) % 7 / 7

    trainer = GRPOTrainer(config, rows[:-2], rows[-2:], by_length, show_progress=False)
    taken: list[int] = []
    real = prefill.KeptPrefill.take

    def take(self: KeptPrefill, batches: Any) -> TakenPrefill | None:
        found = real(self, batches)
        taken.append(len(found._passes) if found else 0)
        return found

    with mock.patch.object(prefill.KeptPrefill, "take", take):
        trainer.initialize()
        trainer.train()
    return trainer, taken


def test_a_run_learns_the_same_with_it(
    make_policy: MakePolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three steps, whose completions are the same."""
    make_policy().save(tmp_path / "model")
    with_it, taken = trained(tmp_path / "with", tmp_path / "model")
    assert taken == [2, 2, 2]
    monkeypatch.setattr(KeptPrefill, "wants", lambda *_: False)
    without, taken = trained(tmp_path / "without", tmp_path / "model")
    assert taken == [0, 0, 0]
    found, expected = (dict(trainer.policy.trainable()) for trainer in (with_it, without))
    for name, parameter in expected.items():
        assert torch.allclose(found[name], parameter, rtol=0, atol=2e-5), name


def test_a_run_with_dropout_forwards_its_prompts(make_policy: MakePolicy, tmp_path: Path) -> None:
    make_policy().save(tmp_path / "model")
    _, taken = trained(tmp_path / "run", tmp_path / "model", use_lora=True)
    assert taken == [0, 0, 0]
