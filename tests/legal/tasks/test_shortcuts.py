"""What can be had without reasoning: rules of one fact, and words without their order."""

from __future__ import annotations

import pytest

from judicaita.errors import DataError
from judicaita.legal.tasks import (
    FAMILIES,
    Level,
    bag_of_words,
    best_factors,
    best_single_factor,
    best_two_factors,
    generate,
)
from judicaita.types import Sample

HARD = [(name, level) for name, family in FAMILIES.items() for level in family.hard_levels]


@pytest.mark.parametrize(("name", "level"), HARD)
def test_no_fact_alone_decides_a_hard_level(name: str, level: Level) -> None:
    samples = generate(name, 4_000, split="train", seed=21, levels=[level])
    factor, accuracy = best_single_factor(samples)
    assert accuracy <= 0.75, factor
    assert best_factors(samples) == pytest.approx(accuracy)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FAMILIES)
def test_words_alone_do_not_decide_the_top_level(name: str) -> None:
    top = [FAMILIES[name].levels[-1]]
    train = generate(name, 5_000, split="train", seed=22, levels=top)
    held_out = generate(name, 2_000, split="eval", seed=22, levels=top)
    assert bag_of_words(train, held_out) <= 0.65


def test_words_do_decide_where_they_are_not_bound() -> None:
    """So that the control above is one: without a second party the same classifier does well."""
    level = FAMILIES["hearsay"].hard_levels[:1]
    train = generate("hearsay", 2_000, split="train", seed=23, levels=level)
    held_out = generate("hearsay", 200, split="eval", seed=23, levels=level)
    assert bag_of_words(train, held_out) > 0.85


def sample(reference: str, prompt: str = "?", **facts: object) -> Sample:
    return Sample(prompt=prompt, reference=reference, facts=facts)


def test_a_missing_fact_is_a_value_by_hand() -> None:
    samples = [
        sample("Yes", a=True),
        sample("Yes", a=True),
        sample("No", a=False),
        sample("Open", a=None),
        sample("Open"),
        sample("No", b=7),
    ]
    # True → Yes 2 of 2, False → No 1 of 1, missing → Open 2 of 3: 5 of 6. b is no boolean.
    assert best_single_factor(samples) == ("a", pytest.approx(5 / 6))


def test_two_factors_by_hand() -> None:
    samples = [
        sample("Yes", a=True, b=True, c=True),
        sample("No", a=True, b=False, c=True),
        sample("No", a=False, b=True, c=False),
        sample("Yes", a=False, b=False, c=True),
        sample("No", a=False, b=False, c=True),
    ]
    # a and b: 1, 1, 1 right and of the last two one: 4 of 5. a and c: TT 1 of 2, FF 1, FT 1 of 2.
    assert best_two_factors(samples) == (("a", "b"), pytest.approx(4 / 5))
    # Alone: a gives 1 of 2 and 2 of 3; b 1 of 2 and 2 of 3; c 1 of 1 and 2 of 4.
    assert best_single_factor(samples) == ("a", pytest.approx(3 / 5))
    with pytest.raises(DataError, match=r"share 1 boolean facts \(a\).*rule of 2"):
        best_two_factors([sample("Yes", a=True)])


def test_each_family_has_its_own_rule_by_hand() -> None:
    samples = [
        # x decides the first family whole; y is right in 2 of 4 of the second, z in 3 of 4.
        sample("Yes", family="one", x=True),
        sample("No", family="one", x=False),
        sample("Yes", family="two", y=True, z=True),
        sample("No", family="two", y=True, z=False),
        sample("Yes", family="two", y=False, z=False),
        sample("No", family="two", y=False, z=False),
    ]
    assert best_factors(samples) == pytest.approx((2 + 3) / 6)
    # With two: y, z tell T T, T F, and F F twice, of which one is right: 3 of 4. The first family
    # has one factor only.
    assert best_factors(samples, size=2) == pytest.approx((2 + 3) / 6)
    with pytest.raises(DataError, match="size=0"):
        best_factors(samples, size=0)
    with pytest.raises(DataError, match="No samples"):
        best_factors([])


def test_bag_of_words_by_hand() -> None:
    train = [sample("Yes", "red hat"), sample("No", "blue hat")] * 20
    # Word order is invisible: "hat red" reads like "red hat"; "green" is unknown.
    held_out = [sample("Yes", "hat red"), sample("No", "hat, blue"), sample("No", "red green")]
    assert bag_of_words(train, held_out) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="fewer than two different references"):
        bag_of_words([sample("Yes", "red")], held_out)
    with pytest.raises(DataError, match="No held-out"):
        bag_of_words(train, [])
