"""The diversity family: rule, wording, traces, balance and splits."""

import csv
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.errors import DataError
from judicaita.legal.answers import parse_reasoning
from judicaita.legal.tasks import (
    FAMILIES,
    best_single_factor,
    generate,
    get_family,
    split_of,
    stream,
)
from judicaita.legal.tasks.vocabulary import STATES
from judicaita.types import Sample

DIVERSITY = FAMILIES["diversity"]
LEGALBENCH = (1, 2, 3, 4, 5, 6)
"""The levels in LegalBench's wording, which turn on two factors."""

LEVEL_1 = "Ava is from Ohio. Mia is from {state}. Ava sues Mia for trespass for {amount}."
LEVEL_6 = (
    "Ava is from Ohio. Mia is from Iowa. Noah is from Utah. Liam is from Texas. "
    "Ava and Mia both sue Noah for trespass for {first} and defamation for $30,000. "
    "Ava and Mia both sue Liam for negligence for {second} and nuisance for $1,000."
)


@pytest.fixture(scope="module")
def instances() -> list[Sample]:
    return generate("diversity", 3_000, split="train", seed=11, levels=LEGALBENCH)


def derive(text: str) -> str:
    """The answer straight from the words, without the family's parser or dataclasses."""
    home = dict(re.findall(r"(\w+) is from ([A-Z][a-z]+(?: [A-Z][a-z]+)?)\.", text))
    suits = re.findall(r"[^.?]*\bsues?\b[^.?]*\.", text)
    before_the_verb = {word for suit in suits for word in re.split(r"\bsues?\b", suit)[0].split()}
    plaintiffs = {home[name] for name in home if name in before_the_verb}
    defendants = {home[name] for name in home if name not in before_the_verb}
    totals = [
        sum(int(dollars.replace(",", "")) for dollars in re.findall(r"\$([\d,]+)", suit))
        for suit in suits
    ]
    return "Yes" if plaintiffs.isdisjoint(defendants) and min(totals) > 75_000 else "No"


def test_public_train_rows_are_reproduced(shared_data: Path) -> None:
    checked = 0
    for level in LEGALBENCH:
        path = shared_data / "legalbench" / "tasks" / f"diversity_{level}" / "train.tsv"
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                facts = DIVERSITY.parse(row["text"])
                assert facts["level"] == level
                assert str(facts["parties_are_diverse"]) == row["parties_are_diverse"]
                assert str(facts["aic_is_met"]) == row["aic_is_met"]
                assert DIVERSITY.solve(facts) == row["answer"]
                checked += 1
    assert checked == 36


@pytest.mark.parametrize(
    ("state", "amount", "diverse", "met", "answer"),
    [
        ("Iowa", "$75,000", True, False, "No"),
        ("Iowa", "$76,000", True, True, "Yes"),
        ("Ohio", "$76,000", False, True, "No"),
        ("Ohio", "$1,000", False, False, "No"),
    ],
)
def test_rule_at_its_edges(state: str, amount: str, diverse: bool, met: bool, answer: str) -> None:
    facts = DIVERSITY.parse(LEVEL_1.format(state=state, amount=amount))
    assert (facts["parties_are_diverse"], facts["aic_is_met"]) == (diverse, met)
    assert DIVERSITY.solve(facts) == answer


@pytest.mark.parametrize(
    ("first", "second", "met"),
    [
        ("$46,000", "$75,000", True),
        ("$45,000", "$75,000", False),  # 75,000 against Noah
        ("$46,000", "$74,000", False),  # 75,000 against Liam: claims never add up across them
    ],
)
def test_claims_add_up_per_defendant_only(first: str, second: str, met: bool) -> None:
    facts = DIVERSITY.parse(LEVEL_6.format(first=first, second=second))
    assert facts["aic_is_met"] is met


def test_recorded_labels_do_not_sway_the_solver() -> None:
    facts = DIVERSITY.parse(LEVEL_1.format(state="Ohio", amount="$76,000"))
    assert DIVERSITY.solve({**facts, "parties_are_diverse": True}) == "No"


@pytest.mark.parametrize(
    ("text", "trace"),
    [
        (
            "William is from Oregon. Harper is from Alaska. Liam is from Alaska. William and "
            "Harper both sue Liam for medical malpractice for $17,000 and defamation for $69,000.",
            "Step 1: Plaintiffs: Oregon, Alaska.\nStep 2: Defendants: Alaska.\n"
            "Step 3: Alaska is on both sides, so diversity is not complete.\n"
            "Step 4: $17,000 + $69,000 = $86,000, more than $75,000.\nConclusion: No",
        ),
        (
            LEVEL_1.format(state="New York", amount="$61,000"),
            "Step 1: Plaintiffs: Ohio.\nStep 2: Defendants: New York.\n"
            "Step 3: No state is on both sides, so diversity is complete.\n"
            "Step 4: $61,000, not more than $75,000.\nConclusion: No",
        ),
        (
            "Ava is from Ohio. Mia is from Iowa. Noah is from Iowa. "
            "Ava sues Mia and Noah each for trespass for $2,116,000.",
            "Step 1: Plaintiffs: Ohio.\nStep 2: Defendants: Iowa, Iowa.\n"
            "Step 3: No state is on both sides, so diversity is complete.\n"
            "Step 4: $2,116,000, more than $75,000.\nConclusion: Yes",
        ),
        (
            LEVEL_6.format(first="$46,000", second="$98,000"),
            "Step 1: Plaintiffs: Ohio, Iowa.\nStep 2: Defendants: Utah, Texas.\n"
            "Step 3: No state is on both sides, so diversity is complete.\n"
            "Step 4: $46,000 + $30,000 = $76,000, more than $75,000.\n"
            "Step 5: $98,000 + $1,000 = $99,000, more than $75,000.\nConclusion: Yes",
        ),
    ],
)
def test_trace_wording(text: str, trace: str) -> None:
    assert DIVERSITY.trace(DIVERSITY.parse(text)) == trace


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), level=st.sampled_from(DIVERSITY.levels))
def test_text_gives_the_facts_back(seed: int, level: int) -> None:
    sample = DIVERSITY.sample(random.Random(seed), level)
    assert isinstance(sample.prompt, str)
    assert DIVERSITY.parse(sample.prompt) == sample.facts
    assert json.loads(json.dumps(sample.facts)) == sample.facts
    assert sample.facts["level"] == level
    assert sample.task == f"diversity_{level}"


def test_solver_agrees_with_a_second_derivation(instances: list[Sample]) -> None:
    assert [sample.reference for sample in instances] == [derive(str(s.prompt)) for s in instances]


def test_traces_are_well_formed_and_conclude_the_reference(instances: list[Sample]) -> None:
    for sample in instances:
        reasoning = parse_reasoning(sample.trace)
        assert reasoning.is_ordered
        assert reasoning.conclusion == sample.reference


def test_answers_and_factors_are_balanced(instances: list[Sample]) -> None:
    answers = Counter(sample.reference for sample in instances)
    # 4 standard errors of 3,000 fair coins: 4 × √(3000 / 4) = 109.5.
    assert abs(answers["Yes"] - 1_500) < 110
    combinations = Counter(
        (sample.facts["parties_are_diverse"], sample.facts["aic_is_met"])
        for sample in instances
        if sample.reference == "No"
    )
    # 4 standard errors of a third of about 1,500: 4 × √(1500 × 1/3 × 2/3) = 73.
    assert all(abs(count - answers["No"] / 3) < 74 for count in combinations.values())
    assert len(combinations) == 3
    # Each factor alone: all of Yes and the third of No in which it is false, 1/2 + 1/3.
    _, accuracy = best_single_factor(instances)
    assert 0.80 < accuracy <= 0.87


def test_levels_take_turns(instances: list[Sample]) -> None:
    assert [sample.facts["level"] for sample in instances[:8]] == [1, 2, 3, 4, 5, 6, 1, 2]
    only = generate("diversity", 4, split="eval", seed=0, levels=["6", 2])
    assert [sample.facts["level"] for sample in only] == [6, 2, 6, 2]


def test_which_pair_shares_a_state_is_uniform() -> None:
    samples = generate("diversity", 1_600, split="train", seed=5, levels=[6])
    pairs: Counter[tuple[int, int]] = Counter()
    for sample in samples:
        sides = [[p["state"] for p in sample.facts[s]] for s in ("plaintiffs", "defendants")]
        if len({*sides[0], *sides[1]}) == 3 and not sample.facts["parties_are_diverse"]:
            pairs[next((i, j) for i in (0, 1) for j in (0, 1) if sides[0][i] == sides[1][j])] += 1
    expected = pairs.total() / 4
    # 4 standard errors of a quarter of N: 4 × √(N × 1/4 × 3/4).
    assert len(pairs) == 4
    assert all(abs(n - expected) < 4 * (pairs.total() * 3 / 16) ** 0.5 for n in pairs.values())


def test_hard_cases_occur(instances: list[Sample]) -> None:
    totals: Counter[str] = Counter()
    for sample in instances:
        amounts = [claim["amount"] for claim in sample.facts["claims"]]
        two_claims = sample.facts["level"] in (3, 5)
        totals["exactly the threshold"] += f"= ${75_000:,}," in sample.trace
        totals["single exactly"] += "Step 4: $75,000, not more" in sample.trace
        totals["only together"] += two_claims and sum(amounts) > 75_000 >= max(amounts)
        totals["one is enough"] += two_claims and max(amounts) > 75_000
        states = [party["state"] for party in sample.facts["defendants"]]
        totals["co-citizens"] += len(states) > len(set(states))
        assert all(amount % 1_000 == 0 < amount < 10_000_000 for amount in amounts)
        assert sample.facts["level"] in (1, 2, 4) or max(amounts) < 100_000
    assert min(totals.values()) > 20, totals
    assert len(STATES) == len(set(STATES)) == 50


def test_generation_is_seeded_and_grows_by_appending() -> None:
    few = generate("diversity", 30, split="eval", seed=3)
    assert generate("diversity", 60, split="eval", seed=3)[:30] == few
    assert generate("diversity", 30, split="eval", seed=4) != few


@settings(max_examples=20, deadline=None)
@given(train_seed=st.integers(0, 10**6), eval_seed=st.integers(0, 10**6))
def test_splits_share_no_pattern(train_seed: int, eval_seed: int) -> None:
    sides = [
        {
            DIVERSITY.pattern(sample.facts)
            for sample in generate("diversity", 60, split=split, seed=seed, levels=[1])
        }
        for split, seed in (("train", train_seed), ("eval", eval_seed))
    ]
    assert sides[0].isdisjoint(sides[1])


def test_patterns_mask_names_causes_and_order() -> None:
    text = "Ava is from Ohio. Mia is from Iowa. Noah is from Utah. Ava and Mia both sue Noah for "
    other = (
        "Liam is from Iowa. Emma is from Ohio. Ava is from Utah. Liam and Emma both sue Ava for "
    )
    first = DIVERSITY.parse(text + "trespass for $2,000 and nuisance for $9,000.")
    second = DIVERSITY.parse(other + "defamation for $9,000 and negligence for $2,000.")
    third = DIVERSITY.parse(other + "defamation for $9,000 and negligence for $3,000.")
    assert DIVERSITY.pattern(first) == DIVERSITY.pattern(second) != DIVERSITY.pattern(third)


def test_one_pattern_in_ten_is_held_out() -> None:
    held_out = sum(split_of(f"pattern {n}") == "eval" for n in range(10_000))
    assert abs(held_out - 1_000) < 4 * (10_000 * 0.1 * 0.9) ** 0.5


def test_ids_are_distinct_within_one_call(instances: list[Sample]) -> None:
    assert len({sample.id for sample in instances}) == len(instances)


def test_an_exhausted_space_repeats_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    only = next(stream("diversity", split="train", seed=0))
    monkeypatch.setattr("judicaita.legal.tasks._draw", lambda *a: only)
    assert generate("diversity", 3, split="train", seed=0) == [only] * 3


def test_unknown_names_are_told_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'diversty' is no task family\. The nearest is diversity"):
        get_family("diversty")
    with pytest.raises(DataError, match=r"'10' is no level of diversity.* There are: 1, 2, 3, 4"):
        generate("diversity", 1, split="train", seed=0, levels=[10])
    with pytest.raises(DataError, match="count=0"):
        generate("diversity", 0, split="train", seed=0)
    with pytest.raises(DataError, match="No level"):
        generate("diversity", 1, split="train", seed=0, levels=[])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Is there diversity jurisdiction?",
        "Ava is from Ohio.",
        "Ava sues Mia for trespass for $1,000.",
        "Ava is from Ohio. Ava is from Iowa. Ava sues Ava for trespass for $1,000.",
        "Ava is from Ohio. Mia is from Iowa. Ava sues Mia for trespass.",
        "Ava is from Ohio. Mia is from Iowa. Ava sues Mia for trespass for $1,000.50.",
        "Ava is from Ohio. Mia is from Iowa. Noah is from Utah. Ava sues Mia for trespass for $1.",
        "Ava is from Ohio. Mia is from Iowa. Noah is from Utah. "
        "Ava sues Noah for trespass for $1,000. Mia sues Noah for trespass for $1,000.",
        "Ava is from Ohio. Mia is from Iowa. Ava sues Mia for a for $1, b for $2 and c for $3.",
        LEVEL_1.format(state="Iowa", amount="$1,000") + " Ava sues Mia for nuisance for $2,000. "
        "Ava sues Mia for libel for $2,000.",
    ],
)
def test_other_wordings_are_refused(text: str) -> None:
    with pytest.raises(
        DataError, match=r"worded as a diversity question|none of diversity's levels"
    ):
        DIVERSITY.parse(text)


def sample(reference: str, **facts: object) -> Sample:
    return Sample(prompt="?", reference=reference, facts=facts)


def test_single_factor_baseline_by_hand() -> None:
    samples = [
        sample("Yes", a=True, b=True, words="x"),
        sample("Yes", a=True, b=False, words="x"),
        sample("No", a=True, b=True, words="y"),
        sample("No", a=False, b=True, words="y"),
    ]
    # a: Yes, Yes, No → 2 right, No → 1 right: 3/4. b: Yes, No, No → 2 right, Yes → 1 right: 3/4;
    # the first of equals is named. A text fact is no factor.
    assert best_single_factor(samples) == ("a", 0.75)
    with pytest.raises(DataError, match="no boolean fact"):
        best_single_factor([sample("Yes", words="x")])
    with pytest.raises(DataError, match="No samples"):
        best_single_factor([])
