"""What a person would rather look at than read: a run's rewards and accuracy, drawn."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from judicaita.errors import DataError, JudicaitaError
from judicaita.training.console import plain
from judicaita.training.metrics import read_events


def plot_run(events: Path, output: Path) -> Path:
    """Draw the events of a GRPO run as a PNG: rewards, held-out accuracy, shares.

    Needs matplotlib (``judicaita[eval]``); `DataError` when the run has taken no step yet.
    """
    recorded = read_events(events)
    steps = [event for event in recorded if event["event"] == "step"]
    evaluations = [event for event in recorded if event["event"] == "eval"]
    if not steps:
        raise DataError(f"{events} records no step, so there is nothing to draw.")
    figure = _figure(12, 3.6)
    rewards, accuracy, shares = figure.subplots(1, 3)
    parts = sorted(name for name in steps[0] if name.startswith("reward/"))
    _lines(rewards, "rewards while training", steps, ["reward", *parts])
    if any("accuracy" in event for event in evaluations):
        _accuracy(accuracy, evaluations)
    _lines(shares, "shares while training", steps, ["truncation_share", "zero_signal_share"])
    for axes in (rewards, accuracy, shares):
        axes.set_xlabel("optimizer step")
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
    figure.savefig(output, dpi=120)
    return output


Panel = tuple[Sequence[str], Mapping[str, Sequence[float]]]
"""Names of groups of bars, and for each series a share in [0, 1] per group."""


def plot_bars(panels: Mapping[str, Panel], output: Path) -> Path:
    """Draw panels of grouped bars, one below another, as a PNG; a title leads to each panel.

    Needs matplotlib (``judicaita[eval]``).
    """
    figure = _figure(11, 3.4 * len(panels))
    for axes, (title, (groups, series)) in zip(
        figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True
    ):
        width = 0.8 / len(series)
        for place, (name, values) in enumerate(series.items()):
            starts = [group - 0.4 + (place + 0.5) * width for group in range(len(groups))]
            bars = axes.bar(starts, values, width, label=name)
            axes.bar_label(bars, fmt="%.2f", fontsize=6, padding=1)
        axes.set_xticks(range(len(groups)), [name.replace("_", " ") for name in groups])
        axes.tick_params(axis="x", labelsize=8)
        axes.set_ylim(0, 1.3)  # room for the legend above full bars
        axes.set_title(title)
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize="small", ncols=len(series), loc="upper right")
    figure.savefig(output, dpi=120)
    return output


Interval = tuple[float, float, float]
"""A value, and where its interval begins and ends."""


def draw_intervals(
    title: str, groups: Sequence[str], series: Mapping[str, Sequence[Interval | None]]
) -> bytes:
    """Draw values from 0 to 1 with their intervals as an SVG: a row a group, the first on top, a
    colour a series. None leaves a place empty; the same figures give the same bytes.

    Needs matplotlib (``judicaita[eval]``).
    """
    figure = _figure(9, 1.3 + 0.3 * len(groups))
    from matplotlib import rc_context

    with warnings.catch_warnings(), rc_context({"svg.hashsalt": "judicaita"}):
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # it draws a box
        axes = figure.subplots()
        for number, (name, values) in enumerate(series.items()):
            shift = 0.24 * (number - (len(series) - 1) / 2)
            points = [(row + shift, it) for row, it in enumerate(values) if it is not None]
            if not points:
                continue
            colour, marker = _COLOURS[number], _MARKERS[number]
            rows, found = zip(*points, strict=True)
            axes.hlines(rows, *zip(*(it[1:] for it in found), strict=True), colour, linewidth=2)
            axes.plot([it[0] for it in found], rows, marker, color=colour, label=name)
        axes.set_yticks(range(len(groups)), [_label(name) for name in groups])
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.set_title(title, loc="left", fontsize="medium")
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if len(series) > 1:
            figure.legend(loc="outside upper right", ncols=len(series), fontsize="small")
        target = BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(target, format="svg", metadata=nothing)
    image = target.getvalue()
    return image[image.index(b"<svg") :]  # without a document type, which names an address


_COLOURS, _MARKERS = ("#0b5fa5", "#c8501e"), ("o", "D")
"""Apart for those who do not tell colours apart, too."""


def _label(name: str) -> str:
    """A name beside an axis: short, and no formula."""
    text = plain(" ".join(name.split()))
    text = text if len(text) <= 44 else f"{text[:43]}…"
    return text.replace("$", r"\$")


def _figure(width: float, height: float) -> Any:
    """An empty drawing, in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise JudicaitaError(
            "plots need matplotlib, which is not installed: pip install 'judicaita[eval]'."
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def _lines(axes: Any, title: str, events: list[dict[str, Any]], names: list[str]) -> None:
    for name in names:
        points = [(event["step"], float(event[name])) for event in events if name in event]
        width = 2.0 if name == "reward" else 1.0
        axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), linewidth=width)
    axes.set_title(title)
    axes.legend(fontsize="small")


def _accuracy(axes: Any, evaluations: list[dict[str, Any]]) -> None:
    """Greedy accuracy on held-out samples, with its 95 % interval."""
    graded = [event for event in evaluations if "accuracy" in event]
    steps = [event["step"] for event in graded]
    axes.plot(steps, [event["accuracy"] for event in graded], marker="o", label="accuracy")
    low, high = ([event[name] for event in graded] for name in ("accuracy_low", "accuracy_high"))
    axes.fill_between(steps, low, high, alpha=0.2, label="95 % interval")
    axes.set_title("held-out accuracy")
    axes.legend(fontsize="small", loc="lower right")
