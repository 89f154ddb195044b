"""``judicaita data``: what a source of samples holds, before anything is trained on it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from judicaita.types import Sample

SPLITS = ("train", "test", "test_partition")
_LONGEST_SHOWN = 1_200
"""Characters of a prompt that are printed; its beginning and its end."""


@click.group("data")
def data() -> None:
    """Data sets: what they hold, under which licences, and where they come from."""


@data.command("inspect")
@click.argument("source")
@click.option("--tasks", default="", help="Tasks, patterns, categories or levels, with commas.")
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default="train",
    show_default=True,
    help="Of LegalBench.",
)
@click.option("--samples-per-task", type=click.IntRange(min=1), help="Of LegalBench.")
@click.option("--licenses", default="", help="LegalBench tasks under these licences alone.")
@click.option("--commercial-only", is_flag=True, help="Only what allows commercial use.")
@click.option("--columns", default="", help="prompt=question,reference=answer")
@click.option("--revision", help="Commit, tag or branch on the Hub.")
@click.option("--max-samples", type=click.IntRange(min=1), help="At most so many, drawn by seed.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--show", type=click.IntRange(min=0), default=1, show_default=True, help="Samples.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures.")
def inspect(
    source: str,
    tasks: str,
    split: Any,
    samples_per_task: int | None,
    licenses: str,
    commercial_only: bool,
    columns: str,
    revision: str | None,
    max_samples: int | None,
    seed: int,
    show: int,
    json_file: Path | None,
) -> None:
    """Count and show what SOURCE holds, named as --dataset names it.

    \b
    judicaita data inspect legalbench --tasks contract_qa,issue_spotting
    judicaita data inspect ./legalbench --licenses CC-BY-4.0
    judicaita data inspect questions.csv --columns prompt=question,reference=answer
    """
    from judicaita.errors import ConfigError
    from judicaita.training.columns import parse_columns
    from judicaita.training.config import SFTConfig
    from judicaita.training.data_curation import load_dataset_source
    from judicaita.training.provenance import describe_samples, notices_of, origin_of

    if json_file is not None and json_file.is_dir():
        raise ConfigError(f"{json_file} is a folder, and the figures are one file. Name a file.")
    chosen = SFTConfig(  # which refuses what the source has no use for
        dataset=source,
        tasks=_names(tasks),
        legalbench_split="test_partition" if split == "test" else split,
        samples_per_task=samples_per_task,
        licenses=_names(licenses),
        commercial_only=commercial_only,
        columns=_names(columns),
        dataset_revision=revision,
    )
    samples = load_dataset_source(
        source,
        tasks=chosen.tasks,
        max_samples=max_samples,
        seed=seed,
        columns=parse_columns(chosen.columns),
        legalbench_split=split,
        samples_per_task=samples_per_task,
        licenses=chosen.licenses,
        commercial=commercial_only,
        revision=revision,
    )
    notices = notices_of(samples)
    report = {
        **describe_samples(samples, origin_of(samples)),
        "notices": list(notices),
        **_duplicates(samples),
        "per_task": _per_task(samples),
    }
    for notice in notices:
        click.echo(f"Note: {notice}", err=True)
    if json_file is not None:
        text = json.dumps(report, ensure_ascii=False, indent=2)
        json_file.write_text(text + "\n", encoding="utf-8")
    _print(report)
    for sample in samples[:: max(1, len(samples) // show)][:show] if show else []:
        click.echo("\n" + _shown(sample))
    if json_file is not None:
        click.echo(f"\nWritten to {json_file}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _duplicates(samples: Sequence[Sample]) -> dict[str, Any]:
    """Equal questions with equal answers, and with different ones."""
    ids = Counter(sample.id for sample in samples)
    answers: dict[str, set[str]] = {}
    for sample in samples:
        prompt = json.dumps(sample.prompt, sort_keys=True, default=dict)
        answers.setdefault(prompt, set()).add(sample.reference)
    return {
        "duplicates": sum(count - 1 for count in ids.values()),
        "contradictions": sum(1 for given in answers.values() if len(given) > 1),
    }


def _per_task(samples: Sequence[Sample]) -> dict[str, dict[str, Any]]:
    """Figures of each task; lengths in characters."""
    tasks: dict[str, list[Sample]] = {}
    for sample in samples:
        tasks.setdefault(sample.task or "(no task)", []).append(sample)
    figures = {}
    for name, rows in tasks.items():
        lengths = sorted(_length(sample) for sample in rows)
        figures[name] = {
            "samples": len(rows),
            "licenses": sorted({sample.license or "not stated" for sample in rows}),
            "answer_types": sorted({_answer_type(sample) for sample in rows}),
            "prompt_characters": {
                "shortest": lengths[0],
                "median": median(lengths),
                "longest": lengths[-1],
            },
            "answers": dict(Counter(sample.reference for sample in rows).most_common(10)),
            "with_trace": sum(1 for sample in rows if sample.trace),
        }
    return figures


def _length(sample: Sample) -> int:
    prompt = sample.prompt
    return len(prompt) if isinstance(prompt, str) else sum(len(turn["content"]) for turn in prompt)


def _answer_type(sample: Sample) -> str:
    return str(sample.facts.get("answer_type") or "not stated")


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    table = Table()
    names = list(report["per_task"])
    # Names are typed again by who reads them, so they are not broken where there is room.
    table.add_column("task", overflow="fold", min_width=min(32, max(map(len, names))))
    table.add_column("samples", justify="right")
    table.add_column("licence", overflow="fold")
    table.add_column("answer type", overflow="fold")
    table.add_column("prompt, characters", justify="right")
    for name, row in report["per_task"].items():
        length = row["prompt_characters"]
        table.add_row(
            name,
            str(row["samples"]),
            ", ".join(row["licenses"]),
            ", ".join(row["answer_types"]),
            f"{length['shortest']}–{length['longest']}, median {length['median']:.0f}",
        )
    console.print(table)
    lines = [
        f"{report['samples']} samples of {len(names)} tasks from {report['source']}"
        + (f" at {report['revision']}" if report.get("revision") else ""),
        "licences: " + ", ".join(f"{name} {n}" for name, n in report["licenses"].items()),
        f"{report['duplicates']} repeat a question and its answer; {report['contradictions']} "
        "questions have several answers",
        f"SHA-256 of the ids: {report['sha256']}",
    ]
    for line in lines:
        console.print(line, soft_wrap=True)


def _shown(sample: Sample) -> str:
    from judicaita.training.console import plain

    prompt = sample.prompt
    if not isinstance(prompt, str):
        prompt = "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
    if len(prompt) > _LONGEST_SHOWN:
        half = _LONGEST_SHOWN // 2
        cut = len(prompt) - 2 * half
        prompt = f"{prompt[:half]}\n[… {cut} characters …]\n{prompt[-half:]}"
    head = "  ".join(filter(None, (sample.task, sample.id, sample.license, sample.source)))
    return plain(f"{head}\n\n{prompt}\n\nAnswer: {sample.reference}")
