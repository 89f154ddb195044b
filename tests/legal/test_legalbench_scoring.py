"""Scores of LegalBench: upstream's with its defects, corrected ones, averages and references."""

import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judicaita.errors import DataError
from judicaita.legal.legalbench import (
    TASKS,
    Predictions,
    Task,
    check_scorable,
    compare,
    corrected_score,
    load_tasks,
    official_score,
    reference_scores,
    scoreboard,
)
from judicaita.legal.legalbench.references import Standing
from judicaita.legal.legalbench.scoring import official_outcomes, summarise

SSLA = "ssla_individual_defendants"
FOUR = "Kevin R. Johnson,Pradeep Sindhu,Robyn M. Denholm,Gene Zamiska"
PLAINTIFFS = "['Ruth C May', 'Donna E Ledgerwood']"
MERGER = "de facto merger,mere continuation"
DIVERSITY_1 = ("diversity_1", ["Yes", "No", "No", "Yes, because"], ["Yes", "Yes", "No", "No"])


def official(task: str, *pairs: tuple[str, str]) -> float:
    """Of (generation, gold answer) pairs."""
    return official_score(task, [said for said, _ in pairs], [gold for _, gold in pairs])


def corrected(task: str, *pairs: tuple[str, str]) -> float:
    return corrected_score(task, [said for said, _ in pairs], [gold for _, gold in pairs])


# --- upstream's ----------------------------------------------------------------------------------


def test_all_of_upstreams_cases(shared_data: Path) -> None:
    lines = (shared_data / "official_cases.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3_200
    wrong = []
    for case in map(json.loads, lines):
        arguments = (case["task"], case["generations"], case["answers"])
        values = official_score(*arguments), summarise(official_outcomes(*arguments))
        if max(abs(value - case["official"]) for value in values) > 1e-9:
            wrong.append((case, values))
    assert not wrong, f"{len(wrong)} of 3200 differ, the first one: {wrong[0]}"


@pytest.mark.parametrize(
    ("generation", "right"),
    [
        ("Yes", True),
        ("yes.", True),
        ("**Yes**", True),
        (" Yes\n", True),
        ("y-e-s", True),  # punctuation goes wherever it stands
        ("Yes, because", False),
        ("Answer: Yes", False),
        ("“Yes”", False),  # curly quotes survive
        ("Y es", False),
        ("", False),
    ],
)
def test_balanced_accuracy_compares_whole_strings(generation: str, right: bool) -> None:
    assert official("hearsay", (generation, "Yes")) == right


def test_balanced_accuracy_is_the_mean_recall_of_gold_classes() -> None:
    # Yes: 2 of 3; No: 0 of 1. What is no gold class adds no class of its own.
    pairs = [("Yes", "Yes"), ("yes", "Yes"), ("maybe", "Yes"), ("dunno", "No")]
    assert official("hearsay", *pairs) == pytest.approx((2 / 3 + 0) / 2)
    assert official("hearsay", ("No", "Yes"), ("No", "Yes"), ("Yes", "Yes")) == pytest.approx(1 / 3)
    maud = "maud_tail_period_length"  # A 1/2, B 1/1, C 0/1
    assert official(maud, ("A", "A"), ("B", "A"), ("b.", "B"), ("A", "C")) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("generation", "gold", "right"),
    [
        ("$62000", "$62000", True),
        ("$62,000", "$62000", True),
        ("$68200", "$62000", True),  # 68200 / 62000.1 − 1 = 0.09999…
        ("$68201", "$62000", False),  # 0.100015
        ("$55801", "$62000", True),
        ("$55799", "$62000", False),
        ("$1,234.00", "$1234", False),  # 123400
        ("In 2017, 62000", "$62000", False),  # the first digits count
        ("no idea", "$62000", False),
        ("$0", "$0", False),  # 0 / 0.1 − 1 = −1
        ("no idea", "$0", False),
        ("9" * 5_000, "$62000", False),
    ],
)
def test_sara_numeric(generation: str, gold: str, right: bool) -> None:
    assert official("sara_numeric", (generation, gold)) == right


def test_gold_against_gold() -> None:
    gold = ["$27181", "$62000", "$19039", "$0"]  # the train rows
    assert official_score("sara_numeric", gold, gold) == 0.75
    assert corrected_score("sara_numeric", gold, gold) == 1
    assert official(SSLA, (FOUR, FOUR)) == pytest.approx(4 / 7)  # 4 hits, 3 + 2 + 1 + 0 extra
    assert corrected(SSLA, (FOUR, FOUR)) == 1


def test_citation_prediction_open() -> None:
    gold = "Phillips v. AWH Corp."
    pairs = [
        (gold, gold),
        ("See *phillips v. awh corp*, 415 F.3d 1303", gold),
        ("not Phillips v. AWH Corp.", gold),  # containment knows no denial
        ("Phillips v AWH", gold),
        ("Phillips  v. AWH Corp.", gold),  # inner white space survives
    ]
    assert official("citation_prediction_open", *pairs) == pytest.approx(3 / 5)


def test_definition_extraction() -> None:
    pairs = [
        ("statutes", "statute"),  # both stem to statut
        ("land, Traffic", "traffic,vehicle"),
        ("hawkers and peddler", "hawkers and peddlers"),  # the end of the whole string is stemmed
        ("hawker and peddlers", "hawkers and peddlers"),  # and its inside is not
        ("the statute", "statute"),
    ]
    assert official("definition_extraction", *pairs) == pytest.approx(3 / 5)


def test_ssla() -> None:
    # Gold a takes "x a"; then b finds none, and "c" is left over after each of the two.
    assert official(SSLA, ("x a,c", "a,b")) == pytest.approx(2 / (2 + 2 + 1))
    # The first part that contains it is taken, although a later one is equal: "ab" has none left.
    assert official(SSLA, ("ab,a", "a,ab")) == pytest.approx(2 / (2 + 1 + 1 + 1))
    # Micro-averaged: (4 hits, 6 extra) and (0 hits, 1 extra, 1 missed).
    assert official(SSLA, (FOUR, FOUR), ("", "Not named")) == pytest.approx(8 / (8 + 7 + 1))
    assert official(SSLA, ("nobody", "Not named")) == 0
    assert official("ssla_plaintiff", (PLAINTIFFS, PLAINTIFFS)) == pytest.approx(4 / 5)


def test_successor_liability_compares_whole_strings() -> None:
    assert official("successor_liability", (MERGER, MERGER)) == 1
    assert official("successor_liability", ("mere continuation,de facto merger", MERGER)) == 0
    assert official("successor_liability", ("de facto merger, mere continuation", MERGER)) == 0
    assert official("successor_liability", (MERGER, MERGER), ("x", "express agreement")) == 0.5


@pytest.mark.parametrize("score", [official_score, corrected_score])
def test_refusals(score: Callable[..., float]) -> None:
    for task, generations, answers, message in [
        ("rule_qa", ["x"], ["x"], "rule_qa is judged by hand upstream"),
        ("hearsy", ["x"], ["x"], r"'hearsy' is no LegalBench task\. The nearest are hearsay"),
        ("issue_spotting", ["x"], ["x"], "'issue_spotting' is no LegalBench task"),
        ("hearsay", ["x"], ["x", "y"], "hearsay: 1 generations for 2 gold answers"),
        ("hearsay", [], [], "hearsay: an empty set has no score"),
    ]:
        with pytest.raises(DataError, match=message):
            score(task, generations, answers)


def test_what_cannot_be_scored_is_known_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    check_scorable(set(TASKS) - {"rule_qa"})
    with pytest.raises(DataError, match="judged by hand"):
        check_scorable(["hearsay", "rule_qa"])
    monkeypatch.setattr("judicaita.legal.legalbench.scoring.find_spec", lambda name: None)
    check_scorable(set(TASKS) - {"rule_qa", "definition_extraction"})
    with pytest.raises(DataError, match=r"Porter stemmer, which is not installed: pip install"):
        check_scorable(["definition_extraction"])


# --- corrected -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "generation", "gold", "right"),
    [
        ("hearsay", "Step 1: Out of court.\nConclusion: Yes, because", "Yes", True),
        ("hearsay", "“Yes”", "Yes", True),
        ("hearsay", "The answer is No.", "No", True),
        ("hearsay", "Step 1: Yes", "Yes", False),  # steps without a conclusion
        ("hearsay", "Yes or No", "Yes", False),
        ("hearsay", "", "Yes", False),
        ("abercrombie", "not generic", "generic", False),
        ("maud_tail_period_length", "Option B: 12 months", "B", True),
        ("sara_numeric", "Conclusion: $1,234.00", "$1234", True),
        ("sara_numeric", "Step 1: $50.\nConclusion: She owes $62,000 in 2017.", "$62000", True),
        ("sara_numeric", "In 2017, 62000", "$62000", False),  # two bare numbers
        ("sara_numeric", "$62000 or $0", "$62000", False),
        ("sara_numeric", "62000 dollars, 15% of it", "$62000", True),
        ("sara_numeric", "$0", "$0", True),
        ("sara_numeric", "$1", "$0", False),
        ("sara_numeric", "-$62000", "$62000", False),
        ("sara_numeric", "nothing", "$0", False),
        ("sara_numeric", "$68,199", "$62000", True),
        ("sara_numeric", "$68,201", "$62000", False),
        ("citation_prediction_open", "Step 1: In re Phillips", "In re Phillips", False),
        ("citation_prediction_open", "Conclusion: In re Phillips’ Will", "Phillips' Will", True),
        ("definition_extraction", "Conclusion: The defined term is “Traffic”.", "traffic", True),
        ("definition_extraction", "Conclusion: statutes", "statute,law", True),
        ("definition_extraction", "Step 1: statute", "statute", False),
        ("ssla_company_defendants", "Juniper Networks, Inc.", "Juniper Networks, Inc.", True),
        ("ssla_company_defendants", "Inc.", "Juniper Networks, Inc.", False),
        ("ssla_plaintiff", "Donna E Ledgerwood\nRuth C May", PLAINTIFFS, True),
        ("ssla_plaintiff", f"Conclusion: “{PLAINTIFFS}”", PLAINTIFFS, True),
        ("ssla_plaintiff", "Ryan", "['Ryan Kelly']", False),
        (SSLA, "Marian", "Ian", False),  # not in whole words
        ("successor_liability", "mere continuation and de facto merger", MERGER, True),
        ("successor_liability", "['mere continuation', 'de facto merger']", MERGER, True),
        ("successor_liability", "Step 1: de facto merger, mere continuation", MERGER, False),
    ],
)
def test_corrected(task: str, generation: str, gold: str, right: bool) -> None:
    assert corrected(task, (generation, gold)) == right


def test_corrected_f1() -> None:
    # One of two named and one stranger: 1 hit, 1 extra, 1 missed, counted once.
    assert corrected(SSLA, ("Ann Lee, Bob Ray", "Ann Lee,Carl Orr")) == pytest.approx(0.5)
    # An equal name is matched before one that contains it.
    assert corrected(SSLA, ("Ann Lee Jones,Ann Lee", "Ann Lee,Ann Lee Jones")) == 1
    assert corrected(SSLA, ("Mr Ann Lee", "Ann Lee"), ("", "Bob Ray")) == pytest.approx(2 / 3)
    assert corrected(
        "successor_liability", ("mere continuation, asset sale", "mere continuation")
    ) == pytest.approx(2 / 3)
    assert corrected("successor_liability", ("", "mere continuation")) == 0


def test_corrected_gold_that_cannot_be_read() -> None:
    for task, gold, message in [
        ("hearsay", " ", "hearsay, sample 1: its gold answer is empty"),
        ("sara_numeric", "much", "the gold answer 'much' is no amount"),
        ("successor_liability", "asset sale", "'asset sale' is no list of express agreement"),
    ]:
        with pytest.raises(DataError, match=message):
            corrected(task, ("x", gold))


@pytest.mark.parametrize(
    "task",
    [task for task in TASKS.values() if task.metric == "balanced_accuracy"],
    ids=lambda task: task.name,
)
def test_every_label_is_told_from_every_other(task: Task) -> None:
    """Of one task: each label commits to itself alone, plainly and in a sentence."""
    for label in task.labels:
        for form in (label, f"**{label}**.", f"Step 1: x.\nConclusion: The answer is {label}."):
            rights = [corrected(task.name, (form, gold)) for gold in task.labels]
            assert rights == [gold == label for gold in task.labels], form


def test_gold_answers_of_the_public_rows(shared_data: Path) -> None:
    gold: dict[str, list[str]] = {}
    for sample in load_tasks(shared_data / "legalbench"):
        gold.setdefault(sample.task, []).append(sample.reference)
    assert {task: corrected_score(task, it, it) for task, it in gold.items()} == dict.fromkeys(
        gold, 1.0
    )
    below = {task for task, it in gold.items() if official_score(task, it, it) < 1}
    assert below == {task for task in gold if task.startswith("ssla_")} | {"sara_numeric"}


# --- properties ----------------------------------------------------------------------------------

texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["Yes", "no.", "$0", "$1,234.00", "A", FOUR, PLAINTIFFS, "Conclusion: Yes"]),
)
golds = {
    "hearsay": ["Yes", "No"],
    "maud_tail_period_length": ["A", "B", "E"],
    "sara_numeric": ["$0", "$62000"],
    "citation_prediction_open": ["Phillips v. AWH Corp."],
    "definition_extraction": ["statute", "traffic,vehicle"],
    SSLA: [FOUR, "Not named"],
    "ssla_plaintiff": [PLAINTIFFS, "['Not named']"],
    "successor_liability": ["express agreement", MERGER],
}


@given(st.data())
def test_the_order_of_samples_leaves_the_score(data: st.DataObject) -> None:
    task = data.draw(st.sampled_from(sorted(golds)))
    pair = st.tuples(texts, st.sampled_from(golds[task]))
    pairs = data.draw(st.lists(pair, min_size=1, max_size=8))
    shuffled = data.draw(st.permutations(pairs))
    for score in (official, corrected):
        value = score(task, *pairs)
        assert 0 <= value <= 1
        assert score(task, *shuffled) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("task", sorted(golds))
def test_speed(task: str) -> None:
    draw = random.Random(0)
    answers = [draw.choice(golds[task]) for _ in range(1_000)]
    generations = [f"{draw.choice(golds[task])}, {number}" for number in range(1_000)]
    official_score(task, answers, answers)  # imports
    for score in (official_score, corrected_score):
        start = time.process_time()
        score(task, generations, answers)
        assert time.process_time() - start < 1, f"{score.__name__} of {task}"


def test_long_texts_take_no_longer_than_their_length() -> None:
    long = ["[" + " " * 50_000, "['a'," * 10_000, "1," * 25_000, "$" * 50_000, "1 " * 25_000]
    start = time.process_time()
    for task in ("sara_numeric", SSLA, "successor_liability", "definition_extraction"):
        corrected(task, *((text, golds[task][0]) for text in long))
    assert time.process_time() - start < 20


# --- averages ------------------------------------------------------------------------------------


def test_macro_averages() -> None:
    board = scoreboard(
        [
            Predictions(*DIVERSITY_1),  # Yes 1/2, No 1/2
            Predictions("hearsay", ["Yes"], ["Yes"]),
            Predictions("contract_qa", ["No", "No"], ["No", "Yes"]),
        ]
    )
    assert [(row.task, row.metric, row.samples, row.score.value) for row in board.tasks] == [
        ("diversity_1", "balanced_accuracy", 4, 0.5),
        ("hearsay", "balanced_accuracy", 1, 1.0),
        ("contract_qa", "balanced_accuracy", 2, 0.5),
    ]
    assert [(row.name, row.tasks, row.samples, row.score.value) for row in board.categories] == [
        ("interpretation", 1, 2, 0.5),
        ("rule-application/rule-conclusion", 2, 5, 0.75),
    ]
    overall = board.overall
    assert (overall.name, overall.tasks, overall.samples) == ("overall", 3, 7)
    assert overall.score.value == pytest.approx(2 / 3)
    assert (board.value("hearsay"), board.value("scalr")) == (1.0, None)


def test_corrected_scoreboard() -> None:
    given = [Predictions(*DIVERSITY_1)]
    board = scoreboard(given, scoring="corrected")
    assert board.tasks[0].score.value == 0.5  # "Yes, because" is a Yes, and the gold is No
    label = [Predictions("successor_liability", ["mere continuation"], ["mere continuation"])]
    assert scoreboard(label, scoring="corrected").tasks[0].metric == "micro_f1_of_labels"


def test_intervals_are_those_of_plain_resampling() -> None:
    """Against drawing sample indices and scoring each draw anew."""
    draw = random.Random(3)
    golden = draw.choices(["Yes", "No"], [3, 1], k=60)
    said = [gold if draw.random() < 0.7 else "dunno" for gold in golden]
    names = [f"{'a b' if draw.random() < 0.6 else 'x'},{'c' * draw.randint(1, 2)}" for _ in golden]
    for task, generations, answers in [("hearsay", said, golden), (SSLA, names, ["a b,c"] * 60)]:
        row = scoreboard([Predictions(task, generations, answers)], resamples=4_000).tasks[0]
        outcomes = official_outcomes(task, generations, answers)
        plain = [summarise(draw.choices(outcomes, k=60)) for _ in range(4_000)]
        low, high = np.quantile(plain, [0.025, 0.975])
        assert row.score.low == pytest.approx(low, abs=0.015)
        assert row.score.high == pytest.approx(high, abs=0.015)
        assert row.score.low < row.score.value < row.score.high


def test_the_interval_of_a_mean_is_narrower() -> None:
    half = [
        Predictions(f"diversity_{number}", ["Yes", "x"] * 20, ["Yes"] * 40)
        for number in range(1, 5)
    ]
    board = scoreboard(half, resamples=4_000)
    # σ of a share of 40 at 1/2 is 0.0791, of the mean of four such 0.0395; times 1.96.
    width = board.tasks[0].score.high - board.tasks[0].score.low
    assert width / 2 == pytest.approx(1.96 * math.sqrt(0.25 / 40), rel=0.15)
    mean = board.overall.score
    assert (mean.high - mean.low) / 2 == pytest.approx(1.96 * math.sqrt(0.25 / 160), rel=0.1)


def test_intervals_repeat_and_know_neither_order_nor_company() -> None:
    task, generations, answers = DIVERSITY_1
    one = scoreboard([Predictions(task, generations, answers)], seed=7)
    assert one == scoreboard([Predictions(task, generations, answers)], seed=7)
    turned = Predictions(task, generations[::-1], answers[::-1])
    more = scoreboard([Predictions("hearsay", ["x"], ["Yes"]), turned], seed=7)
    assert more.tasks[1] == one.tasks[0]
    # An outcome that all samples share cannot vary.
    assert (more.tasks[0].score.low, more.tasks[0].score.high) == (0, 0)


def test_scoreboards_that_cannot_be() -> None:
    given = Predictions(*DIVERSITY_1)
    cases: list[tuple[list[Predictions], dict[str, Any], str]] = [
        ([], {}, "No predictions"),
        ([given, given], {}, "diversity_1 is given twice"),
        ([given], {"confidence": 1.0}, r"confidence=1\.0 and resamples=1000 give no interval"),
        ([given], {"resamples": 0}, "resamples=0 give no interval"),
        ([Predictions("rule_qa", ["x"], ["x"])], {}, "judged by hand"),
    ]
    for sets, settings, message in cases:
        with pytest.raises(DataError, match=message):
            scoreboard(sets, **settings)


# --- references ----------------------------------------------------------------------------------


def test_reference_scores_are_those_of_the_source(shared_data: Path) -> None:
    source = json.loads(
        (shared_data / "legalbench_reference_scores.json").read_text(encoding="utf-8")
    )
    ours = {
        model: {task: (score.value, score.samples) for task, score in scores.items()}
        for model, scores in reference_scores().items()
    }
    assert ours == {
        model: {task: (it["value"], it["n"]) for task, it in scores.items() if it["n"] is not None}
        for model, scores in source.items()
    }
    without_samples = [
        it for scores in source.values() for it in scores.values() if it["n"] is None
    ]
    assert len(without_samples) == 28
    assert {it["value"] for it in without_samples} == {0.0}


def test_a_run_beside_public_models() -> None:
    board = scoreboard(
        [
            Predictions("hearsay", ["Yes"], ["Yes"]),
            Predictions("contract_qa", ["No", "No"], ["No", "Yes"]),
        ]
    )
    everyone = compare(board)
    assert len(everyone.models) == 19
    assert [row.task for row in everyone.rows] == ["hearsay", "contract_qa"]
    scores = reference_scores()
    few = compare(board, ["o3", "gpt-4o-*"])
    assert few.models == ("o3", "gpt-4o-mini")
    assert [row.run for row in few.rows] == [1.0, 0.5]
    # o3 was not run on contract_qa, so it stands beside the run's hearsay alone.
    assert few.rows[0].models[0] == scores["o3"]["hearsay"].value
    assert few.rows[1].models[0] is None
    standings = {it.model: it for it in few.standings}
    assert standings["o3"] == Standing("o3", 1, 1.0, scores["o3"]["hearsay"].value)
    mini = scores["gpt-4o-mini"]
    mean = (mini["hearsay"].value + mini["contract_qa"].value) / 2
    assert standings["gpt-4o-mini"] == Standing("gpt-4o-mini", 2, 0.75, mean)
    ranks = [it.reference for it in everyone.standings]
    assert ranks == sorted(ranks, reverse=True)
    with pytest.raises(DataError, match="'gpt-9' is no reference model"):
        compare(board, ["gpt-9"])
    with pytest.raises(DataError, match="No reference model has a score on any task"):
        compare(scoreboard([Predictions("contract_qa", ["No"], ["No"])]), ["o3"])
