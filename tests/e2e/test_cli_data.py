"""``judicaita data inspect``, and training from a checkout with what it takes from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_a_checkout(judicaita: Run, shared_data: Path, workspace: Path) -> None:
    done = judicaita(
        *("data", "inspect", shared_data / "legalbench", "--tasks", "contract_qa,rule-recall"),
        *("--json", "report.json", "--show", 2),
    )
    assert done.code == 0, done.err
    assert done.err.startswith("Note: rule_qa has no train rows, and is left out.")
    words = " ".join(done.out.split())
    assert "contract_qa" in words
    assert "binary_yes_no" in words
    assert "licences: CC-BY-4.0" in words
    assert "0 repeat a question and its answer; 0 questions have several answers" in words
    assert words.count("Answer: ") >= 2
    report = json.loads((workspace / "report.json").read_text())
    assert report["per_task"]["contract_qa"]["samples"] == 8
    assert report["per_task"]["contract_qa"]["answers"] == {"Yes": 4, "No": 4}
    assert report["samples"] == sum(report["tasks"].values()) == sum(report["licenses"].values())
    assert report["filters"] == {"tasks": ["contract_qa", "rule-recall"]}
    assert report["split"] == "train"
    assert len(report["sha256"]) == 64


def test_a_file_with_repeated_rows(judicaita: Run, workspace: Path) -> None:
    rows = "question,answer\nWho?,Yes\nWho?,Yes\nWho?,No\n" + f"{'x' * 3000},No\n"
    (workspace / "a.csv").write_text(rows)
    done = judicaita(
        *("data", "inspect", "a.csv", "--columns", "prompt=question,reference=answer"),
        *("--json", "report.json", "--show", 4),
    )
    assert done.code == 0, done.err
    report = json.loads((workspace / "report.json").read_text())
    assert (report["duplicates"], report["contradictions"]) == (1, 1)
    lengths = {"shortest": 4, "median": 4, "longest": 3000}
    assert report["per_task"]["(no task)"]["prompt_characters"] == lengths
    assert "[… 1800 characters …]" in done.out
    assert done.out.count("Answer: ") == 4


def test_families(judicaita: Run) -> None:
    done = judicaita("data", "inspect", "hearsay", "--tasks", "easy", "--max-samples", 8)
    assert done.code == 0, done.err
    assert "8 samples of" in done.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("nowhere",), "nowhere is neither a generated family nor an existing path."),
        (("hearsey",), "Did you mean 'hearsay'?"),
        (("legalbench", "--tasks", "contract_q"), "The nearest are contract_qa"),
        (("legalbench", "--tasks", "rule_qa"), "Set legalbench_split=test_partition"),
        (("legalbench", "--licenses", "GPL"), "'GPL' is no licence of a LegalBench task."),
        (("hearsay", "--licenses", "MIT"), "only LegalBench (legalbench) has a use for it"),
        (("hearsay", "--split", "test"), "only LegalBench (legalbench) has a use for it"),
        (("a.csv", "--columns", "promt=q"), "'promt' is no column of samples."),
        (("a.csv",), "a.csv is neither a generated family nor an existing path."),
        (("hearsay", "--json", "."), ". is a folder, and the figures are one file."),
    ],
)
def test_what_cannot_be_inspected(
    judicaita: Run, arguments: tuple[str, ...], expected: str
) -> None:
    done = judicaita("data", "inspect", *arguments)
    assert done.code == 2
    assert expected in done.err
    assert done.err.count("\n") == 1


CLI = "import sys; from judicaita.cli import main; main(sys.argv[1:])"


def run_on_the_hub(workspace: Path, port: Path, *arguments: object) -> Any:
    known = {name: text for name, text in os.environ.items() if not name.startswith("GRPO_")}
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{port.read_text()}"}
    return subprocess.run(
        [sys.executable, "-c", CLI, *map(str, arguments)],
        env={**known, **address, "HF_HOME": str(workspace / "cache"), "OMP_NUM_THREADS": "1"},
        cwd=workspace,
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_a_run_learns_from_the_hub_as_the_default(
    hub: Path, gemma: Path, workspace: Path, tmp_path: Path
) -> None:
    """Data picked by its own settings, a manifest that says which, and LegalBench's test rows."""
    for split, count in (("train", 8), ("test", 12)):
        folder = hub / "main" / "data" / "contract_qa"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            f"{n}\tIs the {split} clause {n} void?\tClause {n}.\t{('Yes', 'No')[n % 2]}"
            for n in range(count)
        ]
        (folder / f"{split}.tsv").write_text(
            "\n".join(["index\tquestion\ttext\tanswer", *rows]) + "\n"
        )
    port = tmp_path / "port"
    done = run_on_the_hub(
        workspace,
        port,
        *("train-grpo", "--base-model", gemma, "--device", "cpu", "--tasks", "contract_qa"),
        *("--max-steps", 1, "--batch-size", 2, "--gradient-accumulation-steps", 1),
        *("--num-rollouts", 2, "--generation-max-length", 4, "--system-prompt", ""),
        *("--samples-per-task", 6, "--eval-dataset", "legalbench", "--eval-samples", 2),
        *("--output-dir", "run"),
    )
    assert done.returncode == 0, done.stderr
    data = json.loads((workspace / "run" / "manifest.json").read_text())["data"]
    assert data["train"]["filters"] == {"tasks": ["contract_qa"], "samples_per_task": 6}
    assert (data["train"]["split"], data["eval"]["split"]) == ("train", "test")
    assert (data["train"]["samples"], data["eval"]["samples"]) == (6, 12)
    assert data["train"]["licenses"] == {"CC-BY-4.0": 6}
    assert len(data["train"]["revision"]) == 40
    done = run_on_the_hub(
        workspace, port, "evaluate-model", "run/final", "--dataset", "legalbench", "--tasks",
        "contract_qa", "--output", "report.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = json.loads((workspace / "report.json").read_text())["records"]
    assert len(records) == 12
    done = run_on_the_hub(workspace, port, "data", "inspect", "legalbench", "--tasks", "hearsay")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: LegalBench's train rows of hearsay are")
