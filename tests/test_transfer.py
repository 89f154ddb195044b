"""The transfer table of benchmarks/: its questions, and its arithmetic by hand."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from judicaita.legal.legalbench import load_tasks
from judicaita.legal.tasks import FAMILIES
from judicaita.training.evaluation import EvaluationHarness, EvaluationRecord
from judicaita.types import Sample

REASONED = "Step 1: in Ohio, so abroad.\nStep 2: one hour, so fair.\nConclusion: "


@pytest.fixture(scope="module")
def transfer() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "transfer.py"
    spec = importlib.util.spec_from_file_location("transfer", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["transfer"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_prompts_are_the_rows_alone(transfer: ModuleType, shared_data: Path) -> None:
    rows = load_tasks(shared_data / "legalbench", list(transfer.TASKS))
    asked = transfer.plain(rows)
    assert {sample.task for sample in asked} == set(transfer.TASKS)
    assert {task.family for task in transfer.TASKS.values()} <= set(FAMILIES)
    for row, sample in zip(rows, asked, strict=True):
        own = row.facts.get("text") or row.facts["contract"]
        assert sample.prompt.startswith(own)
        assert sample.prompt.endswith("?")
        assert len(sample.prompt) < len(own) + 250
        assert sample.reference == row.reference
        assert sample.reference in sample.facts["labels"]


def answered(task: str, rows: list[tuple[str, str]]) -> list[EvaluationRecord]:
    """Records of (reference, response)."""
    facts = {"labels": ["Yes", "No"], "answer_type": "yes_no"}
    samples = [Sample(prompt="?", reference=gold, task=task, facts=facts) for gold, _ in rows]
    texts = [text for _, text in rows]
    count = len(rows)
    report = EvaluationHarness(text_overlap=False).score(
        samples, texts, [9] * count, ["eos"] * count
    )
    return list(report.records)


def test_the_table_by_hand(transfer: ModuleType) -> None:
    hearsay = [("Yes", "Yes"), ("Yes", REASONED + "No"), ("No", REASONED + "No")]
    diversity = [("No", REASONED + "No")]
    records: Mapping[str, list[EvaluationRecord]] = {
        **{name: [] for name in transfer.TASKS},
        "hearsay": answered("hearsay", hearsay),
        "diversity_1": answered("diversity_1", diversity),
    }
    tasks = ["hearsay"] * 4 + ["diversity_1"] + [t for t in transfer.TASKS if t != "hearsay"]
    samples = [Sample(prompt="?", reference="No", task=task) for task in tasks]
    rows = {row.task: row for row in transfer.tabulate(samples, records)}

    row = rows["hearsay"]  # 3 of 4 rows fit; 2 right, 2 golds Yes, 2 reasoned
    assert (row.rows, row.left_out) == (4, 1)
    assert (row.accuracy, row.majority, row.reasoned) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    # Wilson, n = 3, p = 2/3, z² = 3.8415: centre (.6667 + .6402) / 2.2805, spread .8334 / 2.2805.
    assert (row.accuracy_low, row.accuracy_high) == pytest.approx((0.2077, 0.9385), abs=5e-4)
    assert rows["contract_qa"].accuracy is None
    assert (rows["contract_qa"].rows, rows["contract_qa"].left_out) == (1, 1)
    row = rows["all"]  # 3 of 4 right; the commonest of each task: 2 + 1 of 4; reasoned 2 + 1
    assert (row.accuracy, row.majority, row.reasoned) == pytest.approx((3 / 4, 3 / 4, 3 / 4))
    assert (row.rows, row.left_out) == (len(samples), len(samples) - 4)
