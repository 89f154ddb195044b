"""An evaluation put together: its figures, its samples, LegalBench's scores, where it comes from.

`judicaita.training.report_pages` makes pages of it, `judicaita.training.report_files` a folder.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from judicaita.errors import ConfigError
from judicaita.legal.legalbench.averages import OVERALL
from judicaita.training.contamination import NOT_CHECKED
from judicaita.training.evaluation import EvaluationReport
from judicaita.training.legalbench_scores import LegalBenchScores, score_rows
from judicaita.types import Prompt, Sample

_FORMAT = 1
"""Of report.json and samples.parquet; raised when an older judicaita could misread a new one."""


@dataclass(frozen=True)
class Origin:
    """What was evaluated, and what is known of it."""

    checkpoint: str | None = None
    """The folder, as it was named; None for texts from a file."""
    predictions: str | None = None
    """That file."""
    dataset: str | None = None
    """As it was named; None for the held-out samples of the checkpoint's run."""
    step: int | None = None
    """Optimizer steps of the run that wrote the checkpoint."""
    base_model: str | None = None
    grading: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the grader that differ from the defaults."""
    contamination: Mapping[str, Any] = field(default_factory=NOT_CHECKED.as_fields)
    """`Contamination.as_fields` of the run, as far as it is about these samples."""

    @property
    def name(self) -> str:
        """For a heading."""
        return self.checkpoint or self.predictions or "answers"


_GRADING = {"outcome_match": "auto", "outcome_threshold": 0.5, "min_steps": 2}
"""Settings that decide what is right and well-formed, and their defaults."""
_CONTAMINATION = ("train", "held_out", "held_out_overlapping", "by_kind")
"""What `contamination_sentence` needs."""


def origin_of_checkpoint(
    folder: Path | str, samples: Sequence[Sample], dataset: str | None = None
) -> Origin:
    """What a checkpoint's card and its run's manifest tell.

    The manifest's word on contamination is about the samples that the run held out, so it is taken
    over only where all ``samples`` are of these.
    """
    from judicaita.training.checkpoints import HELD_OUT, read_card
    from judicaita.training.data_curation import read_samples

    folder = Path(folder)
    card = read_card(folder)
    config: Mapping[str, Any] = card.get("config", {})
    contamination: Mapping[str, Any] = NOT_CHECKED.as_fields()
    found = _manifest(folder).get("contamination")
    held_out = folder / HELD_OUT
    is_told = isinstance(found, Mapping) and found.keys() >= {"status", *_CONTAMINATION}
    if found and is_told and held_out.is_file():
        ids = {sample.id for sample in samples}
        if ids <= {sample.id for sample in read_samples(held_out)}:
            contamination = found
    return Origin(
        checkpoint=str(folder),
        dataset=dataset,
        step=card.get("step"),
        base_model=config.get("base_model"),
        grading={
            name: config[name]
            for name, default in _GRADING.items()
            if config.get(name, default) != default
        },
        contamination=contamination,
    )


def _manifest(checkpoint: Path) -> Mapping[str, Any]:
    """Of the run: beside its ``final/``, or above its ``checkpoints/``. {} where there is none."""
    folder = checkpoint.absolute()
    for root in (folder.parent, folder.parent.parent):
        path = root / "manifest.json"
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                return {}
            return content if isinstance(content, dict) else {}
    return {}


@dataclass(frozen=True)
class Report:
    """All that a report folder tells."""

    evaluation: EvaluationReport
    samples: tuple[Sample, ...]
    """Of the evaluation's records, in the same order."""
    legalbench: LegalBenchScores | None
    """None without a row of LegalBench that has a score."""
    origin: Origin
    created: str
    """UTC, ISO 8601."""

    def to_dict(self) -> dict[str, Any]:
        """What ``report.json`` holds; the answers themselves are in ``samples.parquet``."""
        return {
            "format": _FORMAT,
            "judicaita": version("judicaita"),
            "created": self.created,
            "evaluated": {
                name: getattr(self.origin, name)
                for name in ("checkpoint", "step", "base_model", "predictions", "dataset")
            },
            "grading": dict(self.origin.grading),
            "contamination": dict(self.origin.contamination),
            "metrics": dict(self.evaluation.metrics),
            "by_task": _plain(self.evaluation.by_task),
            "by_family": _plain(self.evaluation.by_family),
            "legalbench": self.legalbench and self.legalbench.as_fields(),
            "licenses": dict(sorted(Counter(sample.license for sample in self.samples).items())),
        }


def build_report(
    evaluation: EvaluationReport, samples: Sequence[Sample], origin: Origin | None = None
) -> Report:
    """Put an evaluation together with its samples, and score those that are rows of LegalBench."""
    ids = [record.sample_id for record in evaluation.records]
    if ids != [sample.id for sample in samples]:
        raise ConfigError(
            "the samples are not those of the evaluation, in its order. Give the same samples to "
            "both; for a checkpoint's own, evaluation_samples(folder) has them."
        )
    return Report(
        evaluation=evaluation,
        samples=tuple(samples),
        legalbench=score_rows(samples, [record.response for record in evaluation.records]),
        origin=origin or Origin(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def prompt_text(prompt: Prompt) -> str:
    """Plain text as it is; the turns of a conversation as JSON, as rollouts have them."""
    if isinstance(prompt, str):
        return prompt
    return json.dumps([dict(message) for message in prompt], ensure_ascii=False)


def _plain(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {name: dict(values) for name, values in figures.items()}


# ── what a person is told beside the figures ─────────────────────────────────────────────────────


def contamination_sentence(found: Mapping[str, Any]) -> str:
    """What a manifest says of contamination, for a person."""
    if found.get("status") == "no overlap":
        return (
            f"None of the {found['held_out']} held-out samples of the run overlaps with the "
            f"{found['train']} it was trained on."
        )
    if found.get("status") == "overlap":
        kinds = ", ".join(f"{count} {kind}" for kind, count in found["by_kind"].items())
        return (
            f"The training data of the run hold {found['held_out_overlapping']} of its "
            f"{found['held_out']} held-out samples ({kinds}): these figures say less of new "
            "questions than they seem to."
        )
    return "Whether the training data overlap with these samples was not checked."


def legalbench_rows(scores: LegalBenchScores) -> list[tuple[str, str, str]]:
    """Name, official and corrected score of each average, for the screen."""
    pairs = [
        (scores.official.overall, scores.corrected.overall),
        *zip(scores.official.categories, scores.corrected.categories, strict=True),
    ]
    return [
        (
            f"{official.name} ({official.tasks} {'task' if official.tasks == 1 else 'tasks'})",
            with_interval(asdict(official.score)),
            with_interval(asdict(corrected.score)),
        )
        for official, corrected in pairs
        if official.name == OVERALL or len(pairs) > 2
    ]


def with_interval(estimate: Mapping[str, float]) -> str:
    """``0.612 (0.551 to 0.670)``."""
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"
