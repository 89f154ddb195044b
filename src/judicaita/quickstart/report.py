"""What a seed of the quick start showed: tables, a picture, two answers, and figures as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from judicaita.legal.answers import parse_reasoning
from judicaita.legal.tasks import check_trace, get_family
from judicaita.quickstart.arms import CONTROL, OUTCOME, VERIFIED
from judicaita.training.console import TrainingConsole
from judicaita.training.evaluation import EvaluationReport
from judicaita.types import Sample

SHOWN = (
    "accuracy",
    "true",
    "sound",
    "coverage",
    "right_with_false_step",
    "format_compliance",
)
ARMS = {
    "before": "before",
    CONTROL: "supervised",
    OUTCOME: "outcome only",
    VERIFIED: "true steps",
}
"""Evaluation → heading, in the order of tables and bars."""

_MARKS = {"true": "true ", "false": "FALSE", "not checkable": "?    "}


@dataclass(frozen=True)
class SeedReport:
    """Everything measured with one seed."""

    seed: int
    folder: Path
    model: Path
    """Of the arm with the step reward."""
    evaluations: Mapping[str, EvaluationReport]
    """By the keys of `ARMS`, all on the same held-out questions of hard levels."""
    easy: Mapping[str, EvaluationReport]
    """``before`` and the step reward's arm on held-out questions of easy levels."""
    left_out: EvaluationReport
    """The step reward's arm on hard questions of the families that it was not trained on."""
    top: EvaluationReport
    """The same arm on the top level, which binds facts to roles, of the families it knows."""
    one_factor: float
    two_factors: float
    bag_of_words: float
    overlap: int
    """Held-out fact patterns that were trained on."""
    answers: str
    """One question, answered before and after."""
    seconds: float

    def figures(self) -> dict[str, Any]:
        """The figures as ``--json`` writes them."""
        before, after = (self.evaluations[name].metrics for name in ("before", VERIFIED))
        figures: dict[str, Any] = {"seed": self.seed}
        for name in ("accuracy", "true", "sound"):
            figures |= {f"{name}_before": before[name], f"{name}_after": after[name]}
        figures |= {
            "false_step_after": after["right_with_false_step"],
            "format_after": after["format_compliance"],
        }
        for arm in (OUTCOME, CONTROL):
            metrics = self.evaluations[arm].metrics
            figures[arm] = {name: metrics[name] for name in ("accuracy", "true", "sound")}
        return figures | {
            "one_factor": self.one_factor,
            "two_factor": self.two_factors,
            "bag_of_words": self.bag_of_words,
            "heldout_items": int(after["samples"]),
            "overlap": self.overlap,
            "seconds": self.seconds,
            "easy_sound_before": self.easy["before"].metrics["sound"],
            "easy_sound_after": self.easy[VERIFIED].metrics["sound"],
            "top_level": {name: self.top.metrics[name] for name in ("accuracy", "true", "sound")},
            "families": {
                family: {name: self.evaluations[VERIFIED].by_family[family][name] for name in SHOWN}
                for family in self.evaluations[VERIFIED].by_family
            },
            "left_out": {
                family: {name: metrics[name] for name in ("accuracy", "true", "sound")}
                for family, metrics in self.left_out.by_family.items()
            },
        }


def print_seed(report: SeedReport) -> None:
    """Tables on the screen, and a picture in the folder where matplotlib is installed."""
    console = TrainingConsole(0)
    count = int(report.evaluations[VERIFIED].metrics["samples"])
    title = f"{count} held-out questions of hard levels; none of their fact patterns was trained on"
    columns = {heading: report.evaluations[arm].metrics for arm, heading in ARMS.items()}
    console.print_comparison(title, columns, SHOWN)
    for name in ("accuracy", "true", "sound"):
        rows = {
            heading: {f: m[name] for f, m in report.evaluations[arm].by_family.items()}
            for arm, heading in ARMS.items()
        }
        families = list(report.evaluations[VERIFIED].by_family)
        console.print_comparison(f"{name} by family", rows, families)
    easy = {
        heading: report.easy[arm].metrics for arm, heading in ARMS.items() if arm in report.easy
    }
    console.print_comparison("the easy levels, of which solutions were shown", easy, SHOWN)
    top = {"true steps": report.top.metrics}
    console.print_comparison("the top level, which binds facts to roles", top, SHOWN)
    left = {name: dict(metrics) for name, metrics in report.left_out.by_family.items()}
    console.print_comparison("families left out of GRPO", left, ("accuracy", "true", "sound"))
    if find_spec("matplotlib"):
        plot_seed(report, report.folder / "arms.png")


def plot_seed(report: SeedReport, output: Path) -> Path:
    """Draw the arms side by side: every figure overall, and soundness by family."""
    from judicaita.training.plots import plot_bars

    overall = {
        heading: [report.evaluations[arm].metrics[name] for name in SHOWN]
        for arm, heading in ARMS.items()
    }
    families = list(report.evaluations[VERIFIED].by_family)
    sound = {
        heading: [report.evaluations[arm].by_family[family]["sound"] for family in families]
        for arm, heading in ARMS.items()
    }
    panels = {
        "held-out questions of hard levels": (SHOWN, overall),
        "sound answers by family": (families, sound),
    }
    return plot_bars(panels, output)


def compare_answers(
    before: EvaluationReport, after: EvaluationReport, samples: Sequence[Sample]
) -> str:
    """One question with both answers, step by step: the first that became sound, if any did."""
    rows = list(zip(samples, before.records, after.records, strict=True))
    sample, first, second = next(
        (row for row in rows if row[2].is_sound and not row[1].is_sound), rows[0]
    )
    return (
        f"{sample.prompt}\n\nBefore GRPO:\n{_marked(sample, first.response)}\n\n"
        f"After GRPO with the step reward:\n{_marked(sample, second.response)}\n\n"
        f"The law: {'; '.join(sample.authorities)} "
        f"({sample.facts['jurisdiction']}, as of {sample.facts['as_of']})."
    )


def _marked(sample: Sample, response: str) -> str:
    """Each step behind what the checker says of it."""
    check = check_trace(get_family(sample.facts["family"]), sample.facts, response)
    reasoning = parse_reasoning(response)
    lines = [
        f"  {_MARKS[verdict.status]}  {step.text}"
        + (f"  ({verdict.reason})" * bool(verdict.reason))
        for step, verdict in zip(reasoning.steps, check.verdicts, strict=True)
    ]
    right = "right" if check.correct else "wrong"
    missing = len(check.required) - len(check.covered)
    gaps = f", {missing} of {len(check.required)} points undecided" if missing else ""
    return "\n".join([*lines, f"  Conclusion: {reasoning.conclusion}  ({right}{gaps})"])


def summary(reports: Sequence[SeedReport]) -> str:
    """What to tell the person at the end."""
    last = reports[-1]
    lines = [last.answers, ""]
    for report in reports:
        figures = report.figures()
        lines.append(
            f"Seed {report.seed}, {report.seconds / 60:.1f} minutes: accuracy "
            f"{figures['accuracy_before']:.3f} → {figures['accuracy_after']:.3f}, sound answers "
            f"{figures['sound_before']:.3f} → {figures['sound_after']:.3f}; with the outcome alone "
            f"{figures[OUTCOME]['sound']:.3f}, with more lessons {figures[CONTROL]['sound']:.3f}."
        )
        lines.append(
            f"  Without reasoning: the best one fact {report.one_factor:.3f}, the best two "
            f"{report.two_factors:.3f}, a bag of words {report.bag_of_words:.3f} right."
        )
    picture = last.folder / "arms.png"
    lines.append(f"The runs: {last.folder}" + (f"   drawn: {picture}" if picture.exists() else ""))
    lines.append(f"Next: judicaita evaluate-model {last.model}")
    return "\n".join(lines)
