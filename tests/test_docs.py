"""The pages do what they say: their code runs, their tables are complete, what they name exists."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from judicaita.training.config import SFTConfig, TrainingConfig
from judicaita.training.reference import configuration_reference
from judicaita.training.settings import CHECKPOINT_VARIABLE, Option, options, resolve

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "GRPO_TRAINING.md"
PATTERNS = ROOT / "docs" / "references" / "grpo_fast_patterns.md"
QUICK = ROOT / "docs" / "references" / "grpo_quick_reference.md"
COPILOT = ROOT / ".github" / "copilot-instructions.md"

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


@pytest.mark.parametrize(
    "page", [GUIDE, ROOT / "README.md", PATTERNS, QUICK, COPILOT], ids=lambda page: page.name
)
def test_python_blocks_run(page: Path, workplace: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    blocks = _blocks(page)
    assert blocks
    for line, source in blocks:
        _run(_small(source), namespace, page, line)


@pytest.mark.parametrize("page", [PATTERNS, QUICK], ids=lambda page: page.name)
def test_yaml_blocks_are_configurations(page: Path, tmp_path: Path) -> None:
    file, nothing = tmp_path / "run.yaml", tmp_path / ".env"
    blocks = _blocks(page, "yaml")
    assert blocks
    for line, source in blocks:
        file.write_text(source, encoding="utf-8")
        resolved = resolve(TrainingConfig, {}, file=file, environment={}, dotenv=nothing)
        assert "file" in resolved.origins.values(), f"{page.name}:{line + 1}"


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
    """Of a run that records everything: with an entropy bonus every group enters the loss."""
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
        kl={"place": "reward", "target": 0.1},
        dynamic_sampling=1,
        entropy_bonus=0.01,
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
    settings = _table("### Where settings are sharper than their names") - {
        *("auto", "adamw", "cosine")  # defaults, in brackets
    }
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


def _prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [GUIDE, PATTERNS, QUICK], ids=lambda page: page.name)
def test_links_to_headings_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([\w/.]*)#([^)]+)\)", _prose(page))
    assert links
    for target, anchor in links:
        other = (page.parent / target).resolve() if target else page
        assert anchor in _anchors(other), f"{target}#{anchor}"


# ── what the references and the instructions name ────────────────────────────────────────────────


def _values(option: Option) -> set[str]:
    """What a setting takes, where that is one of several words."""
    if option.path.endswith(".type") and option.kinds:
        return {kind for kind, _ in option.kinds}
    return {value for value in get_args(option.field.annotation) if isinstance(value, str)}


@pytest.mark.parametrize("page", [PATTERNS, QUICK], ids=lambda page: page.name)
def test_settings_and_figures_in_backticks_exist(page: Path) -> None:
    """Settings by their path, with a value they take; figures and columns as the guide lists them;
    anything else is a word of the code."""
    known = {option.path: option for option in options(TrainingConfig)}
    words = {path.partition(".")[0] for path in known} | set(known)
    words |= _table("### events.jsonl") | _table("### Rollouts") | _table("## Evaluation")
    sources = (ROOT / "src" / "judicaita" / "training").rglob("*.py")
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    prose, _, elsewhere = _prose(page).partition("\n## Names elsewhere\n")
    first_column = "\n".join(
        row.split("|")[1] for row in elsewhere.splitlines() if row[:3] == "| `"
    )
    named = set(_names(prose + first_column))
    assert len(named) > 40
    missing = []
    for name in named:
        if re.search(r"[{:]|^--", name):  # a piece of YAML or Python, or a flag with its value
            continue
        setting, given, value = name.partition("=")
        if given and setting in known:
            taken = _values(known[setting])
            if taken and value not in taken:
                missing.append(name)
        elif not (
            name in words
            or f'"{name}"' in code
            or (ROOT / "src" / "judicaita" / name).exists()
            or re.match(r"reward/(outcome|format|steps)$", name)
        ):
            missing.append(name)
    assert not missing


def test_every_algorithm_is_among_the_patterns() -> None:
    named = {part for name in _names(_prose(PATTERNS)) for part in (name, *name.split("="))}
    for option in options(TrainingConfig):
        family, _, knob = option.path.partition(".")
        if family not in ("advantage", "advantage_bound", "loss", "kl"):
            continue
        if knob != "epsilon":  # the same small number for all that have it
            assert option.path in named or knob == "type", option.path
        assert _values(option) <= named, option.path


def test_instructions_name_what_exists() -> None:
    """Paths, names of the code, and the lines that the example would change."""
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    for name in _names(_prose(COPILOT)):
        if "/" in name or name.endswith(".md"):
            assert (ROOT / name).exists(), name
        elif re.fullmatch(r"[A-Za-z_.]+", name) and name != "softsign":
            assert re.search(rf"\b{name.rpartition('.')[2]}\b", code), name

    [(_, diff)] = _blocks(COPILOT, "diff")
    [path] = re.findall(r"^\+\+\+ b/(.+)$", diff, re.M)
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    changed = [line for line in diff.splitlines() if not line.startswith(("---", "+"))]
    assert changed
    assert {line[1:] for line in changed} <= set(lines)
