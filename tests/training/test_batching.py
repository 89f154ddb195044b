"""Groups become tensors: the layout, the masks, and which step each token belongs to, by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from judicaita.errors import DataError
from judicaita.legal.answers import parse_reasoning
from judicaita.training.batching import (
    Batch,
    collate,
    encode_prompts,
    make_batch,
    micro_batches,
    place_tokens,
)
from judicaita.training.config import TrainingConfig
from judicaita.training.policy import Policy
from judicaita.types import Completion, Group, RewardResult, Sample

CPU = torch.device("cpu")
EOS = 1
MakePolicy = Callable[..., Policy]


@pytest.fixture(scope="module")
def policy(make_policy: MakePolicy) -> Policy:
    return make_policy()


def test_collate_by_hand() -> None:
    """Prompts end, and completions start, in the same column; the pad id is an EOS id here."""
    batch = collate([((5, 6, 7), (8, EOS)), ((9,), (EOS, 4, 3))], EOS, CPU)
    assert batch.input_ids_B_L.tolist() == [[5, 6, 7, 8, 1, 1], [1, 1, 9, 1, 4, 3]]
    assert batch.attention_mask_B_L.tolist() == [[1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]]
    assert batch.position_ids_B_L.tolist() == [[0, 1, 2, 3, 4, 4], [0, 0, 0, 1, 2, 3]]
    assert batch.completion_ids_B_T.tolist() == [[8, 1, 1], [1, 4, 3]]
    assert batch.mask_B_T.tolist() == [[True, True, False], [True, True, True]]


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), min_size=1, max_size=6),
            st.lists(st.integers(0, 9), min_size=1, max_size=6),
        ),
        min_size=1,
        max_size=5,
    ),
    pad=st.integers(0, 9),
)
def test_collate_keeps_every_token(rows: list[tuple[list[int], list[int]]], pad: int) -> None:
    batch = collate(rows, pad, CPU)
    for row, (prompt, completion) in enumerate(rows):
        kept = batch.attention_mask_B_L[row].bool()
        assert batch.input_ids_B_L[row][kept].tolist() == [*prompt, *completion]
        assert batch.position_ids_B_L[row][kept].tolist() == list(range(int(kept.sum())))
        assert batch.completion_ids_B_T[row][batch.mask_B_T[row]].tolist() == completion


def test_make_batch_by_hand(policy: Policy) -> None:
    def ids(text: str) -> tuple[int, ...]:
        return tuple(policy.tokenizer(text, add_special_tokens=False)["input_ids"])

    first, last = ids("Step 1: a\n"), (*ids("Conclusion: No"), EOS)
    stepped, plain = first + last, ids("No")
    sample = Sample(prompt="?", reference="No")
    groups = [
        Group(
            sample,
            (2, 3),
            (
                Completion(stepped, (-0.5,) * len(stepped), "stop", 0),
                Completion(plain, (-0.25,) * len(plain), "length", 0),
            ),
            ("Step 1: a\nConclusion: No", "No"),
            advantages=(1.5, -2.0),
        ),
        Group(
            sample,
            (4,),
            (Completion((9, EOS), (-1.0, -2.0), "stop", 0),),
            ("\t",),
            advantages=(3.0,),
        ),
    ]
    batch = make_batch(groups, policy, gamma=0.5)
    width = len(stepped)

    def padded(row: list[float], rest: float) -> list[float]:
        return row + [rest] * (width - len(row))

    assert batch.mask_B_T.sum(dim=1).tolist() == [width, len(plain), 2]
    assert batch.completion_ids_B_T[1, : len(plain)].tolist() == list(plain)
    assert batch.input_ids_B_L[2, :2].tolist() == [policy.pad_id, 4]
    # One step before the conclusion: 1.5 · 0.5.
    assert batch.advantages_B_T.dtype == torch.float32
    assert batch.advantages_B_T[0].tolist() == [0.75] * len(first) + [1.5] * len(last)
    assert batch.advantages_B_T[1:, :2][batch.mask_B_T[1:, :2]].unique().tolist() == [-2.0, 3.0]
    assert batch.rollout_logprobs_B_T.tolist() == [
        [-0.5] * width,
        padded([-0.25] * len(plain), 0),
        padded([-1.0, -2.0], 0),
    ]


def test_credits_of_steps_by_hand(policy: Policy) -> None:
    """Beside γ^k of the advantage each token of a step gets the step's own return."""

    def ids(text: str) -> tuple[int, ...]:
        return tuple(policy.tokenizer(text, add_special_tokens=False)["input_ids"])

    parts = ids("Well.\n"), ids("Step 1: a\n"), ids("Step 2: b\n"), (*ids("Conclusion: No"), EOS)
    early = ids("Conclusion: No\n"), ids("Step 1: a")  # concludes before its only step
    texts = "Well.\nStep 1: a\nStep 2: b\nConclusion: No", "Conclusion: No\nStep 1: a", "No"
    rows = sum(parts, ()), sum(early, ()), ids("No")
    completions = tuple(Completion(row, (-1.0,) * len(row), "stop", 0) for row in rows)
    group = Group(
        Sample(prompt="?", reference="No"),
        (2,),
        completions,
        texts,
        advantages=(1.0, -2.0, 4.0),
        step_returns=((0.75, -0.5), (8.0,), ()),
    )
    plain = replace(group, step_returns=())
    batch = make_batch([group, plain], policy, gamma=0.5)
    found = [
        row[mask].tolist() for row, mask in zip(batch.advantages_B_T, batch.mask_B_T, strict=True)
    ]

    def spread(*values: tuple[float, tuple[int, ...]]) -> list[float]:
        return [value for value, tokens in values for _ in tokens]

    preamble, first, second, last = parts
    assert found == [
        spread((0.25 + 0.75, preamble + first), (0.5 - 0.5, second), (1.0, last)),
        spread((-1.0, early[0]), (-2.0 + 8.0, early[1])),
        spread((4.0, rows[2])),
        spread((0.25, preamble + first), (0.5, second), (1.0, last)),
        spread((-1.0, early[0]), (-2.0, early[1])),
        spread((4.0, rows[2])),
    ]


# ── prompts that are too long ────────────────────────────────────────────────────────────────────


def samples(*lengths: int) -> list[Sample]:
    """Prompts of so many tokens, their BOS included: digits never merge with each other."""
    return [Sample(prompt="7" * (length - 1), reference=str(length)) for length in lengths]


def fitting(policy: Policy, *lengths: int, **settings: Any) -> list[int]:
    config = TrainingConfig(**{"model_max_length": 10, "generation_max_length": 8, **settings})
    items = encode_prompts(policy, samples(*lengths), "training", config)
    assert all(ids == policy.encode(sample.prompt) for sample, ids in items)
    return [len(ids) for _, ids in items]


def test_prompts_up_to_the_limit(make_policy: MakePolicy) -> None:
    plain = make_policy()
    assert fitting(plain, 10, 2, 9) == [10, 2, 9]
    assert fitting(plain, 11, 10, 50, 2, long_prompts="drop") == [10, 2]
    # The model has 256 positions for prompt and completion.
    assert fitting(
        plain, 57, 56, long_prompts="drop", model_max_length=100, generation_max_length=200
    ) == [56]


def test_long_prompts_are_refused(make_policy: MakePolicy) -> None:
    plain = make_policy()
    with pytest.raises(DataError) as error:
        fitting(plain, 10, 11, 13)
    text = str(error.value)
    assert text.startswith("training ")
    assert samples(11)[0].id in text
    for part in ("over the 10 tokens that fit", "2 of 3", "the longest has 13", "never cut"):
        assert part in text
    assert "long_prompts=drop" in text

    with pytest.raises(DataError, match="2 of 2 .*, the longest has 12") as error:
        fitting(plain, 11, 12, long_prompts="drop")
    assert "long_prompts=drop" not in str(error.value)  # which is set, and leaves nothing


# ── which groups go together ─────────────────────────────────────────────────────────────────────


def group_of(prompt: int, lengths: list[int]) -> Group:
    """A group of completions of these lengths, each with an advantage of its own."""
    completions = tuple(Completion((7,) * n, (-0.5,) * n, "length", 0) for n in lengths)
    return Group(
        Sample(f"prompt of {prompt}", "Yes"),
        (5,) * prompt,
        completions,
        texts=tuple(f"{prompt}/{row}" for row in range(len(lengths))),
        results=(RewardResult(0.5),) * len(lengths),
        advantages=tuple(float(row) for row in range(len(lengths))),
    )


def test_groups_go_together_by_their_number() -> None:
    groups = [group_of(n, [1, 2]) for n in range(1, 6)]
    assert micro_batches(groups, TrainingConfig(batch_size=2)) == [
        groups[:2],
        groups[2:4],
        groups[4:],
    ]


def test_groups_go_together_by_their_tokens() -> None:
    groups = [group_of(4, [2, 3, 1, 9]), group_of(3, [1, 1])]
    found = micro_batches(groups, TrainingConfig(micro_batch_tokens=10))
    # 4 + 2 + 3 + 1 = 10; 4 + 9 = 13 is over by itself; 3 + 1 + 1.
    assert [[group.texts for group in batch] for batch in found] == [
        [("4/0", "4/1", "4/2")],
        [("4/3",)],
        [("3/0", "3/1")],
    ]
    assert found[1][0].advantages == (3.0,)


@settings(max_examples=100, deadline=None)
@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=5)),
        max_size=5,
    ),
    budget=st.integers(1, 60),
)
def test_no_completion_is_lost_and_no_budget_exceeded(
    shapes: list[tuple[int, list[int]]], budget: int
) -> None:
    groups = [group_of(prompt, lengths) for prompt, lengths in shapes]
    found = micro_batches(groups, TrainingConfig(micro_batch_tokens=budget))
    together = [group for batch in found for group in batch]
    for name in ("completions", "texts", "results", "advantages"):
        assert [x for group in together for x in getattr(group, name)] == [
            x for group in groups for x in getattr(group, name)
        ]
    for batch in found:
        tokens = sum(
            len(group.prompt_ids) + sum(len(c.token_ids) for c in group.completions)
            for group in batch
        )
        assert tokens <= budget or [len(group.completions) for group in batch] == [1]


def test_a_batch_falls_into_pieces(policy: Policy) -> None:
    batch = make_batch([group_of(2, [1, 4, 2]), group_of(3, [3, 1])], policy, 1.0)
    for halvings, sizes in ((0, [5]), (1, [3, 2]), (2, [2, 2, 1]), (5, [1] * 5)):
        pieces = [piece for _, piece in batch.pieces(halvings)]
        assert [len(piece.rows) for piece in pieces] == sizes
        for name in ("input_ids_B_L", "mask_B_T", "advantages_B_T", "rollout_logprobs_B_T"):
            joined = torch.cat([getattr(piece, name) for piece in pieces])
            assert torch.equal(joined, getattr(batch, name))
    assert all(isinstance(piece, Batch) for piece in pieces)


# ── which step a token belongs to ────────────────────────────────────────────────────────────────


class Words:
    """A policy's tokenizer whose tokens are GPT-2's words, so that they can be counted by hand."""

    def __init__(self, make_policy: MakePolicy, *texts: str) -> None:
        split = pre_tokenizers.ByteLevel(add_prefix_space=False)
        words = {word for text in texts for word, _ in split.pre_tokenize_str(text)}
        vocabulary = {word: index for index, word in enumerate(["<eos>", "?", *sorted(words)])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
        tokenizer.pre_tokenizer, tokenizer.decoder = split, decoders.ByteLevel()
        self.policy = make_policy()
        self.policy.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>"
        )

    def numbers(self, text: str, tokens: list[str]) -> list[int]:
        """Steps to the end of each token of the text and its EOS; checks the tokens first."""
        ids = [*self.policy.tokenizer(text)["input_ids"], 0]
        assert [self.policy.tokenizer.decode([index]) for index in ids[:-1]] == tokens
        return place_tokens(text, ids, self.policy).steps_to_end


# Text, its tokens, and for each of them and the EOS the number of steps that begin after its own.
BY_HAND: dict[str, tuple[str, list[tuple[str, int]]]] = {
    "lines": (
        "Well.\nStep 1: Ohio sues.\nStep 2: 80 is enough.\nConclusion: Yes",
        [
            *(("Well", 2), (".", 2), ("\n", 2)),
            *(("Step", 2), (" 1", 2), (":", 2), (" Ohio", 2), (" sues", 2), (".", 2), ("\n", 2)),
            *(("Step", 1), (" 2", 1), (":", 1), (" 80", 1), (" is", 1), (" enough", 1), (".", 1)),
            *(("\n", 1), ("Conclusion", 0), (":", 0), (" Yes", 0), ("", 0)),
        ],
    ),
    "paragraph": (  # the blank before a marker is in the marker's own token
        "Step 1: a. Step 2: b. Conclusion: No",
        [
            *(("Step", 2), (" 1", 2), (":", 2), (" a", 2), (".", 2)),
            *((" Step", 1), (" 2", 1), (":", 1), (" b", 1), (".", 1)),
            *((" Conclusion", 0), (":", 0), (" No", 0), ("", 0)),
        ],
    ),
    "cut": (  # no conclusion: the last step is the end
        "Step 1: a\nStep 2: b",
        [
            *(("Step", 1), (" 1", 1), (":", 1), (" a", 1), ("\n", 1)),
            *(("Step", 0), (" 2", 0), (":", 0), (" b", 0), ("", 0)),
        ],
    ),
    "none": ("No step here", [("No", 0), (" step", 0), (" here", 0), ("", 0)]),
    "empty": ("", [("", 0)]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_steps_to_end_by_hand(make_policy: MakePolicy, name: str) -> None:
    text, rows = BY_HAND[name]
    tokens = [token for token, _ in rows[:-1]]
    assert Words(make_policy, text).numbers(text, tokens) == [number for _, number in rows]


@pytest.mark.parametrize(
    "segments",
    [
        ["Step 1: Müller owes 80 €.\n", "Step 2: § 1332(a) — 条約 😀\n", "Conclusion: Ja ✓"],
        ["😀😀\n", "Step 1: 😀\n", "Step 2: é", "\nStep 3: x.", " Conclusion: ü"],
        ["**Step 1:** a\n", "**Step 2:** b\n", "**Conclusion:** 80 €"],
    ],
    ids=["sentences", "emoji", "markdown"],
)
def test_characters_of_several_bytes(policy: Policy, segments: list[str]) -> None:
    """Characters outside of ASCII are several tokens: prefixes end inside of them."""
    pieces = [policy.tokenizer(part, add_special_tokens=False)["input_ids"] for part in segments]
    ids = [index for piece in pieces for index in piece]
    text = policy.decode(ids)
    assert text == "".join(segments)
    markers = [("Step" in s) or ("Conclusion" in s) for s in segments]
    expected: list[int] = []
    for number, (segment, piece) in enumerate(zip(segments, pieces, strict=True)):
        # What stands before the first marker belongs to the first step.
        after = sum(markers[number + 1 :]) - (0 if any(markers[: number + 1]) else 1)
        # A line's end belongs to the step that it ends.
        own = 1 if segment.startswith("\n") else 0
        expected += [after + 1] * own + [after] * (len(piece) - own)
    assert place_tokens(text, ids, policy).steps_to_end == expected


PARTS = st.sampled_from(
    [
        "Step 1: ",
        "Step 2: ",
        "\nStep 2: ",
        "\nConclusion: ",
        " Conclusion: ",
        ". ",
        "\n",
        "ü€😀",
        "law ",
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(PARTS | st.lists(st.integers(7, 262), max_size=3), max_size=12),
    ending=st.lists(st.integers(0, 319), max_size=3),
)
def test_any_tokens(policy: Policy, parts: list[Any], ending: list[int]) -> None:
    """Also bytes that are no text, as a model may write them: the token is found by looking at
    every prefix in turn."""
    ids = []
    for part in parts:
        is_text = isinstance(part, str)
        ids += policy.tokenizer(part, add_special_tokens=False)["input_ids"] if is_text else part
    ids += ending
    text = policy.decode(ids)
    lengths = [len(policy.decode(ids[: end + 1])) for end in range(len(ids))]
    starts = [
        next(index for index, length in enumerate(lengths) if length > offset)
        for offset in parse_reasoning(text).boundaries
    ]
    expected = [sum(start > place for start in starts[1:]) for place in range(len(ids))]
    assert place_tokens(text, ids, policy).steps_to_end == expected
