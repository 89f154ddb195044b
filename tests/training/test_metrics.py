"""The record of a run: what is written is what is read, and a crash never leaves half a file."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judicaita.errors import CheckpointError, DataError
from judicaita.training.metrics import (
    ENTERED,
    EventLog,
    cut_events,
    group_statistics,
    read_events,
    read_rollouts,
    remove_rollouts_after,
    sync_events,
    write_rollouts,
)
from judicaita.training.rewards import CompositeReward, OutcomeReward
from judicaita.types import Completion, Group, RewardResult, Sample

PARTS = ("format", "outcome", "verbosity")


def completion(length: int, *, cut: bool = False) -> Completion:
    return Completion(
        token_ids=tuple(range(7, 7 + length)),
        logprobs=tuple(-0.5 * (position + 1) for position in range(length)),
        finish_reason="length" if cut else "stop",
        policy_version=3,
    )


def composite(total: float | None, **scores: float | None) -> RewardResult:
    """A composite's result; an outcome of 1 is correct."""
    details: dict[str, Any] = {
        part: {"score": score, "weight": 0.5, "details": {}} for part, score in scores.items()
    }
    if scores.get("outcome") is not None:
        details["outcome"]["details"] = {"correct": scores["outcome"] == 1.0}
    return RewardResult(total, details)


@pytest.fixture
def taught() -> Group:
    """A group of two, one right and one wrong and cut short."""
    return Group(
        sample=Sample(
            "Is § 1332 met?", "Yes", task="diversity_1", license="CC-BY-4.0", source="generated"
        ),
        prompt_ids=(1, 2, 3),
        completions=(completion(2), completion(6, cut=True)),
        texts=("Conclusion: Yes", "Step 1: The parties\nare"),
        results=(
            composite(1.0, format=1.0, outcome=1.0, verbosity=None),
            composite(0.25, format=0.5, outcome=0.0, verbosity=None),
        ),
        advantages=(0.75, -0.75),
        step_returns=((), (0.5,)),
        has_signal=True,
    )


@pytest.fixture
def flat(taught: Group) -> Group:
    """A group without signal: equal rewards, no advantages, no outcome; its prompt is a chat."""
    return replace(
        taught,
        sample=Sample(({"role": "user", "content": "Say „ja“."},), ""),
        completions=(completion(4), completion(4)),
        results=(composite(0.5, format=0.5, outcome=None),) * 2,
        step_returns=(),
        advantages=(),
        has_signal=False,
    )


# ── events ───────────────────────────────────────────────────────────────────────────────────────


def test_events_come_back_in_order_with_their_time(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write("start", 0, {"seed": 17})
    log.write("step", 1, {"reward/format": 0.5})
    start, step = read_events(log.path)  # before close: each line is out when write returns
    log.close()
    assert 1.7e9 < start.pop("time") <= step.pop("time")
    assert start == {"event": "start", "step": 0, "seed": 17}
    assert step == {"event": "step", "step": 1, "reward/format": 0.5}


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.floats(), max_size=5))
def test_every_float_round_trips_in_strict_json(figures: dict[str, float]) -> None:
    with TemporaryDirectory() as folder:
        _check_round_trip(EventLog(Path(folder) / "events.jsonl"), figures)


def _check_round_trip(log: EventLog, figures: dict[str, float]) -> None:
    log.write("step", 1, {f"x/{name}": value for name, value in figures.items()})
    log.close()
    json.loads(log.path.read_text(), parse_constant=pytest.fail)  # NaN, Infinity: no JSON
    (event,) = read_events(log.path)
    for name, value in figures.items():
        back = event[f"x/{name}"]
        assert isinstance(back, float) == math.isfinite(value)
        assert float(back) == value or (math.isnan(value) and math.isnan(float(back)))


def test_values_of_other_libraries_become_plain(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write(
        "step",
        1,
        {"a": np.float32(0.5), "b": np.array([1, 2]), "c": (np.inf,), "d": Path("x"), "e": None},
    )
    log.close()
    (event,) = read_events(log.path)
    assert {key: event[key] for key in "abcde"} == {
        "a": 0.5,
        "b": [1, 2],
        "c": ["inf"],
        "d": "x",
        "e": None,
    }


def test_a_field_cannot_hide_what_every_event_has(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(AssertionError, match="step"):
        log.write("step", 1, {"step": 2})
    log.close()


def test_a_torn_last_line_is_skipped_and_then_cut(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    whole = '{"event": "step", "step": 1, "time": 0.0}\n'
    path.write_text(whole + '{"event": "step", "st')
    assert [event["step"] for event in read_events(path)] == [1]
    log = EventLog(path)
    log.write("step", 2)
    log.close()
    assert [event["step"] for event in read_events(path)] == [1, 2]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "step", "step": 1}\n{"event": \n{"event": "step", "step": 3}\n')
    with pytest.raises(DataError, match="line 2: not a JSON object"):
        read_events(path)


def test_no_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such events file"):
        read_events(tmp_path / "events.jsonl")


def test_events_beyond_a_checkpoint_are_cut_byte_for_byte(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write("start", 0)
    log.write("step", 1, {"reward": 0.1})
    length = sync_events(log.path)
    kept = log.path.read_bytes()
    assert length == len(kept)
    log.write("eval", 1)
    log.write("step", 2)
    log.close()
    cut_events(log.path, length)
    assert log.path.read_bytes() == kept
    cut_events(log.path, length)
    log = EventLog(log.path)
    log.write("eval", 1, {"again": True})
    log.close()
    assert [(e["event"], e["step"]) for e in read_events(log.path)] == [
        ("start", 0),
        ("step", 1),
        ("eval", 1),
    ]


def test_events_that_a_checkpoint_knows_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    cut_events(path, 0)
    path.write_text('{"step": 1}\n{"step": 2}\n')
    for length in (100, 5):  # lines were lost; or it is another file
        with pytest.raises(CheckpointError, match=f"{length} bytes of whole lines are missing"):
            cut_events(path, length)
    assert len(read_events(path)) == 2
    cut_events(path, 12)
    assert path.read_text() == '{"step": 1}\n'


def failing_replace(*paths: Any, **options: Any) -> None:
    raise OSError(28, "No space left on device")


# ── rollouts ─────────────────────────────────────────────────────────────────────────────────────


def test_rollouts_come_back_as_written(tmp_path: Path, taught: Group, flat: Group) -> None:
    folder = tmp_path / "rollouts"
    reasons = [(ENTERED, "cut by the limit"), "no signal"]
    path = write_rollouts(folder, 12, [taught, flat], reasons, parts=PARTS)
    assert path == folder / "step-000012.parquet"
    first, second, third, _ = read_rollouts(folder)
    assert (second["step_returns"], third["step_returns"]) == ([0.5], None)
    assert json.loads(first.pop("reward_details")) == taught.results[0].details
    assert first == {
        "step": 12,
        "sample_id": taught.sample.id,
        "task": "diversity_1",
        "source": "generated",
        "license": "CC-BY-4.0",
        "prompt": "Is § 1332 met?",
        "reference": "Yes",
        "prompt_tokens": 3,
        "completion": "Conclusion: Yes",
        "token_ids": [7, 8],
        "logprobs": [-0.5, -1.0],
        "uncut_logprobs": None,
        "finish_reason": "stop",
        "policy_version": 3,
        "reward": 1.0,
        "reward.format": 1.0,
        "reward.outcome": 1.0,
        "reward.verbosity": None,
        "penalty": None,
        "advantage": 0.75,
        "step_returns": [],
        "entered_loss": True,
        "why": "entered",
    }
    assert (second["entered_loss"], second["why"]) == (False, "cut by the limit")
    assert second["finish_reason"] == "length"
    assert json.loads(third["prompt"]) == [{"role": "user", "content": "Say „ja“."}]
    assert (third["advantage"], third["reward.outcome"], third["why"]) == (None, None, "no signal")


def test_the_schema_does_not_depend_on_the_step(tmp_path: Path, taught: Group, flat: Group) -> None:
    one = write_rollouts(tmp_path, 1, [taught], [ENTERED], parts=PARTS)
    other = write_rollouts(tmp_path, 2, [flat], ["no signal"], parts=PARTS)
    empty = write_rollouts(tmp_path, 3, [], [], parts=PARTS)
    schema = pq.read_schema(one)
    assert schema == pq.read_schema(other) == pq.read_schema(empty)
    assert schema.field("token_ids").type == pa.list_(pa.int32())
    assert schema.field("logprobs").type == pa.list_(pa.float32())
    assert schema.field("reward.verbosity").type == pa.float64()


def test_details_that_json_does_not_know_do_not_stop_a_run(tmp_path: Path, taught: Group) -> None:
    details = {"found": {"b", "a"}, "ratio": math.nan, "at": Path("case.txt")}
    group = replace(taught, results=(RewardResult(1.0, details), RewardResult(0.0)))
    write_rollouts(tmp_path, 1, [group], [ENTERED], parts=())
    first, second = read_rollouts(tmp_path)
    assert json.loads(first["reward_details"]) == {
        "found": ["a", "b"],
        "ratio": "nan",
        "at": "case.txt",
    }
    assert json.loads(second["reward_details"]) == {}


def test_rows_that_do_not_fit_are_refused(tmp_path: Path, taught: Group) -> None:
    with pytest.raises(ValueError, match="zip"):
        write_rollouts(tmp_path, 1, [taught], [], parts=PARTS)
    with pytest.raises(ValueError, match="zip"):
        write_rollouts(tmp_path, 1, [taught], [(ENTERED,)], parts=PARTS)


def test_steps_are_read_in_order_and_removed_beyond_one(tmp_path: Path, taught: Group) -> None:
    for step in (10, 2, 1_000_000):
        write_rollouts(tmp_path, step, [taught], [ENTERED], parts=PARTS)
    assert [row["step"] for row in read_rollouts(tmp_path)] == [2, 2, 10, 10, 1000000, 1000000]
    remove_rollouts_after(tmp_path, 2)
    assert [row["step"] for row in read_rollouts(tmp_path)] == [2, 2]
    remove_rollouts_after(tmp_path / "absent", 2)


def test_a_crash_before_the_rename_leaves_the_old_file(
    tmp_path: Path, taught: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rollouts(tmp_path, 1, [taught], [ENTERED], parts=PARTS)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing_replace)
        with pytest.raises(OSError, match="No space left"):
            write_rollouts(tmp_path, 1, [taught, taught], [ENTERED] * 2, parts=PARTS)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_file_of_a_killed_run_is_not_read(tmp_path: Path, taught: Group) -> None:
    written = write_rollouts(tmp_path, 1, [taught], [ENTERED], parts=PARTS)
    aside = tmp_path / ".step-000002.parquet.tmp"
    aside.write_bytes(written.read_bytes()[:40])  # killed between writing and renaming
    assert {row["step"] for row in read_rollouts(tmp_path)} == {1}
    write_rollouts(tmp_path, 2, [taught], [ENTERED], parts=PARTS)
    assert not aside.exists()


def test_a_damaged_file_is_named(tmp_path: Path, taught: Group) -> None:
    path = write_rollouts(tmp_path, 1, [taught], [ENTERED], parts=PARTS)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="step-000001.parquet: not a readable Parquet file"):
        list(read_rollouts(tmp_path))


# ── figures of a step ────────────────────────────────────────────────────────────────────────────


def test_statistics_by_hand(taught: Group, flat: Group) -> None:
    """Rewards 1, .25, .5, .5: mean .5625, variance (.4375² + .3125² + 2 · .0625²) / 4."""
    figures = group_statistics([taught, flat])
    assert figures == pytest.approx(
        {
            "reward": 0.5625,
            "reward_std": math.sqrt((0.4375**2 + 0.3125**2 + 2 * 0.0625**2) / 4),
            "reward/format": 0.625,
            "reward/outcome": 0.5,  # over the two that were graded
            "accuracy": 0.5,
            "truncation_share": 0.25,
            "zero_signal_share": 0.5,
            "completion_tokens": 4.0,
            "completion_tokens_min": 2.0,
            "completion_tokens_max": 6.0,
        },
        rel=1e-15,
    )


@pytest.mark.parametrize("reward", [CompositeReward(), OutcomeReward()])
def test_accuracy_reads_the_verdict_of_the_real_rewards(reward: Any, taught: Group) -> None:
    texts = ("Conclusion: Yes", "Conclusion: No")
    results = tuple(reward.compute("Is it?", text, "Yes") for text in texts)
    assert group_statistics([replace(taught, results=results)])["accuracy"] == 0.5


def test_nothing_graded_gives_no_figure(flat: Group) -> None:
    figures = group_statistics([flat])
    assert not {"accuracy", "reward/outcome"} & figures.keys()
    assert group_statistics([]) == {}
