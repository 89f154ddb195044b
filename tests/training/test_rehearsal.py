"""What is rehearsed, and that an interrupted run goes on with the very next sample."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from judicaita.errors import CheckpointError, ConfigError, DataError
from judicaita.legal.tasks import FAMILIES, get_family, split_of
from judicaita.training.config import TrainingConfig
from judicaita.training.data_curation import write_samples
from judicaita.training.optimization import Updater
from judicaita.training.policy import Policy
from judicaita.training.rehearsal import DataSource, FreshSource, Rehearsal, rehearsal_source
from judicaita.training.supervised import supervised_backward
from judicaita.types import Sample

MakePolicy = Callable[..., Policy]

TRACED = [Sample(f"Is {n} odd?", "Yes", f"Step 1: {n}.\nConclusion: Yes") for n in range(5)]


def source_of(given: Any = None, **settings: Any) -> Any:
    return rehearsal_source(TrainingConfig(rehearsal_weight=0.1, **settings), given)


def test_fresh_samples_of_easy_levels_equally_often() -> None:
    source = source_of(rehearsal_dataset="hearsay,negligence")
    samples = [source[index] for index in range(80)]
    tasks = Counter(sample.task for sample in samples)
    families = [get_family(name) for name in ("hearsay", "negligence")]
    assert tasks.keys() == {f"{f.name}_{level}" for f in families for level in f.easy_levels}
    for family in families:
        counts = [tasks[f"{family.name}_{level}"] for level in family.easy_levels]
        assert sum(counts) == 40
        assert max(counts) - min(counts) <= 1
    for sample in samples:
        family = get_family(sample.facts["family"])
        assert split_of(family.pattern(sample.facts)) == "train"
        assert sample.trace == family.trace(sample.facts)


def test_fresh_samples_are_a_function_of_seed_and_position() -> None:
    one, again, other = (
        source_of(rehearsal_dataset="diversity", seed=seed, rehearsal_tasks=["3"])
        for seed in (1, 1, 2)
    )
    places = [0, 999, 1000, 1001, 2500, 3]
    ids = [one[place].id for place in places]
    assert [again[place].id for place in reversed(places)] == ids[::-1]
    assert [other[place].id for place in places] != ids
    # New ones without end: three blocks have next to nothing in common.
    blocks = [{one[place].id for place in range(n, n + 200)} for n in (0, 1000, 2000)]
    assert len(set.union(*blocks)) > 500
    assert {one[place].task for place in range(20)} == {"diversity_3"}


def test_every_family_can_be_rehearsed() -> None:
    source = source_of(rehearsal_dataset="generated")
    easy = {f"{name}_{level}" for name, family in FAMILIES.items() for level in family.easy_levels}
    assert {source[index].task for index in range(400)} == easy


def test_a_data_set_comes_in_shuffles(tmp_path: Path) -> None:
    write_samples(tmp_path / "traced.jsonl", TRACED)
    for source in (source_of(TRACED), source_of(rehearsal_dataset=str(tmp_path / "traced.jsonl"))):
        drawn = [source[index] for index in range(15)]
        for start in (0, 5, 10):
            assert sorted(s.id for s in drawn[start : start + 5]) == sorted(s.id for s in TRACED)
        assert drawn[:5] != drawn[5:10]
    two = [Sample("?", "a", "x", task="one"), Sample("!", "b", "y", task="two")]
    write_samples(tmp_path / "two.jsonl", two)
    source = source_of(rehearsal_dataset=str(tmp_path / "two.jsonl"), rehearsal_tasks=["two"])
    assert {source[index].task for index in range(4)} == {"two"}


def test_what_does_not_fit_together_is_refused() -> None:
    assert rehearsal_source(TrainingConfig()) is None
    with pytest.raises(ConfigError, match=r"rehearsal_weight=0\.1 with nothing to rehearse"):
        source_of()
    with pytest.raises(ConfigError, match="rehearsal_weight=0: the samples given"):
        rehearsal_source(TrainingConfig(), TRACED)
    with pytest.raises(ConfigError, match="rehearsal_dataset=hearsay, and samples .* besides"):
        source_of(TRACED, rehearsal_dataset="hearsay")
    with pytest.raises(DataError, match="no level of hearsay"):
        source_of(rehearsal_dataset="hearsay", rehearsal_tasks=["9"])
    with pytest.raises(DataError, match="neither a generated family nor an existing path"):
        source_of(rehearsal_dataset="heresay")


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────


def rehearsal_of(policy: Policy, source: Any, **settings: Any) -> Rehearsal:
    config = TrainingConfig(rehearsal_weight=0.1, rehearsal_samples=3, **settings)
    return Rehearsal(policy, config, source)


@pytest.mark.parametrize(
    "source",
    [DataSource(TRACED, 0), FreshSource(["hearsay"], ["1"], 0)],
    ids=["data set", "fresh"],
)
def test_goes_on_where_it_was(make_policy: MakePolicy, source: Any) -> None:
    policy = make_policy()
    whole = rehearsal_of(policy, source)
    rows = [whole() for _ in range(6)]
    assert [len(drawn) for drawn in rows] == [3] * 6
    for prompt, completion in rows[0]:
        assert completion[-1] == policy.eos_id
        assert policy.decode(completion).startswith("Step 1: ")
        assert prompt == policy.encode(policy.decode(prompt))
    first = rehearsal_of(policy, source)
    for _ in range(2):
        first()
    second = rehearsal_of(policy, source)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [second() for _ in range(4)] == rows[2:]


def test_a_run_that_did_not_rehearse_yet_starts_at_the_first(make_policy: MakePolicy) -> None:
    rehearsal = rehearsal_of(make_policy(), DataSource(TRACED, 0))
    rehearsal.load_state_dict(None)
    assert rehearsal.position == 0


def test_the_position_in_another_source_is_refused(make_policy: MakePolicy) -> None:
    policy = make_policy()
    state = rehearsal_of(policy, FreshSource(["hearsay"], ["1"], 0)).state_dict()
    for source in (
        DataSource(TRACED, 0),
        FreshSource(["hearsay"], ["2"], 0),
        FreshSource(["hearsay"], ["1"], 1),
    ):
        with pytest.raises(CheckpointError, match=r"was rehearsing hearsay \(1\) with seed 0, and"):
            rehearsal_of(policy, source).load_state_dict(state)


def test_rows_without_a_trace_or_too_long_are_refused(make_policy: MakePolicy) -> None:
    policy = make_policy()
    with pytest.raises(DataError, match="has no trace"):
        rehearsal_of(policy, DataSource([Sample("?", "Yes")], 0))()
    long = Sample("?", "Yes", "7" * 30)
    with pytest.raises(DataError, match="rehearsal row 1: .* over the 20 tokens that fit"):
        rehearsal_of(policy, DataSource([long], 0), model_max_length=20)()
    mixed = DataSource([long, Sample("?", "No", "8")], 0)
    settings: dict[str, Any] = {"model_max_length": 20, "long_prompts": "drop"}
    rehearsal = rehearsal_of(policy, mixed, **settings)
    assert sum(len(rehearsal()) for _ in range(2)) == 3  # of 6, each of the two 3 times


def test_text_is_learned_from_end_to_end(make_policy: MakePolicy) -> None:
    """Its loss is that of transformers for a text and the same text as labels."""
    policy = make_policy("llama")
    config = TrainingConfig(rehearsal_weight=0.5, rehearsal_on="text", rehearsal_samples=2)
    texts = [Sample("The plaintiff is a citizen of Ohio.", "", ""), TRACED[1]]
    rows = Rehearsal(policy, config, DataSource(texts, seed=0))()
    expected_texts = {texts[0].prompt, f"{TRACED[1].prompt}\n{TRACED[1].trace}"}
    assert {policy.decode([*first, *others]) for first, others in rows} == expected_texts
    assert all(len(first) == 1 and others[-1] == policy.eos_id for first, others in rows)
    [(first, others), _] = rows
    ids = torch.tensor([[*first, *others]])
    with torch.no_grad():
        expected = float(policy.model(ids, labels=ids).loss)
    updater = Updater(policy, config, total_steps=1)
    loss, tokens = supervised_backward(policy, updater, [rows[0]], micro_batch=1)
    assert (loss, tokens) == (pytest.approx(expected, rel=1e-5), len(others))


def test_a_conversation_is_no_text() -> None:
    turns = ({"role": "user", "content": "?"},)
    with pytest.raises(DataError, match="is a conversation, and is to be read as plain text"):
        source_of([Sample(turns, "Yes")], rehearsal_on="text")
    with pytest.raises(ConfigError, match="rehearsal_on=text with rehearsal_weight=0"):
        TrainingConfig(rehearsal_on="text")
