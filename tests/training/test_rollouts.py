"""The engine against full forward passes without a cache, and its samples against exact odds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor

from judicaita.training import kernels
from judicaita.training.batching import collate
from judicaita.training.devices import place
from judicaita.training.policy import Policy, quietly
from judicaita.training.rollouts import decoding
from judicaita.training.rollouts.base import SamplingParams
from judicaita.training.rollouts.native import NativeEngine
from judicaita.training.rollouts.sampling import sample_tokens
from judicaita.types import Completion

MakePolicy = Callable[..., Policy]

# Unequal lengths; with Gemma-2's sliding window of 6 the first is already longer than it.
PROMPTS = ((2, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140), (2, 33), (2, 200, 201, 202, 203))


def generate(policy: Policy, n: int = 3, **sampling: Any) -> list[tuple[Completion, ...]]:
    return NativeEngine(policy).generate(PROMPTS, n, SamplingParams(**sampling))


def next_logits(policy: Policy, ids: Sequence[int]) -> Tensor:
    """Of the token after ``ids``, by a full forward pass of them alone; float64."""
    with torch.no_grad():
        return policy.model(torch.tensor([list(ids)]), use_cache=False).logits[0, -1].double()


def set_eos(policy: Policy, ids: Sequence[int]) -> None:
    policy.model.generation_config.eos_token_id = list(ids)


def flatten(
    groups: Sequence[tuple[Completion, ...]], prompts: Sequence[tuple[int, ...]] = PROMPTS
) -> list[tuple[tuple[int, ...], Completion]]:
    return [(p, c) for p, group in zip(prompts, groups, strict=True) for c in group]


def training_pass(
    policy: Policy,
    groups: Sequence[Any],
    temperature: float = 1.0,
    prompts: Sequence[tuple[int, ...]] = PROMPTS,
) -> list[Tensor]:
    """The log-probabilities that the loss would use, one tensor a completion."""
    rows = [(prompt, completion.token_ids) for prompt, completion in flatten(groups, prompts)]
    batch = collate(rows, policy.pad_id, torch.device("cpu"))
    with torch.no_grad():
        logprobs, _ = policy.logprobs(batch, temperature)
    return [row[mask] for row, mask in zip(logprobs, batch.mask_B_T, strict=True)]


def largest_difference(groups: Sequence[Any], expected: Sequence[Tensor]) -> float:
    completions = [completion for group in groups for completion in group]
    return max(
        float((torch.tensor(completion.logprobs) - row).abs().max())
        for completion, row in zip(completions, expected, strict=True)
    )


ARCHITECTURES = ("gemma2", "gemma3", "llama", "mistral", "qwen2", "qwen3", "gpt2")


@pytest.fixture(params=["C++", "plain"])
def _either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known architectures with their own decoder, and with that of all others."""
    assert kernels.is_built(), "the tests need a C++ compiler"
    if request.param == "plain":
        monkeypatch.setattr(kernels, "is_built", lambda: False)
        monkeypatch.setattr(decoding, "is_built", lambda: False)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_is_the_argmax_step_by_step(make_policy: MakePolicy, architecture: str) -> None:
    policy = make_policy(architecture)
    for prompt, group in zip(
        PROMPTS, generate(policy, 2, max_tokens=8, temperature=0), strict=True
    ):
        assert group[0] == group[1]
        ids = list(prompt)
        for token, logprob in zip(group[0].token_ids, group[0].logprobs, strict=True):
            logits = next_logits(policy, ids)
            assert token == int(logits.argmax())
            assert logprob == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-5)
            ids.append(token)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_training_pass(
    make_policy: MakePolicy, architecture: str, temperature: float
) -> None:
    """Rows finish at different steps and leave the cache, most of them before the last token."""
    policy = make_policy(architecture)
    set_eos(policy, range(7, 40))
    groups = generate(policy, max_tokens=16, temperature=temperature, seed=4)
    lengths = {len(completion.token_ids) for _, completion in flatten(groups)}
    assert len(lengths) >= 3
    assert max(lengths) > 6
    assert largest_difference(groups, training_pass(policy, groups, temperature)) <= 1e-5


def add_adapter(policy: Policy) -> None:
    """One that does something."""
    torch.manual_seed(0)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj", "o_proj"])
    with quietly():
        policy.model = get_peft_model(policy.model, lora).eval()  # type: ignore[assignment, arg-type]
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)


@pytest.mark.usefixtures("_either")
def test_long_completions(make_policy: MakePolicy) -> None:
    """Own caches grow, more than once; equal prompts stand side by side; an adapter is merged."""
    policy = make_policy("llama")
    add_adapter(policy)
    set_eos(policy, range(7, 9))
    prompts = (PROMPTS[1], PROMPTS[1], PROMPTS[0])
    groups = NativeEngine(policy).generate(prompts, 4, SamplingParams(150, seed=3))
    lengths = {len(completion.token_ids) for group in groups for completion in group}
    assert max(lengths) == 150
    assert min(lengths) < 64
    expected = training_pass(policy, groups, prompts=prompts)
    assert largest_difference(groups, expected) <= 1e-5


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("architecture", ["gemma2", "llama", "qwen2"])
def test_16_bits(make_policy: MakePolicy, architecture: str) -> None:
    """As a run with ``precision=bf16`` has it: a base of 16 bits, an adapter of 32."""
    policy = make_policy(architecture)
    policy.placement = place("cpu", "bf16")
    policy.model.bfloat16()
    add_adapter(policy)
    sampling = SamplingParams(40, seed=3)
    groups = NativeEngine(policy).generate(PROMPTS, 4, sampling)
    found = torch.cat([torch.tensor(c.logprobs) for _, c in flatten(groups)])
    difference = (found - torch.cat(training_pass(policy, groups))).abs()
    assert float(difference.mean()) < 0.03
    # Against all numbers in 64 bits, the tokens given.
    policy.model.double()
    policy.placement = place("cpu", "fp32")
    exact = torch.cat(training_pass(policy, groups))
    assert float((found - exact).abs().mean()) < 0.03


def test_which_decoder(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(policy: Policy) -> type:
        return type(decoding.decoder_of(policy, PROMPTS, 2))

    assert chosen(make_policy("llama")) is decoding.SharedDecoder
    assert chosen(make_policy("gpt2")) is decoding.CachedDecoder
    mixed = make_policy("llama")
    mixed.placement = place("cpu", "bf16")
    assert chosen(mixed) is decoding.SharedDecoder
    mixed.placement = place("cpu", "fp16")
    assert chosen(mixed) is decoding.CachedDecoder
    monkeypatch.setattr(decoding, "is_built", lambda: False)
    assert chosen(make_policy("llama")) is decoding.CachedDecoder


def test_every_eos_id_ends_a_row(make_policy: MakePolicy) -> None:
    policy = make_policy()
    set_eos(policy, [300, 17])
    policy.model.config.eos_token_id = 90  # and the tokenizer's own, 1
    groups = generate(policy, 400, max_tokens=20, temperature=3.0, seed=1)
    ended = Counter()
    for _, completion in flatten(groups):
        *body, last = completion.token_ids
        assert not {300, 17, 90, 1} & set(body)
        assert len(completion.logprobs) == len(completion.token_ids)
        if completion.finish_reason == "stop":
            ended[last] += 1
        else:
            assert last not in {300, 17, 90, 1}
            assert len(completion.token_ids) == 20
    assert set(ended) == {300, 17, 90, 1}
    assert ended.total() < 1200  # some were cut


def test_an_eos_at_the_last_place_is_a_stop(make_policy: MakePolicy) -> None:
    policy = make_policy()
    tokens = generate(policy, 1, max_tokens=12, temperature=0)[0][0].token_ids
    place = next(i for i in range(2, 12) if tokens[i] not in tokens[:i])
    set_eos(policy, [tokens[place]])
    whole = generate(policy, 1, max_tokens=place + 1, temperature=0)[0][0]
    assert (whole.token_ids, whole.finish_reason) == (tokens[: place + 1], "stop")
    cut = generate(policy, 1, max_tokens=place, temperature=0)[0][0]
    assert (cut.token_ids, cut.finish_reason) == (tokens[:place], "length")


def test_seeds(make_policy: MakePolicy) -> None:
    policy = make_policy()
    first = generate(policy, max_tokens=8, seed=5)
    torch.manual_seed(99)  # the engine has a generator of its own
    assert generate(policy, max_tokens=8, seed=5) == first
    assert generate(policy, max_tokens=8, seed=6) != first
    for group in first:
        assert len({completion.token_ids for completion in group}) == 3


def test_it_leaves_the_global_generator_alone(make_policy: MakePolicy) -> None:
    policy = make_policy()
    before = torch.get_rng_state()
    generate(policy, max_tokens=4)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_leaves_the_mode_and_says_which_policy_sampled(make_policy: MakePolicy) -> None:
    policy = make_policy(version=7)
    for mode in (True, False):
        policy.model.train(mode)
        groups = generate(policy, max_tokens=2)
        assert policy.model.training is mode
        assert {completion.policy_version for _, completion in flatten(groups)} == {7}
    assert all(p.grad is None and p.requires_grad for p in policy.model.parameters())


def test_no_prompts(make_policy: MakePolicy) -> None:
    assert NativeEngine(make_policy()).generate([], 4, SamplingParams(max_tokens=4)) == []


def test_stop_strings_end_a_row(make_policy: MakePolicy) -> None:
    """With the token that completes one, which the completion keeps."""
    policy = make_policy()
    whole = generate(policy, 8, max_tokens=40, seed=2)
    texts = [policy.decode(c.token_ids) for _, c in flatten(whole)]
    # A text that some of them hold, over the border of two tokens.
    first = whole[0][0].token_ids
    stop = policy.decode(first[4:6])[-3:]
    assert any(stop in text for text in texts)
    ended = generate(policy, 8, max_tokens=40, seed=2, stop_strings=("never there", stop))
    reasons = Counter()
    for _, completion in flatten(ended):
        text, before = (policy.decode(completion.token_ids[:cut]) for cut in (None, -1))
        reasons[completion.finish_reason] += 1
        assert (completion.finish_reason == "stop_string") == (stop in text)
        assert stop not in before
    assert reasons["stop_string"] > 0
    cut = ended[0][0]
    assert cut.token_ids == first[: len(cut.token_ids)]
    assert cut.logprobs == pytest.approx(whole[0][0].logprobs[: len(cut.token_ids)], abs=1e-5)


def test_an_eos_goes_before_a_stop_string(make_policy: MakePolicy) -> None:
    policy = make_policy()
    tokens = generate(policy, 1, max_tokens=6, temperature=0)[0][0].token_ids
    set_eos(policy, [tokens[0]])
    stop = policy.decode(tokens[:1])
    ended = generate(policy, 1, max_tokens=6, temperature=0, stop_strings=(stop,))[0][0]
    assert (ended.token_ids, ended.finish_reason) == (tokens[:1], "stop")


# ── the nucleus and other cuts ────────────────────────────────────────────────────────────────────


def kept(probabilities: Sequence[float], sampling: SamplingParams) -> dict[int, float]:
    """The tokens that may be drawn, and their odds, by the settings' definitions."""
    most = max(probabilities)
    order = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])
    order = [token for token in order if probabilities[token] >= sampling.min_p * most]
    order = order[: sampling.top_k or None]
    total = sum(probabilities[token] for token in order)
    left: dict[int, float] = {}
    for token in order:
        if sum(left.values()) >= sampling.top_p:
            break
        left[token] = probabilities[token] / total
    return {token: p / sum(left.values()) for token, p in left.items()}


def chi_square_limit(freedom: int) -> float:
    """The 99.9 % quantile of χ² (Wilson and Hilferty's approximation)."""
    share = 2 / (9 * freedom)
    return freedom * (1 - share + 3.0902 * math.sqrt(share)) ** 3


def chi_square(counts: Counter[int], odds: dict[int, float]) -> tuple[float, int]:
    """Statistic and degrees of freedom; cells that expect fewer than 5 are put together."""
    total = counts.total()
    cells: list[tuple[float, float]] = []
    rest_seen, rest_expected = 0.0, 0.0
    for token, p in odds.items():
        if p * total >= 5:
            cells.append((counts[token], p * total))
        else:
            rest_seen, rest_expected = rest_seen + counts[token], rest_expected + p * total
    if rest_expected:
        cells.append((rest_seen, rest_expected))
    return sum((seen - wanted) ** 2 / wanted for seen, wanted in cells), len(cells) - 1


def test_the_chi_square_limit_is_the_table_s() -> None:
    assert chi_square_limit(3) == pytest.approx(16.266, rel=0.02)
    assert chi_square_limit(10) == pytest.approx(29.588, rel=0.01)


def test_nucleus_by_hand() -> None:
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log().repeat(2000, 1)
    # 0.5 falls short of 0.7, 0.5 + 0.3 reaches it: two tokens, 5 : 3.
    sampling = SamplingParams(1, top_p=0.7)
    tokens, logprobs, uncut = sample_tokens(logits, sampling, torch.Generator().manual_seed(0))
    counts = Counter(tokens.tolist())
    assert set(counts) == {1, 3}
    assert abs(counts[1] - 1250) < 3.3 * math.sqrt(2000 * 5 / 8 * 3 / 8)
    expected = torch.where(tokens == 1, math.log(5 / 8), math.log(3 / 8))
    assert float((logprobs - expected).abs().max()) < 1e-6
    expected = torch.where(tokens == 1, math.log(0.5), math.log(0.3))
    assert float((uncut - expected).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("settings", "odds"),
    [
        ({"top_k": 3}, {1: 50 / 95, 3: 30 / 95, 0: 15 / 95}),
        ({"min_p": 0.2}, {1: 50 / 95, 3: 30 / 95, 0: 15 / 95}),  # 0.05 < 0.2 · 0.5
        ({"min_p": 0.5}, {1: 5 / 8, 3: 3 / 8}),
        # Of the two that are left the first has 0.625 ≥ 0.6.
        ({"top_k": 2, "top_p": 0.6}, {1: 1.0}),
        ({"top_k": 9}, {1: 0.5, 3: 0.3, 0: 0.15, 2: 0.05}),
    ],
)
def test_cuts_by_hand(settings: dict[str, Any], odds: dict[int, float]) -> None:
    p = [0.15, 0.5, 0.05, 0.3]
    sampling = SamplingParams(1, **settings)
    assert kept(p, sampling) == pytest.approx(odds)
    logits = torch.tensor([p]).log().repeat(2000, 1)
    tokens, logprobs, uncut = sample_tokens(logits, sampling, torch.Generator().manual_seed(0))
    assert set(tokens.tolist()) == set(odds)
    for token, logprob, whole in zip(*(x.tolist() for x in (tokens, logprobs, uncut)), strict=True):
        assert logprob == pytest.approx(math.log(odds[token]), abs=1e-6)
        assert whole == pytest.approx(math.log(p[token]), abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"top_p": 0.6},
        {"temperature": 0.5, "top_p": 0.9},
        {"top_k": 12},
        {"temperature": 0.7, "min_p": 0.1},
        {"temperature": 1.3, "top_p": 0.8, "top_k": 40, "min_p": 0.02},
    ],
    ids=str,
)
def test_frequencies_are_the_exact_odds(
    make_policy: MakePolicy, settings: dict[str, float]
) -> None:
    """4,000 first tokens of every prompt against its own cut and renormalised softmax."""
    policy = make_policy()
    sampling = SamplingParams(1, seed=11, **settings)  # type: ignore[arg-type]
    groups = NativeEngine(policy).generate(PROMPTS, 4000, sampling)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        p = (next_logits(policy, prompt) / sampling.temperature).softmax(-1).tolist()
        odds = kept(p, sampling)
        assert len(odds) > 3
        assert (len(odds) < 320) == sampling.cuts
        counts = Counter(completion.token_ids[0] for completion in group)
        assert set(counts) <= set(odds)
        statistic, freedom = chi_square(counts, odds)
        assert statistic < chi_square_limit(freedom)
        for completion in group[:200]:
            token = completion.token_ids[0]
            assert completion.logprobs[0] == pytest.approx(math.log(odds[token]), abs=2e-5)
            assert completion.full_logprobs[0] == pytest.approx(math.log(p[token]), abs=2e-5)


def test_the_statistic_can_fail(make_policy: MakePolicy) -> None:
    """Samples of temperature 0.8 are told from odds at 1."""
    policy = make_policy()
    sampling = SamplingParams(1, temperature=0.8, seed=11)
    group = NativeEngine(policy).generate(PROMPTS[:1], 4000, sampling)[0]
    odds = kept(next_logits(policy, PROMPTS[0]).softmax(-1).tolist(), SamplingParams(1))
    statistic, freedom = chi_square(Counter(c.token_ids[0] for c in group), odds)
    assert statistic > chi_square_limit(freedom)


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.integers(1, 1000), min_size=2, max_size=12, unique=True),
    top_p=st.sampled_from([0.05, 0.3, 0.62, 0.9, 0.999]),
)
def test_any_nucleus(weights: list[int], top_p: float) -> None:
    p = [weight / sum(weights) for weight in weights]
    running = 0.0
    for share in sorted(p, reverse=True):
        running += share
        if abs(running - top_p) < 1e-5:
            return  # on the very edge, rounding decides
    sampling = SamplingParams(1, top_p=top_p)
    odds = kept(p, sampling)
    logits = torch.tensor([p]).log().repeat(100, 1)
    tokens, logprobs, _ = sample_tokens(logits, sampling, torch.Generator().manual_seed(0))
    for token, logprob in zip(tokens.tolist(), logprobs.tolist(), strict=True):
        assert logprob == pytest.approx(math.log(odds[token]), abs=1e-5)
