"""The contamination gate: what counts as an overlap, what never does, and how often it errs."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.errors import DataError
from judicaita.legal.tasks import FAMILIES, generate_mixture, get_family
from judicaita.training.contamination import (
    NOT_CHECKED,
    PAIRS_SHOWN,
    THRESHOLD,
    Contamination,
    Overlap,
    find_overlap,
    instance_text,
    refuse_overlap,
)
from judicaita.training.data_curation import load_dataset_source
from judicaita.types import Prompt, Sample

ALL_FAMILIES = dict.fromkeys(FAMILIES)


def sample(prompt: Prompt, reference: str = "Yes", *, task: str = "") -> Sample:
    return Sample(prompt, reference, task=task)


def legalbench(task: str, template: str, **cells: str) -> Sample:
    """A row as `load_tasks` makes it: one `{{column}}` a cell, filled in."""
    prompt = template
    for name, cell in cells.items():
        prompt = prompt.replace("{{" + name + "}}", cell)
    facts = {**cells, "in_demonstrations": False}
    return Sample(prompt, "Yes", task=task, facts=facts, source=f"legalbench:{task}")


def generated(name: str, text: str) -> Sample:
    family = get_family(name)
    facts = family.parse(text)
    return Sample(text, family.solve(facts), task=name, facts=facts)


def numbered(count: int, start: int = 0) -> list[str]:
    """So many words, each another one."""
    return [f"word{number}" for number in range(start, start + count)]


def found(train: Sample, held_out: Sample) -> tuple[str, float] | None:
    """Kind and similarity of the one pair; None without an overlap."""
    result = find_overlap([train], [held_out])
    if not result.pairs:
        assert result.train_ids == ()
        return None
    (pair,) = result.pairs
    assert (pair.train_id, pair.held_out_id) == (train.id, held_out.id)
    assert result.train_ids == (train.id,)
    return pair.kind, pair.similarity


# ── generated tasks: equal facts, whatever the words ─────────────────────────────────────────────

SUIT = (
    "{} is from Ohio. {} is from Texas. {} sues {} for negligence for ${}. "
    "Is there diversity jurisdiction?"
)


def suit(plaintiff: str, defendant: str, amount: str) -> Sample:
    text = SUIT.format(plaintiff, defendant, plaintiff, defendant, amount)
    return generated("diversity", text)


def test_generated_samples_overlap_by_their_facts_alone() -> None:
    known = suit("James", "Emma", "80,000")
    assert found(known, suit("Lucas", "Sophia", "80,000")) == ("facts", 1.0)
    # One digit apart in text, and another question in fact.
    assert found(known, suit("James", "Emma", "80,001")) is None


def test_splits_of_generated_families_share_no_fact_pattern() -> None:
    train = generate_mixture(ALL_FAMILIES, 300, split="train", seed=1)
    held_out = generate_mixture(ALL_FAMILIES, 300, split="eval", seed=2)
    assert find_overlap(train, held_out) == Contamination(300, 300)
    planted = random.Random(0).sample(held_out, 30)
    result = find_overlap([*train, *planted], held_out)
    assert {pair.held_out_id for pair in result.pairs} >= {row.id for row in planted}
    assert result.by_kind.keys() == {"facts"}


def test_a_generated_question_and_plain_text_overlap_when_the_text_is_equal() -> None:
    known = suit("James", "Emma", "80,000")
    plain = replace(known, facts={}, reference="another")
    assert found(known, plain) == found(plain, known) == ("exact", 1.0)
    shouted = replace(plain, prompt=str(plain.prompt).upper())
    assert found(known, shouted) == found(shouted, known) == ("normalised", 1.0)
    # Sentences of one grammar are near to each other without being the same question.
    assert found(known, replace(suit("James", "Emma", "80,001"), facts={})) is None


def test_facts_that_only_claim_a_family_are_told() -> None:
    facts = {"family": "statute_of_limitations", "labels": ["Yes"], "answer_type": "yes_no"}
    with pytest.raises(DataError, match="no facts of a statute_of_limitations question"):
        find_overlap([Sample("a", "b", facts=facts)], [sample("c")])


# ── free text: exact, normalised, near, quoted ───────────────────────────────────────────────────


def test_exact_means_the_same_text_but_for_white_space() -> None:
    assert found(sample("Is it a sale?"), sample(" Is it\na  sale?\n")) == ("exact", 1.0)
    # Other answers do not make it another question.
    assert found(sample("Is it a sale?", "Yes"), sample("Is it a sale?", "No")) == ("exact", 1.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("He said “no”: it’s over.", 'he said "NO" - it\'s over'),
        ("a non-compete clause", "A noncompete clause."),
        ("§ 1332(a)(1)", "1332 a 1"),
        ("café", "CAFE\N{COMBINING ACUTE ACCENT}"),
        ("the office of the law", "The o\N{LATIN SMALL LIGATURE FFI}ce of the law"),
        ("co\N{SOFT HYPHEN}operation", "cooperation"),
        ("for $75,000.", "for $ 75 000"),
    ],
)
def test_normalised_means_the_same_letters_and_digits(one: str, other: str) -> None:
    assert found(sample(one), sample(other)) == ("normalised", 1.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("He owes $1.50.", "He owes $150."),  # a decimal point is no mere punctuation
        ("He owes $150.", "He owes $160."),
        ("∀ → ∃", "∃ → ∀"),  # no letters at all: nothing normalised to compare
        (" ".join(numbered(19)), " ".join([*numbered(18), "other"])),  # too short to be near
    ],
)
def test_other_texts_are_no_overlap(one: str, other: str) -> None:
    assert found(sample(one), sample(other)) is None


def test_near_is_the_jaccard_similarity_of_word_pairs() -> None:
    words = numbered(51)  # 50 pairs
    changed = [*words[:20], "other", *words[21:]]  # 2 pairs each are the one's alone: 48 of 52
    assert found(sample(" ".join(words)), sample(" ".join(changed))) == ("near", 48 / 52)
    shortest = numbered(20)  # 19 pairs, of which 18 are left, of 20
    last_changed = sample(" ".join([*shortest[:19], "x"]))
    assert found(sample(" ".join(shortest)), last_changed) == ("near", 18 / 20)


def test_near_begins_at_the_threshold() -> None:
    words = numbered(49)  # 48 pairs; sharing s of them is s / (96 - s), which is 1/2 for 32
    half = [*words[:33], *numbered(16, start=100)]
    below = [*words[:32], *numbered(17, start=100)]
    assert found(sample(" ".join(words)), sample(" ".join(half))) == ("near", THRESHOLD)
    assert found(sample(" ".join(words)), sample(" ".join(below))) is None


def test_a_text_within_a_longer_one_is_quoted() -> None:
    document = numbered(200)
    quotation = sample(" ".join(document[90:115]))
    whole = sample(" ".join(document))
    assert found(whole, quotation) == found(quotation, whole) == ("quoted", 1.0)
    # Two documents hold a half each, and neither the whole.
    halves = [sample(" ".join(document[:100])), sample(" ".join(document[99:]))]
    across = sample(" ".join(document[85:115]))
    assert find_overlap(halves, [across]).pairs == ()
    assert find_overlap([across], halves).pairs == ()


def test_the_order_of_words_counts() -> None:
    words = numbered(60)
    assert found(sample(" ".join(words)), sample(" ".join(words[::-1]))) is None


def test_the_surest_kind_of_the_closest_training_sample_is_told() -> None:
    words = numbered(60)
    held_out = sample(" ".join(words))
    near = sample(" ".join([*words[:59], "x"]))
    further = sample(" ".join([*words[:55], *"vwxyz"]))
    same = [sample(str(held_out.prompt).upper(), answer) for answer in ("Yes", "No")]
    longer = sample(" ".join([*words, *numbered(300, start=100)]))
    result = find_overlap([longer, further, near], [held_out])
    assert result.pairs == (Overlap(near.id, held_out.id, "near", 58 / 60),)
    assert set(result.train_ids) == {longer.id, further.id, near.id}
    result = find_overlap([longer, further, near, *same], [held_out])
    first = min(row.id for row in same)
    assert result.pairs == (Overlap(first, held_out.id, "normalised", 1.0),)
    assert result.by_kind == {"normalised": 1}
    assert set(result.train_ids) == {row.id for row in (longer, further, near, *same)}


# ── what is no instance text ─────────────────────────────────────────────────────────────────────

CLAUSES = [" ".join(numbered(40, start=1000 * n)) for n in range(20)]


def test_demonstrations_of_a_legalbench_prompt_never_count() -> None:
    template = f"Q: {CLAUSES[1]}\nA: Yes\n\nQ: {CLAUSES[0]}\nA: No\n\nQ: {{{{text}}}}\nA:"
    train = legalbench("nda", template, index="0", text=CLAUSES[0], document_name="a.pdf")
    held_out = legalbench("nda", template, index="1", text=CLAUSES[1], document_name="a.pdf")
    assert CLAUSES[1] in str(train.prompt)
    assert found(train, held_out) is None
    again = legalbench("other", "{{text}}?", index="7", text=CLAUSES[0], document_name="b.pdf")
    assert found(train, again) == ("exact", 1.0)
    # The cells are found in a prompt of one's own, too, whatever surrounds them.
    own = sample(f"{' '.join(numbered(60, start=50_000))} {CLAUSES[0]} Answer with yes or no.")
    assert found(own, train) == ("quoted", 1.0)


def test_cells_of_a_legalbench_row_are_those_in_its_prompt() -> None:
    cells = {"index": "12", "question": "Is it?", "text": "It is 12."}
    row = legalbench("qa", "{{question}} {{text}}", **cells, note="in no prompt")
    assert instance_text(row) == "Is it?\nIt is 12."
    reworded = replace(row, prompt="Another prompt")
    assert instance_text(reworded) == "in no prompt\nIs it?\nIt is 12."
    assert instance_text(replace(row, facts={"in_demonstrations": False})) == "Is it? It is 12."


def turns(*contents: tuple[str, str]) -> Prompt:
    return tuple({"role": role, "content": content} for role, content in contents)


def test_of_a_conversation_the_user_counts() -> None:
    train = sample(turns(("system", CLAUSES[0]), ("user", CLAUSES[1])))
    assert found(train, sample(turns(("system", CLAUSES[0]), ("user", CLAUSES[2])))) is None
    same_user = sample(turns(("system", CLAUSES[3]), ("user", CLAUSES[1])))
    assert found(train, same_user) == ("exact", 1.0)
    assert found(train, sample(CLAUSES[1])) == ("exact", 1.0)
    answered = turns(("user", CLAUSES[4]), ("assistant", CLAUSES[1]), ("user", CLAUSES[5]))
    assert found(train, sample(answered)) is None


def test_what_nearly_all_prompts_of_a_task_share_is_its_template() -> None:
    head = " ".join(numbered(120, start=90_000))
    rows = [sample(f"{head} Question: {clause} Answer:", task="own") for clause in CLAUSES]
    assert find_overlap(rows[:10], rows[10:]) == Contamination(10, 10)
    changed = CLAUSES[3].split()
    changed[7] = "other"
    copy = sample(f"{head} Question: {' '.join(changed)} Answer:", task="own")
    result = find_overlap(rows[:10], [*rows[10:], copy])
    assert [(pair.train_id, pair.held_out_id) for pair in result.pairs] == [(rows[3].id, copy.id)]
    # Of different tasks, nothing tells the template from a text that was copied.
    apart = [replace(row, task=str(number)) for number, row in enumerate(rows)]
    assert find_overlap(apart[:10], apart[10:]).by_kind == {"near": 10}


def test_many_changed_copies_of_one_text_are_no_template() -> None:
    rng, text = random.Random(0), " ".join(numbered(60))
    other = numbered(500, start=100)
    copies = [sample(perturb(text, rng, other, "any"), str(n), task="own") for n in range(40)]
    result = find_overlap([sample(text, task="own")], copies)
    assert result.by_kind == {"near": 40}


# ── properties ───────────────────────────────────────────────────────────────────────────────────

TEXTS = st.lists(
    st.text("abcdefghijklmnopqrstuvwxyzäéß0123456789", min_size=1, max_size=9),
    min_size=1,
    max_size=40,
)
BLANKS = st.sampled_from([" ", "  ", "\n", "\t", "\N{NO-BREAK SPACE}", " \r\n "])
SIGNS = st.sampled_from([*".,;:!?-–—()[]\"'*", "“", "”", "‘", "’", "…", "\N{ZERO WIDTH SPACE}"])


@settings(max_examples=150, deadline=None)
@given(words=TEXTS, data=st.data(), others=st.lists(TEXTS, max_size=3))
def test_a_copy_in_other_type_is_always_found(
    words: list[str], data: st.DataObject, others: list[list[str]]
) -> None:
    """Case, white space, punctuation and quotes; no sign between digits, which may be a point."""

    def retype(word: str) -> str:
        place = data.draw(st.integers(0, len(word)))
        between_digits = word[:place][-1:].isdigit() and word[place:][:1].isdigit()
        sign = "" if between_digits else data.draw(st.just("") | SIGNS)
        changed = data.draw(st.sampled_from([str.upper, str.title, str.swapcase, str]))(word)
        return changed if len(changed) != len(word) else changed[:place] + sign + changed[place:]

    copy = "".join(retype(word) + data.draw(BLANKS) for word in words)
    if copy.split() == words:
        copy = f"«{copy}»"
    train = [sample(" ".join(words)), *(sample(" ".join(other)) for other in others)]
    result = find_overlap(train, [sample(copy)])
    assert [pair.held_out_id for pair in result.pairs] == [sample(copy).id]
    assert result.pairs[0].kind in ("exact", "normalised")
    assert train[0].id in result.train_ids


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_order_of_the_samples_does_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    train, held_out = mixed_samples()
    expected = find_overlap(train, held_out)
    assert expected.by_kind == {"facts": 3, "exact": 2, "normalised": 2, "near": 3, "quoted": 1}
    shuffled = find_overlap(rng.sample(train, len(train)), rng.sample(held_out, len(held_out)))
    assert shuffled == expected


@cache
def mixed_samples() -> tuple[list[Sample], list[Sample]]:
    """Some overlaps of each kind, several of them with more than one training sample."""
    families = generate_mixture(ALL_FAMILIES, 20, split="train", seed=3)
    held_out = [*generate_mixture(ALL_FAMILIES, 10, split="eval", seed=3), *families[:3]]
    train = [*families, *(sample(clause) for clause in CLAUSES)]
    train += [sample(clause, "No") for clause in CLAUSES[:4]]
    held_out += [sample(f"{clause} ", "Maybe") for clause in CLAUSES[:2]]
    held_out += [sample(clause.upper()) for clause in CLAUSES[2:4]]
    held_out += [sample(clause.replace("7 ", "7 and ")) for clause in CLAUSES[4:7]]
    held_out += [sample(" ".join(CLAUSES[8].split()[5:25]))]
    return train, held_out


# ── how often it errs ────────────────────────────────────────────────────────────────────────────


def perturb(text: str, rng: random.Random, vocabulary: Sequence[str], edit: str) -> str:
    """5 % of the words, rounded up: each left out, replaced, or changed for any other."""
    words = text.split()
    for _ in range(math.ceil(0.05 * len(words))):
        place = rng.randrange(len(words))
        match edit if edit != "any" else rng.choice(["delete", "replace", "swap"]):
            case "delete":
                del words[place]
            case "replace":
                words[place] = rng.choice(vocabulary)
            case "swap":
                other = rng.randrange(len(words))
                words[place], words[other] = words[other], words[place]
    return " ".join(words)


EDITS = ("delete", "replace", "swap", "any")


def shares_found(rows: Sequence[Sample], trials: int = 200) -> dict[str, float]:
    """Of so many copies an edit, made from rows of 50 words or more: how many are found in the
    text they were made from."""
    rng = random.Random(0)
    texts = {row.id: instance_text(row) for row in rows}
    vocabulary = sorted({word for text in texts.values() for word in text.split()})
    long = sorted(key for key, text in texts.items() if len(text.split()) >= 50)
    origins: dict[str, str] = {}
    copies: dict[str, list[Sample]] = {edit: [] for edit in EDITS}
    for edit, number in itertools.product(EDITS, range(trials)):
        origin = rng.choice(long)
        copy = sample(perturb(texts[origin], rng, vocabulary, edit), f"{edit} {number}")
        copies[edit].append(copy)
        origins[copy.id] = texts[origin]
    result = find_overlap(rows, itertools.chain(*copies.values()))
    hits = {p.held_out_id for p in result.pairs if texts[p.train_id] == origins[p.held_out_id]}
    return {edit: sum(copy.id in hits for copy in copies[edit]) / trials for edit in EDITS}


def test_copies_with_5_percent_of_their_words_changed_are_found() -> None:
    """Of texts of exactly 50 words, where a change weighs most."""
    rng = random.Random(1)
    rows = [sample(" ".join(rng.choices(numbered(500), k=50))) for _ in range(100)]
    shares = shares_found(rows)
    assert min(shares.values()) >= 0.95, shares


@pytest.fixture(scope="module")
def legal_rows(shared_data: Path) -> list[Sample]:
    return load_dataset_source(shared_data / "legalbench")


def test_changed_copies_of_legalbench_rows_are_found(legal_rows: list[Sample]) -> None:
    shares = shares_found(legal_rows)
    assert min(shares.values()) >= 0.95, shares


def test_every_planted_copy_of_a_legalbench_row_is_found(legal_rows: list[Sample]) -> None:
    planted = [sample(f"“{instance_text(row).upper()}”", row.id) for row in legal_rows]
    result = find_overlap(legal_rows, planted)
    assert result.by_kind == {"normalised": len({row.id for row in planted})}


def word_pairs(text: str) -> set[tuple[str, str]]:
    """Another reading of "word", for an oracle of its own: good enough for plain English."""
    kept = "".join(letter if letter.isalnum() else " " for letter in text.casefold())
    return set(itertools.pairwise(kept.split()))


def test_alarms_between_different_tasks_are_rare(legal_rows: list[Sample]) -> None:
    """Tasks in two halves, so that every pair is of different tasks. Equal texts are no false
    alarm: LegalBench asks several questions of one clause on purpose (144 of its 835 rows)."""
    tasks = sorted({row.task for row in legal_rows})
    alarms, rows = 0, 0
    for seed in range(2):
        chosen = set(random.Random(seed).sample(tasks, len(tasks) // 2))
        train = [row for row in legal_rows if row.task in chosen]
        held_out = [row for row in legal_rows if row.task not in chosen]
        result = find_overlap(train, held_out)
        alarms += result.by_kind.get("near", 0) + result.by_kind.get("quoted", 0)
        rows += len(held_out)
        same = {" ".join(instance_text(row).split()) for row in train}
        copies = [row for row in held_out if " ".join(instance_text(row).split()) in same]
        assert result.by_kind["exact"] == len(copies) > 0
    assert alarms / rows < 0.01


def test_no_near_copy_is_missed_and_none_made_up(legal_rows: list[Sample]) -> None:
    """Against all pairs, one by one."""
    train, held_out = legal_rows[::2], legal_rows[1::2]
    owners: dict[tuple[str, str], list[int]] = defaultdict(list)
    ours = [word_pairs(instance_text(row)) for row in train]
    for number, pairs in enumerate(ours):
        for pair in pairs:
            owners[pair].append(number)
    expected = set()
    for row in held_out:
        theirs = word_pairs(instance_text(row))
        common = Counter(number for pair in theirs for number in owners[pair])
        for number, count in common.items():
            similarity = count / (len(theirs) + len(ours[number]) - count)
            if min(len(theirs), len(ours[number])) >= 19 and similarity >= THRESHOLD:
                expected.add(row.id)
    result = find_overlap(train, held_out)
    long = {row.id for row in held_out if len(word_pairs(instance_text(row))) >= 19}
    found_long = {pair.held_out_id for pair in result.pairs if pair.kind != "quoted"} & long
    assert len(expected) > 50
    assert found_long == expected


# ── manifest, report and refusal ─────────────────────────────────────────────────────────────────


def test_without_a_split_nothing_is_checked() -> None:
    assert find_overlap([sample("a")], []) == find_overlap([], [sample("a")]) == NOT_CHECKED
    assert NOT_CHECKED.as_fields() == {"status": "not checked"}
    assert "not checked" in NOT_CHECKED.sentence()
    refuse_overlap(NOT_CHECKED, allowed=False)


def test_a_clean_comparison_says_what_was_compared() -> None:
    clean = find_overlap([sample("a"), sample("b")], [sample("c")])
    assert clean.as_fields() == {
        "status": "no overlap",
        "train": 2,
        "held_out": 1,
        "train_overlapping": 0,
        "held_out_overlapping": 0,
        "by_kind": {},
        "pairs": [],
    }
    assert clean.sentence() == "None of 1 held-out samples overlaps with 2 to train on."
    refuse_overlap(clean, allowed=False)


def test_an_overlap_is_refused_unless_allowed() -> None:
    train, held_out = sample("Is it a sale?", "Yes"), sample("is it a sale", "No")
    dirty = find_overlap([train, sample("b")], [held_out, sample("c"), sample("d")])
    fields = dirty.as_fields()
    assert json.loads(json.dumps(fields)) == fields
    assert fields == {
        "status": "overlap",
        "train": 2,
        "held_out": 3,
        "train_overlapping": 1,
        "held_out_overlapping": 1,
        "by_kind": {"normalised": 1},
        "pairs": [
            {
                "train_id": train.id,
                "held_out_id": held_out.id,
                "kind": "normalised",
                "similarity": 1.0,
            }
        ],
    }
    with pytest.raises(DataError) as refusal:
        refuse_overlap(dirty, allowed=False)
    for part in ("1 of 3 held-out", "1 normalised", train.id, held_out.id, "allow_contamination"):
        assert part in str(refusal.value)
    refuse_overlap(dirty, allowed=True)


def test_samples_with_one_id_count_once() -> None:
    once, again = sample("Is it a sale?"), sample("Is it a sale?")
    result = find_overlap([once, again], [once, again, sample("c")])
    assert (result.train, result.held_out, len(result.pairs)) == (1, 2, 1)


def test_a_manifest_counts_all_pairs_and_lists_some() -> None:
    train = [sample(f"Question {number}") for number in range(2 * PAIRS_SHOWN)]
    fields = find_overlap(train, train).as_fields()
    assert (fields["held_out_overlapping"], fields["by_kind"]) == (40, {"exact": 40})
    assert len(fields["pairs"]) == PAIRS_SHOWN
