"""The pass that forwards a prompt once, against the plain one, through the stock modules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from judicaita.training import shared_prefix
from judicaita.training.algorithms import logprobs as logprobs_module
from judicaita.training.batching import TokenBatch, collate
from judicaita.training.policy import Policy
from judicaita.training.shared_prefix import pack

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning"),
]

MakePolicy = Callable[..., Policy]
WithAdapter = Callable[..., Policy]
Upcasts = Callable[[str], AbstractContextManager[None]]

ARCHITECTURES = ("gemma2", "gemma3", "llama", "mistral", "qwen2", "qwen3")
# Prompts shorter and longer than the window of 6, completions of one token and of many.
LENGTHS = ((11, (5, 1, 9)), (3, (7,)), (20, (2, 2, 12, 1)), (4, (1, 1)))
TEMPERATURE = 0.7

Lengths = tuple[tuple[int, tuple[int, ...]], ...]


def batch_of(lengths: Lengths = LENGTHS, seed: int = 0) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(7, 320, (count,), generator=generator).tolist())

    rows = []
    for prompt_tokens, completions in lengths:
        prompt = ids(prompt_tokens)
        rows += [(prompt, ids(count)) for count in completions]
    return collate(rows, 0, torch.device("cpu"))


def results(policy: Policy, batch: TokenBatch, *, shared: bool) -> dict[str, Tensor]:
    """Log-probabilities, entropies and the gradient of a weighted sum of the former."""
    weights_B_T = torch.randn(batch.mask_B_T.shape, generator=torch.Generator().manual_seed(1))
    policy.model.zero_grad()
    forward = policy.logprobs if shared else policy._logprobs_of_any_model
    mask = batch.mask_B_T
    with policy.training_pass(batch) if shared else nullcontext():
        logprobs_B_T, entropy_B_T = forward(batch, TEMPERATURE)
        (logprobs_B_T * weights_B_T.to(logprobs_B_T.dtype))[mask].sum().backward()
    gradient = [p.grad.flatten() for _, p in policy.trainable() if p.grad is not None]
    return {
        "logprobs": logprobs_B_T[mask].detach(),
        "entropy": entropy_B_T[mask],
        "gradient": torch.cat(gradient),
    }


def differences(policy: Policy, batch: TokenBatch) -> dict[str, float]:
    """Relative L2 of what the two passes give."""
    plain, found = (results(policy, batch, shared=shared) for shared in (False, True))
    return {name: float((found[name] - plain[name]).norm() / plain[name].norm()) for name in plain}


# ── equal to the plain pass ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_in_float32(
    make_policy: MakePolicy, with_adapter: WithAdapter, architecture: str, lora: bool
) -> None:
    policy = make_policy(architecture)
    if lora:
        with_adapter(policy)
    assert policy.knows_architecture
    found = differences(policy, batch_of())
    assert all(difference < 1e-5 for difference in found.values()), found
    print(f"\n{architecture}, {'LoRA' if lora else 'full'}, float32: {found}")


@pytest.mark.parametrize(
    ("treatment", "bound"),
    [("as they are", 1e-6), ("to float64", 1e-10)],
    ids=["stock", "promoted"],
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_in_float64(
    make_policy: MakePolicy, upcasts: Upcasts, architecture: str, treatment: str, bound: float
) -> None:
    """The stock modules round to float32 inside, differently for rows of another shape."""
    policy = make_policy(architecture)
    policy.model.double()
    with upcasts(treatment):
        found = differences(policy, batch_of())
    assert all(difference < bound for difference in found.values()), found
    print(f"\n{architecture}, float64, upcasts {treatment}: {found}")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in pieces."""
    monkeypatch.setattr(shared_prefix, "QUERIES_AT_ONCE", 3)
    monkeypatch.setattr(shared_prefix, "TOKENS_AT_ONCE", 4)
    monkeypatch.setattr(logprobs_module, "LOGITS_AT_ONCE", 5 * 320)
    monkeypatch.setattr(logprobs_module, "TOKENS_AT_ONCE", 5)


@pytest.mark.parametrize("architecture", ["gemma2", "llama"])
def test_rows_without_a_shared_prompt_are_padded(
    make_policy: MakePolicy, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a supervised stage: there is nothing to share, and log-probabilities go by chunks."""
    monkeypatch.setattr(logprobs_module, "LOGITS_AT_ONCE", 5 * 320)
    batch = batch_of(((11, (5,)), (3, (9,)), (4, (1,))))
    assert not batch.shares_prompts
    found = differences(make_policy(architecture), batch)
    assert all(difference < 1e-5 for difference in found.values()), found


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", ["gemma2", "qwen3"])
def test_equal_in_pieces(
    make_policy: MakePolicy, with_adapter: WithAdapter, architecture: str, lora: bool
) -> None:
    policy = make_policy(architecture)
    if lora:
        with_adapter(policy)
    for seed, lengths in enumerate((LENGTHS, ((5, (6,)),), ((6, (1, 5)), (7, (4,))))):
        found = differences(policy, batch_of(lengths, seed))
        assert all(difference < 1e-5 for difference in found.values()), found


def test_equal_where_a_completion_is_longer_than_a_block(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_prefix, "QUERIES_AT_ONCE", 7)
    for architecture in ("gemma2", "llama"):
        found = differences(make_policy(architecture), batch_of(((9, (30, 5, 15)), (3, (8, 7)))))
        assert all(difference < 1e-5 for difference in found.values()), found


def test_equal_with_gradient_checkpointing(make_policy: MakePolicy) -> None:
    expected = results(make_policy(), batch_of(), shared=False)
    policy = make_policy()
    policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    policy.model.train()
    found = results(policy, batch_of(), shared=True)
    for name, value in expected.items():
        assert float((found[name] - value).norm() / value.norm()) < 1e-5


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.integers(1, 14), st.lists(st.integers(1, 9), min_size=1, max_size=4)),
        min_size=1,
        max_size=3,
    )
)
def test_equal_for_any_lengths(
    make_policy: MakePolicy, upcasts: Upcasts, lengths: list[tuple[int, list[int]]]
) -> None:
    """In float64, where the gradient of a short prompt may nearly cancel and still be found."""
    shapes = tuple((prompt, tuple(completions)) for prompt, completions in lengths)
    policy = make_policy()
    policy.model.double()
    with upcasts("to float64"):
        found = differences(policy, batch_of(shapes))
    assert all(difference < 1e-10 for difference in found.values()), found


def test_the_reference_is_the_model_without_its_adapter(
    make_policy: MakePolicy, with_adapter: WithAdapter
) -> None:
    batch = batch_of()
    expected = results(make_policy("llama"), batch, shared=False)["logprobs"]
    policy = with_adapter(make_policy("llama"))
    with policy.reference():
        found_B_T, _ = policy.logprobs(batch, TEMPERATURE)
    assert torch.allclose(found_B_T[batch.mask_B_T], expected, atol=1e-5)


# ── what it saves ────────────────────────────────────────────────────────────────────────────────


def test_a_prompt_stands_in_the_row_once() -> None:
    rows = [((1, 2, 3), (4, 5, 6)), ((1, 2, 3), (7,)), ((8, 9), (10, 11)), ((1, 2, 3), (12,))]
    packed = pack(rows, torch.device("cpu"))
    assert packed.input_ids_1_S.tolist() == [[1, 2, 3, 4, 5, 8, 9, 10, 1, 2, 3]]
    assert packed.position_ids_1_S.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2]]
    # 4 is predicted by 3, 5 by 4, 6 by 5; 7 by 3; 10 by 9, 11 by 10; 12 by the last 3.
    assert packed.sources_N.tolist() == [2, 3, 4, 2, 6, 7, 10]
    assert [(span.prompt, span.begin, span.completions) for span in packed.spans] == [
        (slice(0, 3), 3, (2, 0)),
        (slice(5, 7), 7, (1,)),
        (slice(8, 11), 11, (0,)),
    ]


class Largest(TorchDispatchMode):
    """The most numbers that any tensor holds, of all that are made within it."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


def kept_by(call: Callable[[], Any]) -> int:
    """Numbers that autograd keeps of a call for the backward pass, each storage once."""
    storages: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = call()
    del result
    return sum(tensor.untyped_storage().nbytes() // 4 for tensor in storages.values())


def test_no_scores_of_all_tokens_over_all_tokens(make_policy: MakePolicy) -> None:
    """With 32 completions of 40 tokens behind 40, scores of the packed row by itself would be
    1,288² for each of 4 heads."""
    batch = batch_of(((40, (40,) * 32),))
    policy = make_policy()
    with Largest() as largest:
        results(policy, batch, shared=True)
    packed = batch.packed.input_ids_1_S.numel()
    assert packed == 40 + 32 * 39
    assert largest.numbers < 4 * packed**2 / 10


def test_logits_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 tokens and a vocabulary of 320: the hidden states of 8 numbers each, no logits."""
    head = torch.nn.Linear(8, 320)
    hidden_N_D = torch.randn(1000, 8, requires_grad=True)
    targets_N = torch.randint(320, (1000,))

    def call() -> Any:
        return logprobs_module.chunked_logprobs(head, hidden_N_D, targets_N, 1.0, 320)

    assert kept_by(call) > 1000 * 320, "one chunk is kept as it is"
    monkeypatch.setattr(logprobs_module, "LOGITS_AT_ONCE", 50 * 320)
    assert kept_by(call) < 3 * 1000 * 8 + 321 * 8


def test_a_head_that_does_not_learn_keeps_slopes_alone() -> None:
    """Of 1,000 tokens: hidden states, slopes and what links them, 8 numbers each."""
    head = torch.nn.Linear(8, 320).requires_grad_(False)
    hidden_N_D = torch.randn(1000, 8, requires_grad=True)
    targets_N = torch.randint(320, (1000,))

    with Largest() as largest:
        logprobs_N, entropy_N = logprobs_module.frozen_head_logprobs(
            head, hidden_N_D, targets_N, 1.0
        )
    assert largest.numbers == 128 * 320
    assert not entropy_N.requires_grad
    nodes, kept = [logprobs_N.grad_fn], list[int]()
    while nodes:
        node = nodes.pop()
        names = [name for name in dir(node) if name.startswith("_saved_")]
        saved = [getattr(node, name) for name in names]
        kept += [value.numel() for value in saved if isinstance(value, Tensor)]
        nodes += [following for following, _ in getattr(node, "next_functions", ()) if following]
    assert sum(kept) <= 2 * 1000 * 8
    assert max(kept) == 1000 * 8  # the slopes


def test_the_slopes_of_a_head_by_autograd() -> None:
    """Capped logits, a temperature, chunks of 128 and a rest; log-probabilities to the last bit."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 320).double().requires_grad_(False)
    hidden_N_D = torch.randn(300, 8, dtype=torch.float64, requires_grad=True)
    targets_N, weights_N = torch.randint(320, (300,)), torch.randn(300, dtype=torch.float64)

    def head(hidden: Tensor) -> Tensor:
        return 3 * (linear(hidden) / 3).tanh()

    results = []
    for logprobs_N, entropy_N in (
        logprobs_module.token_logprobs(head(hidden_N_D), targets_N, 0.7),
        logprobs_module.frozen_head_logprobs(head, hidden_N_D, targets_N, 0.7),
    ):
        (gradient,) = torch.autograd.grad((weights_N * logprobs_N.exp()).sum(), hidden_N_D)
        results.append((logprobs_N, entropy_N, gradient))
    for expected, found in zip(*results, strict=True):
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_the_slopes_of_a_head_in_float16() -> None:
    """Of 20,000 tokens about equally likely: 5e-5 each, which float16 knows to 3 bits alone."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 20_000, bias=False).requires_grad_(False)
    hidden_N_D, targets_N = torch.randn(40, 8), torch.randint(20_000, (40,))
    results = []
    for dtype in (torch.float64, torch.float16):
        head = copy.deepcopy(linear).to(dtype)
        hidden = hidden_N_D.to(dtype).requires_grad_()
        logprobs_N, _ = logprobs_module.frozen_head_logprobs(head, hidden, targets_N, 1.0)
        logprobs_N.sum().backward()
        assert hidden.grad is not None
        results.append(hidden.grad.double())
    expected, found = results
    assert float((found - expected).norm() / expected.norm()) < 3e-3


def test_scores_are_not_kept() -> None:
    """Whatever the number of blocks: queries, keys, values and sums, no scores."""
    packed = pack([((1,) * 60, (2,) * 60)] * 8, torch.device("cpu"))
    length = packed.input_ids_1_S.numel()
    query, key, value = (torch.randn(1, 4, length, 8, requires_grad=True) for _ in range(3))

    def call() -> Any:
        module = torch.nn.Module()
        return shared_prefix.attend(
            module, query, key, value, None, packed=packed, scaling=1.0, softcap=5.0
        )

    scores = 4 * (60 * 60 + 8 * 59 * (60 + 59))
    assert kept_by(call) < 4 * query.numel() < scores


def test_another_architecture_takes_the_plain_pass(make_policy: MakePolicy) -> None:
    """And gives what each row gives that is forwarded alone."""
    policy = make_policy("gpt2")
    assert not policy.knows_architecture
    batch = batch_of()
    found_B_T, _ = policy.logprobs(batch, 1.0)
    for found_T, (prompt, completion) in zip(found_B_T, batch.rows, strict=True):
        with torch.no_grad():
            logits = policy.model(torch.tensor([[*prompt, *completion]])).logits[0]
        log_p = logits[len(prompt) - 1 : -1].log_softmax(-1)
        expected = log_p.gather(-1, torch.tensor(completion)[:, None])[:, 0]
        assert torch.allclose(found_T[: len(completion)], expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_are_exact_in_half_precision(dtype: torch.dtype) -> None:
    """Scores beyond float16's 65,504, as Qwen 2 has them, and differences that bfloat16 rounds off:
    as good as the library's own attention."""
    packed = pack([((1,) * 6, (2,) * 5), ((1,) * 6, (3,) * 2)], torch.device("cpu"))
    length = packed.input_ids_1_S.numel()
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, 2, length, 8, generator=generator).to(dtype) for _ in range(3)
    )
    query, key = query * 100, key * 100 + 50
    with torch.autocast("cpu", dtype=dtype):
        found, _ = shared_prefix.attend(
            torch.nn.Module(), query, key, value, None, packed=packed, scaling=0.01
        )
    assert found.dtype == dtype
    first = [*range(6), *range(6, 10)]  # the prompt and the first completion: plainly causal
    q, k, v = (x[:, :, first].double() for x in (query, key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.01)
    error = (found[0, first].double() - expected[0].transpose(0, 1)).abs().max()
    assert float(error) < (0.02 if dtype == torch.bfloat16 else 0.004)


def test_a_prompt_has_one_dropout_mask_for_its_group(
    make_policy: MakePolicy, with_adapter: WithAdapter
) -> None:
    """Equal completions of one prompt differ by their own masks alone, their first token not."""
    policy = with_adapter(make_policy("llama"), dropout=0.5)
    policy.model.train()
    completion = (50, 60, 70)
    batch = collate([((8, 9, 10, 11), completion)] * 2, 0, torch.device("cpu"))
    torch.manual_seed(0)
    (first, second), _ = policy.logprobs(batch, 1.0)
    assert first[0] == second[0]
    assert first[1] != second[1]
