"""The gradient of a GRPO step against a calculation of its own, in float64.

`by_hand` knows nothing of the package: it forwards every row alone and unpadded, and adds up the
loss token by token as the papers write it. It is compared with what the optimizer gets from
`GRPOTrainer` (padded micro-batches, skipped groups, means over the tokens of the whole step), and
with the functions of `algorithms` alone. ``pytest -s`` prints the figures.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from judicaita.training.algorithms.advantages import discount_per_step
from judicaita.training.algorithms.kl import KLPenalty
from judicaita.training.algorithms.logprobs import token_logprobs
from judicaita.training.algorithms.losses import DAPOLoss
from judicaita.training.algorithms.reduction import StepSizes
from judicaita.training.batching import MiniBatch
from judicaita.training.config import TrainingConfig
from judicaita.training.grpo_trainer import GRPOTrainer
from judicaita.training.policy import Policy
from judicaita.training.records import StepRecord
from judicaita.training.rollouts.base import SamplingParams
from judicaita.types import Completion, Group, Sample

MakePolicy = Callable[..., Policy]
Upcasts = Callable[[str], AbstractContextManager[None]]

# ── one step's completions ───────────────────────────────────────────────────────────────────────

# Pieces of a completion, each with the number of reasoning steps that begin after it; whether the
# model ended it.
ANSWERS: dict[str, tuple[list[tuple[str, int]], bool]] = {
    "steps": (
        [("Step 1: Ohio, Texas.\n", 2), ("Step 2: $80,000.\n", 1), ("Conclusion: Yes", 0)],
        True,
    ),
    "bare": ([("No", 0)], True),
    "cut": ([("Step 1: a\n", 1), ("Step 2: the amount is", 0)], False),
    "preamble": ([("Well.\n", 1), ("Step 1: § 1332 €.", 1), (" Conclusion: No", 0)], True),
    "long": (
        [*(("Step 1: x.\n", 3), ("Step 2: y.\n", 2), ("Step 3: z.\n", 1)), ("Conclusion: ?", 0)],
        True,
    ),
    "rambling": ([("the law of the law of the", 0)], False),
}
# Eight questions of different lengths, three answers each, with their rewards. Two carry no signal:
# their rewards are equal up to what adding floats leaves behind.
GROUPS: list[tuple[str, dict[str, float]]] = [
    ("Ohio v. Texas?", {"steps": 1.0, "bare": 0.0, "cut": 0.25}),
    ("May a citizen of Ohio sue in federal court?", {"bare": 0.3, "long": 0.1 + 0.2, "cut": 0.3}),
    ("?", {"rambling": 0.0, "preamble": 0.8, "long": 0.3}),
    ("Is the amount in controversy enough?", {"steps": 0.4, "preamble": 0.9, "bare": 0.9}),
    ("Step 1: what?", {"cut": 0.0, "rambling": 0.1, "bare": 1.0}),
    ("Hearsay?", {"long": 1.0, "steps": 1.0, "preamble": 1.0}),
    ("Is it a contract?", {"long": 0.55, "steps": 0.5, "rambling": 0.0}),
    ("Who owes Müller 80 €, and why?", {"preamble": 0.2, "cut": 0.7, "steps": 0.6}),
]


@dataclass(frozen=True)
class Row:
    """One completion as `by_hand` needs it."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    steps_to_end: tuple[int, ...]
    reward: float


def tokenized(policy: Policy) -> dict[str, list[Row]]:
    """The rows of every question, tokenized piece by piece."""
    found = {}
    for question, answers in GROUPS:
        rows = []
        for name, reward in answers.items():
            pieces, ended = ANSWERS[name]
            ids: list[int] = []
            steps: list[int] = []
            for text, after in pieces:
                piece = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
                ids, steps = ids + piece, steps + [after] * len(piece)
            if ended:
                ids, steps = [*ids, policy.tokenizer.eos_token_id], [*steps, 0]
            prompt = tuple(policy.tokenizer(question)["input_ids"])
            rows.append(Row(prompt, tuple(ids), tuple(steps), reward))
        found[question] = rows
    return found


class Scripted:
    """A rollout engine that answers from the table."""

    def __init__(self, rows: dict[str, list[Row]]) -> None:
        self.answers = {group[0].prompt: group for group in rows.values()}

    def generate(
        self, prompts: Sequence[tuple[int, ...]], n: int, sampling: SamplingParams
    ) -> list[tuple[Completion, ...]]:
        return [
            tuple(
                Completion(
                    row.completion,
                    (-1.0,) * len(row.completion),
                    "stop" if row.completion[-1] == 1 else "length",
                    0,
                )
                for row in self.answers[prompt][:n]
            )
            for prompt in prompts
        ]

    def sync(self) -> None: ...

    def close(self) -> None: ...


def reward(prompt: str, response: str, reference: str) -> float:
    texts = {name: "".join(text for text, _ in pieces) for name, (pieces, _) in ANSWERS.items()}
    return next(r for name, r in dict(GROUPS)[prompt].items() if texts[name] == response)


# ── the step as the package does it ──────────────────────────────────────────────────────────────

SETTINGS: dict[str, Any] = {
    "device": "cpu",
    "system_prompt": "",
    "allow_contamination": True,  # nothing is measured on the held-out row
    "generation_max_length": 100,
    "model_max_length": 100,
    "num_rollouts": 3,
    "num_epochs": 1,
    "batch_size": 2,
    "gradient_accumulation_steps": 4,
    "grpo_tau": 0.5,
    "grpo_gamma": 0.8,
    "temperature": 0.7,
    "max_grad_norm": 0,
    "lora_r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "weight_decay": 0.0,
}
LORA_WITH_KL = {"use_lora": True, "beta": 0.3}
FULL = {"use_lora": False}


@dataclass
class Step:
    """A trainer before its first step, and what its optimizer then sees."""

    trainer: GRPOTrainer
    rows: dict[str, list[Row]]
    weights: list[dict[str, Tensor]]
    """Before each update."""
    gradients: list[dict[str, Tensor]]
    metrics: dict[str, float]
    reference: Any
    """The base model as a folder gives it, where the step has a KL penalty to it."""

    def groups(self) -> list[Group]:
        """Drawn, answered, scored and weighed."""
        trainer = self.trainer
        record = StepRecord(1)
        groups = trainer._score(trainer._generate(trainer.sampler.draw(), 1))
        return trainer._advantages(groups, record)

    def run(self, groups: list[Group] | None = None) -> Step:
        """Batches and the update."""
        mini_batches = self.trainer._batch(self.groups() if groups is None else groups)
        self.metrics = self.trainer.update(mini_batches, self.trainer.state.beta)
        return self


MakeStep = Callable[..., Step]


@pytest.fixture
def make_step(make_policy: MakePolicy, tmp_path: Path) -> MakeStep:
    def make(
        architecture: str,
        *,
        dtype: torch.dtype = torch.float64,
        rehearsal: list[Sample] | None = None,
        **changes: Any,
    ) -> Step:
        base = tmp_path / architecture
        if not base.exists():
            make_policy(architecture).save(base)
        config = TrainingConfig(
            **{
                **SETTINGS,
                "base_model": str(base),
                "checkpoint_dir": tmp_path / f"run-{len(list(tmp_path.iterdir()))}",
                **changes,
            }
        )
        data = [{"prompt": question, "reference": "Yes"} for question, _ in GROUPS]
        trainer = GRPOTrainer(
            config, data, data[:1], reward, rehearsal=rehearsal, show_progress=False
        )
        trainer.initialize()
        torch.manual_seed(3)
        for name, parameter in trainer.policy.trainable():
            if "lora_B" in name:  # of zeros; the policy would be its own reference
                torch.nn.init.normal_(parameter, std=0.03)
        trainer.policy.model.to(dtype)
        rows = tokenized(trainer.policy)
        trainer.engine = Scripted(rows)
        reference = None
        if config.beta > 0:
            reference = AutoModelForCausalLM.from_pretrained(base).to(dtype)
        step = Step(trainer, rows, [], [], {}, reference)

        def record(*_: Any) -> None:
            parameters = trainer.policy.trainable()
            step.gradients.append({name: p.grad.clone() for name, p in parameters})
            step.weights.append({name: p.detach().clone() for name, p in parameters})

        trainer.updater.optimizers["adamw"].register_step_pre_hook(record)
        return step

    return make


# ── the step by hand ─────────────────────────────────────────────────────────────────────────────


def z_scores(rewards: Sequence[float], tau: float) -> list[float]:
    if max(rewards) - min(rewards) < 1e-9:
        return [0.0] * len(rewards)
    mean = sum(rewards) / len(rewards)
    sigma = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / (sigma + 1e-4) / tau for r in rewards]


def log_p(logits: Tensor, token: int, temperature: float) -> Tensor:
    scaled = logits / temperature
    top = scaled.detach().max()
    return scaled[token] - top - (scaled - top).exp().sum().log()


def entropy(logits: Tensor, temperature: float) -> Tensor:
    p = (logits / temperature).softmax(-1)
    return -(p * p.log()).sum()


def surrogate(ratio: Tensor, advantage: float, low: float, high: float) -> Tensor:
    """min(rA, clip(r, 1 − low, 1 + high)·A)."""
    inside = ratio.detach() < 1 + high if advantage >= 0 else ratio.detach() > 1 - low
    bound = ratio.new_tensor(1 + high if advantage >= 0 else 1 - low)
    return (ratio if inside else bound) * advantage


def by_hand(
    model: Any,
    groups: Sequence[list[Row]],
    config: TrainingConfig,
    *,
    reference: Any = None,
    old: Any = None,
    counted: Callable[[Row, float], bool] = lambda row, entropy: True,
) -> tuple[dict[str, Tensor], float]:
    """Gradients by parameter, and the loss. ``old`` is the model that sampled, if another one;
    ``counted`` says of a row and the entropy at a token whether the token enters."""

    def logits_of(network: Any, row: Row) -> Tensor:
        output = network(torch.tensor([[*row.prompt, *row.completion]])).logits[0]
        return output[len(row.prompt) - 1 : -1]

    tokens = sum(len(row.completion) for rows in groups for row in rows)
    terms = []
    for rows in groups:
        advantages = z_scores([row.reward for row in rows], config.grpo_tau)
        for row, advantage in zip(rows, advantages, strict=True):
            logits = logits_of(model, row)
            with torch.no_grad():
                old_logits = logits if old is None else logits_of(old, row)
                reference_logits = None if reference is None else logits_of(reference, row)
            for t, (token, k) in enumerate(zip(row.completion, row.steps_to_end, strict=True)):
                now = log_p(logits[t], token, config.temperature)
                before = log_p(old_logits[t], token, config.temperature).detach()
                weight = advantage * config.grpo_gamma**k
                loss = config.loss
                term = -surrogate((now - before).exp(), weight, loss.clip_low, loss.clip_high)
                term = term * counted(row, float(entropy(logits[t].detach(), config.temperature)))
                term = term - config.entropy_bonus * entropy(logits[t], config.temperature)
                if reference_logits is not None:
                    gap = log_p(reference_logits[t], token, config.temperature) - now
                    term = term + config.beta * (gap.exp() - gap - 1)
                terms.append(term)
    total = sum(terms) / tokens
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(total, [p for _, p in named])
    return dict(zip((name for name, _ in named), gradients, strict=True)), float(total.detach())


def expected_of(step: Step, **changes: Any) -> tuple[dict[str, Tensor], float]:
    """`by_hand` on a copy of the step's model, before its update."""
    config = step.trainer.config.model_copy(update=changes)
    model = copy.deepcopy(step.trainer.policy.model)
    return by_hand(model, list(step.rows.values()), config, reference=step.reference)


def relative_l2(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert found.keys() == expected.keys()
    difference = sum(float((found[n] - expected[n]).double().pow(2).sum()) for n in expected)
    return math.sqrt(difference / sum(float(e.double().pow(2).sum()) for e in expected.values()))


# ── through the modules ──────────────────────────────────────────────────────────────────────────

BOUNDS = [("as they are", 1e-6), ("to float64", 1e-10)]


@pytest.mark.parametrize("mode", [FULL, LORA_WITH_KL], ids=["full", "lora-kl"])
@pytest.mark.parametrize("architecture", ["gemma2", "llama", "qwen2"])
@pytest.mark.parametrize(("treatment", "bound"), BOUNDS)
def test_gradient_of_a_step(
    make_step: MakeStep,
    upcasts: Upcasts,
    architecture: str,
    mode: dict[str, Any],
    treatment: str,
    bound: float,
) -> None:
    step = make_step(architecture, **mode)
    with upcasts(treatment):
        expected, loss = expected_of(step)
        step.run()
    error = relative_l2(step.gradients[0], expected)
    print(f"\n{architecture}, {mode}, upcasts {treatment}: relative L2 {error:.1e}")
    assert error <= bound
    assert step.metrics["loss"] == pytest.approx(
        loss, abs=1e-6 if treatment == "as they are" else 1e-12
    )
    assert step.metrics["clip_fraction"] == 0


# Packed rows round differently inside the stock modules, and AdamW's first update divides what is
# near 0 by its own size; with the upcasts promoted nothing of that is left.
@pytest.mark.parametrize(("treatment", "bound"), [("as they are", 5e-6), BOUNDS[1]])
def test_gradient_of_the_second_update_on_a_batch(
    make_step: MakeStep, upcasts: Upcasts, treatment: str, bound: float
) -> None:
    """The policy has moved since it sampled: ratios, and the bounds on them, matter."""
    step = make_step("gemma2", **FULL, num_iterations=2, learning_rate=3e-3, loss={"clip_low": 0.1})
    model, old = (copy.deepcopy(step.trainer.policy.model) for _ in range(2))
    groups = list(step.rows.values())
    with upcasts(treatment):
        step.run()
        model.load_state_dict(step.weights[1], strict=False)
        expected, _ = by_hand(model, groups, step.trainer.config, old=old)
        unbounded = step.trainer.config.model_copy(
            update={"loss": DAPOLoss(clip_low=0.999, clip_high=1e9)}
        )
        free, _ = by_hand(model, groups, unbounded, old=old)
    error = relative_l2(step.gradients[1], expected)
    print(f"\nsecond update, upcasts {treatment}: relative L2 {error:.1e}")
    assert error <= bound
    assert relative_l2(free, expected) > 0.1
    assert 0.05 < step.metrics["clip_fraction"] < 0.9


def test_gradient_of_a_float32_model(make_step: MakeStep) -> None:
    """As users run it on a CPU. The rest of the difference is rounding, and as large as it."""
    step = make_step("gemma2", dtype=torch.float32, **FULL).run()
    model = AutoModelForCausalLM.from_pretrained(step.trainer.config.base_model).double()
    expected, _ = by_hand(model, list(step.rows.values()), step.trainer.config)
    error = relative_l2(step.gradients[0], expected)
    print(f"\nfloat32 model against float64 by hand: relative L2 {error:.1e}")
    assert error <= 1e-5


def test_every_setting_matters(make_step: MakeStep, upcasts: Upcasts) -> None:
    """The comparison is no formality: a step that got one of these wrong would be seen."""
    step = make_step("gemma2", **LORA_WITH_KL)
    with upcasts("to float64"):
        right, _ = expected_of(step)
        for changes in (
            {"grpo_tau": 0.51},
            {"grpo_gamma": 0.81},
            {"beta": 0.31},
            {"temperature": 0.71},
        ):
            wrong, _ = expected_of(step, **changes)
            assert relative_l2(wrong, right) > 1e-3, changes


@pytest.mark.parametrize("mode", [FULL, LORA_WITH_KL], ids=["full", "lora-kl"])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-6), ("float64", 1e-10)])
def test_one_by_eight_is_eight_by_one(
    make_step: MakeStep, upcasts: Upcasts, mode: dict[str, Any], precision: str, bound: float
) -> None:
    """However the step's questions are split, and whatever is padded for it."""
    found = {}
    dtype = torch.float32 if precision == "fp32" else torch.float64
    for size in (8, 2, 1):
        step = make_step(
            "gemma2", dtype=dtype, batch_size=size, gradient_accumulation_steps=8 // size, **mode
        )
        with upcasts("as they are" if precision == "fp32" else "to float64"):
            step.run()
        found[size] = step.gradients[0]
    errors = {size: relative_l2(found[size], found[1]) for size in (8, 2)}
    print(f"\n{mode}, {precision}: 8×1 and 2×4 against 1×8: {errors}")
    assert max(errors.values()) <= bound


def test_groups_without_signal_may_be_left_out(make_step: MakeStep, upcasts: Upcasts) -> None:
    gradients, sizes = [], []
    for kept in (False, True):
        step = make_step("gemma2", **FULL)
        groups = step.groups()
        assert sum(not group.has_signal for group in groups) == 2
        with upcasts("to float64"):
            step.run([replace(group, has_signal=group.has_signal or kept) for group in groups])
        gradients.append(step.gradients[0])
        sizes.append(step.metrics["loss_token_share"])
    assert sizes[0] < sizes[1] == 1
    assert relative_l2(*gradients) <= 1e-10


def test_a_step_without_any_signal_leaves_the_weights_alone(make_step: MakeStep) -> None:
    step = make_step("llama", **FULL)
    before = copy.deepcopy(step.trainer.policy.model.state_dict())
    step.run([replace(group, has_signal=False) for group in step.groups()])
    assert step.gradients == []
    assert step.metrics["updates"] == 0
    after = step.trainer.policy.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert step.trainer.updater.step_count == 1


# ── with other algorithms ────────────────────────────────────────────────────────────────────────


def everything(step: Step) -> list[Row]:
    return [row for rows in step.rows.values() for row in rows]


def test_gradient_with_an_entropy_bonus(make_step: MakeStep, upcasts: Upcasts) -> None:
    for mode in (FULL, {"use_lora": True}):  # the head learns, or is frozen
        step = make_step("gemma2", **mode, entropy_bonus=0.3)
        with upcasts("to float64"):
            expected, loss = expected_of(step)
            plain, _ = expected_of(step, entropy_bonus=0.0)
            step.run()
        assert relative_l2(step.gradients[0], expected) <= 1e-10
        assert relative_l2(plain, expected) > 0.01
        assert step.metrics["loss"] == pytest.approx(loss, abs=1e-12)
        assert step.metrics["loss"] < step.metrics["policy_loss"]


def test_gradient_of_the_most_uncertain_tokens(make_step: MakeStep, upcasts: Upcasts) -> None:
    """A fifth of all tokens that enter, whatever their micro-batch; the others still count."""
    step = make_step("gemma2", **FULL, top_entropy=0.2)
    with upcasts("to float64"):
        model = copy.deepcopy(step.trainer.policy.model)
        silent = {group[0].prompt for group in step.rows.values() if spread(group) < 1e-6}
        found = []
        for row in everything(step):
            with torch.no_grad():
                logits = model(torch.tensor([[*row.prompt, *row.completion]])).logits[0]
            places = logits[len(row.prompt) - 1 : -1]
            if row.prompt not in silent:
                found += [
                    float(entropy(place, step.trainer.config.temperature)) for place in places
                ]
        least = sorted(found, reverse=True)[round(0.2 * len(found)) - 1]
        groups = list(step.rows.values())
        expected, _ = by_hand(
            model, groups, step.trainer.config, counted=lambda _, value: value >= least - 1e-12
        )
        plain, _ = by_hand(model, groups, step.trainer.config)
        step.run()
    assert relative_l2(step.gradients[0], expected) <= 1e-10
    assert relative_l2(plain, expected) > 0.1
    assert step.metrics["loss_tokens"] == round(0.2 * len(found))


def spread(rows: Sequence[Row]) -> float:
    rewards = [row.reward for row in rows]
    return max(rewards) - min(rewards)


def test_gradient_without_truncated_completions(make_step: MakeStep, upcasts: Upcasts) -> None:
    """Two answers never end; they are compared with, and count in the mean, all the same."""
    step = make_step("gemma2", **FULL, mask_truncated=True)
    with upcasts("to float64"):
        model = copy.deepcopy(step.trainer.policy.model)
        groups = list(step.rows.values())
        expected, _ = by_hand(
            model, groups, step.trainer.config, counted=lambda row, _: row.completion[-1] == 1
        )
        plain, _ = by_hand(model, groups, step.trainer.config)
        step.run()
    assert relative_l2(step.gradients[0], expected) <= 1e-10
    assert relative_l2(plain, expected) > 0.1


def test_gradient_of_punished_lengths(make_step: MakeStep, upcasts: Upcasts) -> None:
    """From 20 tokens on a completion loses .5 · (n − 20) / 80."""
    step = make_step("gemma2", **FULL, overlong_buffer=80, overlong_penalty=0.5)
    with upcasts("to float64"):
        groups = [
            [
                replace(row, reward=row.reward - 0.5 * max(0, len(row.completion) - 20) / 80)
                for row in rows
            ]
            for rows in step.rows.values()
        ]
        expected, _ = by_hand(copy.deepcopy(step.trainer.policy.model), groups, step.trainer.config)
        plain, _ = expected_of(step)
        step.run()
    assert relative_l2(step.gradients[0], expected) <= 1e-10
    assert relative_l2(plain, expected) > 1e-3


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_gradient_with_the_divergence_in_the_reward(
    make_step: MakeStep, upcasts: Upcasts, estimator: str
) -> None:
    """β times the sum over a completion's tokens is taken from its reward; the loss has no term."""
    step = make_step(
        "gemma2", use_lora=True, beta=0.3, kl={"place": "reward", "estimator": estimator}
    )
    temperature = step.trainer.config.temperature
    with upcasts("to float64"):
        model = copy.deepcopy(step.trainer.policy.model)

        def divergence(row: Row) -> float:
            ids, total = torch.tensor([[*row.prompt, *row.completion]]), 0.0
            with torch.no_grad():
                now, base = (net(ids).logits[0] for net in (model, step.reference))
            for t, token in enumerate(row.completion, start=len(row.prompt) - 1):
                x = float(log_p(now[t], token, temperature) - log_p(base[t], token, temperature))
                total += {"k1": x, "k2": x * x / 2, "k3": math.exp(-x) - 1 + x}[estimator]
            return total

        groups = [
            [replace(row, reward=row.reward - 0.3 * divergence(row)) for row in rows]
            for rows in step.rows.values()
        ]
        expected, _ = by_hand(model, groups, step.trainer.config)
        step.run()
    assert relative_l2(step.gradients[0], expected) <= 1e-10


def test_gradients_of_two_mini_batches(make_step: MakeStep, upcasts: Upcasts) -> None:
    """The second one is compared with the policy that sampled, which has moved by then."""
    step = make_step("gemma2", **FULL, mini_batches=2, learning_rate=3e-3, loss={"clip_low": 0.05})
    model, old = (copy.deepcopy(step.trainer.policy.model) for _ in range(2))
    drawn = [sample.prompt for sample, _ in step.trainer.sampler.draw()]
    step.trainer.sampler.position = 0
    random.Random(f"{step.trainer.config.seed}/mini-batches/1").shuffle(drawn)
    groups = [step.rows[question] for question in drawn]
    with upcasts("to float64"):
        first, _ = by_hand(model, groups[:4], step.trainer.config)
        step.run()
        model.load_state_dict(step.weights[1], strict=False)
        second, _ = by_hand(model, groups[4:], step.trainer.config, old=old)
        on_policy, _ = by_hand(model, groups[4:], step.trainer.config)
    assert relative_l2(step.gradients[0], first) <= 1e-10
    assert relative_l2(step.gradients[1], second) <= 1e-10
    assert relative_l2(on_policy, second) > 0.01
    assert step.metrics["updates"] == 2
    assert step.trainer.updater.step_count == 2


ALGORITHMS: list[dict[str, Any]] = [
    *({"loss": name} for name in ("grpo", "dr_grpo", "cispo", "gspo", "gspo_token", "sapo")),
    {"loss": {"dual_clip": 3.0}},
    {"loss": {"type": "cispo", "bound": "interval"}},
    *({"advantage": name} for name in ("centred", "leave_one_out", "mad", "batch")),
    {"advantage_bound": {"type": "clip", "low": 1.0, "high": 1.5}},
    {"advantage_bound": {"type": "tanh", "limit": 1.0}},
    {"advantage_bound": {"type": "winsorise", "share": 0.2}},
    *({"entropy_bonus": 0.2}, {"top_entropy": 0.3}, {"mask_truncated": True}),
    {"overlong_buffer": 80},
    {"use_lora": True, "beta": 0.3, "kl": {"place": "reward"}},
    {"use_lora": True, "beta": 0.3, "kl": {"estimator": "k2"}},
    {"use_lora": True, "beta": 0.3, "kl": {"gradient": "exact"}},
    {"mini_batches": 2},
    {"num_iterations": 2},
]


@pytest.mark.parametrize("changes", ALGORITHMS, ids=str)
def test_one_by_eight_is_eight_by_one_with_every_algorithm(
    make_step: MakeStep, upcasts: Upcasts, changes: dict[str, Any]
) -> None:
    """All but BNPO, whose mean is over the micro-batch. And each is something else than the
    default, but for losses that only differ once the policy has moved."""
    mode = {**FULL, "learning_rate": 3e-3, **changes}
    found = {}
    with upcasts("to float64"):
        for size in (8, 1):
            step = make_step(
                "llama", batch_size=size, gradient_accumulation_steps=8 // size, **mode
            )
            step.run()
            found[size] = step.gradients[-1]
        plain = make_step(
            "llama", **{**FULL, **({"use_lora": True, "beta": 0.3} if "kl" in changes else {})}
        )
        plain.run()
    assert relative_l2(found[8], found[1]) <= 1e-10
    same_on_policy = "loss" in changes and changes["loss"] not in (
        "grpo",
        "dr_grpo",
        "sapo",
        "gspo",
        "gspo_token",
    )
    assert (relative_l2(found[1], plain.gradients[-1]) > 1e-6) != same_on_policy


def test_bnpo_depends_on_the_division(make_step: MakeStep, upcasts: Upcasts) -> None:
    """Mean over micro-batches of the mean over their tokens, groups without signal included."""
    with upcasts("to float64"):
        step = make_step("llama", **FULL, loss="bnpo", batch_size=1, gradient_accumulation_steps=8)
        model = copy.deepcopy(step.trainer.policy.model)
        of_groups = [by_hand(model, [rows], step.trainer.config)[0] for rows in step.rows.values()]
        expected = {n: sum(each[n] for each in of_groups) / 8 for n in of_groups[0]}
        step.run()
        whole = make_step("llama", **FULL, loss="bnpo", batch_size=8, gradient_accumulation_steps=1)
        plain, _ = expected_of(whole)
        whole.run()
    assert relative_l2(step.gradients[0], expected) <= 1e-10
    assert relative_l2(whole.gradients[0], plain) <= 1e-10
    assert relative_l2(plain, expected) > 0.1


# ── with a rehearsal ─────────────────────────────────────────────────────────────────────────────

TRACES = [
    Sample("Who sues?", "Ava", "Step 1: Ava sues.\nConclusion: Ava"),
    Sample("?", "No", "Step 1: § 1332.\nStep 2: $80,000 is too little.\nConclusion: No"),
    Sample("Is the amount in controversy enough?", "Yes", "Conclusion: Yes"),
]


def supervised_by_hand(model: Any, policy: Policy) -> tuple[dict[str, Tensor], float, int]:
    """Gradient of the mean nats per token of `TRACES`, that mean, and the tokens; row by row."""
    terms = []
    for sample in TRACES:
        prompt = policy.tokenizer(sample.prompt)["input_ids"]
        trace = policy.tokenizer(sample.trace, add_special_tokens=False)["input_ids"]
        completion = [*trace, policy.tokenizer.eos_token_id]
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
        terms += [-log_p(row, token, 1.0) for row, token in zip(logits, completion, strict=True)]
    mean = sum(terms) / len(terms)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(mean, [p for _, p in named])
    values = dict(zip((name for name, _ in named), gradients, strict=True))
    return values, float(mean.detach()), len(terms)


@pytest.mark.parametrize("mode", [FULL, LORA_WITH_KL], ids=["full", "lora-kl"])
@pytest.mark.parametrize("silent", [False, True], ids=["signal", "no signal"])
def test_a_rehearsal_adds_its_weighted_gradient(
    make_step: MakeStep, upcasts: Upcasts, mode: dict[str, Any], silent: bool
) -> None:
    """GRPO's gradient and 0.37 times that of the worked solutions; without any signal the latter
    alone. Micro-batches of 3 rows, then of 6, then of 24 make no difference."""
    changes = {"rehearsal_weight": 0.37, "rehearsal_samples": 3}
    for size in (1, 2, 8):
        step = make_step(
            "gemma2",
            rehearsal=TRACES,
            batch_size=size,
            gradient_accumulation_steps=8 // size,
            **changes,
            **mode,
        )
        with upcasts("to float64"):
            model = copy.deepcopy(step.trainer.policy.model)
            traced, mean, tokens = supervised_by_hand(model, step.trainer.policy)
            expected = {name: 0.37 * gradient for name, gradient in traced.items()}
            if silent:
                step.trainer.update([MiniBatch((), StepSizes(100, 24, 64))], 0.0)
            else:
                grpo, loss = expected_of(step)
                expected = {name: grpo[name] + value for name, value in expected.items()}
                step.run()
                assert step.metrics["loss"] == pytest.approx(loss, abs=1e-12)
                assert step.metrics["rehearsal/loss"] == pytest.approx(mean, abs=1e-12)
                assert step.metrics["rehearsal/tokens"] == tokens
        assert relative_l2(step.gradients[0], expected) <= 1e-10


# ── the maths alone ──────────────────────────────────────────────────────────────────────────────

LENGTHS = [[3, 7, 1], [5, 2, 7]]
REWARDS = [[0.0, 1.0, 0.25], [0.9, 0.1, 0.6]]
VOCABULARY, WIDTH = 11, 7
TAU, GAMMA, BETA, TEMPERATURE = 0.3, 0.9, 0.2, 1.3
CLIP = DAPOLoss(clip_low=0.1, clip_high=0.15)


@dataclass(frozen=True)
class Problem:
    """Six rows of given logits: the policy now, when it sampled, and the reference."""

    logits: Tensor
    old: Tensor
    reference: Tensor
    targets: Tensor
    steps: Tensor
    lengths: list[int]
    clip: DAPOLoss = CLIP

    def with_algorithms(self, logits: Tensor) -> Tensor:
        mask = torch.arange(WIDTH) < torch.tensor(self.lengths)[:, None]
        advantages = torch.tensor(
            [z for own in REWARDS for z in z_scores(own, TAU)], dtype=torch.float64
        )
        weights = discount_per_step(advantages, self.steps, GAMMA)
        now, old, reference = (
            token_logprobs(tensor, self.targets, TEMPERATURE)[0]
            for tensor in (logits, self.old, self.reference)
        )
        kl = KLPenalty()(now, reference)
        per_token = self.clip(now, old, weights, mask).per_token_B_T + BETA * kl
        return self.clip.reduce(per_token, mask, StepSizes(sum(self.lengths), 6, WIDTH))

    def by_hand(self, logits: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        scores = [z for rewards in REWARDS for z in z_scores(rewards, TAU)]
        for row, length in enumerate(self.lengths):
            for t in range(length):
                token = int(self.targets[row, t])
                now, old, reference = (
                    log_p(tensor[row, t], token, TEMPERATURE)
                    for tensor in (logits, self.old, self.reference)
                )
                weight = scores[row] * GAMMA ** int(self.steps[row, t])
                gap = reference - now
                clip = self.clip
                total = total - surrogate((now - old).exp(), weight, clip.clip_low, clip.clip_high)
                total = total + BETA * (gap.exp() - gap - 1)
        return total / sum(self.lengths)


@pytest.fixture
def problem() -> Problem:
    generator = torch.Generator().manual_seed(0)

    def normal(scale: float) -> Tensor:
        shape = (6, WIDTH, VOCABULARY)
        return scale * torch.randn(shape, generator=generator, dtype=torch.float64)

    logits = normal(2.0)
    return Problem(
        logits,
        logits + normal(0.2),  # enough for a third of the ratios to leave the bounds
        logits + normal(1.0),
        torch.randint(0, VOCABULARY, (6, WIDTH), generator=generator),
        torch.randint(0, 4, (6, WIDTH), generator=generator),
        [length for group in LENGTHS for length in group],
    )


def test_the_maths_alone(problem: Problem) -> None:
    gradients, losses = [], []
    for calculate in (problem.with_algorithms, problem.by_hand):
        leaf = problem.logits.clone().requires_grad_()
        loss = calculate(leaf)
        losses.append(float(loss.detach()))
        gradients.append({"logits": torch.autograd.grad(loss, leaf)[0]})
    error = relative_l2(*gradients)
    print(f"\nmaths alone: relative L2 {error:.1e}, loss {abs(losses[0] - losses[1]):.1e}")
    assert error <= 1e-10
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    free = replace(problem, clip=DAPOLoss(clip_low=0.999, clip_high=1e9))
    assert abs(float(free.by_hand(problem.logits)) - losses[0]) > 1e-3
    # Padding earns nothing.
    gradient = gradients[0]["logits"]
    rows = zip(gradient, problem.lengths, strict=True)
    assert all(float(row[length:].abs().sum()) == 0 for row, length in rows)


def test_the_maths_alone_by_finite_differences(problem: Problem) -> None:
    """Central differences of the loss itself, 60 logits picked at random."""
    leaf = problem.logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(problem.with_algorithms(leaf), leaf)
    generator = torch.Generator().manual_seed(1)
    step = 1e-5
    worst = 0.0
    for _ in range(60):
        row = int(torch.randint(0, 6, (), generator=generator))
        t = int(torch.randint(0, problem.lengths[row], (), generator=generator))
        v = int(torch.randint(0, VOCABULARY, (), generator=generator))
        values = []
        for sign in (1, -1):
            moved = problem.logits.clone()
            moved[row, t, v] += sign * step
            values.append(float(problem.with_algorithms(moved)))
        worst = max(worst, abs((values[0] - values[1]) / (2 * step) - float(gradient[row, t, v])))
    print(f"\nmaths alone, finite differences: largest error {worst:.1e}")
    assert worst < 1e-8 < float(gradient.abs().max())
