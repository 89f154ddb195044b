"""The results as a picture: ratios of each row, and how the cost grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw(result: dict[str, Any], output: Path) -> None:
    """Bars of ratios above, lines of seconds below."""
    rows, growth = result["rows"], result["growth"]
    height = (len(rows) * 0.55 + 1.2) * bool(rows) + 3.6 * bool(growth)
    figure = Figure(figsize=(11, height), layout="constrained")
    parts = figure.subfigures(bool(rows) + bool(growth), 1, squeeze=False)[:, 0]
    if rows:
        _bars(parts[0].subplots(), rows)
    if growth:
        for axes, (name, points) in zip(
            parts[-1].subplots(1, len(growth), squeeze=False)[0], growth.items(), strict=True
        ):
            _lines(axes, name, points)
    figure.savefig(output, dpi=120)


def _bars(axes: Any, rows: list[dict[str, Any]]) -> None:
    for place, (key, name) in enumerate(
        (("ratio_step", "whole step"), ("ratio_training", "forward + backward"))
    ):
        heights = [number + 0.2 - 0.4 * place for number in range(len(rows))]
        bars = axes.barh(heights, [row[key] for row in rows], 0.38, label=name)
        axes.bar_label(bars, fmt="%.1f×", fontsize=8, padding=2)
    labels = [f"{_shape(row)}\n{_against(row)}" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_title("times faster than TRL on the same tokens")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")


def _shape(row: dict[str, Any]) -> str:
    length = f"{'' if row['exact'] else '≤ '}{row['completion_tokens']}"
    return f"{row['architecture']}, P {row['prompt_tokens']}, G {row['group']}, R {length}"


def _against(row: dict[str, Any]) -> str:
    return f"{row['peer'].replace('_', ' ')}, {row['threads']} thread{'s' * (row['threads'] > 1)}"


def _lines(axes: Any, name: str, points: list[dict[str, Any]]) -> None:
    field = name.replace(" ", "_")
    counts = [point[field] for point in points]
    for part in ("generation", "forward", "backward"):
        axes.plot(counts, [point["split"][part] for point in points], marker="o", label=part)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(name)
    axes.set_ylabel("seconds a step, one prompt")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
