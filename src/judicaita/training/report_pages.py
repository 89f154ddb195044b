"""A report as pages for a person: Markdown, and one HTML file with its plots inside.

Names and texts come from models and data sets. In the HTML the template engine escapes every one of
them, the page forbids itself scripts and remote content, and plots are pictures, whose text is
drawn. In the Markdown they are escaped as in reasoning traces.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from itertools import zip_longest
from typing import Any

from judicaita.legal.legalbench import Scoreboard
from judicaita.training.console import plain, shorten
from judicaita.training.legalbench_scores import LENIENT, WHOLE_TEXT, LegalBenchScores
from judicaita.training.markdown import block, cell, code, inline
from judicaita.training.report import (
    Report,
    contamination_sentence,
    prompt_text,
    with_interval,
)

EXAMPLES = 24
"""Answers that a page shows; ``samples.parquet`` has all of them."""
_CHARACTERS = 6_000
"""Of a prompt or an answer shown."""
NOTICE = "The answers were written by a language model. They are no legal advice."

_PER_TASK = (
    *("samples", "accuracy", "format_compliance"),
    *("true", "sound", "coverage", "right_with_false_step"),
)


@dataclass(frozen=True)
class Table:
    """Rows below a heading."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1
    """The first so many columns hold texts, and all others figures."""


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    title: str
    text: tuple[str, ...] = ()
    table: Table | None = None
    further: Table | None = None
    """A long table that the HTML folds away, and the Markdown leaves out."""
    plot: Plot | None = None


@dataclass(frozen=True)
class Plot:
    """A title, the names of rows, and for each series a value with its interval a row."""

    title: str
    groups: tuple[str, ...]
    series: Mapping[str, Sequence[tuple[float, float, float] | None]]


@dataclass(frozen=True)
class Example:
    """One answer."""

    title: str
    verdict: str
    prompt: str
    reference: str
    response: str
    license: str


def to_markdown(report: Report) -> str:
    """The figures, and some answers."""
    parts = [f"# {_TITLE}", f"{code(report.origin.name)}: {inline(_subtitle(report))}"]
    parts.append("\n".join(f"- {inline(note)}" for note in _notes(report)))
    for section in _sections(report):
        parts += [f"## {inline(section.title)}", *(inline(text) for text in section.text)]
        if section.table:
            parts.append(_markdown_table(section.table))
    parts += [f"## {_answers_title(report)}", f"**{NOTICE}**"]
    for example in _examples(report):
        parts += [f"### {inline(example.title)}: {example.verdict}"]
        parts += ["Prompt:", block(example.prompt), "Answer:", block(example.response)]
        parts.append(f"Reference: {inline(example.reference) or 'none'}")
    return "\n\n".join(parts) + "\n"


def to_html(report: Report) -> str:
    """The same with plots, where matplotlib is installed."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = plain
    template = files("judicaita.training").joinpath("report_template.html.j2")
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        title=_TITLE,
        name=report.origin.name,
        subtitle=_subtitle(report),
        cards=_cards(report),
        notes=_notes(report),
        sections=[(section, _picture(section.plot)) for section in _sections(report)],
        answers_title=_answers_title(report),
        notice=NOTICE,
        examples=_examples(report),
        version=version("judicaita"),
        created=report.created,
    )


_TITLE = "Evaluation report"


def _picture(plot: Plot | None) -> str | None:
    """A plot as a ``data:`` address; None without one, or without matplotlib."""
    if plot is None or not find_spec("matplotlib"):
        return None
    from judicaita.training.plots import draw_intervals

    image = draw_intervals(plot.title, plot.groups, plot.series)
    return "data:image/svg+xml;base64," + base64.b64encode(image).decode()


# ── what both pages tell ─────────────────────────────────────────────────────────────────────────


def _subtitle(report: Report) -> str:
    origin = report.origin
    held_out = "the samples that its run held out" if origin.checkpoint else "samples handed over"
    dataset = origin.dataset or held_out
    step = "" if origin.step is None else f"after step {origin.step}, "
    base = f"trained from {origin.base_model}, " if origin.base_model else ""
    return f"{step}{base}on {dataset}. {report.created}, judicaita {version('judicaita')}."


def _cards(report: Report) -> list[tuple[str, str, str]]:
    """Name, value and interval of the figures that matter most."""
    metrics = report.evaluation.metrics
    cards = [("samples", f"{metrics['samples']:.0f}", f"{metrics['graded']:.0f} with a reference")]
    if "accuracy" in metrics:
        span = f"{metrics['accuracy_low']:.3f} to {metrics['accuracy_high']:.3f}"
        cards.append(("accuracy", f"{metrics['accuracy']:.3f}", span))
    if report.legalbench:
        for board in (report.legalbench.official, report.legalbench.corrected):
            score = board.overall.score
            span = f"{score.low:.3f} to {score.high:.3f}"
            cards.append((f"LegalBench, {board.scoring}", f"{score.value:.3f}", span))
    for name in ("sound", "reward"):
        if name in metrics:
            cards.append((name, f"{metrics[name]:.3f}", ""))
    return cards


def _notes(report: Report) -> list[str]:
    """What a reader should know before the figures."""
    metrics, origin = report.evaluation.metrics, report.origin
    notes = [contamination_sentence(origin.contamination)]
    if report.legalbench and report.legalbench.not_comparable:
        notes.append(report.legalbench.not_comparable)
    if metrics.get("truncated", 0) >= 0.05:
        notes.append(
            f"{metrics['truncated']:.1%} of the answers were cut at the token limit, before they "
            "could conclude."
        )
    if origin.grading:
        told = ", ".join(f"{name}={value}" for name, value in origin.grading.items())
        notes.append(f"Graded by other settings than the defaults: {told}.")
    if origin.predictions:
        notes.append("The answers come from a file; their length in tokens is not known.")
    return notes


def _sections(report: Report) -> list[Section]:
    evaluation = report.evaluation
    sections = _legalbench(report.legalbench) if report.legalbench else []
    by_task = Section(
        "Every task",
        ("Accuracy is judged by the grader of training, with its 95 % interval (Wilson).",),
        table=_figures_table("task", evaluation.by_task),
        plot=_accuracy_plot(evaluation.by_task),
    )
    sections.append(by_task)
    if evaluation.by_family:
        sections.append(
            Section(
                "Generated families",
                ("Their steps were checked against the facts of each question.",),
                table=_figures_table("family", evaluation.by_family),
            )
        )
    rows = [(name, f"{value:.6g}") for name, value in evaluation.metrics.items()]
    sections.append(Section("All figures", table=Table(("figure", "value"), tuple(rows))))
    licenses = report.to_dict()["licenses"]
    rows = [(name or "not stated", str(count)) for name, count in licenses.items()]
    sections.append(Section("Licences of the samples", table=Table(("", "samples"), tuple(rows))))
    return sections


def _legalbench(scores: LegalBenchScores) -> list[Section]:
    official, corrected = scores.official, scores.corrected
    text = [WHOLE_TEXT, _intervals(official)]
    text += [f"Not scored: {task} ({why})." for task, why in scores.not_scored.items()]
    averages = [
        (
            own.name,
            str(own.tasks),
            str(own.samples),
            with_interval(asdict(own.score)),
            with_interval(asdict(other.score)),
        )
        for own, other in zip(
            (*official.categories, official.overall),
            (*corrected.categories, corrected.overall),
            strict=True,
        )
    ]
    tasks = [
        (
            own.task,
            own.category,
            own.metric if own.metric == other.metric else f"{own.metric} / {other.metric}",
            str(own.samples),
            with_interval(asdict(own.score)),
            with_interval(asdict(other.score)),
        )
        for own, other in zip(official.tasks, corrected.tasks, strict=True)
    ]
    return [
        Section(
            "LegalBench",
            tuple(text),
            table=Table(("", "tasks", "samples", "official", "corrected"), tuple(averages)),
            plot=_averages_plot(scores),
        ),
        Section(
            "LegalBench, task by task",
            table=Table(
                ("task", "category", "metric", "samples", "official", "corrected"),
                tuple(tasks),
                texts=3,
            ),
            plot=_tasks_plot(scores),
        ),
        *_references(scores),
    ]


def _intervals(board: Scoreboard) -> str:
    return (
        "Every task counts the same in an average. Intervals are of "
        f"{100 * board.confidence:.0f} %: bootstraps over the samples within tasks, "
        f"{board.resamples} resamples, seed {board.seed}."
    )


def _references(scores: LegalBenchScores) -> list[Section]:
    found = scores.references
    if found is None:
        return []
    official, corrected = found
    standings = [
        (
            own.model,
            str(own.tasks),
            f"{own.run:.3f}",
            f"{other.run:.3f}",
            f"{own.reference:.3f}",
        )
        for own, other in zip(official.standings, corrected.standings, strict=True)
    ]
    rows = [
        (row.task, f"{row.run:.3f}", *("" if it is None else f"{it:.3f}" for it in row.models))
        for row in official.rows
    ]
    heading = ("model", "tasks in common", "this run, official", "this run, corrected")
    return [
        Section(
            "Beside public models",
            (LENIENT, "Each line averages over the tasks that the run and the model both have."),
            table=Table((*heading, "the model, LegalEvalHub"), tuple(standings)),
            further=Table(("task", "this run, official", *official.models), tuple(rows)),
        )
    ]


def _figures_table(what: str, figures: Mapping[str, Mapping[str, float]]) -> Table:
    """Those of `_PER_TASK` that any row has; accuracy with its interval."""
    names = [name for name in _PER_TASK if any(name in row for row in figures.values())]

    def shown(row: Mapping[str, float], name: str) -> str:
        if name not in row:
            return ""
        if name == "accuracy":
            keys = {"value": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}
            return with_interval({own: row[key] for own, key in keys.items()})
        return f"{row[name]:.0f}" if name == "samples" else f"{row[name]:.3f}"

    rows = [(task, *(shown(row, name) for name in names)) for task, row in figures.items()]
    return Table((what, *(name.replace("_", " ") for name in names)), tuple(rows))


def _accuracy_plot(figures: Mapping[str, Mapping[str, float]]) -> Plot | None:
    points = {
        name: (row["accuracy"], row["accuracy_low"], row["accuracy_high"])
        for name, row in figures.items()
        if "accuracy" in row
    }
    if not points:
        return None
    title = "Accuracy by task, 95 % intervals"
    return Plot(title, tuple(points), {"accuracy": list(points.values())})


def _averages_plot(scores: LegalBenchScores) -> Plot:
    boards = {"official": scores.official, "corrected": scores.corrected}
    names = (*(row.name for row in scores.official.categories), scores.official.overall.name)
    series = {
        name: [
            (row.score.value, row.score.low, row.score.high)
            for row in (*board.categories, board.overall)
        ]
        for name, board in boards.items()
    }
    return Plot("LegalBench by category, 95 % intervals", names, series)


def _tasks_plot(scores: LegalBenchScores) -> Plot:
    boards = {"official": scores.official, "corrected": scores.corrected}
    series = {
        name: [(row.score.value, row.score.low, row.score.high) for row in board.tasks]
        for name, board in boards.items()
    }
    names = tuple(row.task for row in scores.official.tasks)
    return Plot("LegalBench by task, 95 % intervals", names, series)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────


def _answers_title(report: Report) -> str:
    shown, total = min(EXAMPLES, len(report.samples)), len(report.samples)
    return f"Answers ({shown} of {total}, wrong ones first)" if shown < total else "Answers"


def _examples(report: Report) -> list[Example]:
    """Wrong answers before ungraded and right ones; of each kind the tasks in turn."""
    rows = list(zip(report.samples, report.evaluation.records, strict=True))
    ordered = [
        row
        for verdict in (False, None, True)
        for row in _in_turn([row for row in rows if row[1].correct is verdict])
    ]
    verdicts = {False: "wrong", None: "not graded", True: "right"}
    return [
        Example(
            title=" ".join(filter(None, [record.task or "sample", record.sample_id])),
            verdict=verdicts[record.correct],
            prompt=shorten(prompt_text(sample.prompt), _CHARACTERS),
            reference=sample.reference,
            response=shorten(record.response, _CHARACTERS),
            license=sample.license,
        )
        for sample, record in ordered[:EXAMPLES]
    ]


def _in_turn(rows: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """One row of each task, then a second one of each, and so on."""
    by_task: dict[str, list[tuple[Any, Any]]] = {}
    for row in rows:
        by_task.setdefault(row[1].task, []).append(row)
    rounds = zip_longest(*by_task.values())
    return [row for each in rounds for row in each if row is not None]


def _markdown_table(table: Table) -> str:
    lines = [
        [cell(name) for name in table.heading],
        ["---" if place < table.texts else "---:" for place in range(len(table.heading))],
        *([cell(text) for text in row] for row in table.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
