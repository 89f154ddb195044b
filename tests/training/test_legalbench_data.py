"""LegalBench as samples: from the public rows beside the repository, and from an imitated Hub, with
the real clients in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from judicaita.errors import ConfigError, DataError
from judicaita.legal.legalbench import CATEGORIES, TASKS
from judicaita.legal.legalbench.checkout import read_rows
from judicaita.legal.legalbench.prompts import INSTRUCTIONS, own_prompt
from judicaita.training.config import SFTConfig, TrainingConfig
from judicaita.training.data_curation import load_dataset_source, load_training_data, to_samples
from judicaita.training.legalbench_data import (
    GUIDE_TASKS,
    NOT_COMPARABLE,
    LegalBenchDataset,
    PromptStyle,
)
from judicaita.training.pile_of_law import PileOfLawDataset
from judicaita.types import Sample

Python = Callable[..., subprocess.CompletedProcess[str]]

ISSUES = CATEGORIES["issue_spotting"]
PARQUET = "refs%2Fconvert%2Fparquet"
NO_NETWORK = {"HF_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture
def legalbench(shared_data: Path) -> Path:
    return shared_data / "legalbench"


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """Code in a process whose Hub is the imitated one."""

    def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        port = tmp_path / "port"
        address = f"http://127.0.0.1:{port.read_text() if port.exists() else 9}"
        known = {
            **{name: text for name, text in os.environ.items() if not name.startswith("GRPO_")},
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**known, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
        )

    return run


def tsv(rows: list[dict[str, str]]) -> str:
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    return "".join(
        "\t".join('"' + cell.replace('"', '""') + '"' for cell in line) + "\n" for line in lines
    )


def put(repository: Path, name: str, content: str | bytes, revision: str = "main") -> None:
    path = repository / revision / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def parquet(rows: list[dict[str, Any]], path: Path) -> bytes:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path.read_bytes()


def made_up(task: str, count: int) -> list[dict[str, str]]:
    """Rows with the columns that a task is about."""
    known = TASKS[task]
    return [
        {
            "index": str(number),
            **{name: f"{name} {number} of {task}" for name in known.prompt_columns},
            known.gold_column: known.labels[number % 2] if known.labels else f"Rule {number}.",
        }
        for number in range(count)
    ]


def write_task(root: Path, name: str, train: str, test: str | None = None) -> Path:
    folder = root / "tasks" / name
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text(train, encoding="utf-8")
    if test is not None:
        (folder / "test.tsv").write_text(test, encoding="utf-8")
    (folder / "base_prompt.txt").write_text("Clause: {{text}}\nLabel:", encoding="utf-8")
    return root


# ── the public train rows ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prompts", ["base", "own"])
def test_every_task_yields_prompts_references_and_its_licence(
    legalbench: Path, prompts: PromptStyle
) -> None:
    dataset = LegalBenchDataset((), folder=legalbench, prompts=prompts)
    expected = {task.name: task.train_rows for task in TASKS.values() if task.train_rows}
    assert Counter(sample.task for sample in dataset) == expected
    assert (len(expected), len(dataset)) == (160, 835)
    for sample in dataset:
        task = TASKS[sample.task]
        assert str(sample.prompt).strip()
        assert sample.license == task.license
        assert sample.source == f"legalbench:{task.name}"
        assert sample.facts["labels"] == list(task.labels)
        assert (sample.facts["answer_type"], sample.facts["metric"]) == (
            task.answer_type,
            task.metric,
        )
        assert sample.facts["category"] == task.category
        given = sample.reference.split(",") if task.answer_type == "multilabel" else [""]
        if task.labels:
            assert {sample.reference, *given} & set(task.labels), sample
        if prompts == "own":
            for name in task.prompt_columns:
                assert sample.facts[name].strip() in str(sample.prompt)
            assert all(f"{it}: {task.options[it]}" in str(sample.prompt) for it in task.options)
            for label in task.labels:
                assert label in str(sample.prompt).rpartition("\n")[2]
    shown = sum(sample.facts.get("in_demonstrations", False) for sample in dataset)
    assert shown == (720 if prompts == "base" else 0)
    assert len(dataset.notices) == (1 if shown else 0)


def test_every_answer_type_has_its_instruction() -> None:
    assert set(INSTRUCTIONS) == {task.answer_type for task in TASKS.values()}
    for task in TASKS.values():
        prompt = own_prompt(task, dict.fromkeys(task.prompt_columns, "x"))
        assert "{" not in prompt
        assert "\n\n\n" not in prompt


def test_an_own_prompt_word_by_word() -> None:
    name = "maud_change_in_law__subject_to_disproportionate_impact_modifier"
    assert own_prompt(TASKS[name], {"text": " The Merger … ", "index": "0"}) == (
        "This is a part of a merger agreement. Which option describes it on this point: change in "
        "law subject to disproportionate impact modifier?\n\n"
        "Text: The Merger …\n\n"
        "A: No\nB: Yes\n\n"
        "Answer with one of these alone: A or B."
    )
    with pytest.raises(DataError, match="lacks the column 'contract'"):
        own_prompt(TASKS["ucc_v_common_law"], {"text": "x"})


def test_the_guide_s_names(legalbench: Path) -> None:
    dataset = LegalBenchDataset(folder=legalbench)
    assert dataset.tasks == ("contract_qa", *ISSUES)
    assert Counter(s.task for s in dataset)["contract_qa"] == 8
    assert len(dataset) == 8 + 106
    assert dataset.notices[0].startswith("rule_qa has no train rows, and is left out.")
    with pytest.raises(DataError, match=r"^rule_qa: .*legalbench_split=test_partition"):
        LegalBenchDataset("rule_qa", folder=legalbench)
    with pytest.raises(DataError, match=r"^rule_qa: .*legalbench_split=test_partition"):
        LegalBenchDataset(["rule_qa"])
    recall = LegalBenchDataset(["rule-recall"], folder=legalbench)
    assert recall.notices[0].startswith("rule_qa has no train rows")


def test_licences_and_counts(legalbench: Path) -> None:
    free = LegalBenchDataset(folder=legalbench, commercial=True)
    assert set(free.tasks) == {"contract_qa", "corporate_lobbying"}
    mit = LegalBenchDataset((), folder=legalbench, licenses=["MIT"])
    assert {sample.license for sample in mit} == {"MIT"}
    assert len(mit.tasks) == 4
    few = LegalBenchDataset((), folder=legalbench, samples_per_task=2, seed=1)
    assert len(few) == sum(min(2, task.train_rows) for task in TASKS.values())
    assert list(few) == list(LegalBenchDataset((), folder=legalbench, samples_per_task=2, seed=1))
    assert list(few) != list(LegalBenchDataset((), folder=legalbench, samples_per_task=2))
    with pytest.raises(DataError, match="No task of learned_hands_torts is left"):
        LegalBenchDataset(["learned_hands_torts"], folder=legalbench, commercial=True)
    with pytest.raises(DataError, match="samples_per_task=0 leaves nothing"):
        LegalBenchDataset(samples_per_task=0)
    with pytest.raises(DataError, match="The nearest are contract_qa"):
        LegalBenchDataset(["contract_q"])


def test_as_a_dataset(legalbench: Path) -> None:
    """Tasks differ in their columns, so that facts travel as one text; nothing is lost."""
    dataset = LegalBenchDataset(["contract_qa", "scalr", "sara_numeric"], folder=legalbench)
    table = dataset.to_dataset()
    assert set(table.column_names) == {
        *("prompt", "reference", "task", "license", "source", "facts"),
    }
    assert isinstance(table[0]["facts"], str)
    assert to_samples(table) == list(dataset)
    assert to_samples(dataset) == list(dataset)
    assert to_samples(dataset).origin == dataset.origin  # type: ignore[attr-defined]


# ── test rows ────────────────────────────────────────────────────────────────────────────────────


WORDS = [
    "lease",
    "sale",
    "waiver",
    "notice",
    "breach",
    "tender",
    "escrow",
    "pledge",
    "lien",
    "deed",
    "proxy",
    "merger",
]


def distinct_rows(count: int) -> str:
    """Rows of which none is like another."""
    lines = ["index\ttext\tanswer"]
    for number in range(count):
        text = " ".join(f"{word}{number}x{place}" for place, word in enumerate(WORDS * 4))
        lines.append(f"{number}\t{text}\t{'Yes' if number % 3 else 'No'}")
    return "\n".join(lines) + "\n"


def test_a_part_of_the_test_rows(tmp_path: Path) -> None:
    rows = distinct_rows(200)
    for name in ("hearsay", "overruling"):
        write_task(tmp_path, name, rows.partition("\n")[0] + "\n" + rows.splitlines()[1], rows)
    dataset = LegalBenchDataset((), folder=tmp_path, split="test_partition", eval_fraction=0.2)
    train, held_out = list(dataset), list(dataset.held_out)
    assert len(train) + len(held_out) == 400
    assert 40 < len(held_out) < 120
    # The texts are the same in both tasks, and on the same side in both.
    sides = [{str(sample.facts["text"]) for sample in part} for part in (train, held_out)]
    assert sides[0].isdisjoint(sides[1])
    for sample in (*train, *held_out):
        assert sample.facts["split"] == "test_partition"
        assert sample.facts["caveat"] == NOT_COMPARABLE
        assert sample.source == f"legalbench:{sample.task}/test_partition"
    assert any(NOT_COMPARABLE in notice for notice in dataset.notices)
    assert dataset.origin["note"] == NOT_COMPARABLE
    alone = LegalBenchDataset(
        ["hearsay"], folder=tmp_path, split="test_partition", eval_fraction=0.2, samples_per_task=9
    )
    assert len(alone) == 9
    assert list(alone.held_out) == [sample for sample in held_out if sample.task == "hearsay"]
    other = LegalBenchDataset(
        (), folder=tmp_path, split="test_partition", eval_fraction=0.2, seed=1
    )
    assert list(other.held_out) != held_out
    whole = LegalBenchDataset((), folder=tmp_path, split="test")
    assert len(whole) == 400
    assert whole[0].source == "legalbench:hearsay/test"
    assert len(whole.held_out) == 0


def test_near_copies_of_what_is_held_out_are_not_trained_on(tmp_path: Path) -> None:
    head, *lines = distinct_rows(60).splitlines()
    copies = [f"{line.partition(chr(9))[0]}0\t{line.split(chr(9))[1]} indeed\tNo" for line in lines]
    write_task(tmp_path, "hearsay", head + "\n" + lines[0], "\n".join([head, *lines, *copies]))
    dataset = LegalBenchDataset((), folder=tmp_path, split="test_partition", eval_fraction=0.3)
    held = {str(s.facts["text"]).removesuffix(" indeed") for s in dataset.held_out}
    assert held.isdisjoint(str(s.facts["text"]).removesuffix(" indeed") for s in dataset)
    assert "are like one of these, and left out" in dataset.notices[0]


def test_a_run_on_a_part_of_the_test_rows(tmp_path: Path) -> None:
    rows = distinct_rows(100)
    write_task(tmp_path, "hearsay", rows, rows)
    config = TrainingConfig(
        dataset=str(tmp_path), legalbench_split="test_partition", max_samples=20, seed=3
    )
    data = load_training_data(config)
    assert len(data.train) == 20
    assert data.held_out
    assert {sample.id for sample in data.held_out}.isdisjoint(s.id for s in data.train)
    assert any(NOT_COMPARABLE in notice for notice in data.notices)


def test_a_checkout_without_test_rows(legalbench: Path) -> None:
    dataset = LegalBenchDataset(["contract_qa"], folder=legalbench, split="test")
    with pytest.raises(DataError, match=r"holds no test rows \(test\.tsv\)\. The Hub has them"):
        dataset.load()


def test_a_damaged_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    write_task(tmp_path, "hearsay", 'index\ttext\tanswer\n0\t"a\nb"\tNo\n1\tc\n')
    with pytest.raises(DataError, match=r"hearsay/train\.tsv, line 4, row 2: has not the 3 cells"):
        load_dataset_source(tmp_path)


def test_long_cells(tmp_path: Path) -> None:
    """Longer than the csv module takes by itself."""
    (tmp_path / "a.tsv").write_text("text\tanswer\n" + "x" * 200_000 + "\tYes\n")
    assert len(read_rows(tmp_path / "a.tsv")[0]["text"]) == 200_000


# ── the imitated Hub ─────────────────────────────────────────────────────────────────────────────

LOAD = """
import json, sys
from judicaita.errors import JudicaitaError
from judicaita.training import LegalBenchDataset
try:
    dataset = LegalBenchDataset(**json.loads(sys.argv[1]))
    rows = [[s.task, s.prompt, s.reference, s.license, s.source, dict(s.facts)] for s in dataset]
    answer = {"rows": rows, "notices": dataset.notices, "origin": dataset.origin}
except JudicaitaError as error:
    answer = {"error": str(error)}
print(json.dumps(answer))
"""


def load(python: Python, **options: Any) -> dict[str, Any]:
    environment = options.pop("environment", {})
    done = python(LOAD, json.dumps(options), **environment)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def put_guide(hub: Path, tmp_path: Path) -> None:
    """The guide's tasks, in all three ways in which the Hub may hold them."""
    put(hub, "data/contract_qa/train.tsv", tsv(made_up("contract_qa", 8)))
    rules = parquet(made_up("rule_qa", 50), tmp_path / "rules.parquet")
    put(hub, "rule_qa/test/0000.parquet", rules, PARQUET)
    first, second, *others = ISSUES
    put(
        hub,
        "README.md",
        f"---\nconfigs:\n- config_name: {first}\n  data_files:\n  - split: train\n"
        f"    path: {first}/train.parquet\n---\n",
    )
    put(hub, f"{first}/train.parquet", parquet(made_up(first, 10), tmp_path / "first.parquet"))
    second_rows = parquet(made_up(second, 6), tmp_path / "second.parquet")
    put(hub, f"{second}/train/0000.parquet", second_rows, PARQUET)
    for name in others:
        put(hub, f"data/{name}/train.tsv", tsv(made_up(name, 6)))


def test_the_guide_s_tasks_from_the_hub(hub: Path, python: Python, tmp_path: Path) -> None:
    put_guide(hub, tmp_path)
    found = load(python)
    counts = Counter(row[0] for row in found["rows"])
    assert counts == {"contract_qa": 8, ISSUES[0]: 10, **dict.fromkeys(ISSUES[1:], 6)}
    for name, prompt, reference, license, source, facts in found["rows"]:
        task = TASKS[name]
        assert prompt == own_prompt(task, facts)
        assert reference in task.labels
        assert (license, source) == (task.license, f"legalbench:{name}")
    assert found["notices"][0].startswith("rule_qa has no train rows")
    assert found["origin"]["source"] == "nguha/legalbench"
    # The configuration's rows say no commit but the branch; the others say theirs.
    assert len(found["origin"]["revision"]) == 3
    rules = load(python, tasks=["rule_qa"], split="test")
    assert len(rules["rows"]) == 50
    assert rules["rows"][3][2] == "Rule 3."
    assert rules["rows"][3][4] == "legalbench:rule_qa/test"
    parts = load(python, tasks=["rule_qa"], split="test_partition", eval_fraction=0.3)
    assert 20 < len(parts["rows"]) < 50
    assert len(parts["origin"]["revision"]) == 40
    assert NOT_COMPARABLE in parts["notices"][0]


GUIDE = """
from judicaita.training import (
    GRPOTrainer,
    TrainingConfig,
    create_training_dataset,
    CompositeReward,
)

# Load datasets
legalbench_data, pile_of_law_data = create_training_dataset(
    generate_cot=False,  # Set True for synthetic CoT
    samples_per_subset=5000,
)

# Configure training
config = TrainingConfig(
    base_model=MODEL,
    use_lora=True,
    lora_r=16,
    lora_alpha=32,
    num_epochs=3,
    batch_size=4,
    learning_rate=1e-5,
    grpo_tau=0.1,
    grpo_gamma=0.99,
    num_rollouts=4,
    **SMALLER,
)

# Create custom reward function
reward_fn = CompositeReward(
    format_weight=0.3,
    outcome_weight=0.5,
    verbosity_weight=0.2,
)

# Initialize and train
trainer = GRPOTrainer(
    config=config,
    train_dataset=legalbench_data,
    reward_fn=reward_fn,
)
trainer.initialize()
metrics = trainer.train()
"""


def test_the_guide_s_code(hub: Path, python: Python, tmp_path: Path, make_policy: Any) -> None:
    """As it stands there, but for a model that fits here."""
    put_guide(hub, tmp_path)
    make_policy(template="gemma").save(tmp_path / "gemma")
    smaller = {
        "max_steps": 1,
        "gradient_accumulation_steps": 1,
        "device": "cpu",
        "generation_max_length": 6,
        "eval_samples": 2,
        "system_prompt": "",
        "long_prompts": "drop",  # those of corporate_lobbying, which the model has no room for
        "allow_contamination": True,  # what was made up differs in numbers alone
    }
    values = f"MODEL, SMALLER = {str(tmp_path / 'gemma')!r}, {smaller!r}\n"
    after = "try:\n    next(iter(pile_of_law_data))\nexcept Exception as error:\n    print(error)\n"
    done = python(values + GUIDE + after + "print(metrics['steps'])")
    assert done.returncode == 0, done.stderr
    *_, refusal, steps = done.stdout.splitlines()
    assert refusal.startswith("Pile of Law (courtlistener_opinions, uscode, contracts) cannot be")
    assert float(steps) == 1
    assert "rule_qa has no train rows, and is left out" in done.stderr
    manifest = json.loads((tmp_path / "checkpoints/grpo/manifest.json").read_text())
    for part in ("train", "eval"):
        data = manifest["data"][part]
        assert data["source"] == "nguha/legalbench"
        assert data["split"] == "train"
        assert data["filters"] == {"tasks": list(GUIDE_TASKS), "samples_per_task": 5000}
        assert sum(data["tasks"].values()) == sum(data["licenses"].values()) == data["samples"]
        assert set(data["licenses"]) <= {TASKS[name].license for name in data["tasks"]}
        assert len(data["sha256"]) == 64
    assert manifest["data"]["eval"]["held_out_of_train"] == 0.1


@pytest.mark.parametrize(
    ("break_it", "options", "expected"),
    [
        (lambda hub: (hub / "GATED").touch(), {}, "access has to be granted first"),
        (lambda hub: hub.rename(hub.with_name("x")), {}, "there is no such repository"),
        (
            lambda hub: put(hub, "data/hearsay/train.tsv", "text\tanswer\n1\tYes\textra\n"),
            {},
            "hearsay/train.tsv, line 2, row 1: has not the 2 cells",
        ),
        (
            lambda hub: put(hub, "data/hearsay/train.tsv", "text\tanswer\n1\t \n"),
            {},
            "nguha/legalbench:data/hearsay/train.tsv, row 1: its answer is empty",
        ),
        (
            lambda hub: put(hub, "data/hearsay/train.tsv", "text\tgold\n1\tYes\n"),
            {},
            "has no gold column",
        ),
        (
            lambda hub: put(hub, "data/hearsay/train.tsv", "clause\tanswer\n1\tYes\n"),
            {},
            "hearsay: a row lacks the column 'text'",
        ),
        (lambda hub: put(hub, "data/hearsay/train.tsv", "a\tanswer\n"), {}, "holds no rows"),
        (lambda hub: None, {"revision": "gone"}, "there is no such revision"),
        (lambda hub: None, {"tasks": ["hearsey"]}, "The nearest are hearsay"),
        (lambda hub: None, {"environment": NO_NETWORK}, "the Hub can't be reached"),
    ],
    ids=[
        "gated",
        "missing",
        "malformed",
        "ungraded",
        "goldless",
        "other",
        "empty",
        "revision",
        "unknown",
        "offline",
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    hub: Path, python: Python, break_it: Callable[[Path], Any], options: Any, expected: str
) -> None:
    break_it(hub)
    error = load(python, **{"tasks": ["hearsay"], **options})["error"]
    assert expected in error
    assert "\n" not in error


TABLE = """
import json, sys
from judicaita.errors import JudicaitaError
from judicaita.training import load_dataset_source
try:
    found = load_dataset_source(**json.loads(sys.argv[1]))
    rows = [[s.prompt, s.reference, dict(s.facts)] for s in found]
    print(json.dumps({"rows": rows, "origin": found.origin}))
except JudicaitaError as error:
    print(json.dumps({"error": str(error)}))
"""


def test_any_data_set_on_the_hub(hub: Path, python: Python, tmp_path: Path) -> None:
    def table(**options: Any) -> dict[str, Any]:
        done = python(TABLE, json.dumps({"source": "ann/law", **options}))
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    repository = hub.parents[1] / "ann" / "law"
    rows = [{"question": f"Is {n} void?", "answer": "Yes", "court": "9th Cir."} for n in range(5)]
    put(repository, "data/train-00000.parquet", parquet(rows, tmp_path / "a.parquet"))
    put(repository, "data/test-00000.parquet", parquet(rows[:2], tmp_path / "b.parquet"))
    columns = {"prompt": "question", "reference": "answer"}
    found = table(columns=columns)
    assert found["rows"][4] == ["Is 4 void?", "Yes", {"court": "9th Cir."}]
    assert len(found["rows"]) == 5
    assert found["origin"]["split"] == "train"
    assert len(found["origin"]["revision"]) == 40
    assert len(table(columns=columns, split="eval")["rows"]) == 2
    assert len(table(columns=columns, max_samples=3)["rows"]) == 3
    error = table(columns={"prompt": "qestion", "reference": "answer"})["error"]
    assert error.startswith("'qestion' is no column of ann/law on the Hub, train, row 1.")
    assert "The nearest is question" in error
    error = table(columns={"promt": "question"})["error"]
    assert error.startswith("columns: 'promt' is no column of samples. The nearest is prompt.")
    assert "ann/law on the Hub, train, row 1: has no prompt" in table()["error"]
    assert "there is no such repository" in table(source="ann/lore")["error"]
    put(hub.parents[1] / "ann" / "notes", "notes.txt", "")
    assert table(source="ann/notes")["error"].startswith("ann/notes on the Hub cannot be loaded")
    offline = python(TABLE, json.dumps({"source": "ann/lore"}), **NO_NETWORK)
    assert "the Hub can't be reached" in json.loads(offline.stdout.splitlines()[-1])["error"]
    (repository / "GATED").touch()
    done = python(TABLE, json.dumps({"source": "ann/law"}), HF_HOME=str(tmp_path / "other"))
    assert "access has to be granted first" in json.loads(done.stdout.splitlines()[-1])["error"]


# ── files of one's own ───────────────────────────────────────────────────────────────────────────


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "question,answer,authorities,court\n"
        '"Is it, say,\nvoid?",Yes,"[""UCC § 2-201""]",9th Cir.\nWho?,No,,\n',
        encoding="utf-8-sig",
    )
    columns = {"prompt": "question", "reference": "answer"}
    assert load_dataset_source(path, columns=columns) == [
        Sample(
            "Is it, say,\nvoid?", "Yes", authorities=("UCC § 2-201",), facts={"court": "9th Cir."}
        ),
        Sample("Who?", "No"),
    ]
    with pytest.raises(DataError, match=r"'anwser' is no column of .*a\.csv, line 2\. The nearest"):
        load_dataset_source(path, columns={"prompt": "question", "reference": "anwser"})
    with pytest.raises(DataError, match=r"a\.csv, line 2: has no prompt"):
        load_dataset_source(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('prompt,reference\n"a\nb",Yes\nc\n', "line 4: has not the 2 cells"),
        ("prompt,reference\na,Yes\nb,\n", "line 3: has no reference"),
        ("prompt,prompt\na,b\n", "line 1: the column 'prompt' stands there twice"),
        ('prompt,reference\na,"Yes\n', "line 2: unexpected end of data"),
        ("prompt,reference,authorities\na,b,UCC\n", "line 2: authorities is no JSON"),
        ("prompt,reference\n", "is empty"),
        ("", "is empty"),
    ],
)
def test_damaged_csv(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        load_dataset_source(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


def test_columns_of_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "Who?", "prompt": "old", "a": "No", "why": "x"}\n{"q": "?", "a": "No"}')
    columns = {"prompt": "q", "reference": "a", "trace": "why"}
    assert load_dataset_source(path, columns=columns) == [
        Sample("Who?", "No", trace="x"),
        Sample("?", "No"),
    ]


# ── settings ─────────────────────────────────────────────────────────────────────────────────────


def test_defaults_of_the_source() -> None:
    assert TrainingConfig().dataset == "legalbench"
    assert TrainingConfig(base_model="tiny").dataset == "diversity"
    assert TrainingConfig(base_model="tiny", dataset="legalbench").dataset == "legalbench"
    assert SFTConfig().dataset == "diversity"


def test_columns_as_a_setting() -> None:
    for given in ("prompt=q, reference=a", ["prompt=q", "reference=a"]):
        config = TrainingConfig.model_validate({"dataset": "a.csv", "columns": given})
        assert config.columns == ["prompt=q", "reference=a"]
    mapping = {"prompt": "q", "reference": "a"}
    config = TrainingConfig.model_validate({"dataset": "ann/law", "columns": mapping})
    assert config.columns == ["prompt=q", "reference=a"]
    for wrong in ("prompt", "=a", "promt=q", "prompt=a,prompt=b"):
        with pytest.raises(ConfigError, match="columns"):
            TrainingConfig.model_validate({"dataset": "a.csv", "columns": wrong})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dataset": "hearsay", "legalbench_split": "test_partition"}, "only LegalBench"),
        ({"dataset": "a.jsonl", "samples_per_task": 3}, "only LegalBench"),
        ({"dataset": "a.jsonl", "legalbench_prompts": "own"}, "only LegalBench"),
        ({"dataset": "ann/law", "licenses": "MIT"}, "only LegalBench"),
        ({"dataset": "generated", "commercial_only": True}, "only LegalBench"),
        ({"columns": "prompt=q"}, "only a file or a data set on the Hub"),
        ({"dataset": "a.csv", "dataset_revision": "v1"}, "only what comes from the Hub"),
        ({"legalbench_split": "test"}, "Set eval_dataset=legalbench to measure on it"),
        (
            {"legalbench_split": "test_partition", "eval_dataset": "a.jsonl"},
            "measured on the rest of the test rows",
        ),
        ({"base_model": "tiny", "licenses": "MIT"}, "only LegalBench"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        TrainingConfig.model_validate(settings)


def test_prompts_of_a_run(legalbench: Path) -> None:
    """Short questions in place of base prompts with their demonstrations."""
    settings = {"dataset": str(legalbench), "tasks": ["hearsay"], "eval_dataset": None}
    base, own = (
        load_training_data(TrainingConfig.model_validate({**settings, "legalbench_prompts": style}))
        for style in ("auto", "own")
    )
    assert [sample.reference for sample in base.train] == [s.reference for s in own.train]
    lengths = [[len(str(sample.prompt)) for sample in each.train] for each in (base, own)]
    assert max(lengths[1]) < min(lengths[0]) / 2
    assert not own.notices


def test_settings_that_go_together() -> None:
    for settings in (
        {"licenses": "MIT,CC-BY-*", "samples_per_task": 3, "dataset_revision": "v1"},
        {"legalbench_split": "test_partition", "commercial_only": True},
        {"dataset": "./legalbench", "samples_per_task": 3},
        {"dataset": "ann/law:part", "columns": "prompt=q", "dataset_revision": "v1"},
    ):
        TrainingConfig.model_validate(settings)


def test_pile_of_law_refuses() -> None:
    pile = PileOfLawDataset()
    for use in (lambda: list(pile), lambda: len(pile), lambda: pile[0], pile.load):
        with pytest.raises(DataError, match="follows in a later one"):
            use()
    with pytest.raises(DataError, match="Pile of Law"):
        to_samples(pile)
