"""This project's side: the trainer's own engine, batching and update, timed part by part."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from peft import PeftModel
from torch.utils.flop_counter import FlopCounterMode
from workload import (
    EOS,
    LEARNING_RATE,
    Shape,
    Step,
    draw_ids,
    gradient_of,
    make_tokenizer,
    reward,
    timed_call,
)

from judicaita.training import block_attention, policy
from judicaita.training.algorithms.logprobs import token_logprobs
from judicaita.training.batching import MiniBatch, make_mini_batch
from judicaita.training.config import TrainingConfig
from judicaita.training.credit import weigh_groups
from judicaita.training.devices import place
from judicaita.training.optimization import Updater
from judicaita.training.policy import Policy
from judicaita.training.prefill import KeptPrefill
from judicaita.training.rollouts import native
from judicaita.training.rollouts.base import SamplingParams
from judicaita.training.supervision import Supervisor
from judicaita.training.update import PolicyUpdate
from judicaita.types import Group, RewardResult, Sample

Tokens = Sequence[Sequence[int]]
"""Of each completion, prompt by prompt."""


class Ours:
    """Takes optimizer steps of a shape, with completions that are given."""

    def __init__(
        self,
        model: PeftModel,
        shape: Shape,
        *,
        at_once: bool = False,
        device: str = "cpu",
        precision: str = "auto",
    ) -> None:
        """``at_once`` puts all groups through one training pass, else each goes by itself."""
        self.shape = shape
        one_group = shape.prompt_tokens + shape.group * shape.completion_tokens
        self.config = TrainingConfig(
            base_model="benchmark",
            device=device,
            precision=precision,  # type: ignore[arg-type]
            batch_size=shape.prompts,
            num_rollouts=shape.group,
            gradient_accumulation_steps=1,
            micro_batch_tokens=None if at_once else one_group,
            generation_max_length=shape.completion_tokens,
            lora_dropout=0.0,
            grpo_tau=1.0,
            grpo_gamma=1.0,
            learning_rate=LEARNING_RATE,
            lr_scheduler="constant",
            weight_decay=0.0,
            max_grad_norm=0.0,
            system_prompt="",
        )
        placement = place(device, precision)
        for parameter in model.parameters():
            if not parameter.requires_grad:  # as a base is loaded beside an adapter
                parameter.data = parameter.data.to(placement.compute)
        self.policy = Policy(model, make_tokenizer(), placement)  # type: ignore[arg-type]
        self.kept = KeptPrefill(self.policy, self.config)
        self.engine = native.NativeEngine(self.policy, kept=self.kept)
        updater = Updater(self.policy, self.config, total_steps=1000)
        supervisor = Supervisor(None, 0, Path(tempfile.gettempdir()) / "stalls.txt", print)
        self.update = PolicyUpdate(
            self.policy, updater, self.config, None, self.policy.reference, self.kept, supervisor
        )
        self.now = Step()
        # What is forwarded for both counts where a training pass would have to do it by itself.
        self.kept.forward = timed_call(lambda: self.now, "kept forward", self.kept.forward)  # type: ignore[method-assign]
        self.kept.take = self._timing_its_backward(self.kept.take)  # type: ignore[method-assign]
        self.policy.logprobs = timed_call(lambda: self.now, "forward", self.policy.logprobs)  # type: ignore[method-assign]
        updater.backward = timed_call(lambda: self.now, "backward", updater.backward)  # type: ignore[method-assign]
        updater.step = self._keeping_gradient(
            timed_call(lambda: self.now, "optimizer", updater.step)
        )  # type: ignore[method-assign]

    def _timing_its_backward(self, take: Callable[..., Any]) -> Callable[..., Any]:
        def take_and_time(batches: Any) -> Any:
            taken = take(batches)
            if taken is not None:
                taken.backward = timed_call(lambda: self.now, "backward", taken.backward)
            return taken

        return take_and_time

    def _keeping_gradient(self, step: Callable[[], Any]) -> Callable[[], Any]:
        def keep_and_step() -> Any:
            self.now.gradient = gradient_of(self.policy.model)
            return step()

        return keep_and_step

    def step(self, prompts: Sequence[str], tokens: Tokens | None = None) -> Step:
        """One optimizer step, its completions decoded anew and found to be these, if given."""
        self.now = Step()
        with self.now.timed("total"):
            with (
                self.now.timed("generation"),
                replayed(tokens) if tokens is not None else nullcontext(),
                self.kept.for_update(),
            ):
                groups = self._generate([self.policy.encode(prompt) for prompt in prompts])
            completions = [each for group in groups for each in group.completions]
            self.now.tokens = sum(len(each.token_ids) for each in completions)
            self.update(self._batches(groups), beta=0.0)
        self.now.move("kept forward", "generation", "forward")
        return self.now

    def _generate(self, prompts: Sequence[tuple[int, ...]]) -> list[Group]:
        sampling = SamplingParams(self.shape.completion_tokens)
        completed = self.engine.generate(prompts, self.shape.group, sampling)
        groups = []
        for number, (ids, completions) in enumerate(zip(prompts, completed, strict=True)):
            texts = tuple(self.policy.decode(each.token_ids) for each in completions)
            results = tuple(RewardResult(reward(each.token_ids)) for each in completions)
            sample = Sample(f"prompt {number}", "")
            groups.append(Group(sample, ids, completions, texts, results))
        return groups

    def _batches(self, groups: Sequence[Group]) -> list[MiniBatch]:
        weighed = weigh_groups(groups, self.config)
        return [make_mini_batch(weighed, weighed, self.policy, self.config)]

    def flops(self, prompts: Sequence[str], tokens: Tokens) -> int:
        """Of a training pass that makes nothing twice."""
        self.now = Step()  # the last one is over
        with replayed(tokens):
            groups = self._generate([self.policy.encode(prompt) for prompt in prompts])
        twice = 0

        def of_backward(*arguments: Any) -> Any:
            """There it makes scores once more, and as many gradients of weights."""
            nonlocal twice
            with FlopCounterMode(display=False) as own:
                found = products(*arguments)
            if torch._C._current_graph_task_id() != -1:
                twice += own.get_total_flops()
            return found

        products = block_attention._products
        with (
            mock.patch.object(block_attention, "_products", of_backward),
            mock.patch.object(policy, "frozen_head_logprobs", logprobs_at_once),
            FlopCounterMode(display=False) as counter,
        ):
            for batch in self._batches(groups)[0].batches:
                with self.policy.training_pass(batch):
                    values_B_T, _ = self.policy.logprobs(batch, 1.0)
                    values_B_T[batch.mask_B_T].sum().backward()
        updater = self.update.updater
        updater.skip_to(updater.step_count)
        return counter.get_total_flops() - twice // 2


def logprobs_at_once(
    head: Any, hidden_N_D: Any, targets_N: Any, temperature: float, entropy_gradient: bool
) -> Any:
    """Of as many operations; the counter of operations stumbles over gradients within a forward."""
    return token_logprobs(head(hidden_N_D), targets_N, temperature, entropy_gradient)


def tokens_of(shape: Shape, step: int) -> list[tuple[int, ...]]:
    """Completions for a step that no other trainer has taken."""
    return [
        (*draw_ids(length - 1, f"{shape}/{step}/{row}"), EOS)
        for row, length in enumerate(shape.lengths(step))
    ]


@contextmanager
def replayed(tokens: Tokens) -> Iterator[None]:
    """Within it the engine samples as ever, and then takes the tokens that are given."""
    sample, live, position = native.sample_tokens, list(range(len(tokens))), 0

    def take(logits_R_V: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
        nonlocal live, position
        sample(logits_R_V, *rest)
        if len(logits_R_V) < len(live):  # finished rows have left the batch
            live = [row for row in live if len(tokens[row]) > position]
        assert len(live) == len(logits_R_V)
        taken = [tokens[row][position] if position < len(tokens[row]) else EOS for row in live]
        position += 1
        taken_R = torch.tensor(taken)
        log_p_R_V = logits_R_V.log_softmax(-1)
        logprobs_R = log_p_R_V.gather(-1, taken_R[:, None])[:, 0]
        return taken_R, logprobs_R, logprobs_R

    with mock.patch.object(native, "sample_tokens", take):
        yield
