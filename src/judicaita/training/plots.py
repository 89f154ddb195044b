"""What a person would rather look at than read: a run's rewards and accuracy, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from judicaita.errors import DataError, JudicaitaError
from judicaita.training.metrics import read_events


def plot_run(events: Path, output: Path) -> Path:
    """Draw the events of a GRPO run as a PNG: rewards, held-out accuracy, shares.

    Needs matplotlib (``judicaita[eval]``); `DataError` when the run has taken no step yet.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise JudicaitaError(
            "plots need matplotlib, which is not installed: pip install 'judicaita[eval]'."
        ) from None
    recorded = read_events(events)
    steps = [event for event in recorded if event["event"] == "step"]
    evaluations = [event for event in recorded if event["event"] == "eval"]
    if not steps:
        raise DataError(f"{events} records no step, so there is nothing to draw.")
    figure = Figure(figsize=(12, 3.6), layout="constrained")
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
