"""Policy losses. One class each: its name, its knobs with their bounds, its paper, its maths.

A loss gives a value per token, and names the reduction by which the values become one number. A new
one is a class here and an entry in `PolicyLoss`; nothing else has to know.

r = π/π_old of a token, A its advantage. The bounds bite only once the policy has moved since it
sampled: from the second update on a batch on (``num_iterations`` or ``mini_batches`` above 1).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from judicaita.training.algorithms.reduction import StepSizes, sequence_mean, token_mean

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LossOutput:
    """What a loss says of each token. Both [B, T]; entries outside the mask are to be ignored."""

    per_token_B_T: Tensor
    clipped_B_T: Tensor
    """True where a bound changed the gradient."""


@dataclass(frozen=True)
class _Given:
    """What a loss is told of each token, all [B, T]; the old log-probabilities have no gradient."""

    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    mask: Tensor

    @property
    def log_ratio(self) -> Tensor:
        """log r of each token."""
        return self.logprobs - self.old_logprobs


class _Loss(BaseModel):
    """What all losses are; they are called with log-probabilities in nats, [B, T]."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    counts_all: ClassVar[bool] = False
    """Whether groups without signal have to go through the loss, for their tokens to be counted."""

    def __call__(
        self,
        logprobs_B_T: Tensor,
        old_logprobs_B_T: Tensor,
        advantages_B_T: Tensor,
        mask_B_T: Tensor,
    ) -> LossOutput:
        """The loss of every token; the gradient flows through ``logprobs_B_T`` alone."""
        given = _Given(logprobs_B_T, old_logprobs_B_T.detach(), advantages_B_T, mask_B_T)
        return self._values(given)

    def reduce(self, values_B_T: Tensor, mask_B_T: Tensor, sizes: StepSizes) -> Tensor:
        """Values of the tokens of a micro-batch as its share of one number; see `reduction.py`."""
        return self._reduce(values_B_T, mask_B_T, sizes)

    @abstractmethod
    def _values(self, given: _Given) -> LossOutput: ...

    @abstractmethod
    def _reduce(self, values_B_T: Tensor, mask_B_T: Tensor, sizes: StepSizes) -> Tensor: ...


class _Clipped(_Loss):
    """PPO's clipped surrogate, −min(rA, clip(r, 1−low, 1+high)·A) (arXiv 1707.06347 eq. 7)."""

    clip_low: float = Field(0.2, gt=0, lt=1)
    """The ratio is cut below 1 − clip_low where the advantage is negative."""
    clip_high: float = Field(0.2, gt=0)
    """The ratio is cut above 1 + clip_high where the advantage is positive. More than ``clip_low``
    (DAPO's "clip-higher" has .28) leaves unlikely tokens room to become likely."""
    dual_clip: float | None = Field(None, gt=1)
    """Where the advantage is negative, the ratio is also cut above this (dual-clip PPO, arXiv
    1912.09729 §3): without it one unlikely token may outweigh the whole batch. verl has 3."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.dual_clip is not None and self.dual_clip <= 1 + self.clip_high:
            raise ValueError(
                f"dual_clip={self.dual_clip:g} lies within the other bound, 1 + clip_high = "
                f"{1 + self.clip_high:g}. Set it above (verl has 3)"
            )
        return self

    def _values(self, given: _Given) -> LossOutput:
        return self.surrogate(given.log_ratio.exp(), given.advantages)

    def surrogate(self, ratio_B_T: Tensor, advantages_B_T: Tensor) -> LossOutput:
        """The loss of given ratios."""
        plain_B_T = ratio_B_T * advantages_B_T
        cut_B_T = ratio_B_T.clamp(1 - self.clip_low, 1 + self.clip_high) * advantages_B_T
        kept_B_T = plain_B_T.minimum(cut_B_T)
        clipped_B_T = cut_B_T < plain_B_T
        if self.dual_clip is not None:
            floor_B_T = self.dual_clip * advantages_B_T
            is_low_B_T = (advantages_B_T < 0) & (kept_B_T < floor_B_T)
            kept_B_T = floor_B_T.where(is_low_B_T, kept_B_T)
            clipped_B_T = clipped_B_T | is_low_B_T
        return LossOutput(-kept_B_T, clipped_B_T)


class GRPOLoss(_Clipped):
    """GRPO as its paper has it: every completion weighs the same (DeepSeekMath, arXiv 2402.03300
    eq. 3). Tokens of long completions weigh less, so that long wrong answers cost little."""

    type: Literal["grpo"] = "grpo"
    """Which loss."""

    def _reduce(self, values_B_T: Tensor, mask_B_T: Tensor, sizes: StepSizes) -> Tensor:
        return sequence_mean(values_B_T, mask_B_T, sizes.sequences)


class BNPOLoss(_Clipped):
    """Mean over the tokens of each micro-batch, then over micro-batches: unsloth's default. The
    gradient depends on how a step is divided; the others' does not."""

    type: Literal["bnpo"] = "bnpo"
    """Which loss."""
    counts_all: ClassVar[bool] = True

    def _reduce(self, values_B_T: Tensor, mask_B_T: Tensor, sizes: StepSizes) -> Tensor:
        return token_mean(values_B_T, mask_B_T, sizes.pass_tokens * sizes.passes)


class DAPOLoss(_Clipped):
    """Mean over all tokens of the optimizer step (DAPO, arXiv 2503.14476 §3.3): the default."""

    type: Literal["dapo"] = "dapo"
    """Which loss."""

    def _reduce(self, values_B_T: Tensor, mask_B_T: Tensor, sizes: StepSizes) -> Tensor:
        return token_mean(values_B_T, mask_B_T, sizes.tokens)


class DrGRPOLoss(_Clipped):
    """Sum over tokens, divided by completions × ``generation_max_length``: no bias by length (Dr.
    GRPO, arXiv 2503.20783 §3.2; its other half is ``advantage.type=centred``)."""

    type: Literal["dr_grpo"] = "dr_grpo"
    """Which loss."""

    def _reduce(self, values_B_T: Tensor, mask_B_T: Tensor, sizes: StepSizes) -> Tensor:
        return token_mean(values_B_T, mask_B_T, sizes.sequences * sizes.longest)


class CISPOLoss(_Loss):
    """−sg(w)·A·log π: the bound cuts a token's weight, never its gradient (MiniMax-M1, arXiv
    2506.13585 eq. 4). Implementations differ in the bound, so both are here."""

    type: Literal["cispo"] = "cispo"
    """Which loss."""
    bound: Literal["cap", "interval"] = "cap"
    """``cap``: w = min(r, cap), as TRL and Liger have it. ``interval``: w = clip(r, 1 − clip_low,
    1 + clip_high), as verl and NeMo have it."""
    cap: float = Field(5.0, gt=0)
    """Of the weight, by itself; open-instruct has 1.272."""
    clip_low: float = Field(0.2, gt=0, le=1)
    """Of the interval."""
    clip_high: float = Field(0.28, gt=0)
    """Of the interval."""

    @model_validator(mode="after")
    def _knobs_of_the_bound(self) -> Self:
        other, others = {
            "cap": ("interval", ("clip_low", "clip_high")),
            "interval": ("cap", ("cap",)),
        }[self.bound]
        for name in sorted(self.model_fields_set.intersection(others)):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is no knob of bound={self.bound}. Leave it out, or set bound={other}"
                )
        return self

    def _values(self, given: _Given) -> LossOutput:
        ratio_B_T = given.log_ratio.detach().exp()
        if self.bound == "cap":
            weights_B_T = ratio_B_T.clamp(max=self.cap)
        else:
            weights_B_T = ratio_B_T.clamp(1 - self.clip_low, 1 + self.clip_high)
        per_token_B_T = -weights_B_T * given.advantages * given.logprobs
        return LossOutput(per_token_B_T, weights_B_T != ratio_B_T)

    def _reduce(self, values_B_T: Tensor, mask_B_T: Tensor, sizes: StepSizes) -> Tensor:
        return token_mean(values_B_T, mask_B_T, sizes.tokens)


class _SequenceRatio(_Clipped):
    """Bounds of §5.1: ratios of completions are much nearer to 1 than those of tokens."""

    clip_low: float = Field(3e-4, gt=0, lt=1)
    """The ratio is cut below 1 − clip_low where the advantage is negative."""
    clip_high: float = Field(4e-4, gt=0)
    """The ratio is cut above 1 + clip_high where the advantage is positive."""

    def _reduce(self, values_B_T: Tensor, mask_B_T: Tensor, sizes: StepSizes) -> Tensor:
        return sequence_mean(values_B_T, mask_B_T, sizes.sequences)


class GSPOLoss(_SequenceRatio):
    """One ratio a completion, exp(mean log r), clipped as a whole (GSPO, arXiv 2507.18071 eq. 5–7);
    bounds as in its §5.1."""

    type: Literal["gspo"] = "gspo"
    """Which loss."""

    def _values(self, given: _Given) -> LossOutput:
        ratio_B_T = mean_log_ratio(given.log_ratio, given.mask).exp().expand_as(given.logprobs)
        return self.surrogate(ratio_B_T, given.advantages)


class GSPOTokenLoss(_SequenceRatio):
    """GSPO with advantages of tokens (arXiv 2507.18071 eq. 13–17): the completion's ratio as the
    value, sg(s)·π/sg(π), and each token's own gradient. With one advantage a completion it is GSPO;
    with ``grpo_gamma`` below 1 or ``step_mode=per_step`` it keeps tokens apart."""

    type: Literal["gspo_token"] = "gspo_token"
    """Which loss."""

    def _values(self, given: _Given) -> LossOutput:
        ratio_B_1 = mean_log_ratio(given.log_ratio, given.mask).detach().exp()
        own_B_T = (given.logprobs - given.logprobs.detach()).exp()  # 1, with the gradient of log π
        return self.surrogate(ratio_B_1 * own_B_T, given.advantages)


class SAPOLoss(_Loss):
    """−(4/τ)·σ(τ(r − 1))·A: a gate that closes softly as the ratio leaves 1 (SAPO, arXiv
    2511.20347), τ the larger, the sooner."""

    type: Literal["sapo"] = "sapo"
    """Which loss."""
    tau_positive: float = Field(1.0, gt=0)
    """τ where the advantage is positive."""
    tau_negative: float = Field(1.05, gt=0)
    """τ where it is not."""

    def _reduce(self, values_B_T: Tensor, mask_B_T: Tensor, sizes: StepSizes) -> Tensor:
        return sequence_mean(values_B_T, mask_B_T, sizes.sequences)

    def _values(self, given: _Given) -> LossOutput:
        advantages_B_T = given.advantages
        tau_B_T = advantages_B_T.new_full(advantages_B_T.shape, self.tau_positive)
        tau_B_T = tau_B_T.masked_fill(advantages_B_T <= 0, self.tau_negative)
        gate_B_T = (tau_B_T * (given.log_ratio.exp() - 1)).sigmoid() * 4 / tau_B_T
        return LossOutput(-gate_B_T * advantages_B_T, given.mask.new_zeros(given.mask.shape))


def mean_log_ratio(log_ratio_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """log r of each completion, the mean of its tokens' (GSPO, eq. 7). Returns [B, 1]."""
    lengths_B_1 = mask_B_T.sum(dim=-1, keepdim=True).clamp(min=1)
    return log_ratio_B_T.masked_fill(~mask_B_T, 0.0).sum(dim=-1, keepdim=True) / lengths_B_1


PolicyLoss = Annotated[
    DAPOLoss | GRPOLoss | BNPOLoss | DrGRPOLoss | CISPOLoss | GSPOLoss | GSPOTokenLoss | SAPOLoss,
    Field(discriminator="type"),
]
"""Every loss, by its ``type``; the first one is the default."""

LOSSES: tuple[type[_Loss], ...] = get_args(get_args(PolicyLoss)[0])
"""Their classes."""
