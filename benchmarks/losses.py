"""Losses and advantages that TRL defines too, on the same numbers: values, and gradients.

    make bench                                       once, for the environment with TRL
    .venv-bench/bin/python benchmarks/losses.py      the table
    .venv-bench/bin/python benchmarks/losses.py --json FILE

TRL computes its side itself. A trainer is made without its constructor and given only what its
methods read: `GRPOTrainer._compute_loss` takes the log-probabilities from a method that hands back
ours, and `_generate_and_score_completions`, which holds the lines of advantages (also in
`RLOOTrainer`), takes completions and rewards from two more. One process, no accumulation; settings
are a real `GRPOConfig`, so that what a case leaves out is TRL's default beside ours.

Everything is float64 but for what TRL itself makes float32:

* counts of tokens, by ``clamp(min=1.0)`` of integers, and its reward weights: exact here;
* n / (n − 1) of `nanstd`, a quotient of integers: 3e-8 of z_score, batch and gdpo;
* SAPO's temperatures, by ``torch.where`` of two Python numbers: 1.05 loses 5e-8, so one case has
  the same float32 on both sides, and one shows what the rounding does;
* rewards, in `_calculate_rewards`, which is replaced here, and masks in its logging.

Two things are made equal first, and have an effect where they are not. Rewards enter as the
weighted sum that TRL makes of them; `CompositeReward` is the weighted mean, so that its advantages
are that much smaller where nothing divides by σ. And TRL multiplies the KL term by the ratio unless
``use_bias_correction_kl`` is off, as it is in all cases but those that name it.

A figure is the largest difference over all batches, |ours − TRL| / |TRL|, for vectors of the
largest elements. Losses go without the KL penalty and with it; each figure is the larger of the
two. The script fails above `LIMIT`, except for rows whose note begins with "differs", and where
the batches miss a side of a bound.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from judicaita.training.algorithms.advantages import (
    AdvantageEstimator,
    BatchSigma,
    Centred,
    Decoupled,
    LeaveOneOut,
    NoBound,
    Rewards,
    ZScore,
    outcome_advantages,
)
from judicaita.training.algorithms.kl import KLPenalty
from judicaita.training.algorithms.losses import (
    BNPOLoss,
    CISPOLoss,
    DAPOLoss,
    DrGRPOLoss,
    GRPOLoss,
    GSPOLoss,
    GSPOTokenLoss,
    PolicyLoss,
    SAPOLoss,
    mean_log_ratio,
)
from judicaita.training.algorithms.reduction import StepSizes

LIMIT = 1e-6
BETA = 0.04
SHAPES_B_T = ((1, 1), (2, 9), (8, 33), (16, 128))
SHAPES_P_G_K = ((1, 2, 1), (4, 4, 1), (6, 8, 3), (5, 16, 2))
WEIGHTS = (1.0, 0.5, 0.25)
"""Of the parts of a reward; float32 holds them as they are."""

ALONE = {
    "TRL": (
        "luspo, vespo, RLOOTrainer's loss (the ratio of a completion is a product, not a mean) and "
        "its whitening, sequence ratios with reductions other than grpo's, a KL term times the "
        "ratio"
    ),
    "this project": (
        "cispo bound=interval, gspo_token, mad, KL estimators k1 and k2 in the loss, and clip, "
        "tanh and winsorise of advantages"
    ),
}


@dataclass(frozen=True)
class Case:
    """A loss of ours, and the settings that make it TRL's."""

    name: str
    loss: PolicyLoss
    peer: dict[str, Any]
    spread: float = 0.8
    """σ of the log-ratios, wide enough for both sides of all bounds; 0 leaves all ratios at 1."""
    note: str = "same definition"
    kl: KLPenalty = field(default_factory=KLPenalty)
    differs: bool = False
    """By definition: shown, and no failure."""


@dataclass(frozen=True)
class AdvantageCase:
    """An estimator of ours, and the settings that make it TRL's."""

    name: str
    estimator: AdvantageEstimator
    peer: dict[str, Any]
    note: str
    trainer: str = "GRPO"
    beta: float = 0.0


_SEQUENCE = {"loss_type": "grpo", "importance_sampling_level": "sequence"}
_AS_FLOAT32 = float(torch.tensor(1.05, dtype=torch.float32))
_GSPO_BOUNDS = {"epsilon": 3e-4, "epsilon_high": 4e-4}

CASES = (
    Case("dapo", DAPOLoss(), {"loss_type": "dapo"}),
    Case(
        "dapo, clip_high .28",
        DAPOLoss(clip_high=0.28),
        {"loss_type": "dapo", "epsilon_high": 0.28},
    ),
    Case(
        "dapo, dual_clip 3",
        DAPOLoss(dual_clip=3.0),
        {"loss_type": "dapo", "delta": 3.0},
        note="TRL's delta caps r for both signs, ours where A < 0: the same above 1 + clip_high, "
        "and ours refuses less",
    ),
    Case(
        "dapo, exact KL, r = 1",
        DAPOLoss(),
        {"loss_type": "dapo", "use_bias_correction_kl": True},
        spread=0.0,
        note="TRL's default KL: k3 times a ratio with gradient is k3 with k2's gradient, which is "
        "gradient=exact here",
        kl=KLPenalty(gradient="exact"),
    ),
    Case(
        "dapo, exact KL",
        DAPOLoss(),
        {"loss_type": "dapo", "use_bias_correction_kl": True},
        note="differs by definition: once the policy has moved TRL weighs the KL of a token by "
        "its unclipped ratio, ours doesn't",
        kl=KLPenalty(gradient="exact"),
        differs=True,
    ),
    Case("grpo", GRPOLoss(), {"loss_type": "grpo"}),
    Case("grpo, dual_clip 3", GRPOLoss(dual_clip=3.0), {"loss_type": "grpo", "delta": 3.0}),
    Case(
        "bnpo",
        BNPOLoss(),
        {"loss_type": "bnpo"},
        note="tokens of the micro-batch on both sides",
    ),
    Case(
        "dr_grpo",
        DrGRPOLoss(),
        {"loss_type": "dr_grpo"},
        note="both divide by completions × the longest allowed, not the longest found",
    ),
    Case(
        "cispo, cap 5",
        CISPOLoss(),
        {"loss_type": "cispo", "epsilon_high": 5.0},
        note="TRL's epsilon_high is the cap itself, not 1 + it; unset it would be epsilon, 0.2",
    ),
    Case(
        "gspo",
        GSPOLoss(),
        {**_SEQUENCE, **_GSPO_BOUNDS},
        spread=5e-4,
        note="TRL has no such loss_type and no such bounds: epsilon is 0.2 unless set",
    ),
    Case(
        "gspo, .2, dual_clip 3",
        GSPOLoss(clip_low=0.2, clip_high=0.2, dual_clip=3.0),
        {**_SEQUENCE, "delta": 3.0},
    ),
    Case(
        "gspo_token",
        GSPOTokenLoss(),
        {**_SEQUENCE, **_GSPO_BOUNDS},
        spread=5e-4,
        note="TRL has GSPO alone, equal where a completion has one advantage, as here",
    ),
    Case(
        "sapo",
        SAPOLoss(tau_negative=_AS_FLOAT32),
        {"loss_type": "sapo"},
        note="TRL's defaults, with 1.05 as the float32 that TRL's torch.where makes of it",
    ),
    Case(
        "sapo, τ unrounded",
        SAPOLoss(),
        {"loss_type": "sapo"},
        note="differs by that rounding of 5e-8: more where τ(r − 1) is large, or a loss cancels",
        differs=True,
    ),
)

_TOLERANCE = "ours is 0 where a group spreads < 1e-6, TRL's never"

ADVANTAGE_CASES = (
    AdvantageCase(
        "z_score",
        ZScore(),
        {"scale_rewards": "group"},
        note=f"σ with ddof 1, ε 1e-4 on both sides; n/(n − 1) in float32; {_TOLERANCE}",
    ),
    AdvantageCase("centred", Centred(), {"scale_rewards": "none"}, note=_TOLERANCE),
    AdvantageCase(
        "batch",
        BatchSigma(),
        {"scale_rewards": "batch"},
        note="σ of the optimizer step's rewards; TRL's of a generation, which may span several",
    ),
    AdvantageCase(
        "gdpo",
        Decoupled(),
        {"multi_objective_aggregation": "normalize_then_sum"},
        note="parts abstain for a whole group; TRL's may for single completions",
    ),
    AdvantageCase(
        "leave_one_out",
        LeaveOneOut(),
        {"normalize_advantages": False},
        note="of TRL's RLOOTrainer; written as G/(G − 1) of the centred reward here",
        trainer="RLOO",
    ),
    AdvantageCase(
        "leave_one_out, KL in it",
        LeaveOneOut(),
        {"normalize_advantages": False},
        note="beta × the sum of k1, as kl.place=reward; GRPOTrainer can't",
        trainer="RLOO",
        beta=BETA,
    ),
)

# ── batches ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Batch:
    """What both sides are given; log-probabilities beyond a row's end are numbers like any other,
    for both to leave out."""

    logprobs_B_T: Tensor
    old_logprobs_B_T: Tensor
    reference_logprobs_B_T: Tensor
    advantages_B: Tensor
    mask_B_T: Tensor

    @property
    def longest(self) -> int:
        """Tokens that a completion may have; no row is that long."""
        return self.mask_B_T.shape[1] + 5


def batches(spread: float, seeds: int) -> Iterator[Batch]:
    """Of all shapes. The first seed's policy is the one that sampled: all ratios are 1."""
    for seed in range(seeds):
        torch.manual_seed(seed)
        for shape_B_T in SHAPES_B_T:
            yield batch_of(shape_B_T, spread if seed else 0.0)


def batch_of(shape_B_T: tuple[int, int], spread: float) -> Batch:
    """Rows of one token up to T, advantages of either sign, one of them 0 where rows suffice."""
    rows, width = shape_B_T
    noise_B_T, shift_B_1 = torch.randn(shape_B_T).double(), torch.randn(rows, 1).double()
    logprobs_B_T = -torch.rand(shape_B_T).double() * 5 - 0.01
    advantages_B = torch.randn(rows).double()
    lengths_B = torch.randint(1, width + 1, (rows,))
    lengths_B[0], lengths_B[-1] = 1, width
    if rows > 2:
        advantages_B[1] = 0.0
    return Batch(
        logprobs_B_T,
        # Rows as a whole move too: the mean over a long one would hardly leave 1 otherwise.
        logprobs_B_T - spread * (noise_B_T + shift_B_1),
        logprobs_B_T - 0.5 * torch.randn(shape_B_T).double(),
        advantages_B,
        torch.arange(width) < lengths_B[:, None],
    )


def bounds_of(loss: PolicyLoss) -> list[float]:
    """Ratios at which the loss changes its form."""
    if isinstance(loss, CISPOLoss):
        return [loss.cap]
    if isinstance(loss, SAPOLoss):
        return [1.0]
    return [1 - loss.clip_low, 1 + loss.clip_high, *filter(None, [loss.dual_clip])]


def require_both_sides(case: Case, found: list[Batch]) -> None:
    """`ValueError` where for a sign of the advantage no ratio lies below a bound, or none above."""
    signed_N, ratios_N = [], []
    for batch in found:
        log_ratio_B_T = batch.logprobs_B_T - batch.old_logprobs_B_T
        if isinstance(case.loss, GSPOLoss | GSPOTokenLoss):
            mean_B_1 = mean_log_ratio(log_ratio_B_T, batch.mask_B_T)
            log_ratio_B_T = mean_B_1.expand_as(log_ratio_B_T)
        ratios_N.append(log_ratio_B_T.exp()[batch.mask_B_T])
        signed_N.append(batch.advantages_B[:, None].expand_as(log_ratio_B_T)[batch.mask_B_T])
    ratio_N, sign_N = torch.cat(ratios_N), torch.cat(signed_N).sign()
    for bound in bounds_of(case.loss):
        for sign in (-1, 1):
            of_sign_N = ratio_N[sign_N == sign]
            if not (bool((of_sign_N < bound).any()) and bool((of_sign_N > bound).any())):
                raise ValueError(
                    f"{case.name}: with advantages of sign {sign} all ratios lie on one side of "
                    f"{bound:g}. Give more --seeds, or the case a wider spread"
                )


@dataclass(frozen=True)
class Scored:
    """A step's rewards, NaN where a part abstained, and its completions' log-probabilities."""

    parts_P_G_K: Tensor
    weights_K: Tensor
    tokens: Batch = field(repr=False)

    def as_rewards(self, beta: float) -> Rewards:
        """As this project has them; ``beta`` weighs k1, summed over tokens and taken off."""
        present_P_K = ~self.parts_P_G_K.isnan().any(dim=1)
        parts_P_K_G = self.parts_P_G_K.nan_to_num(nan=0.0).transpose(1, 2)
        weights_P_K = self.weights_K * present_P_K
        total_P_G = (parts_P_K_G * weights_P_K[..., None]).sum(dim=1)
        if beta:
            penalty = KLPenalty(estimator="k1", place="reward")
            kl_B_T = penalty(self.tokens.logprobs_B_T, self.tokens.reference_logprobs_B_T)
            kl_B = kl_B_T.masked_fill(~self.tokens.mask_B_T, 0.0).sum(dim=-1)
            total_P_G = total_P_G - beta * kl_B.view_as(total_P_G)
        return Rewards(total_P_G, parts_P_K_G, weights_P_K)


def steps(seeds: int) -> Iterator[Scored]:
    """Groups of any numbers, of zeros and ones, of equal ones, of parts that cancel or abstain."""
    for seed in range(seeds):
        torch.manual_seed(seed)
        for groups, size, parts in SHAPES_P_G_K:
            parts_P_G_K = torch.randn(groups, size, parts).double()
            parts_P_G_K[1::2] = (parts_P_G_K[1::2] > 0).double()
            if groups > 2:
                parts_P_G_K[2] = 0.1
            if parts > 1:
                parts_P_G_K[3, :, 1] = -WEIGHTS[0] / WEIGHTS[1] * parts_P_G_K[3, :, 0]
                parts_P_G_K[4, :, 0] = torch.nan
            weights_K = torch.tensor(WEIGHTS[:parts], dtype=torch.float64)
            yield Scored(parts_P_G_K, weights_K, batch_of((groups * size, 12), 0.5))


# ── both sides ───────────────────────────────────────────────────────────────────────────────────


def our_loss(case: Case, beta: float, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss and its gradient, put together as `update.py` does."""
    loss = case.loss
    logprobs_B_T, mask_B_T = batch.logprobs_B_T.clone().requires_grad_(), batch.mask_B_T
    tokens = int(mask_B_T.sum())
    sizes = StepSizes(tokens, mask_B_T.shape[0], batch.longest, pass_tokens=tokens)
    advantages_B_T = batch.advantages_B[:, None].expand_as(logprobs_B_T)
    output = loss(logprobs_B_T, batch.old_logprobs_B_T, advantages_B_T, mask_B_T)
    value = loss.reduce(output.per_token_B_T, mask_B_T, sizes)
    if beta:
        kl_B_T = case.kl(logprobs_B_T, batch.reference_logprobs_B_T)
        value = value + beta * loss.reduce(kl_B_T, mask_B_T, sizes)
    [gradient_B_T] = torch.autograd.grad(value, [logprobs_B_T])
    return value.detach(), gradient_B_T


def bare_trainer(algorithm: str, **settings: Any) -> Any:
    """A trainer of TRL's that has its settings, and nothing that the constructor builds."""
    import trl  # type: ignore[import-not-found]

    config = getattr(trl, f"{algorithm}Config")(use_cpu=True, bf16=False, **settings)
    trainer = object.__new__(getattr(trl, f"{algorithm}Trainer"))
    # What the constructor copies, under the same names; the two exceptions follow.
    for name, value in vars(config).items():
        if not isinstance(getattr(type(trainer), name, None), property):
            setattr(trainer, name, value)
    trainer.args = config
    trainer.epsilon_low = config.epsilon
    trainer.epsilon_high = config.epsilon if config.epsilon_high is None else config.epsilon_high
    trainer.model = SimpleNamespace(training=True, is_gradient_checkpointing=False)
    trainer.ref_model = SimpleNamespace()
    trainer.accelerator = SimpleNamespace(
        num_processes=1,
        process_index=0,
        device=torch.device("cpu"),
        gather=lambda values: values,
        reduce=lambda values, **_: values,
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.aux_loss_enabled = trainer._entropy_bonus_enabled = False
    trainer._metrics = {"train": defaultdict(list)}
    return trainer


def peer_loss(trainer: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """TRL's loss and its gradient."""
    logprobs_B_T = batch.logprobs_B_T.clone().requires_grad_()
    found = (logprobs_B_T, torch.zeros_like(logprobs_B_T), None)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: found
    trainer.max_completion_length = batch.longest
    mask_B_T = batch.mask_B_T.long()
    value = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": mask_B_T[:, :1],
            "prompt_mask": mask_B_T[:, :1],
            "completion_ids": mask_B_T,
            "completion_mask": mask_B_T,
            "advantages": batch.advantages_B,
            "old_per_token_logps": batch.old_logprobs_B_T,
            "ref_per_token_logps": batch.reference_logprobs_B_T,
            "num_items_in_batch": mask_B_T.sum(),
        },
    )
    [gradient_B_T] = torch.autograd.grad(value, [logprobs_B_T])
    return value.detach(), gradient_B_T


def peer_advantages(case: AdvantageCase, step: Scored) -> Tensor:
    """TRL's advantages, [P, G], from the method that generates: here it is handed everything."""
    parts_P_G_K, tokens = step.parts_P_G_K, step.tokens
    groups, size, parts = parts_P_G_K.shape
    count = groups * size
    trainer = bare_trainer(
        case.trainer,
        beta=case.beta,
        num_generations=size,
        per_device_train_batch_size=count,
        **case.peer,
    )
    texts, prompts = [""] * count, [[0]] * count
    completions = [[0] * int(length) for length in tokens.mask_B_T.sum(dim=-1)]
    generated: tuple[Any, ...] = (prompts, completions, texts)
    if case.trainer == "GRPO":
        generated = (prompts, completions, None, texts, None, {}, None, None)
    trainer._generate = lambda _: generated
    trainer._calculate_rewards = lambda *_: parts_P_G_K.reshape(count, parts)
    trainer._get_per_token_logps_and_entropies = lambda model, *_, **__: (
        tokens.reference_logprobs_B_T if model is trainer.ref_model else tokens.logprobs_B_T,
        None,
        None,
    )
    trainer._tokenizer = SimpleNamespace(pad_token_id=0)
    trainer.environment_factories, trainer.environments, trainer.tools = None, None, []
    trainer.reward_funcs = trainer.reward_func_names = [str(number) for number in range(parts)]
    trainer.reward_weights = step.weights_K.float()
    lists: defaultdict[str, Any] = defaultdict(list)
    trainer._logs = lists | {"rewards": defaultdict(list), "extra": defaultdict(list)}
    trainer._pending_extra_logs, trainer._pending_metrics = {}, {}
    found = trainer._generate_and_score_completions([{"prompt": ""}] * count)
    advantages_P_G: Tensor = found["advantages"].view(groups, size)
    return advantages_P_G


# ── comparison ───────────────────────────────────────────────────────────────────────────────────


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Of the largest elements; 0 where both are 0, as a gradient is when all is clipped."""
    assert ours.dtype == theirs.dtype == torch.float64
    off = (ours - theirs).abs().max()
    return 0.0 if off == 0 else float(off / theirs.abs().max())


def largest(differences: list[float]) -> float:
    """NaN if one is: `max` may pass over it."""
    return float(torch.tensor(differences, dtype=torch.float64).max())


def compare_loss(case: Case, seeds: int) -> dict[str, Any]:
    """One row of the table."""
    found = list(batches(case.spread, seeds))
    if case.spread:
        require_both_sides(case, found)
    values, gradients = [], []
    for beta in (0.0, BETA):
        settings = {"use_bias_correction_kl": False, "beta": beta, **case.peer}
        trainer = bare_trainer("GRPO", **settings)
        for batch in found:
            ours, theirs = our_loss(case, beta, batch), peer_loss(trainer, batch)
            values.append(relative(ours[0], theirs[0]))
            gradients.append(relative(ours[1], theirs[1]))
    return {
        "name": case.name,
        "value": largest(values),
        "gradient": largest(gradients),
        "differs": case.differs,
        "note": case.note,
    }


def compare_advantages(case: AdvantageCase, seeds: int) -> dict[str, Any]:
    """One row of the table, which has no gradient."""
    differences = []
    for step in steps(seeds):
        rewards = step.as_rewards(case.beta)
        ours_P_G = outcome_advantages(rewards, case.estimator, 1.0, NoBound())
        differences.append(relative(ours_P_G, peer_advantages(case, step)))
    return {
        "name": case.name,
        "value": largest(differences),
        "gradient": None,
        "differs": False,
        "note": case.note,
    }


def is_near(row: dict[str, Any]) -> bool:
    """NaN isn't."""
    return all(figure is None or figure <= LIMIT for figure in (row["value"], row["gradient"]))


def show(row: dict[str, Any]) -> None:
    gradient = "-" if row["gradient"] is None else f"{row['gradient']:.1e}"
    print(f"{row['name']:24} {row['value']:8.1e} {gradient:>8}  {row['note']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=6, help="of the batches (default 6)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="for the rows")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # TRL's, of settings that nothing here reads
    print(f"{'against TRL ' + version('trl'):24} {'value':>8} {'gradient':>8}  note")
    rows = []
    for case in CASES:
        rows.append(compare_loss(case, arguments.seeds))
        show(rows[-1])
    for advantage_case in ADVANTAGE_CASES:
        rows.append(compare_advantages(advantage_case, arguments.seeds))
        show(rows[-1])
    for side, what in ALONE.items():
        print(f"only in {side}: {what}")
    if arguments.json:
        found = {"trl": version("trl"), "limit": LIMIT, "rows": rows, "alone": ALONE}
        arguments.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    above = [row["name"] for row in rows if not (row["differs"] or is_near(row))]
    if above:
        sys.exit(f"more than {LIMIT:g} from TRL: {', '.join(above)}")


if __name__ == "__main__":
    main()
