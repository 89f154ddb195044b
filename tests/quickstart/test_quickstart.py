"""The quick start at a small scale: real arms in real processes, and what is told of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from judicaita import cli
from judicaita.legal.tasks import generate
from judicaita.quickstart.arms import CONTROL, OUTCOME, VERIFIED, Scale
from judicaita.quickstart.report import ARMS, SHOWN, SeedReport, compare_answers, plot_seed, summary
from judicaita.quickstart.run import questions, unused
from judicaita.training.embedded import HARD_LEVELS, TAUGHT, Recipe
from judicaita.training.evaluation import EvaluationHarness, EvaluationReport, evaluate_checkpoint
from judicaita.training.metrics import read_events
from judicaita.training.rewards import CompositeReward
from judicaita.types import Sample

SMALL = Scale(
    recipe=Recipe(steps=2, batch_size=4, hidden=16),
    steps=4,
    held_out_each=4,
    curve=6,
    words_from=140,
    settings={"batch_size": 4, "num_rollouts": 4, "generation_max_length": 12},
)
ARM = {"accuracy", "true", "sound"}


def test_every_seed_is_compared_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr("judicaita.quickstart.run.DEFAULT_SCALE", SMALL)
    figures_file, runs = tmp_path / "out" / "figures.json", tmp_path / "runs"
    arguments = ["quickstart", "--seeds", "0", "3", "--json", str(figures_file)]
    cli.main([*arguments, "--output-dir", str(runs)])

    told = json.loads(figures_file.read_text(encoding="utf-8"))["seeds"]
    assert [row["seed"] for row in told] == [0, 3]
    for row in told:
        assert {"accuracy_before", "accuracy_after", "true_before", "true_after"} <= row.keys()
        assert {"sound_before", "sound_after", "false_step_after", "format_after"} <= row.keys()
        assert row[OUTCOME].keys() == row[CONTROL].keys() == ARM
        assert row["heldout_items"] == 4 * 7
        assert row["overlap"] == 0
        assert row["seconds"] > 0
        assert 0.3 < row["one_factor"] <= row["two_factor"] <= 1
        assert 0 <= row["bag_of_words"] <= 1
        assert set(row["left_out"]) == {"diversity", "issue_spotting", "statute_of_limitations"}
        assert len(row["families"]) == 7
        assert row["top_level"].keys() == ARM

    # The arms differ in the step reward alone, and both trained what they say.
    for name, weight in ((VERIFIED, 0.667), (OUTCOME, 0.0)):
        run = runs / "seed-0" / name
        card = json.loads((run / "final" / "judicaita.json").read_text(encoding="utf-8"))
        assert card["config"]["step_weight"] == weight
        steps = [event for event in read_events(run / "events.jsonl") if event["event"] == "step"]
        assert len(steps) == SMALL.steps
        assert all(step["rehearsal/tokens"] > 0 for step in steps)
    assert (runs / "seed-0" / "arms.png").stat().st_size > 10_000
    shown = capsys.readouterr().out
    assert "Seed 0, " in shown
    assert "Seed 3, " in shown
    assert "After GRPO with the step reward:" in shown

    # The figures are those of the model that is named.
    model = runs / "seed-3" / VERIFIED / "final"
    assert str(model) in shown
    held_out = questions(TAUGHT, HARD_LEVELS, SMALL.held_out_each, 3)
    metrics = evaluate_checkpoint(model, held_out, text_overlap=False).metrics
    assert told[1]["format_after"] == metrics["format_compliance"]
    assert told[1]["true_after"] == metrics["true"]
    assert told[1]["accuracy_after"] == metrics["accuracy"]


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    assert unused(tmp_path / "seed-0") == tmp_path / "seed-0"
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0-2").mkdir()
    assert unused(tmp_path / "seed-0") == tmp_path / "seed-0-3"


# ── the report ───────────────────────────────────────────────────────────────────────────────────


def _graded(samples: list[Sample], texts: list[str]) -> EvaluationReport:
    harness = EvaluationHarness(CompositeReward(step_weight=1.0), text_overlap=False)
    return harness.score(samples, texts, [20] * len(samples), ["stop"] * len(samples))


def _report(folder: Path) -> SeedReport:
    """Four questions: the step reward's arm solves all, the others less and less."""
    samples = generate("hearsay", 4, split="eval", seed=0, levels=[4])
    solved = [sample.trace for sample in samples]
    wrong = {"Yes": "No", "No": "Yes"}
    lost = [f"Step 1: it is late.\nConclusion: {wrong[sample.reference]}" for sample in samples]
    short = [
        f"{sample.trace.splitlines()[0]}\nConclusion: {sample.reference}" for sample in samples
    ]
    before = _graded(samples, [*lost[:2], *short[2:]])
    after = _graded(samples, solved)
    evaluations = {
        "before": before,
        OUTCOME: _graded(samples, short),
        CONTROL: _graded(samples, lost),
        VERIFIED: after,
    }
    return SeedReport(
        seed=5,
        folder=folder,
        model=folder / "final",
        evaluations=evaluations,
        easy={"before": before, VERIFIED: after},
        left_out=before,
        top=after,
        one_factor=0.7,
        two_factors=0.8,
        bag_of_words=0.9,
        overlap=0,
        answers=compare_answers(before, after, samples),
        seconds=90.0,
    )


def test_figures_by_hand(tmp_path: Path) -> None:
    figures = _report(tmp_path).figures()
    assert figures["accuracy_before"] == 0.5  # two of the four answers are right
    assert figures["true_before"] == 0.5  # and their one step is true,
    assert figures["sound_before"] == 0.0  # but one of four points is no whole answer
    assert figures["accuracy_after"] == figures["true_after"] == figures["sound_after"] == 1.0
    assert figures["false_step_after"] == 0.0
    assert figures["format_after"] == 1.0
    assert figures[OUTCOME] == {"accuracy": 1.0, "true": 1.0, "sound": 0.0}
    assert figures[CONTROL] == {"accuracy": 0.0, "true": 0.0, "sound": 0.0}
    assert figures["heldout_items"] == 4
    assert figures["two_factor"] == 0.8
    assert all(math.isfinite(v) for v in figures.values() if isinstance(v, float))


def test_both_answers_stand_beside_the_checkers_word(tmp_path: Path) -> None:
    answers = _report(tmp_path).answers
    before, after = answers.split("After GRPO with the step reward:")
    assert "?      it is late.  (" in before
    assert "(wrong, 4 of 4 points undecided)" in before
    assert after.count("  true   ") == 4
    assert "(right)" in after
    assert "Fed. R. Evid. 801(c)" in after


def test_the_summary_names_each_seed(tmp_path: Path) -> None:
    told = summary([_report(tmp_path)])
    assert "Seed 5, 1.5 minutes: accuracy 0.500 → 1.000, sound answers 0.000 → 1.000" in told
    assert "the best one fact 0.700" in told


def test_the_picture_shows_every_arm(tmp_path: Path) -> None:
    path = plot_seed(_report(tmp_path), tmp_path / "arms.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(ARMS) == 4
    assert len(SHOWN) == 6
