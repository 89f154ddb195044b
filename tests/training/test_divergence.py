"""When reward and accuracy part: the rule by hand, and what chance makes of it."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from judicaita.training.config import TrainingConfig
from judicaita.training.divergence import EVENT, LEAST, WINDOW, DivergenceWatch, trend
from judicaita.training.metrics import read_events
from judicaita.training.records import RunRecorder, StepRecord
from judicaita.training.run_folder import RunFolder


def test_trend_by_hand():
    # S = 10 of 10 pairs; variance 5 · 4 · 15 / 18.
    assert trend([1, 2, 3, 4, 5]) == pytest.approx(9 / math.sqrt(300 / 18))
    assert trend([5, 4, 3, 2, 1]) == -trend([1, 2, 3, 4, 5])
    # 1, 1, 2: S = 2; variance (3 · 2 · 11 − 2 · 1 · 9) / 18.
    assert trend([1, 1, 2]) == pytest.approx(1 / math.sqrt(48 / 18))
    assert trend([3, 3, 3]) == 0


@given(st.lists(st.integers(0, 8), min_size=2, max_size=30))
def test_trend_has_the_sign_of_kendall_s_tau(values):
    z = trend(values)
    tau = kendalltau(range(len(values)), values).statistic if len(set(values)) > 1 else 0.0
    assert z * tau >= 0
    assert trend([-value for value in values]) == -z


def see_all(watch, rewards, accuracies, event="step", first=1):
    found = []
    for step, (reward, accuracy) in enumerate(zip(rewards, accuracies, strict=True), start=first):
        if it := watch.see(event, step, {"reward": reward, "accuracy": accuracy}):
            found.append((step, it))
    return found


def test_the_rule_by_hand():
    rising = [0.1 * n for n in range(LEAST)]
    falling = [0.9 - 0.02 * n for n in range(LEAST)]
    [(step, found)] = see_all(DivergenceWatch(), rising, falling)
    assert (step, found.points, found.first_step) == (LEAST, LEAST, 1)
    # Eleven points: five, the one in the middle, five.
    assert found.accuracy_before == pytest.approx(0.86)
    assert found.accuracy_after == pytest.approx(0.74)
    assert found.reward_before == pytest.approx(0.2)
    assert found.reward_after == pytest.approx(0.8)
    assert found.reward_z == pytest.approx(54 / math.sqrt(11 * 10 * 27 / 18))
    assert found.accuracy_z == -found.reward_z
    assert "steps from step 1 to 11 the reward went from 0.200 to 0.800" in found.sentence(11)
    assert "accuracy from 0.860 to 0.740" in found.sentence(11)


@pytest.mark.parametrize(
    ("rewards", "accuracies"),
    [
        ([0.1 * n for n in range(50)], [0.1 * n for n in range(50)]),
        ([-0.1 * n for n in range(50)], [-0.1 * n for n in range(50)]),
        ([0.5] * 50, [1 - 0.02 * n for n in range(50)]),
        ([0.1 * n for n in range(50)], [0.5] * 50),
        # Certainly falling, and by less than 0.05 from half to half.
        ([0.1 * n for n in range(50)], [0.5 - 0.001 * n for n in range(50)]),
        ([0.1 * n for n in range(10)], [0.9 - 0.09 * n for n in range(10)]),
    ],
    ids=["both rise", "both fall", "equal reward", "equal accuracy", "small", "short"],
)
def test_silent(rewards, accuracies):
    assert see_all(DivergenceWatch(), rewards, accuracies) == []


def test_told_once_and_watched_anew():
    rewards = [0.01 * n for n in range(3 * LEAST)]
    accuracies = [1 - 0.02 * n for n in range(3 * LEAST)]
    told = see_all(DivergenceWatch(), rewards, accuracies)
    assert [step for step, _ in told] == [LEAST, 2 * LEAST, 3 * LEAST]
    assert [found.first_step for _, found in told] == [1, LEAST + 1, 2 * LEAST + 1]


def test_only_the_window_counts():
    """A long fall that is over is forgotten."""
    watch = DivergenceWatch()
    assert see_all(watch, [0.5] * 40, [1 - 0.02 * n for n in range(40)]) == []
    later = [0.5 + 0.01 * n for n in range(2 * WINDOW)]
    found = see_all(watch, later, [0.2] * (2 * WINDOW), first=41)
    assert all(step <= 40 + WINDOW for step, _ in found)


def test_points_without_both_figures_are_passed_over():
    watch = DivergenceWatch()
    for step in range(LEAST):
        assert watch.see("step", step, {"reward": step}) is None
        assert watch.see("step", step, {"reward": math.nan, "accuracy": 1 - 0.05 * step}) is None
        assert watch.see("coverage", step, {"reward": 1, "accuracy": 0}) is None
    found = see_all(watch, [0.1 * n for n in range(LEAST)], [1 - 0.05 * n for n in range(LEAST)])
    assert len(found) == 1


def simulate(seed, steps, fall):
    """A run of 8 questions a step with 4 completions each: the reward rises for certain, and
    accuracy is a share of right ones among questions of different difficulty."""
    rng = np.random.default_rng(seed)
    watch = DivergenceWatch()
    for step in range(1, steps + 1):
        chance = 0.5 - fall * step
        right = rng.binomial(4, rng.beta(2 * chance, 2 - 2 * chance, size=8)).sum()
        figures = {"reward": 0.001 * step + rng.normal(0, 0.05), "accuracy": right / 32}
        if watch.see("step", step, figures):
            return step
    return None


def test_noise_is_no_divergence():
    """A rising reward is half of the rule already. The docstring has the figure of 1,000 runs."""
    assert sum(simulate(seed, 400, 0.0) is not None for seed in range(50)) <= 1


def test_a_true_fall_is_found():
    found = [simulate(seed, 200, 0.002) for seed in range(20)]
    assert None not in found
    assert np.median(found) < 120


# ── in a run ─────────────────────────────────────────────────────────────────────────────────────


def record_steps(folder, first, last):
    """Steps of a run whose reward rises and whose accuracy falls, in a process of their own."""
    config = TrainingConfig(base_model="tiny", checkpoint_dir=folder)
    recorder = RunRecorder(RunFolder(folder), config, show_progress=True)
    with recorder.opened(first - 1, 40):
        for step in range(first, last + 1):
            metrics = {"reward": 0.1 * step, "accuracy": 1 - 0.02 * step}
            recorder.step(StepRecord(step, dict(metrics)), [], [], parts=())
            if step % 2 == 0:
                recorder.evaluation(step, metrics)


def told(folder):
    events = read_events(folder / "events.jsonl")
    clocks = ("time", "seconds/", "tokens_per_second")
    return [{k: v for k, v in event.items() if not k.startswith(clocks)} for event in events]


def test_the_events_tell(tmp_path, capsys):
    record_steps(tmp_path, 1, 30)
    found = [event for event in told(tmp_path) if event["event"] == EVENT]
    assert [(event["of"], event["step"]) for event in found] == [
        ("step", 11),
        ("step", 22),
        ("eval", 22),
    ]
    assert "the reward rises while accuracy falls" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("cut", [5, 11, 16, 22])
def test_resumed_exactly(tmp_path, cut):
    """A run that goes on, in another process, tells what one without a break tells."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    record_steps(whole, 1, 30)
    record_steps(parts, 1, cut)
    record_steps(parts, cut + 1, 30)
    assert told(parts) == told(whole)


def test_going_back_in_one_process(tmp_path):
    """`load_checkpoint` cuts the events; what came after them is not remembered."""
    config = TrainingConfig(base_model="tiny", checkpoint_dir=tmp_path)
    recorder = RunRecorder(RunFolder(tmp_path), config, show_progress=False)

    def steps(first, last):
        with recorder.opened(first - 1, 40):
            for step in range(first, last + 1):
                metrics = {"reward": 0.1 * step, "accuracy": 1 - 0.02 * step}
                recorder.step(StepRecord(step, metrics, {"update": 1.0}), [], [], parts=())

    steps(1, 6)
    events = tmp_path / "events.jsonl"
    six = events.read_bytes()
    steps(7, 9)
    events.write_bytes(six)
    steps(7, 11)
    assert [event["step"] for event in told(tmp_path) if event["event"] == EVENT] == [11]


def test_damaged_events_stop_no_run(tmp_path, capsys):
    (tmp_path / "events.jsonl").write_text("{torn\n" + json.dumps({"event": "x", "step": 1}) + "\n")
    record_steps(tmp_path, 1, 2)
    assert "watched from here on alone" in " ".join(capsys.readouterr().err.split())
