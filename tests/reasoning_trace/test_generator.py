"""From a checkpoint on disk to a trace, and where its figures come from."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from judicaita.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    JudicaitaError,
    ModelError,
    NumericalError,
)
from judicaita.reasoning_trace import ReasoningTrace, ReasoningTraceGenerator
from judicaita.training.checkpoints import save_checkpoint
from judicaita.training.config import SFTConfig, TrainingConfig
from judicaita.training.loading import load_policy
from judicaita.training.optimization import Updater
from judicaita.training.policy import Policy
from judicaita.training.rollouts.base import SamplingParams
from judicaita.training.rollouts.native import NativeEngine
from judicaita.training.supervised import supervised_row, supervised_step
from judicaita.types import Completion, Sample

# peft's own use of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

CONTEXT = "Ava is from Ohio. Ava sues Mia."
QUERY = "Is there diversity jurisdiction?"
STEPS = ("The plaintiff is a citizen of Ohio.", "The amount exceeds $75,000.")
SOLUTION = f"Step 1: {STEPS[0]}\nStep 2: {STEPS[1]}\nConclusion: Yes"


@pytest.fixture(scope="module")
def final(make_policy: Callable[..., Policy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose model has learnt one worked solution, though not to certainty."""
    policy = make_policy()
    learning = SFTConfig(
        base_model="a-model", learning_rate=1e-2, lr_scheduler="constant", use_lora=False
    )
    updater = Updater(policy, learning, total_steps=100)
    row = supervised_row(policy, Sample(f"{CONTEXT} {QUERY}", "Yes", trace=SOLUTION))
    while supervised_step(policy, updater, [row], micro_batch=1).loss > 0.1:
        assert updater.step_count < 100, "the solution was not learnt"
    config = TrainingConfig(base_model="a-model", system_prompt="", generation_max_length=64)
    folder = tmp_path_factory.mktemp("run") / "final"
    return save_checkpoint(folder, policy, config, step=7)


def ask(
    generator: ReasoningTraceGenerator, *, query: str = QUERY, **options: Any
) -> ReasoningTrace:
    async def go() -> ReasoningTrace:
        await generator.initialize()
        return await generator.generate_trace(query=query, **options)

    return asyncio.run(go())


def token_probabilities(folder: Path, text: str) -> list[tuple[str, float]]:
    """Each token of ``text`` behind the prompt, and its probability by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).double()
    prompt = tokenizer(f"{CONTEXT} {QUERY}")["input_ids"]
    answer = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    chances = logits.softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0].tolist()
    return list(zip([tokenizer.decode([token]) for token in answer], chances, strict=True))


def geometric_mean(values: Sequence[float]) -> float:
    return math.prod(values) ** (1 / len(values))


def chances_of(tokens: list[tuple[str, float]], words: str) -> list[float]:
    """Probabilities of the tokens that hold the characters of ``words`` where they last occur."""
    whole = "".join(text for text, _ in tokens)
    low = whole.rindex(words)
    found, end = [], 0
    for text, chance in tokens:
        start, end = end, end + len(text)
        if end > low and start < low + len(words):
            found.append(chance)
    return found


@pytest.mark.parametrize("temperature", [0.0, 0.25])
def test_a_learnt_solution_comes_back_with_the_models_own_certainty(
    final: Path, temperature: float
) -> None:
    """Confidence is that of the untempered distribution, also where a sharper one was drawn."""
    trace = ask(ReasoningTraceGenerator(final), context=CONTEXT, temperature=temperature)
    assert trace.text == SOLUTION
    assert trace.well_formed
    assert not trace.truncated
    assert [step.number for step in trace.steps] == [1, 2]
    assert tuple(step.text for step in trace.steps) == STEPS
    assert {step.verification for step in trace.steps} == {"unverified"}
    assert trace.conclusion == "Yes"
    tokens = token_probabilities(final, SOLUTION)
    assert trace.completion_tokens == len(tokens) + 1  # the EOS
    expected = geometric_mean(chances_of(tokens, "Yes"))
    assert 0.5 < expected < 0.99, "beside a surer model a mistake would not show"
    assert trace.confidence == pytest.approx(expected, rel=1e-4)
    for step in trace.steps:
        expected = geometric_mean(chances_of(tokens, step.text))
        assert step.confidence == pytest.approx(expected, rel=1e-4)


def test_the_trace_says_what_wrote_it(final: Path) -> None:
    trace = ask(ReasoningTraceGenerator(str(final), device="cpu"), context=f" {CONTEXT}\n")
    assert (trace.query, trace.context) == (QUERY, CONTEXT)
    assert trace.model.checkpoint == str(final)
    assert (trace.model.base_model, trace.model.step) == ("a-model", 7)
    updates = json.loads((final / "judicaita.json").read_text())["policy_version"]
    assert trace.model.policy_version == updates > 0
    assert (trace.model.device, trace.model.dtype) == ("cpu", "float32")
    tied = {"lm_head.weight"}
    from safetensors.torch import load_file

    weights = load_file(final / "model.safetensors")
    assert trace.model.parameters == sum(w.numel() for n, w in weights.items() if n not in tied)
    assert trace.created.endswith("+00:00")
    assert trace.seconds > 0


def test_an_adapter_folder_is_loaded_on_its_base(final: Path, tmp_path: Path) -> None:
    config = TrainingConfig(base_model=str(final), system_prompt="", generation_max_length=64)
    torch.manual_seed(0)
    policy = load_policy(config)
    before = ask(ReasoningTraceGenerator(final), context=CONTEXT)
    with torch.no_grad():
        for name, parameter in policy.trainable():
            if "lora_B" in name:
                parameter.normal_(std=0.01, generator=torch.Generator().manual_seed(0))
    save_checkpoint(tmp_path / "adapter", policy, config, step=1)
    trace = ask(ReasoningTraceGenerator(tmp_path / "adapter"), context=CONTEXT)
    assert trace.conclusion == "Yes"
    assert trace.confidence is not None
    assert before.confidence is not None
    assert trace.confidence != pytest.approx(before.confidence, rel=1e-6), (
        "the adapter was left out"
    )
    assert trace.model.base_model == str(final)
    lora = sum(parameter.numel() for _, parameter in policy.trainable())
    assert trace.model.parameters == before.model.parameters + lora


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_a_folder_that_judicaita_did_not_write(final: Path, tmp_path: Path, kind: str) -> None:
    """It records no run: the defaults ask, and nothing is claimed about its past."""
    lora = kind == "adapter"
    config = TrainingConfig(base_model=str(final), use_lora=lora, generation_max_length=64)
    policy = load_policy(config)
    policy.save(tmp_path)
    trace = ask(ReasoningTraceGenerator(tmp_path), max_tokens=3)
    assert (trace.model.step, trace.model.policy_version) == (None, None)
    assert trace.model.base_model == (str(final) if kind == "adapter" else None)


@pytest.mark.parametrize("source", ["environment", ".env"])
def test_the_checkpoint_may_be_named_outside(
    final: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRPO_CHECKPOINT_PATH", raising=False)
    with pytest.raises(CheckpointError, match="no checkpoint was named.*GRPO_CHECKPOINT_PATH"):
        ReasoningTraceGenerator()
    if source == "environment":
        monkeypatch.setenv("GRPO_CHECKPOINT_PATH", str(final))
    else:
        Path(".env").write_text(f"GRPO_CHECKPOINT_PATH={final}\n")
    assert ReasoningTraceGenerator().checkpoint == final


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        asyncio.run(ReasoningTraceGenerator(tmp_path / "none").initialize())
    with pytest.raises(CheckpointError, match="neither config.json nor adapter_config.json"):
        asyncio.run(ReasoningTraceGenerator(tmp_path).initialize())


def test_bad_requests_are_refused_in_a_sentence(final: Path) -> None:
    generator = ReasoningTraceGenerator(final)
    with pytest.raises(JudicaitaError, match=r"Await initialize\(\) before"):
        asyncio.run(generator.generate_trace(query=QUERY))
    with pytest.raises(DataError, match="the query is empty"):
        ask(generator, query=" \n", context=CONTEXT)
    with pytest.raises(ConfigError, match="max_tokens=0"):
        ask(generator, max_tokens=0)
    for temperature in (-1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="temperature="):
            ask(generator, temperature=temperature)
    with pytest.raises(DataError, match="the model has 256 positions .* Shorten the context"):
        ask(generator, context="citizen of Ohio " * 100)


# --- an engine that writes what it is told -------------------------------------------------------


class Scripted:
    """Writes one text whose tokens have the log-probabilities it is told."""

    def __init__(self, policy: Policy, text: str, logprob: Callable[[str], float], *, stop: bool):
        self.policy, self.logprob, self.stop = policy, logprob, stop
        self.token_ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        self.asked: list[SamplingParams] = []

    def generate(
        self, prompts: Sequence[tuple[int, ...]], n: int, sampling: SamplingParams
    ) -> list[tuple[Completion, ...]]:
        self.asked.append(sampling)
        end = [self.policy.eos_id] if self.stop else []
        logprobs = [self.logprob(self.policy.tokenizer.decode([i])) for i in self.token_ids]
        token_ids = (*self.token_ids, *end)
        reason = "stop" if self.stop else "length"
        done = Completion(token_ids, (*logprobs, *[-9.0 for _ in end]), reason, 0)
        return [(done,) * n for _ in prompts]

    def sync(self) -> None: ...

    def close(self) -> None: ...


def scripted(
    final: Path, text: str, logprob: Callable[[str], float] = lambda _: -0.5, *, stop: bool = True
) -> ReasoningTraceGenerator:
    return ReasoningTraceGenerator(
        final, make_engine=lambda policy: Scripted(policy, text, logprob, stop=stop)
    )


def test_confidence_by_hand(final: Path) -> None:
    """The conclusion's two tokens have 1/2 and 1/8: √(1/16) = 1/4. Marker and EOS do not count."""
    chances = {" No": 1 / 2, ".": 1 / 8, " a": 1 / 3}
    generator = scripted(
        final, "Step 1: a\nConclusion: No.", lambda token: math.log(chances.get(token, 1e-3))
    )
    trace = ask(generator)
    assert trace.conclusion == "No."
    assert trace.confidence == pytest.approx(1 / 4, rel=1e-12)
    assert trace.steps[0].confidence == pytest.approx(1 / 3, rel=1e-12)


def test_a_character_of_several_tokens_counts_with_all_of_them(final: Path) -> None:
    """ "§" is two bytes, and so two tokens here: √(1/2 · 1/8) = 1/4, wherever it stands."""
    chances = iter([1 / 2, 1 / 8] * 2)
    generator = scripted(
        final,
        "Step 1: §\nConclusion: §",
        lambda token: math.log(next(chances) if token == "\N{REPLACEMENT CHARACTER}" else 1e-3),
    )
    trace = ask(generator)
    assert (trace.steps[0].text, trace.conclusion) == ("§", "§")
    assert trace.steps[0].confidence == pytest.approx(1 / 4, rel=1e-12)
    assert trace.confidence == pytest.approx(1 / 4, rel=1e-12)


def test_a_token_that_ends_one_text_and_begins_the_next_belongs_to_both(final: Path) -> None:
    """Chances 1/2 … 1/6 in order: step 1 has the second, step 2 the third and fourth."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    pieces = ["Step 1:", " a.\nStep 2:", " b b", ".\nConclusion: Y", "es", "<unk>"]
    words = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, "<unk>"))
    words.decoder = decoders.Fuse()
    chances = {piece: 1 / (2 + number) for number, piece in enumerate(pieces)}

    def make(policy: Policy) -> Scripted:
        policy.tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
        engine = Scripted(policy, "", lambda token: math.log(chances[token]), stop=False)
        engine.token_ids = list(range(5))
        return engine

    trace = ask(ReasoningTraceGenerator(final, make_engine=make))
    assert trace.text == "Step 1: a.\nStep 2: b b.\nConclusion: Yes"
    first, second = (step.confidence for step in trace.steps)
    assert first == pytest.approx(1 / 3, rel=1e-12)
    assert second == pytest.approx(math.sqrt(1 / 4 * 1 / 5), rel=1e-12)
    assert trace.confidence == pytest.approx(math.sqrt(1 / 5 * 1 / 6), rel=1e-12)


def test_nothing_is_invented(final: Path) -> None:
    trace = ask(scripted(final, "It depends."))
    assert (trace.steps, trace.conclusion, trace.confidence) == ((), None, None)
    assert trace.warnings == ("There are no steps.", "There is no conclusion.")
    empty = ask(scripted(final, "Step 1:\nConclusion:"))
    assert (empty.conclusion, empty.confidence, empty.steps[0].confidence) == (None, None, None)
    nothing = ask(scripted(final, ""))
    assert nothing.warnings == ("The model wrote nothing.",)
    assert nothing.completion_tokens == 1
    json.loads(nothing.to_json())


def test_a_cut_completion_is_marked(final: Path) -> None:
    trace = ask(ReasoningTraceGenerator(final), context=CONTEXT, max_tokens=12)
    assert trace.truncated
    assert trace.completion_tokens == 12
    assert SOLUTION.startswith(trace.text)
    assert "There is no conclusion." in trace.warnings
    whole = ask(scripted(final, "Step 1: a\nConclusion: Yes", stop=False))
    assert whole.truncated
    assert whole.conclusion == "Yes"
    assert whole.warnings == ("The token limit cut the text, so its end is missing.",)
    assert whole.confidence == pytest.approx(math.exp(-0.5))


def test_the_last_of_two_conclusions_counts_with_its_own_tokens(final: Path) -> None:
    """Equal texts in other places: each is looked for behind its own marker."""
    chances = iter(range(1, 100))
    generator = scripted(
        final, "Step 1: No\nConclusion: No\nConclusion: No", lambda _: -float(next(chances))
    )
    trace = ask(generator)
    token_count = trace.completion_tokens - 1  # without the EOS
    assert trace.conclusion == "No"
    assert trace.confidence == pytest.approx(math.exp(-token_count), rel=1e-12)
    assert trace.steps[0].confidence == pytest.approx(math.exp(-4), rel=1e-12)


def test_the_limit_is_the_runs_own_within_the_models_positions(final: Path) -> None:
    engines: list[Scripted] = []

    def make(policy: Policy) -> Scripted:
        engines.append(Scripted(policy, "Yes", lambda _: -0.5, stop=True))
        return engines[-1]

    generator = ReasoningTraceGenerator(final, make_engine=make)
    ask(generator)
    ask(generator, max_tokens=9, temperature=1.0, seed=4)
    ask(generator, max_tokens=10_000)
    assert len(engines) == 1
    first, second, third = engines[0].asked
    assert first == SamplingParams(max_tokens=64, temperature=0.0, seed=0)
    assert second == SamplingParams(max_tokens=9, temperature=1.0, seed=4)
    assert third.max_tokens == 256 - len(engines[0].policy.encode(QUERY))


def test_a_broken_model_gives_no_trace(final: Path) -> None:
    with pytest.raises(ModelError, match="no finite probability"):
        ask(scripted(final, "Conclusion: Yes", lambda _: math.nan))


# --- several at once -----------------------------------------------------------------------------


def test_concurrent_calls_are_the_same_as_one_after_the_other(final: Path) -> None:
    """Also over several event loops, each of which a library's user may have of their own."""
    queries = [QUERY, "Is there none?", f"{QUERY} Why?", "The amount?"]
    generator = ReasoningTraceGenerator(final)
    alone = [ask(generator, query=query, temperature=0.8, seed=1) for query in queries]

    async def together() -> list[ReasoningTrace]:
        await asyncio.gather(generator.initialize(), generator.initialize())
        calls = (generator.generate_trace(query, temperature=0.8, seed=1) for query in queries)
        return await asyncio.gather(*calls)

    for one, other in zip(alone, asyncio.run(together()), strict=True):
        same = {"seconds": 0.0, "created": ""}
        assert dataclasses.replace(one, **same) == dataclasses.replace(other, **same)


def test_the_event_loop_stays_free(final: Path) -> None:
    """Loading and generating each wait for a signal that only a free event loop can give."""
    signals = {name: threading.Event() for name in ("load", "generate")}
    busy: list[str] = []

    class Waiting(NativeEngine):
        def generate(self, *arguments: Any) -> list[tuple[Completion, ...]]:
            busy.append("in")
            assert signals["generate"].wait(60)
            busy.append("out")
            return super().generate(*arguments)

    def make(policy: Policy) -> NativeEngine:
        assert signals["load"].wait(60)
        return Waiting(policy)

    async def go() -> None:
        generator = ReasoningTraceGenerator(final, make_engine=make)
        loading = asyncio.create_task(generator.initialize())
        await asyncio.sleep(0)
        signals["load"].set()
        await loading
        asking = [asyncio.create_task(generator.generate_trace(QUERY)) for _ in range(3)]
        await asyncio.sleep(0)
        signals["generate"].set()
        await asyncio.gather(*asking)

    asyncio.run(go())
    assert busy
    assert busy == ["in", "out"] * (len(busy) // 2), "two generations ran at once"


class Held:
    """An engine that waits in its first call until it may go on, and counts prompts of each."""

    def __init__(self, policy: Policy, breaks_on: str = "") -> None:
        self.engine, self.counts = NativeEngine(policy), list[int]()
        self.broken = policy.encode(breaks_on) if breaks_on else None
        self.began, self.goes_on = threading.Event(), threading.Event()

    def generate(
        self, prompts: Sequence[tuple[int, ...]], n: int, sampling: SamplingParams
    ) -> list[tuple[Completion, ...]]:
        self.counts.append(len(prompts))
        self.began.set()
        assert self.goes_on.wait(60)
        if self.broken in prompts:
            raise NumericalError("log-probability", "the model is broken.")
        return self.engine.generate(prompts, n, sampling)

    def sync(self) -> None: ...

    def close(self) -> None: ...


def ask_while_held(
    final: Path, *calls: dict[str, Any], breaks_on: str = ""
) -> tuple[list[int], list[ReasoningTrace | BaseException]]:
    """A first call, and while it is being answered all others; how many were answered at once."""
    engines: list[Held] = []

    def make(policy: Policy) -> Held:
        engines.append(Held(policy, breaks_on))
        return engines[0]

    async def go() -> list[ReasoningTrace | BaseException]:
        generator = ReasoningTraceGenerator(final, make_engine=make)
        await generator.initialize()
        first = asyncio.create_task(generator.generate_trace(QUERY, CONTEXT))
        assert await asyncio.to_thread(engines[0].began.wait, 60)
        others = [asyncio.create_task(generator.generate_trace(**call)) for call in calls]
        await asyncio.sleep(0)
        engines[0].goes_on.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    found = asyncio.run(go())
    return engines[0].counts, found


def test_greedy_calls_are_answered_together(final: Path) -> None:
    """As they are alone, whatever is in the batch with them; 16 at a time."""
    queries = [f"{QUERY} {number}" for number in range(18)]
    counts, traces = ask_while_held(final, *({"query": query} for query in queries))
    assert counts == [1, 16, 2]
    generator = ReasoningTraceGenerator(final)
    for query, trace in zip(queries, traces, strict=True):
        assert isinstance(trace, ReasoningTrace)
        alone = ask(generator, query=query)
        assert (trace.query, trace.text) == (query, alone.text)
        found, expected = ([each.confidence for each in t.steps] for t in (trace, alone))
        assert found == pytest.approx(expected, rel=1e-4)


def test_an_error_is_its_own_calls_alone(final: Path) -> None:
    calls = [{"query": QUERY}, {"query": QUERY, "context": "of Ohio " * 200}, {"query": "Why?"}]
    counts, [one, refused, other] = ask_while_held(final, *calls)
    assert counts == [1, 2]
    assert isinstance(refused, DataError)
    assert isinstance(one, ReasoningTrace)
    assert isinstance(other, ReasoningTrace)


def test_an_engine_s_error_is_its_own_calls_alone(final: Path) -> None:
    """One prompt breaks the engine: the others of its batch are asked once more, by themselves."""
    calls = [{"query": QUERY}, {"query": "BREAK"}, {"query": "Why?"}]
    counts, found = ask_while_held(final, *calls, breaks_on="BREAK")
    assert counts == [1, 3, 1, 2, 1, 1][: len(counts)]
    assert isinstance(found[1], NumericalError)
    assert isinstance(found[0], ReasoningTrace)
    assert isinstance(found[2], ReasoningTrace)


def test_draws_and_other_limits_are_batches_of_their_own(final: Path) -> None:
    calls: list[dict[str, Any]] = [
        {"query": QUERY, "temperature": 0.5},
        {"query": QUERY, "temperature": 0.5},
        {"query": QUERY, "max_tokens": 5},
        {"query": "Why?", "max_tokens": 5},
    ]
    counts, traces = ask_while_held(final, *calls)
    assert counts == [1, 1, 1, 2]
    assert all(isinstance(trace, ReasoningTrace) for trace in traces)


def test_a_call_that_is_cancelled_is_not_answered(final: Path) -> None:
    engines: list[Held] = []

    def make(policy: Policy) -> Held:
        engines.append(Held(policy))
        return engines[0]

    async def go() -> None:
        generator = ReasoningTraceGenerator(final, make_engine=make)
        await generator.initialize()
        first = asyncio.create_task(generator.generate_trace(QUERY))
        assert await asyncio.to_thread(engines[0].began.wait, 60)
        left, stays = (asyncio.create_task(generator.generate_trace(QUERY)) for _ in range(2))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        engines[0].goes_on.set()
        await asyncio.gather(first, stays)

    asyncio.run(go())
    assert engines[0].counts == [1, 1]
