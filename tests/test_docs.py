"""The guide does what it says: its code runs, its tables are complete, its errors exist."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
from pathlib import Path
from typing import Any

import pytest

from judicaita.training.config import SFTConfig, TrainingConfig
from judicaita.training.reference import configuration_reference
from judicaita.training.settings import CHECKPOINT_VARIABLE, options

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "GRPO_TRAINING.md"

# peft asks transformers for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing:FutureWarning")


@pytest.fixture
def workplace(tmp_path: Path, quick_tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with no settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for variable in os.environ:
        if variable.startswith(("GRPO_", "SFT_")):
            monkeypatch.delenv(variable)
    return tmp_path


def _blocks(page: Path, language: str = "python") -> list[tuple[int, str]]:
    """Line of the page and text of each fenced block."""
    text = page.read_text(encoding="utf-8")
    return [
        (text[: match.start(1)].count("\n"), match[1])
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.M | re.S)
    ]


def _small(source: str) -> str:
    """As written but for the model's name and the amount of work."""
    source = source.replace("google/gemma-2-2b-it", "tiny")
    source = re.sub(r"max_samples=[\d_]+", "max_samples=6", source)
    return re.sub(r"max_steps=\d+", "max_steps=1", source)


def _run(source: str, namespace: dict[str, Any], page: Path, line: int = 0) -> None:
    """Run a block, which may await; tracebacks point into the page."""
    padded = "\n" * line + source
    code = compile(padded, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, namespace)
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)


@pytest.mark.parametrize("page", [GUIDE, ROOT / "README.md"], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, workplace: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    blocks = _blocks(page)
    assert blocks
    for line, source in blocks:
        _run(_small(source), namespace, page, line)


# ── the user's guide that names and defaults come from ───────────────────────────────────────────


@pytest.fixture
def users_guide(shared_data: Path) -> list[str]:
    """The Python blocks of the guide that was there before the code."""
    page = shared_data.parent / "guide.md"
    if not page.is_file():
        pytest.skip(f"the user's guide is not at {page}")
    return [source for _, source in _blocks(page)]


def test_the_users_example_runs_as_written(users_guide: list[str], workplace: Path) -> None:
    """From the configuration on, but for the model's name; then the trace of what it wrote."""
    from judicaita.training import (
        CompositeReward,
        GRPOTrainer,
        TrainingConfig,
        load_dataset_source,
    )

    names = {
        "CompositeReward": CompositeReward,
        "GRPOTrainer": GRPOTrainer,
        "TrainingConfig": TrainingConfig,
        "legalbench_data": load_dataset_source("diversity", max_samples=6),
    }
    [training] = [source for source in users_guide if "config = TrainingConfig(" in source]
    [explaining] = [source for source in users_guide if "ReasoningTraceGenerator(" in source]
    start = training.index("config = TrainingConfig(")
    _run(training[start:].replace("google/gemma-2-2b-it", "tiny"), names, GUIDE)
    assert names["metrics"]["steps"] == 4  # 5 samples are left to train on, 3 times; 4 a step
    assert names["metrics"]["eval/samples"] == 1
    assert names["config"].grpo_tau == 0.1

    final = workplace / "checkpoints" / "grpo" / "final"
    assert (final / "adapter_config.json").is_file()
    assert 'checkpoint_path="./checkpoints/grpo/final"' in explaining  # the default's place
    _run(explaining, names, GUIDE)
    assert names["trace"].query == "Is this non-compete clause enforceable?"
    assert names["trace"].text


# ── what the pages list ──────────────────────────────────────────────────────────────────────────


def test_configuration_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == configuration_reference(), "run `make docs`"


def _table(heading: str) -> set[str]:
    """The names in backticks in the first column of the first table under a heading."""
    text = GUIDE.read_text(encoding="utf-8")
    section = text.partition(f"\n{heading}\n")[2]
    assert section, heading
    table = re.search(r"^\|.*?(?=\n\n)", section, re.M | re.S)
    assert table, heading
    return {name for row in table[0].splitlines()[2:] for name in _names(row.split("|")[1])}


def _names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_recorded_fields_are_all_explained(workplace: Path) -> None:
    """Of a run that records everything: with a KL penalty every group enters the loss."""
    import pyarrow.parquet as pq

    from judicaita.training import (
        GRPOTrainer,
        TrainingConfig,
        evaluate_checkpoint,
        load_dataset_source,
    )
    from judicaita.training.metrics import read_events

    samples = load_dataset_source("diversity", max_samples=4)
    config = TrainingConfig(
        base_model="tiny",
        use_lora=True,
        beta=0.1,
        correction={"type": "token_truncate"},
        spikes={"factor": 100},
        checkpoint_dir="run",
    )
    trainer = GRPOTrainer(config, samples[:2], samples[2:], show_progress=False)
    trainer.initialize()
    trainer.train()

    def of(*events: str) -> set[str]:
        recorded = [e for e in read_events(trainer.folder.events) if e["event"] in events]
        assert recorded
        names = {name for event in recorded for name in event} - {"event", "step", "time"}
        names = {re.sub(r"/(format|outcome|verbosity|steps)$", "/<part>", name) for name in names}
        return {re.sub(r"^(sampler/\w+)/diversity_\d$", r"\1/<task>", name) for name in names}

    assert of("step") == _table("### events.jsonl")

    report = evaluate_checkpoint(trainer.folder.final)
    overlap = {"rouge1", "rouge2", "rougeL", "bleu"}
    assert of("eval") | overlap == _table("## Evaluation")
    parts = {f"reward/{name}" for name in ("format", "outcome", "verbosity", "steps")}
    assert set(report.metrics) == _table("## Evaluation") - {"reward/<part>"} | parts
    listed = [
        name
        for row in GUIDE.read_text(encoding="utf-8").partition("\n## Evaluation\n")[2].splitlines()
        if row.startswith("| `")
        for name in _names(row.split("|")[1])
    ]
    assert set(next(iter(report.by_task.values()))) == set(listed[:11])  # "the first eight rows"

    columns = set(pq.read_schema(workplace / "run" / "rollouts" / "step-000001.parquet").names)
    named = {re.sub(r"\.(format|outcome|verbosity|steps)$", ".<part>", name) for name in columns}
    assert named == _table("### Rollouts")


def _instances() -> dict[str, tuple[str, str, str]]:
    """Family → its law, a question and a worked solution, as the guide shows them."""
    shown = re.findall(
        r"^#### [^\n]* \(`(\w+)`\)\n\n([^#`]*?)\n\n```text\n([^`]*?)\n\n([^`]*?)\n```$",
        GUIDE.read_text(encoding="utf-8"),
        re.M,
    )
    return {
        name: (_one_line(law), _one_line(question), trace) for name, law, question, trace in shown
    }


def _one_line(text: str) -> str:
    return " ".join(text.split())


def test_an_instance_of_every_family_is_shown_with_its_law() -> None:
    from judicaita.legal.tasks import FAMILIES, check_trace

    shown = _instances()
    assert list(shown) == list(FAMILIES)
    for name, family in FAMILIES.items():
        law, question, trace = shown[name]
        cited = "; ".join(family.law.authorities)
        assert law == f"{cited} ({family.law.jurisdiction}, as of {family.law.as_of})"
        facts = family.parse(question)
        assert trace == family.trace(facts)
        assert check_trace(family, facts, trace).is_sound
        assert facts["level"] in family.hard_levels


def test_settings_and_variables_exist() -> None:
    """Every setting of the table of settings, and every variable of the page."""
    known = options(TrainingConfig)
    settings = _table("### Where settings are sharper than their names") - {"auto"}
    assert settings <= {option.path for option in known}

    variables = {option.variable for option in (*known, *options(SFTConfig))}
    text = GUIDE.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:GRPO|SFT)_[A-Z_0-9]+)`", text))
    assert named
    assert named <= variables | {CHECKPOINT_VARIABLE}


def test_error_sentences_exist() -> None:
    """Each one quoted under Troubleshooting stands in the source, around its placeholders."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", source)  # sentences are written over several lines
    quoted = _table("## Troubleshooting")
    assert len(quoted) > 10
    missing = [
        sentence
        for sentence in quoted
        if not all(part.strip() in joined for part in sentence.split("…"))
    ]
    assert not missing


def test_figures_of_the_data_are_as_told(shared_data: Path) -> None:
    from judicaita.legal.legalbench import demonstrated, load_tasks

    text = " ".join(GUIDE.read_text(encoding="utf-8").split())
    rows = load_tasks(shared_data / "legalbench")
    assert f"{demonstrated(rows)} of the {len(rows)} rows" in text


def test_the_quick_start_is_as_large_as_told() -> None:
    from judicaita.legal.tasks import FAMILIES
    from judicaita.quickstart.arms import Scale
    from judicaita.training.embedded import TAUGHT

    text = " ".join(GUIDE.read_text(encoding="utf-8").split())
    count = Scale().held_out_each * len(TAUGHT)
    assert f"{count} held-out questions of the hard levels, {Scale().held_out_each} of each" in text
    assert len(TAUGHT) == 7
    left_out = text[text.index("Families left out of GRPO") :][:600]
    assert all(f"`{name}`" in left_out for name in FAMILIES if name not in TAUGHT)


def test_links_within_the_guide_lead_somewhere() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
