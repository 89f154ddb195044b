"""From a checkpoint and a question to a `ReasoningTrace`."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from judicaita.errors import CheckpointError, ConfigError, DataError, JudicaitaError, ModelError
from judicaita.legal.answers import parse_reasoning
from judicaita.reasoning_trace.trace import (
    ModelInfo,
    ReasoningStep,
    ReasoningTrace,
    join_prompt,
    warnings_about,
)
from judicaita.training import checkpoints
from judicaita.training.batching import collate
from judicaita.training.policy import Policy
from judicaita.training.rollouts.base import RolloutEngine, SamplingParams
from judicaita.training.rollouts.native import NativeEngine
from judicaita.training.settings import CHECKPOINT_VARIABLE, default_checkpoint
from judicaita.types import Completion


@dataclass(frozen=True)
class _Loaded:
    """What `ReasoningTraceGenerator.initialize` prepares."""

    policy: Policy
    engine: RolloutEngine
    info: ModelInfo
    greedy: SamplingParams
    """The checkpoint's own limit and stop strings."""


@dataclass(frozen=True, eq=False)
class _Request:
    """A call of `ReasoningTraceGenerator.generate_trace`."""

    query: str
    context: str
    sampling: SamplingParams
    trace: Future[ReasoningTrace] = field(default_factory=Future)


_TOGETHER = 16
"""Calls that are answered in one batch at most."""


class ReasoningTraceGenerator:
    """Answers questions step by step with a trained model.

        generator = ReasoningTraceGenerator(checkpoint_path="./checkpoints/grpo/final")
        await generator.initialize()
        trace = await generator.generate_trace(query="Is this …?", context="Employee worked …")

    System prompt, chat template and longest answer are those of the checkpoint's run, or the
    defaults of `TrainingConfig` for a folder that records none.

    Loading and generating happen in one thread of the generator's own: the event loop stays free,
    and calls made at the same time wait for each other in the order they came. Greedy ones are
    answered together, up to 16 in a batch; a draw is made alone, so that its seed says it all.

    Args:
        checkpoint_path: A model folder or an adapter folder, such as a run's ``final/``; None is
            the folder that GRPO_CHECKPOINT_PATH names in the environment or in ``.env``.
        device: One of the configuration's.
        make_engine: Makes what writes the completions from the loaded policy.
    """

    def __init__(
        self,
        checkpoint_path: str | Path | None = None,
        *,
        device: str = "auto",
        make_engine: Callable[[Policy], RolloutEngine] = NativeEngine,
    ) -> None:
        named = checkpoint_path or default_checkpoint()
        if not named:
            raise CheckpointError(
                "no checkpoint was named, so there is no model to ask. Give checkpoint_path, or "
                f"set {CHECKPOINT_VARIABLE} in the environment or in .env."
            )
        self.checkpoint = Path(named)
        self.device = device
        self._make_engine = make_engine
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reasoning-trace")
        self._loaded: _Loaded | None = None
        self._waiting: list[_Request] = []
        """Calls that are not answered yet; several event loops may add to them."""

    async def initialize(self) -> None:
        """Load the model; does nothing when it is loaded already.

        Raises `CheckpointError` for a folder that is no checkpoint, `ModelError` for one that
        cannot be loaded.
        """
        await asyncio.get_running_loop().run_in_executor(self._worker, self._load)

    async def generate_trace(
        self,
        query: str,
        context: str = "",
        *,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> ReasoningTrace:
        """Answer one question.

        Args:
            query: The question.
            context: What it is about: facts, a clause, a document. See `join_prompt`.
            max_tokens: Longest completion; None is the checkpoint's own limit. Never more than the
                model has positions for.
            temperature: 0 always takes the likeliest token; above it tokens are drawn.
            seed: Of the draw.
        """
        loaded = self._loaded
        if loaded is None:
            raise JudicaitaError(
                "the trace generator has loaded no model yet. Await initialize() before "
                "generate_trace()."
            )
        query, context = query.strip(), context.strip()
        if not query:
            raise DataError("the query is empty, so there is nothing to answer. Ask a question.")
        if max_tokens is not None and max_tokens < 1:
            raise ConfigError(
                f"max_tokens={max_tokens} leaves no room for an answer. Set 1 or more."
            )
        if not 0 <= temperature < math.inf:
            raise ConfigError(
                f"temperature={temperature}: sampling needs a finite number from 0 on. 0 always "
                "takes the likeliest token."
            )
        sampling = replace(loaded.greedy, temperature=temperature, seed=seed)
        if max_tokens is not None:
            sampling = replace(sampling, max_tokens=max_tokens)
        request = _Request(query, context, sampling)
        self._waiting.append(request)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._worker, self._answered, loaded, request
            )
        finally:  # also where the call is cancelled
            with contextlib.suppress(ValueError):
                self._waiting.remove(request)

    def _answered(self, loaded: _Loaded, request: _Request) -> ReasoningTrace:
        """The request's trace, which the batch of an earlier call may have brought."""
        if not request.trace.done():
            together = [request]
            if request.sampling.temperature == 0:
                like = [each for each in self._waiting if each.sampling == request.sampling]
                others = [each for each in like if each is not request and not each.trace.done()]
                together += others[: _TOGETHER - 1]
            if len(together) > 1:
                # What goes wrong may be another's fault, or that of so many.
                with contextlib.suppress(Exception):
                    _answer(loaded, together)
            if not request.trace.done():
                _answer(loaded, [request])
        return request.trace.result()

    def _load(self) -> None:
        if self._loaded is not None:
            return
        opened = checkpoints.open_checkpoint(self.checkpoint, self.device)
        self._loaded = _Loaded(
            opened.policy,
            self._make_engine(opened.policy),
            _describe(self.checkpoint, opened),
            opened.greedy,
        )


def _describe(folder: Path, opened: checkpoints.OpenCheckpoint) -> ModelInfo:
    policy, card = opened.policy, opened.card
    run = checkpoints.describe_run(policy, {})
    base = card.get("config", {}).get("base_model")
    if base is None and policy.is_adapter:
        [adapter] = policy.model.peft_config.values()
        base = adapter.base_model_name_or_path
    return ModelInfo(
        checkpoint=str(folder),
        base_model=base,
        step=card.get("step"),
        policy_version=card.get("policy_version"),
        parameters=run["parameters"],
        device=run["device"],
        dtype=run["compute_dtype"],
        judicaita=run["versions"]["judicaita"],
    )


def _answer(loaded: _Loaded, requests: Sequence[_Request]) -> None:
    """Give every request its trace or its error; those of one limit are one batch."""
    batches: dict[SamplingParams, list[tuple[_Request, tuple[int, ...]]]] = {}
    for request in requests:
        try:
            prompt_ids = loaded.policy.encode(join_prompt(request.query, request.context))
            positions = loaded.policy.max_positions
            sampling = _fitting(request.sampling, len(prompt_ids), positions)
        except JudicaitaError as error:  # of this request alone
            request.trace.set_exception(error)
        else:
            batches.setdefault(sampling, []).append((request, prompt_ids))
    for sampling, batch in batches.items():
        _generate(loaded, batch, sampling)


def _generate(
    loaded: _Loaded, batch: Sequence[tuple[_Request, tuple[int, ...]]], sampling: SamplingParams
) -> None:
    """Generate a completion for each prompt and take them apart."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    start = perf_counter()
    completed = loaded.engine.generate([prompt_ids for _, prompt_ids in batch], 1, sampling)
    seconds = perf_counter() - start
    for (request, prompt_ids), [completion] in zip(batch, completed, strict=True):
        try:
            logprobs = _own_logprobs(loaded.policy, prompt_ids, completion, sampling)
        except ModelError as error:
            request.trace.set_exception(error)
        else:
            trace = _trace_of(loaded, request, completion, logprobs, created, seconds)
            request.trace.set_result(trace)


def _trace_of(
    loaded: _Loaded,
    request: _Request,
    completion: Completion,
    logprobs: Sequence[float],
    created: str,
    seconds: float,
) -> ReasoningTrace:
    text = loaded.policy.decode(completion.token_ids)
    reasoning = parse_reasoning(text)
    truncated = completion.finish_reason == "length"
    words = _Words(loaded.policy, completion, logprobs)
    steps = tuple(
        ReasoningStep(step.number, step.text, words.confidence(step.text, step.text_start))
        for step in reasoning.steps
    )
    confidence = None
    if reasoning.conclusion is not None and reasoning.conclusion_text_start is not None:
        confidence = words.confidence(reasoning.conclusion, reasoning.conclusion_text_start)
    return ReasoningTrace(
        query=request.query,
        context=request.context,
        text=text,
        steps=steps,
        conclusion=reasoning.conclusion or None,
        confidence=confidence,
        truncated=truncated,
        warnings=warnings_about(text, reasoning, truncated=truncated),
        model=loaded.info,
        created=created,
        seconds=seconds,
        completion_tokens=len(completion.token_ids),
    )


def _fitting(sampling: SamplingParams, prompt: int, positions: int | None) -> SamplingParams:
    """Lower the token limit to what the model has positions for; `DataError` when that is none."""
    if positions is None:
        return sampling
    if prompt >= positions:
        raise DataError(
            f"query and context have {prompt} tokens, and the model has {positions} positions for "
            "them and the answer; prompts are never cut. Shorten the context."
        )
    return replace(sampling, max_tokens=min(sampling.max_tokens, positions - prompt))


def _own_logprobs(
    policy: Policy, prompt_ids: tuple[int, ...], completion: Completion, sampling: SamplingParams
) -> Sequence[float]:
    """Log-probability (nats) of each token in the model's own distribution, at temperature 1.

    Engines report those of the sampling's temperature.
    """
    logprobs: Sequence[float] = completion.full_logprobs
    if sampling.temperature not in (0.0, 1.0):
        tokens = collate(
            [(prompt_ids, completion.token_ids)], policy.pad_id, policy.placement.device
        )
        with policy.inference():
            logprobs_B_T, _ = policy.logprobs(tokens, temperature=1.0)
        logprobs = logprobs_B_T[0].tolist()
    if not all(map(math.isfinite, logprobs)):
        raise ModelError(
            "the model gives its own words no finite probability, so its weights are broken. Use "
            "another checkpoint."
        )
    return logprobs


@dataclass(frozen=True)
class _Words:
    """A completion whose parts can be asked for their confidence."""

    policy: Policy
    completion: Completion
    logprobs: Sequence[float]

    def confidence(self, body: str, start: int) -> float | None:
        """exp(mean log-probability) of the tokens of ``body``, which begins at ``start``.

        The marker is left out: every trained model is sure of "Step 1:". None for an empty body.
        """
        if not body:
            return None
        token_ids = self.completion.token_ids
        if self.completion.finish_reason == "stop":
            token_ids = token_ids[:-1]
        first = self.policy.token_at(token_ids, start)
        # A character may take several tokens, so a text reaches up to where the next character
        # begins; a token may also end one text and begin the next, and then belongs to both.
        last = self.policy.token_at(token_ids, start + len(body) - 1)
        end = max(last + 1, self.policy.token_at(token_ids, start + len(body)))
        span = self.logprobs[first:end]
        return math.exp(math.fsum(span) / len(span))
