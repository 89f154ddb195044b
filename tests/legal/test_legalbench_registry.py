"""The registry of LegalBench: its facts, and choosing among them."""

import json
from collections import Counter
from pathlib import Path

import pytest

from judicaita.errors import DataError
from judicaita.legal.legalbench import (
    CATEGORIES,
    ISSUE_SPOTTING,
    TASKS,
    get_task,
    load_tasks,
    select,
)

METRICS = {
    "balanced_accuracy(exact match after normalize)": "balanced_accuracy",
    "micro-F1 (containment)": "micro_f1",
    "containment accuracy": "containment",
    "accuracy (stemmed exact match on any comma part)": "stemmed_part",
    "accuracy within 10%": "within_tenth",
    "manual": "manual",
}


def names(*wanted: str, **filters: object) -> list[str]:
    return [task.name for task in select(wanted, **filters)]  # type: ignore[arg-type]


def test_sizes() -> None:
    assert len(TASKS) == 162
    assert sum(task.train_rows for task in TASKS.values()) == 835
    assert sum(task.test_rows for task in TASKS.values()) == 90_394
    assert {name: len(tasks) for name, tasks in CATEGORIES.items()} == {
        "interpretation": 118,
        "issue-spotting": 17,
        "rhetorical-understanding": 10,
        "rule-application/rule-conclusion": 12,
        "rule-recall": 5,
        ISSUE_SPOTTING: 17,
    }
    assert Counter(task.metric for task in TASKS.values()) == {
        "balanced_accuracy": 155,
        "micro_f1": 3,
        "within_tenth": 1,
        "containment": 1,
        "stemmed_part": 1,
        "manual": 1,
    }
    assert Counter(task.license for task in TASKS.values())["CC-BY-4.0"] == 126
    assert sum(task.is_non_commercial for task in TASKS.values()) == 30


def test_a_task() -> None:
    task = get_task("contract_qa")
    assert (task.category, task.answer_type, task.labels) == (
        "interpretation",
        "binary_yes_no",
        ("Yes", "No"),
    )
    assert (task.prompt_columns, task.gold_column) == (("question", "text"), "answer")
    assert (task.train_rows, task.test_rows, task.license) == (8, 80, "CC-BY-4.0")
    assert len(get_task("unfair_tos").labels) == 9
    maud = get_task("maud_tail_period_length")
    assert (maud.labels[0], tuple(maud.options)) == ("A", maud.labels)
    assert len(set(TASKS.values())) == 162
    with pytest.raises(TypeError):
        maud.options["A"] = "x"  # type: ignore[index]
    with pytest.raises(DataError, match=r"'contractqa' is no LegalBench task\. The nearest"):
        get_task("contractqa")


def test_selection_by_name_pattern_and_category() -> None:
    assert names() == list(TASKS) == sorted(TASKS)
    assert names("scalr", "diversity_[12]", "scalr") == ["scalr", "diversity_1", "diversity_2"]
    spotting = names("issue_spotting")
    assert spotting == names("issue-spotting") == names("issue*")
    assert [name for name in spotting if not name.startswith("learned_hands_")] == [
        "corporate_lobbying"
    ]
    assert "rule_qa" in names("rule-recall")
    assert len(names("*")) == 162


def test_selection_by_license() -> None:
    assert len(names(commercial=True)) == 132
    assert len(names(licenses=["*NC*"])) == 30
    assert names("sara_*", "hearsay", licenses=["MIT"]) == ["sara_entailment", "sara_numeric"]
    assert names("issue_spotting", commercial=True) == ["corporate_lobbying"]


@pytest.mark.parametrize(
    ("wanted", "filters", "message"),
    [
        (["learned_hand_*"], {}, r"'learned_hand_\*' is no LegalBench task\. The nearest are lea"),
        (["interpretations"], {}, "nearest are interpretation"),
        ([], {"licenses": ["GPL"]}, r"'GPL' is no licence .*There are: CC-BY-4\.0"),
        (["learned_hands_*"], {"commercial": True}, "is left with commercial=True"),
        (
            ["hearsay"],
            {"licenses": ["MIT"], "commercial": True},
            "No task of hearsay is left with licenses=MIT and commercial=True",
        ),
    ],
)
def test_refusals(wanted: list[str], filters: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        names(*wanted, **filters)


def test_facts_are_those_of_the_sources(shared_data: Path) -> None:
    facts = json.loads((shared_data / "legalbench_tasks.json").read_text(encoding="utf-8"))
    assert {fact["task"] for fact in facts} == set(TASKS)
    for fact in facts:
        task = TASKS[fact["task"]]
        assert task.category == fact["reasoning_type"]
        assert task.answer_type == fact["answer_type"]
        assert task.metric == METRICS[fact["metric"]]
        assert list(task.labels) == (fact["labels"] or [])
        assert dict(task.options) == (fact["option_meanings"] or {})
        assert list(task.prompt_columns) == fact["base_prompt_fields"]
        assert (task.train_rows, task.test_rows) == (fact["train_rows"], fact["test_rows"])
        assert task.license == fact["license_id"]
        assert task.gold_column in fact["columns"]


def test_facts_are_those_of_the_checkout(shared_data: Path) -> None:
    samples = load_tasks(shared_data / "legalbench")
    rows = Counter(sample.task for sample in samples)
    assert len(rows) == 160
    assert rows == {task.name: task.train_rows for task in TASKS.values() if task.train_rows}
    for sample in samples:
        task = TASKS[sample.task]
        assert {*task.prompt_columns} <= sample.facts.keys()
        if task.labels:
            given = sample.reference.split(",") if task.answer_type == "multilabel" else None
            assert {*(given or [sample.reference])} <= {*task.labels}, task.name


def test_a_category_of_a_checkout_may_hold_tasks_without_train_rows(shared_data: Path) -> None:
    recall = load_tasks(shared_data / "legalbench", ["rule-recall"])
    assert len(recall) == 16
    assert {sample.task for sample in recall} == {*CATEGORIES["rule-recall"]} - {"rule_qa"}
