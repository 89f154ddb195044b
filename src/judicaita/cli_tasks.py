"""``judicaita tasks``: the generated families for people: what there is, an example, a check."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from judicaita.errors import DataError

if TYPE_CHECKING:
    from judicaita.legal.tasks import Law, TaskFamily, TraceCheck
    from judicaita.types import Sample

NOT_SOUND = 1
"""Exit code of ``tasks check`` for an answer that is not sound; input of no use is 2."""


@click.group("tasks")
def tasks() -> None:
    """Generated legal tasks: list them, print samples, check an answer step by step."""


@tasks.command("list")
def list_families() -> None:
    """Every family with its levels, answers and law."""
    from rich.console import Console
    from rich.table import Table

    from judicaita.legal.tasks import FAMILIES

    table = Table(show_lines=True, expand=True)
    # Names are typed again by who reads them, so they are never broken.
    table.add_column("family", width=max(map(len, FAMILIES)))
    table.add_column("levels", width=12)
    table.add_column("answers", width=12)
    table.add_column("law", ratio=1, overflow="fold")
    for family in FAMILIES.values():
        several = family.answer_type == "multilabel"
        table.add_row(
            f"{family.name}\n{family.title}",
            _levels(family),
            "\n".join([*family.answers, *(["(any of them)"] if several else [])]),
            "\n".join(
                [f"{family.law.jurisdiction}, as of {family.law.as_of}", *family.law.authorities]
            ),
        )
    Console(markup=False).print(table)


def _levels(family: TaskFamily) -> str:
    named = {"easy": family.easy_levels, "hard": family.hard_levels}
    other = [level for level in family.levels if not any(level in of for of in named.values())]
    rows = {**named, "other": tuple(other)}
    return "\n".join(f"{name} {' '.join(map(str, of))}" for name, of in rows.items() if of)


@tasks.command("sample")
@click.argument("family")
@click.option("--level", help="A level, or easy or hard; all in turn if left out.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--split", type=click.Choice(["train", "eval"]), default="train", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One a line, as data files hold them.")
def sample(
    family: str, level: str | None, count: int, seed: int, split: Any, as_json: bool
) -> None:
    """Print questions of a FAMILY with worked solution, answer and law.

    Several families with commas between are mixed, `generated` is all of them. What --json prints
    is a data set: it can be trained and evaluated on.
    """
    from judicaita.legal.tasks import generate_mixture, get_family
    from judicaita.legal.tasks.selection import select_families, select_levels
    from judicaita.training.data_curation import to_jsonl

    families = select_families(family) or (get_family(family).name,)
    levels = select_levels(families, [level] if level else [])
    samples = generate_mixture(levels, count, split=split, seed=seed)
    if as_json:
        click.echo(to_jsonl(samples), nl=False)
        return
    click.echo("\n\n".join(_shown(one, get_family(one.facts["family"]).law) for one in samples))


def _shown(one: Sample, law: Law) -> str:
    return "\n".join(
        [
            f"{one.task}  {one.id}",
            f"\n{one.prompt}\n",
            one.trace,
            f"\nAnswer: {one.reference}",
            f"Law: {_cited(law)}",
        ]
    )


def _cited(law: Law) -> str:
    return f"{'; '.join(law.authorities)} ({law.jurisdiction}, as of {law.as_of})"


@tasks.command("check")
@click.argument("family", required=False)
@click.option("--question", help="The question, facts and all, in the family's words.")
@click.option(
    "--question-file", type=click.Path(path_type=Path), help="Where it stands; - is stdin."
)
@click.option("--answer", help='The answer: "Step 1: ... Step 2: ... Conclusion: ...".')
@click.option("--answer-file", type=click.Path(path_type=Path), help="Where it stands; - is stdin.")
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
def check(
    family: str | None,
    question: str | None,
    question_file: Path | None,
    answer: str | None,
    answer_file: Path | None,
    as_json: bool,
) -> None:
    """Check each step of an answer against the facts of its question.

    FAMILY may be left out where one family alone can read the question. Exit code 0 if the answer
    is sound, 1 if it is not, 2 if question or answer cannot be used.
    """
    from judicaita.legal.tasks import check_trace

    if question_file == answer_file == Path("-"):
        raise click.UsageError("question and answer cannot both come from stdin. Give one a file.")
    # Line breaks of a pasted question mean nothing.
    asked = " ".join(_text("question", question, question_file).split())
    text = _text("answer", answer, answer_file)
    chosen, facts = _read_question(family, asked)
    found = check_trace(chosen, facts, text)
    report = _report(chosen, facts, text, found)
    click.echo(json.dumps(report, ensure_ascii=False, indent=2) if as_json else _as_text(report))
    if not found.is_sound:
        sys.exit(NOT_SOUND)


def _text(name: str, given: str | None, file: Path | None) -> str:
    """What an option holds, or the file that another names, or stdin."""
    if (given is None) == (file is None):
        raise click.UsageError(f"give the {name} by --{name} or by --{name}-file, one of the two.")
    if file is not None:
        try:
            given = sys.stdin.read() if file == Path("-") else file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not UTF-8 text ({error}). Save it as UTF-8.") from error
    assert given is not None
    if not given.strip():
        raise DataError(f"the {name} is empty, so there is nothing to check. Give its text.")
    return given


def _read_question(name: str | None, question: str) -> tuple[TaskFamily, Mapping[str, Any]]:
    """The family that a question belongs to, and its facts."""
    from judicaita.legal.tasks import FAMILIES, get_family

    if name is not None:
        return get_family(name), get_family(name).parse(question)
    readings = []
    for family in FAMILIES.values():
        try:
            readings.append((family, family.parse(question)))
        except DataError:
            continue
    if len(readings) == 1:
        return readings[0]
    if readings:
        names = ", ".join(family.name for family, _ in readings)
        raise DataError(f"{names} can all read the question. Name the family that is meant.")
    raise DataError(
        f"{question[:80]!r} is worded as no family's question. Name the family to see what it "
        "expects, or look at one of its questions: judicaita tasks sample FAMILY."
    )


def _report(
    family: TaskFamily, facts: Mapping[str, Any], text: str, found: TraceCheck
) -> dict[str, Any]:
    """All that a check found, as JSON-able values."""
    from judicaita.legal.answers import parse_reasoning

    reasoning = parse_reasoning(text)
    return {
        "family": family.name,
        "level": facts["level"],
        "law": _cited(family.law),
        "facts": dict(facts),
        "steps": [
            {
                "number": step.number,
                "text": step.text,
                "status": verdict.status,
                "factor": verdict.factor,
                "reason": verdict.reason,
            }
            for step, verdict in zip(reasoning.steps, found.verdicts, strict=True)
        ],
        "conclusion": reasoning.conclusion,
        "answer": family.solve(facts),
        "required": list(found.required),
        "covered": list(found.covered),
        "is_true": found.is_true,
        "is_complete": found.coverage == 1,
        "is_well_formed": found.well_formed,
        "is_right": found.correct,
        "is_sound": found.is_sound,
    }


def _as_text(report: Mapping[str, Any]) -> str:
    from judicaita.training.console import plain

    lines = [f"{report['family']}, level {report['level']}: {report['law']}", ""]
    for step in report["steps"]:
        reason = f"\n{'':23}{step['reason']}" if step["reason"] else ""
        lines.append(f"Step {step['number']:<3} {step['status']:<13} {step['text']}{reason}")
    if not report["steps"]:
        lines.append("(no steps)")
    if report["conclusion"] is not None:
        lines.append(f"Conclusion: {report['conclusion']}")
    required, covered = report["required"], report["covered"]
    missing = ", ".join(factor for factor in required if factor not in covered)
    left = f"; open: {missing}" if missing else ""
    notes = {
        "true": "there are steps, each can be checked, and none is false",
        "complete": f"{len(covered)} of {len(required)} points are decided{left}",
        "well-formed": "numbered steps, then one conclusion, and nothing else",
        "right": f"under the rule the answer is {report['answer']}",
        "sound": "all of these",
    }
    lines.append("")
    for name, note in notes.items():
        holds = "yes" if report[f"is_{name.replace('-', '_')}"] else "no"
        lines.append(f"{name:<12} {holds:<4} {note}")
    return plain("\n".join(lines))
