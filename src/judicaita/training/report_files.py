"""An evaluation as a folder: what it found, and every answer.

report.json      all figures
samples.parquet  one row a sample
report.md        the figures for a person
report.html      the same with plots, in one file that loads nothing and runs nothing
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from judicaita.errors import ConfigError
from judicaita.legal.legalbench import TASKS
from judicaita.training.durable import write_file, write_json
from judicaita.training.evaluation import EvaluationRecord
from judicaita.training.legalbench_scores import is_row
from judicaita.training.report import Report, prompt_text
from judicaita.training.report_pages import to_html, to_markdown
from judicaita.types import Sample

REPORT, SAMPLES, MARKDOWN, HTML = "report.json", "samples.parquet", "report.md", "report.html"


def refuse_folder(folder: Path | str) -> None:
    """`ConfigError` where a report cannot be written: before hours of generation, not after."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, and a report is a folder. Name a folder.")
    others = [path.name for path in folder.glob("*")] if folder.exists() else []
    if others and not (folder / REPORT).is_file():
        raise ConfigError(
            f"{folder} holds other files ({min(others)}) and no report, so that none is mixed "
            "with them. Name a new folder."
        )


def write_report(report: Report, folder: Path | str) -> Path:
    """Write the four files; those of an earlier report are replaced. Returns ``report.html``."""
    refuse_folder(folder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    markdown, html = to_markdown(report).encode(), to_html(report).encode()
    _write_samples(folder / SAMPLES, report)
    write_file(folder / MARKDOWN, lambda file: file.write(markdown))
    write_file(folder / HTML, lambda file: file.write(html))
    write_json(folder / REPORT, report.to_dict())
    return folder / HTML


# ── one row a sample ─────────────────────────────────────────────────────────────────────────────


def _write_samples(path: Path, report: Report) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = sorted({part for record in report.evaluation.records for part in record.parts})
    texts, flags = pa.string(), pa.bool_()
    schema = pa.schema(
        [
            *((name, texts) for name in ("sample_id", "task", "category", "source", "license")),
            *((name, texts) for name in ("prompt", "reference", "completion", "answer")),
            *((name, flags) for name in ("correct", "official_correct", "corrected_correct")),
            ("well_formed", flags),
            ("family", texts),
            *((name, flags) for name in ("is_true", "is_sound", "has_false_step")),
            ("coverage", pa.float64()),
            ("reward", pa.float64()),
            *((f"reward.{part}", pa.float64()) for part in parts),
            ("finish_reason", texts),
            *((f"{name}_characters", pa.int64()) for name in ("prompt", "completion")),
            ("completion_tokens", pa.int64()),
        ]
    )
    rights = report.legalbench
    nothing = (None,) * len(report.samples)
    rows = zip(
        report.samples,
        report.evaluation.records,
        rights.official_right if rights else nothing,
        rights.corrected_right if rights else nothing,
        strict=True,
    )
    table = pa.Table.from_pylist([_row(*row, parts) for row in rows], schema=schema)
    write_file(path, lambda file: pq.write_table(table, file, compression="zstd"))


def _row(
    sample: Sample,
    record: EvaluationRecord,
    official: bool | None,
    corrected: bool | None,
    parts: Sequence[str],
) -> dict[str, Any]:
    prompt = prompt_text(sample.prompt)
    return {
        "sample_id": record.sample_id,
        "task": record.task,
        "category": TASKS[sample.task].category if is_row(sample) else None,
        "source": sample.source,
        "license": sample.license,
        "prompt": prompt,
        "reference": record.reference,
        "completion": record.response,
        "answer": record.answer,
        "correct": record.correct,
        "official_correct": official,
        "corrected_correct": corrected,
        "well_formed": record.well_formed,
        "family": record.family,
        "is_true": record.is_true,
        "is_sound": record.is_sound,
        "has_false_step": record.has_false_step,
        "coverage": record.coverage,
        "reward": record.reward,
        **{f"reward.{part}": record.parts.get(part) for part in parts},
        "finish_reason": record.finish_reason,
        "prompt_characters": len(prompt),
        "completion_characters": len(record.response),
        "completion_tokens": record.tokens,
    }
