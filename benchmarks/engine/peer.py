"""TRL's side: its own trainer, timed part by part, which lends its tokens to whoever follows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import LogitsProcessor, LogitsProcessorList, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from workload import (
    EOS,
    LEARNING_RATE,
    Shape,
    Step,
    gradient_of,
    make_tokenizer,
    prompt_texts,
    reward,
    timed_call,
)

PEERS: dict[str, dict[str, Any]] = {
    "trl_default": {},
    "trl_tuned": {"bf16": False, "gradient_checkpointing": False},
}
"""What is set beside the shape of a step. By default TRL computes in bf16 and checkpoints.

``_by_group`` behind a name accumulates gradients prompt by prompt, for less memory.
"""

_LONG, _ROWS_OF_LONG = 1024, 8
"""Of prompts that long 16 rows in one pass take more than 24 GiB; 8 are TRL's default."""


def settings_of(peer: str, shape: Shape) -> dict[str, Any]:
    """For `GRPOConfig`."""
    name = peer.removesuffix("_by_group")
    passes = shape.prompts if name != peer else 1
    if shape.prompt_tokens >= _LONG:
        passes = max(passes, shape.prompts * shape.group // _ROWS_OF_LONG)
    return {
        **PEERS[name],
        "per_device_train_batch_size": shape.prompts * shape.group // passes,
        "gradient_accumulation_steps": passes,
    }


class EndAt(LogitsProcessor):
    """Ends each completion at a length of its own, and no sooner."""

    def __init__(self, lengths: list[int], prompt_tokens: int, cap: int) -> None:
        self.last = torch.tensor(lengths) - 1
        self.prompt_tokens, self.cap = prompt_tokens, cap

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        ends = (self.last == input_ids.shape[1] - self.prompt_tokens).to(scores.device)
        others = scores.clone()
        others[:, EOS] = float("-inf")
        others[ends] = float("-inf")
        others[ends, EOS] = 0.0
        return others


class Follower(TrainerCallback):
    """Syncs weights before each step of TRL's, and lets the other side take the same one after."""

    def __init__(self, peer: Peer, before: Callable[[], None], after: Callable[[], None]) -> None:
        self.peer, self.before, self.after = peer, before, after

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        optimizer = self.peer.trainer.optimizer
        optimizer.step = timed_call(lambda: self.peer.now, "optimizer", optimizer.step)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.before()
        self.peer.begin()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.peer.now.gradient = gradient_of(self.peer.trainer.model)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.peer.end()
        self.after()


class Peer:
    """A `GRPOTrainer` and what its present step took."""

    def __init__(
        self,
        model: PeftModel,
        shape: Shape,
        peer: str,
        steps: int,
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
        *,
        cpu: bool = True,
    ) -> None:
        self.shape, self.number = shape, 0
        self.now = Step()
        self.tokens: list[list[int]] = []
        self._total: Any = None
        self.texts = prompt_texts(shape, steps)
        self.trainer = GRPOTrainer(
            model=model,
            processing_class=make_tokenizer(),
            reward_funcs=_rewards,
            train_dataset=Dataset.from_dict({"prompt": self.texts}),
            args=GRPOConfig(
                output_dir=tempfile.mkdtemp(),
                use_cpu=cpu,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                shuffle_dataset=False,
                num_generations=shape.group,
                max_completion_length=shape.completion_tokens,
                max_steps=steps,
                learning_rate=LEARNING_RATE,
                lr_scheduler_type="constant",
                weight_decay=0.0,
                max_grad_norm=0.0,
                **settings_of(peer, shape),
            ),
            callbacks=[],
        )
        self.trainer.add_callback(Follower(self, before, after))
        self._watch()

    def _watch(self) -> None:
        """Time what the trainer calls, and keep the tokens."""
        trainer = self.trainer
        generate_turn, generate = trainer._generate_single_turn, trainer.model.generate

        def end_at_lengths(*args: Any, **kwargs: Any) -> Any:
            end_at = EndAt(
                self.shape.lengths(self.number),
                self.shape.prompt_tokens,
                self.shape.completion_tokens,
            )
            return generate(*args, **kwargs, logits_processor=LogitsProcessorList([end_at]))

        def keep_tokens(*args: Any, **kwargs: Any) -> Any:
            found = generate_turn(*args, **kwargs)
            self.tokens = found[0]
            return found

        def now() -> Step:
            return self.now

        trainer.model.generate = end_at_lengths
        trainer._generate_single_turn = timed_call(now, "generation", keep_tokens)
        trainer.compute_loss = timed_call(now, "forward", trainer.compute_loss)
        backward = trainer.accelerator.backward
        trainer.accelerator.backward = timed_call(now, "backward", backward)

    def begin(self) -> None:
        """A step starts."""
        self.now = Step()
        self._total = self.now.timed("total")
        self._total.__enter__()

    def end(self) -> None:
        """And ends."""
        self._total.__exit__(None, None, None)
        self.number += 1

    @property
    def prompts(self) -> list[str]:
        """Those of the step that has just ended."""
        first = (self.number - 1) * self.shape.prompts
        return self.texts[first : first + self.shape.prompts]


def _rewards(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [reward(ids) for ids in completion_ids]
