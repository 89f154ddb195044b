"""Prompts to token ids, token ids to log-probabilities, folders to models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PretrainedConfig

from judicaita.errors import DataError, ModelError
from judicaita.training.batching import collate
from judicaita.training.config import TrainingConfig
from judicaita.training.loading import load_policy, load_policy_for_inference, merge_adapter
from judicaita.training.policy import Policy

MakePolicy = Callable[..., Policy]
Upcasts = Callable[[str], AbstractContextManager[None]]
CPU = torch.device("cpu")
EOS, BOS = 1, 2
SYSTEM = "Be brief."

PROMPTS = ((2, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140), (2, 33), (2, 200, 201, 202, 203))
COMPLETIONS = ((7, 8, 9), (150, 151, 152, 153, 154, 155, 156, 157, EOS), (300,))


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────


def text_of(policy: Policy, ids: tuple[int, ...]) -> str:
    return policy.tokenizer.decode(list(ids), skip_special_tokens=False)


def test_plain_prompt(make_policy: MakePolicy) -> None:
    policy = make_policy()
    ids = policy.encode("Who wins?")
    assert text_of(policy, ids) == "<bos>Who wins?"
    assert ids[0] == BOS


def test_plain_prompt_with_a_system_prompt(make_policy: MakePolicy) -> None:
    policy = make_policy(system_prompt=SYSTEM)
    assert text_of(policy, policy.encode("Who wins?")) == "<bos>Be brief.\n\nWho wins?"


CONVERSATION = (
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes"},
    {"role": "user", "content": "Why?"},
)
GEMMA_START, GEMMA_END = "<bos><start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"
CHATML_END = "<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("template", "system", "prompt", "expected"),
    [
        ("gemma", "", "Hi", f"{GEMMA_START}Hi{GEMMA_END}"),
        ("gemma", SYSTEM, "Hi", f"{GEMMA_START}Be brief.\n\nHi{GEMMA_END}"),
        (
            "gemma",
            SYSTEM,
            CONVERSATION,
            f"{GEMMA_START}Be brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYes<end_of_turn>\n"
            f"<start_of_turn>user\nWhy?{GEMMA_END}",
        ),
        (
            "gemma",
            SYSTEM,
            ({"role": "system", "content": "Mine."}, {"role": "user", "content": "Hi"}),
            f"{GEMMA_START}Mine.\n\nHi{GEMMA_END}",
        ),
        ("chatml", "", "Hi", f"<|im_start|>user\nHi{CHATML_END}"),
        (
            "chatml",
            SYSTEM,
            "Hi",
            f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi{CHATML_END}",
        ),
        (
            "chatml",
            SYSTEM,
            ({"role": "system", "content": "Mine."}, {"role": "user", "content": "Hi"}),
            f"<|im_start|>system\nMine.<|im_end|>\n<|im_start|>user\nHi{CHATML_END}",
        ),
    ],
    ids=[
        *("gemma", "gemma-folded", "gemma-turns", "gemma-own-system"),
        *("chatml", "chatml-system", "chatml-own-system"),
    ],
)
def test_chat_prompt(
    make_policy: MakePolicy, template: str, system: str, prompt: Any, expected: str
) -> None:
    policy = make_policy(template=template, system_prompt=system)
    ids = policy.encode(prompt)
    assert text_of(policy, ids) == expected
    assert ids.count(BOS) == (1 if template == "gemma" else 0)
    # Special tokens are single ids, not their characters.
    marker = "<end_of_turn>" if template == "gemma" else "<|im_end|>"
    assert policy.tokenizer.convert_tokens_to_ids(marker) in ids


def test_the_prompt_itself_is_left_alone(make_policy: MakePolicy) -> None:
    """Folding the system prompt in must not write into the sample's own turns."""
    turns = ({"role": "user", "content": "Hi"},)
    policy = make_policy(template="gemma", system_prompt=SYSTEM)
    assert policy.encode(turns) == policy.encode(turns)
    assert turns == ({"role": "user", "content": "Hi"},)


def test_chat_template_never(make_policy: MakePolicy) -> None:
    policy = make_policy(template="gemma", chat_template="never", system_prompt=SYSTEM)
    assert text_of(policy, policy.encode("Hi")) == "<bos>Be brief.\n\nHi"
    with pytest.raises(DataError, match="a conversational prompt needs a chat template"):
        policy.encode(CONVERSATION)


def test_conversation_without_a_template(make_policy: MakePolicy) -> None:
    with pytest.raises(DataError, match="a conversational prompt needs a chat template"):
        make_policy().encode(CONVERSATION)


def test_decode_leaves_special_tokens_out(make_policy: MakePolicy) -> None:
    policy = make_policy(template="gemma")
    text = "Step 1: Müller owes 80 €.\nConclusion: Yes"
    body = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    end_of_turn = policy.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert policy.decode([BOS, *body, end_of_turn, EOS]) == text


# ── the end of a text ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ([11, 12], 13, {11, 12, 13, EOS}),
        (11, [12, 13], {11, 12, 13, EOS}),
        (None, None, {EOS}),
        (EOS, EOS, {EOS}),
    ],
)
def test_every_eos_id_counts(
    make_policy: MakePolicy, generation: Any, config: Any, expected: set[int]
) -> None:
    policy = make_policy()
    policy.model.generation_config.eos_token_id = generation
    policy.model.config.eos_token_id = config
    assert policy.eos_ids == expected


def test_the_end_of_an_answer_that_is_learnt(make_policy: MakePolicy) -> None:
    assert make_policy().eos_id == EOS
    chat = make_policy(template="gemma")
    assert chat.eos_id == EOS
    # Gemma: [<eos>, <end_of_turn>], and <eos> is what the tokenizer names.
    end_of_turn = chat.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    chat.model.generation_config.eos_token_id = [EOS, end_of_turn]
    assert chat.eos_id == end_of_turn
    chat.chat_template = "never"
    assert chat.eos_id == EOS


def test_a_tokenizer_without_eos(make_policy: MakePolicy) -> None:
    policy = make_policy()
    policy.tokenizer.eos_token = None
    policy.model.generation_config.eos_token_id = [11, 12]
    policy.model.config.eos_token_id = 13
    assert policy.eos_ids == {11, 12, 13}


def test_pad_id_falls_back(make_policy: MakePolicy) -> None:
    policy = make_policy()
    assert policy.pad_id == 0
    policy.tokenizer.pad_token = None
    assert policy.pad_id in policy.eos_ids


# ── log-probabilities ────────────────────────────────────────────────────────────────────────────


def unpadded(model: Any, prompt: tuple[int, ...], completion: tuple[int, ...]) -> Tensor:
    """Log-probabilities [T, V] of one row alone, without padding, positions, masks or slices."""
    logits = model(torch.tensor([[*prompt, *completion]])).logits[0].double()
    logits = logits[len(prompt) - 1 : len(prompt) + len(completion) - 1]
    return logits - logits.logsumexp(-1, keepdim=True)


@pytest.mark.parametrize("architecture", ["gemma2", "llama", "qwen2", "gpt2"])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-5), ("stock float64", 5e-6), ("float64", 1e-12)]
)
def test_a_padded_batch_is_its_rows_alone(
    make_policy: MakePolicy, upcasts: Upcasts, architecture: str, precision: str, tolerance: float
) -> None:
    policy = make_policy(architecture)
    policy.model.to(torch.float32 if precision == "fp32" else torch.float64)
    batch = collate(list(zip(PROMPTS, COMPLETIONS, strict=True)), policy.pad_id, CPU)
    with torch.no_grad(), upcasts("to float64" if precision == "float64" else "as they are"):
        found, entropy = policy.logprobs(batch, temperature=1.0)
        for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
            alone = unpadded(policy.model, prompt, completion)
            length = len(completion)
            chosen = alone[range(length), list(completion)]
            plogp = -(alone.exp() * alone).sum(-1)
            assert float((found[row, :length] - chosen).abs().max()) <= tolerance
            assert float((entropy[row, :length] - plogp).abs().max()) <= 10 * tolerance
            assert batch.mask_B_T[row].tolist() == [t < length for t in range(9)]
            # The model says something: neither uniform (ln 320 = 5.8) nor sure.
            assert 0.5 < float(plogp.mean()) < 5.5


def test_the_sliding_window_is_shorter_than_the_rows(make_policy: MakePolicy) -> None:
    """What the padded test rests on: without the window, the same weights say something else."""
    policy = make_policy()
    assert policy.model.config.layer_types == ["sliding_attention", "full_attention"]
    with torch.no_grad():
        narrow = unpadded(policy.model, PROMPTS[0], COMPLETIONS[0])
        wide_policy = make_policy()
        for layer in wide_policy.model.model.layers:
            layer.self_attn.sliding_window = None
        wide_policy.model.config.sliding_window = 256
        wide = unpadded(wide_policy.model, PROMPTS[0], COMPLETIONS[0])
    assert float((narrow - wide).abs().max()) > 0.1


def test_temperature_divides_the_logits(make_policy: MakePolicy) -> None:
    policy = make_policy()
    batch = collate([(PROMPTS[0], COMPLETIONS[0])], 0, CPU)
    with torch.no_grad():
        cold, _ = policy.logprobs(batch, temperature=0.5)
        logits = 2 * policy.model(batch.input_ids_B_L).logits[0, 10:13].double()
    expected = (logits - logits.logsumexp(-1, keepdim=True))[range(3), [7, 8, 9]]
    assert float((cold[0] - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("architecture", ["gemma2", "llama"])
def test_what_stands_in_the_padding_does_not_matter(
    make_policy: MakePolicy, architecture: str
) -> None:
    policy = make_policy(architecture)
    rows = list(zip(PROMPTS, COMPLETIONS, strict=True))
    gradients = []
    for pad in (0, 77):
        policy.model.zero_grad()
        batch = collate(rows, pad, CPU)
        logprobs, _ = policy.logprobs(batch, 1.0)
        logprobs.masked_fill(~batch.mask_B_T, 0).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for _, p in policy.trainable()]))
    assert gradients[0].isfinite().all()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-4)
    assert gradients[0].norm() > 1


# ── folders ──────────────────────────────────────────────────────────────────────────────────────


SHORT: dict[str, Any] = {"device": "cpu", "generation_max_length": 64}


@pytest.fixture
def folder(make_policy: MakePolicy, tmp_path: Path) -> Path:
    make_policy().save(tmp_path / "base")
    return tmp_path / "base"


def adapted(folder: Path, **settings: Any) -> Policy:
    """A policy with an adapter that does something: the new one's B is 0."""
    config = TrainingConfig(base_model=str(folder), lora_dropout=0.5, **SHORT, **settings)
    policy = load_policy(config)
    torch.manual_seed(1)
    for name, parameter in policy.trainable():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return policy


def scores(policy: Policy) -> Tensor:
    batch = collate([(PROMPTS[0], COMPLETIONS[1])], policy.pad_id, CPU)
    with policy.inference():
        return policy.logprobs(batch, 1.0)[0]


def test_lora_trains_the_adapter_alone(folder: Path) -> None:
    policy = adapted(folder, lora_r=4)
    assert policy.is_adapter
    names = [name for name, _ in policy.trainable()]
    # 2 layers × q, k, v, o × (A, B)
    assert len(names) == 16
    assert all("lora_" in name for name in names)
    assert {min(p.shape) for _, p in policy.trainable()} == {4}


def test_full_fine_tuning_trains_everything_in_float32(folder: Path) -> None:
    policy = load_policy(TrainingConfig(base_model=str(folder), use_lora=False, **SHORT))
    assert not policy.is_adapter
    assert len(policy.trainable()) == len(list(policy.model.parameters()))
    assert {p.dtype for _, p in policy.trainable()} == {torch.float32}


def test_the_reference_is_the_base_model(folder: Path) -> None:
    policy = adapted(folder)
    policy.model.train()
    base = scores(load_policy_for_inference(folder, "cpu"))
    batch = collate([(PROMPTS[0], COMPLETIONS[1])], policy.pad_id, CPU)
    with policy.reference():
        reference, _ = policy.logprobs(batch, 1.0)
    assert not reference.requires_grad
    assert torch.equal(reference, base)
    assert float((scores(policy) - base).abs().max()) > 0.05
    assert policy.model.training
    assert len(policy.trainable()) == 16


def test_inference_switches_dropout_off_and_leaves_the_mode(folder: Path) -> None:
    policy = adapted(folder)
    for mode in (True, False):
        policy.model.train(mode)
        assert torch.equal(scores(policy), scores(policy))
        assert policy.model.training is mode
    policy.model.train()
    with torch.no_grad():
        batch = collate([(PROMPTS[0], COMPLETIONS[1])], policy.pad_id, CPU)
        first, second = (policy.logprobs(batch, 1.0)[0] for _ in range(2))
    assert not torch.equal(first, second)  # dropout 0.5 would show


def test_saved_adapter_comes_back_and_merges(folder: Path, tmp_path: Path) -> None:
    policy = adapted(folder)
    policy.save(tmp_path / "adapter")
    expected = scores(policy)
    assert torch.equal(scores(load_policy_for_inference(tmp_path / "adapter", "cpu")), expected)

    again = adapted(folder)
    for _, parameter in again.trainable():
        torch.nn.init.zeros_(parameter)
    again.load_weights(tmp_path / "adapter")
    assert torch.equal(scores(again), expected)

    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merged = load_policy_for_inference(tmp_path / "merged", "cpu")
    assert not merged.is_adapter
    assert float((scores(merged) - expected).abs().max()) < 1e-5


def test_training_goes_on_from_an_adapter(folder: Path, tmp_path: Path) -> None:
    policy = adapted(folder, lora_r=4)
    policy.save(tmp_path / "adapter")
    config = TrainingConfig(base_model=str(folder), lora_r=4, adapter=tmp_path / "adapter", **SHORT)
    resumed = load_policy(config)
    assert torch.equal(scores(resumed), scores(policy))
    assert [name for name, _ in resumed.trainable()] == [name for name, _ in policy.trainable()]


def test_full_weights_come_back(folder: Path, tmp_path: Path, make_policy: MakePolicy) -> None:
    other = make_policy(seed=5)
    assert not torch.equal(scores(other), scores(load_policy_for_inference(folder, "cpu")))
    other.load_weights(folder)
    assert torch.equal(scores(other), scores(load_policy_for_inference(folder, "cpu")))


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_gradient_checkpointing_changes_no_gradient(folder: Path) -> None:
    found = []
    for checkpointing in (False, True):
        config = TrainingConfig(
            base_model=str(folder),
            lora_dropout=0,
            gradient_checkpointing=checkpointing,
            **SHORT,
        )
        torch.manual_seed(1)
        policy = load_policy(config)
        for name, parameter in policy.trainable():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        policy.model.train()
        batch = collate([(PROMPTS[0], COMPLETIONS[1])], policy.pad_id, CPU)
        with policy.training_pass(batch):
            policy.logprobs(batch, 1.0)[0].sum().backward()
        found.append(torch.cat([p.grad.flatten() for _, p in policy.trainable()]))
    assert found[0].norm() > 0.1
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_what_cannot_be_loaded_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    def refused(match: str, **settings: Any) -> None:
        config = TrainingConfig(**{"base_model": str(folder), **SHORT, **settings})
        with pytest.raises(ModelError, match=match) as error:
            load_policy(config)
        assert "\n" not in str(error.value)

    (tmp_path / "empty").mkdir()
    refused("is a folder without config.json", base_model=str(tmp_path / "empty"))
    refused("holds no adapter_config.json", adapter=tmp_path / "empty")
    refused("lora_target_modules=wq: ", lora_target_modules=["wq"])
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"model_type": "no-such-architecture"}')
    refused("cannot be loaded as a causal language model", base_model=str(tmp_path / "odd"))


def test_max_positions(make_policy: MakePolicy) -> None:
    policy = make_policy()
    assert policy.max_positions == 256
    policy.model.config = PretrainedConfig()  # as of a model that has no limit
    assert policy.max_positions is None
