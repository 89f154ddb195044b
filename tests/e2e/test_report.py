"""Evaluating for others to read, and comparing, command by command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from judicaita.training.data_curation import load_dataset_source, read_samples
from judicaita.training.metrics import read_events, read_rollouts
from judicaita.training.rewards import CompositeReward

Run = Callable[..., Any]
SMALL = (
    *("--device", "cpu", "--max-steps", "1", "--batch-size", "2", "--num-rollouts", "2"),
    *("--gradient-accumulation-steps", "1", "--generation-max-length", "16"),
)


def fine(outcome: Any) -> str:
    """What a command that succeeded printed as its result."""
    assert outcome.code == 0, outcome.err
    return str(outcome.out)


@pytest.fixture
def trained(judicaita: Run, quick_tiny: Path, workspace: Path) -> Path:
    """``final/`` of a short run of the embedded model."""
    fine(
        judicaita(
            *("train-grpo", "--base-model", "tiny", *SMALL, "--tasks", "1"),
            *("--max-samples", 8, "--eval-samples", 4, "--output-dir", "run"),
        )
    )
    return workspace / "run" / "final"


@pytest.fixture
def rows(workspace: Path) -> Path:
    """Test rows of two tasks of LegalBench, as a file."""
    path = workspace / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {
                    "prompt": f"{task} {n}?",
                    "reference": reference,
                    "task": task,
                    "source": f"legalbench:{task}/test",
                    "license": "CC-BY-4.0",
                }
            )
            + "\n"
            for task in ("hearsay", "proa")
            for n, reference in enumerate(("Yes", "No", "Yes"))
        )
    )
    return path


def test_a_checkpoint_s_report(judicaita: Run, trained: Path, rows: Path) -> None:
    shown = fine(
        judicaita("evaluate-model", trained, "--report", "a", "--output", "a.json")
    ).splitlines()
    assert shown[-2:] == ["Written to a.json", "Written to a/report.html"]
    report = json.loads(Path("a/report.json").read_text())
    figures = json.loads(Path("a.json").read_text())
    assert report["metrics"] == figures["metrics"]
    assert report["evaluated"]["base_model"] == "tiny"
    assert report["evaluated"]["step"] == 1
    assert report["legalbench"] is None
    held_out = read_samples(trained / "eval.jsonl")
    answers = pq.read_table("a/samples.parquet").to_pylist()
    assert [row["sample_id"] for row in answers] == [sample.id for sample in held_out]
    assert [row["completion"] for row in answers] == [r["response"] for r in figures["records"]]
    assert "Evaluation report" in Path("a/report.html").read_text()

    # Its own answers as a file get its own verdicts.
    answered = [json.dumps({"id": r["sample_id"], "generation": r["completion"]}) for r in answers]
    Path("answers.jsonl").write_text("\n".join(answered))
    again = ("--dataset", trained / "eval.jsonl", "--predictions", "answers.jsonl")
    fine(judicaita("evaluate-model", *again, "--report", "b"))
    told = judicaita("compare", "a", "b", "--json", "c/d.json", "--markdown", "c/d.md")
    assert fine(told).endswith("may be chance (+0.000, p = 1.000).\n")
    found = json.loads(Path("c/d.json").read_text())
    assert found["shares"]["accuracy"]["samples"] == len(held_out)
    assert found["warnings"] == []
    assert Path("c/d.md").read_text().startswith("# Comparison\n")

    done = judicaita("evaluate-model", trained, "--dataset", rows, "--report", "a")
    assert "LegalBench" in fine(done)
    report = json.loads(Path("a/report.json").read_text())
    assert report["legalbench"]["references"]["standings"]
    assert report["contamination"] == {"status": "not checked"}
    done = judicaita("compare", "a", "b")
    assert done.code == 2
    assert "no sample in common: all 6 of A are missing in B" in done.err


def test_answers_of_another_model(judicaita: Run, rows: Path) -> None:
    answers = Path("answers.jsonl")
    texts = ("Yes", "Conclusion: No", "<script>alert(1)</script>", "Yes", "Yes", "yes.")
    lines = [
        json.dumps({"task": sample.task, "generation": text})
        for sample, text in zip(read_samples(rows), texts, strict=True)
    ]
    answers.write_text("\n".join(lines))
    command = ("evaluate-model", "--dataset", rows, "--predictions", answers)
    shown = fine(judicaita(*command, "--report", "other"))
    # hearsay: recalls 1/2 and 0, or 1/2 and 1 with the conclusion read; proa: 1 and 0.
    overall = next(line for line in shown.splitlines() if "overall (2 tasks)" in line)
    assert "0.375 (" in overall
    assert "0.625 (" in overall
    page = Path("other/report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "gpt-4o-mini" in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "answers.jsonl holds no predictions"),
        ("{torn", "answers.jsonl, line 1: not valid JSON"),
        ('{"task": "sara_numeric", "generation": "x"}', "answers the task 'sara_numeric'"),
        ('{"id": "0", "generation": "x"}', "no sample has the id '0'"),
        ('{"task": "proa", "generation": "x"}', "0 generations for the 3 samples of hearsay"),
    ],
)
def test_answers_that_do_not_fit(judicaita: Run, rows: Path, content: str, message: str) -> None:
    Path("answers.jsonl").write_text(content)
    done = judicaita("evaluate-model", "--dataset", rows, "--predictions", "answers.jsonl")
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_flags_that_contradict_each_other(judicaita: Run, rows: Path) -> None:
    Path("taken").mkdir()
    Path("taken/notes.txt").write_text("mine")
    Path("empty.jsonl").write_text("")
    given = ("evaluate-model", "--predictions", "answers.jsonl")
    for arguments, message in (
        (given, "give it a --dataset"),
        ((*given, "--dataset", rows, "--device", "cpu"), "neither a checkpoint nor --device"),
        ((*given, "--dataset", rows, "--report", "taken"), "holds other files (notes.txt)"),
        ((*given, "--dataset", "empty.jsonl"), "empty.jsonl is empty"),
        (("compare", "taken", "taken"), "taken is no report"),
    ):
        done = judicaita(*arguments)
        assert done.code == 2, arguments
        assert message in done.err


def test_train_rows_stand_beside_no_public_models(
    judicaita: Run, shared_data: Path, workspace: Path
) -> None:
    folder = shared_data / "legalbench"
    samples = load_dataset_source(folder, tasks=["hearsay"])
    lines = [json.dumps({"id": sample.id, "generation": sample.reference}) for sample in samples]
    Path("answers.jsonl").write_text("\n".join(lines))
    command = ("evaluate-model", "--dataset", folder, "--tasks", "hearsay", "--report", "gold")
    fine(judicaita(*command, "--predictions", "answers.jsonl"))
    report = json.loads(Path("gold/report.json").read_text())
    assert report["legalbench"]["official"]["overall"]["score"]["value"] == 1
    assert report["legalbench"]["references"] is None
    assert "train rows of LegalBench" in Path("gold/report.md").read_text()


def test_accuracy_stands_beside_a_reward_that_does_not_tell(
    judicaita: Run, quick_tiny: Path, workspace: Path
) -> None:
    """Whoever rewards length alone sees what becomes of right answers."""
    Path("own.py").write_text(
        "def length(prompt, response, reference, **columns):\n"
        "    return len(response) / 1000 + columns['completion_tokens'] % 7 / 10\n"
    )
    fine(
        judicaita(
            *("train-grpo", "--base-model", "tiny", *SMALL, "--tasks", "1"),
            *("--max-samples", 8, "--eval-samples", 4, "--reward", "own.py:length"),
            *("--output-dir", "run"),
        )
    )
    [step] = [e for e in read_events(Path("run/events.jsonl")) if e["event"] == "step"]
    grader = CompositeReward()
    verdicts = [
        grader.compute(row["prompt"], row["completion"], row["reference"]).details["outcome"]
        for row in read_rollouts(Path("run/rollouts"))
    ]
    right = [verdict["details"]["correct"] for verdict in verdicts]
    assert step["accuracy"] == sum(right) / len(right)
