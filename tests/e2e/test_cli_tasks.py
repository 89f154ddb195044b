"""``judicaita tasks`` as a person meets it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from judicaita.legal.tasks import FAMILIES, generate
from judicaita.training.data_curation import read_samples

Run = Callable[..., Any]

QUESTION = (
    "Ava spoke at lunch. Ava is the other side. Ava's words go to prove the debt. "
    "Ava told it weeks later. Does the hearsay rule bar Ava's words?"
)
SOUND = (
    "Step 1: at lunch, so out of court.\nStep 2: the other side, so an opponent.\n"
    "Step 3: to prove the debt, so for its truth.\nStep 4: weeks later, so no exception.\n"
    "Conclusion: No"
)
BROKEN = (
    "Step 1: at lunch, so out of court.\nStep 2: the other side, so no opponent.\n"
    "Step 3: lovely weather.\nStep 4: At lunch, so out of court.\nConclusion: No"
)


# ── list ─────────────────────────────────────────────────────────────────────────────────────────


def test_list_names_every_family_and_its_law(judicaita: Run) -> None:
    shown = judicaita("tasks", "list")
    assert shown.code == 0
    words = " ".join(shown.out.replace("│", " ").split())
    for family in FAMILIES.values():
        assert family.name in words
        assert " ".join(map(str, family.hard_levels)) in words
    assert "US federal, as of" in words
    assert "Fed. R. Evid." in words
    assert all(len(line) <= 80 for line in shown.out.splitlines())


# ── sample ───────────────────────────────────────────────────────────────────────────────────────


def test_a_sample_with_solution_answer_and_law(judicaita: Run) -> None:
    shown = judicaita("tasks", "sample", "negligence", "--level", 4, "--seed", 7)
    [sample] = generate("negligence", 1, split="train", seed=7, levels=[4])
    assert shown.out == (
        f"negligence_4  {sample.id}\n\n{sample.prompt}\n\n{sample.trace}\n\n"
        f"Answer: {sample.reference}\nLaw: {'; '.join(sample.authorities)} "
        f"(US common law, as of 2025-01-01)\n"
    )


def test_samples_as_a_data_set(judicaita: Run, workspace: Path) -> None:
    shown = judicaita(
        *("tasks", "sample", "hearsay", "--count", 7, "--split", "eval", "--level", "hard"),
        "--json",
    )
    path = workspace / "questions.jsonl"
    path.write_text(shown.out, encoding="utf-8")
    assert read_samples(path) == generate("hearsay", 7, split="eval", seed=0, levels=[3, 4, 5, 6])


def test_samples_of_several_families(judicaita: Run) -> None:
    shown = judicaita("tasks", "sample", "hearsay,negligence", "--count", 4)
    heads = [line.split("  ")[0] for line in shown.out.splitlines() if line.startswith(("h", "n"))]
    assert heads == ["hearsay_1", "negligence_1", "hearsay_2", "negligence_2"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("hearsai",), "Error: 'hearsai' is no task family. The nearest is hearsay. There are: "),
        (("hearsay", "--level", "9"), "Error: '9' is no level of hearsay. There are: hearsay_1, "),
        (("hearsay", "--count", "0"), "Error: Invalid value for '--count': 0 is not in the range"),
        (("hearsay", "--split", "test"), "Error: Invalid value for '--split': 'test' is not one"),
    ],
)
def test_what_no_sample_can_be_drawn_of(
    judicaita: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    shown = judicaita("tasks", "sample", *arguments)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.startswith(sentence)


# ── check ────────────────────────────────────────────────────────────────────────────────────────


def test_a_sound_answer(judicaita: Run) -> None:
    shown = judicaita("tasks", "check", "--question", QUESTION, "--answer", SOUND)
    assert (shown.code, shown.err) == (0, "")
    head, *lines = shown.out.splitlines()
    assert head.startswith("hearsay, level 4: Fed. R. Evid. 801(c); ")
    assert lines == [
        "",
        "Step 1   true          at lunch, so out of court.",
        "Step 2   true          the other side, so an opponent.",
        "Step 3   true          to prove the debt, so for its truth.",
        "Step 4   true          weeks later, so no exception.",
        "Conclusion: No",
        "",
        "true         yes  there are steps, each can be checked, and none is false",
        "complete     yes  4 of 4 points are decided",
        "well-formed  yes  numbered steps, then one conclusion, and nothing else",
        "right        yes  under the rule the answer is No",
        "sound        yes  all of these",
    ]


def test_a_broken_answer_is_told_step_by_step(judicaita: Run) -> None:
    shown = judicaita("tasks", "check", "hearsay", "--question", QUESTION, "--answer", BROKEN)
    assert shown.code == 1
    assert shown.out.splitlines()[2:] == [
        "Step 1   true          at lunch, so out of court.",
        "Step 2   false         the other side, so no opponent.",
        "                       the facts told amount to something else",
        "Step 3   not checkable lovely weather.",
        "                       it states no finding of the rule",
        "Step 4   not checkable At lunch, so out of court.",
        "                       it repeats step 1",
        "Conclusion: No",
        "",
        "true         no   there are steps, each can be checked, and none is false",
        "complete     no   1 of 4 points are decided; open: not_opponent, for_truth, no_exception",
        "well-formed  no   numbered steps, then one conclusion, and nothing else",
        "right        yes  under the rule the answer is No",
        "sound        no   all of these",
    ]


def test_as_json(judicaita: Run) -> None:
    shown = judicaita("tasks", "check", "--question", QUESTION, "--answer", BROKEN, "--json")
    assert shown.code == 1
    told = json.loads(shown.out)
    assert (told["family"], told["level"], told["answer"]) == ("hearsay", 4, "No")
    assert [step["status"] for step in told["steps"]] == [
        *("true", "false", "not checkable", "not checkable")
    ]
    assert told["steps"][1] == {
        "number": 2,
        "text": "the other side, so no opponent.",
        "status": "false",
        "factor": "not_opponent",
        "reason": "the facts told amount to something else",
    }
    assert told["required"] == ["out_of_court", "not_opponent", "for_truth", "no_exception"]
    assert told["covered"] == ["out_of_court"]
    judged = {name: value for name, value in told.items() if name.startswith("is_")}
    assert judged == {
        **{"is_true": False, "is_complete": False, "is_well_formed": False},
        **{"is_right": True, "is_sound": False},
    }


def test_files_and_stdin(judicaita: Run, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "question.txt").write_text(QUESTION.replace(". ", ".\n") + "\n")
    (workspace / "answer.txt").write_text(SOUND)
    ask = ("tasks", "check", "--question-file", "question.txt")
    assert judicaita(*ask, "--answer-file", "answer.txt").code == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO(BROKEN))
    assert judicaita(*ask, "--answer-file", "-").code == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_every_familys_own_solutions_are_sound(judicaita: Run, name: str) -> None:
    for sample in generate(name, len(FAMILIES[name].levels), split="eval", seed=2):
        shown = judicaita("tasks", "check", "--question", sample.prompt, "--answer", sample.trace)
        assert shown.code == 0, shown.out + shown.err
        assert shown.out.startswith(f"{name}, level ")


def test_control_characters_of_an_answer_do_not_reach_the_screen(judicaita: Run) -> None:
    shown = judicaita("tasks", "check", "--question", QUESTION, "--answer", "Step 1: \x1b[31mred")
    assert shown.code == 1
    assert "\x1b" not in shown.out
    assert "red" in shown.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--question", "Who?", "--answer", "x"), "'Who?' is worded as no family's question. Name"),
        (
            ("negligence", "--question", QUESTION, "--answer", "x"),
            "is not worded as a negligence question: expected sentences like ",
        ),
        (("nope", "--question", QUESTION, "--answer", "x"), "'nope' is no task family."),
        (("--question", QUESTION), "give the answer by --answer or by --answer-file, one of the"),
        (("--answer", "x"), "give the question by --question or by --question-file, one of"),
        (
            ("--question", QUESTION, "--question-file", "q", "--answer", "x"),
            "give the question by --question or by --question-file, one of the two.",
        ),
        (("--question", QUESTION, "--answer", " "), "the answer is empty, so there is nothing to"),
        (("--question-file", "-", "--answer-file", "-"), "cannot both come from stdin."),
        (("--question", QUESTION, "--answer-file", "missing.txt"), "missing.txt: No such file or"),
        (("--question", QUESTION, "--answer-file", "latin.txt"), "latin.txt is not UTF-8 text"),
        (
            ("hearsay", "--question", QUESTION.replace("lunch", "dawn"), "--answer", "x"),
            "is not worded as a hearsay question",
        ),
        (
            ("--question", f"Ava spoke by phone. {QUESTION}", "--answer", "x"),
            "is worded as no family's question",
        ),
        (
            ("hearsay", "--question", f"Ava spoke by phone. {QUESTION}", "--answer", "x"),
            "tells the same of one person twice. Leave one of them.",
        ),
        (
            ("hearsay", "--question", QUESTION.replace("bar Ava", "bar Bo"), "--answer", "x"),
            "The hearsay question tells nothing of Bo, whom it asks about. Add a fact.",
        ),
    ],
)
def test_what_cannot_be_checked(
    judicaita: Run, workspace: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (workspace / "latin.txt").write_bytes(b"\xe9")
    shown = judicaita("tasks", "check", *arguments)
    assert (shown.code, shown.out) == (2, "")
    assert sentence in shown.err
    assert shown.err.count("\n") == 1


# ── and nothing heavy for it ─────────────────────────────────────────────────────────────────────


def test_help_loads_no_family_and_a_check_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from judicaita.cli import main\n"
        "try: main(sys.argv[2:])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert sys.argv[1] not in sys.modules"
    )
    check = ("tasks", "check", "--question", QUESTION, "--answer", SOUND)
    for module, arguments in (("judicaita.legal", ("tasks", "--help")), ("torch", check)):
        subprocess.run([sys.executable, "-c", code, module, *arguments], check=True, cwd=tmp_path)
