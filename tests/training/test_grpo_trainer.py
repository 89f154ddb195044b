"""The trainer on a small random model: what it records, what it leaves alone, what it learns."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import re
import shutil
import signal
import statistics
import string
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from judicaita.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    JudicaitaError,
    NumericalError,
    OutOfMemory,
    RewardError,
    RunStopped,
)
from judicaita.legal.answers import parse_reasoning
from judicaita.legal.tasks import generate
from judicaita.training.checkpoints import read_card
from judicaita.training.config import TrainingConfig
from judicaita.training.data_curation import read_samples, write_samples
from judicaita.training.groups import sample_groups
from judicaita.training.grpo_trainer import GRPOTrainer
from judicaita.training.metrics import read_events, read_rollouts
from judicaita.training.policy import Policy
from judicaita.training.rewards import CompositeReward, as_reward
from judicaita.training.rollouts.base import SamplingParams
from judicaita.training.settings import resolve
from judicaita.types import Completion, RewardResult, Sample

MakePolicy = Callable[..., Policy]
State = dict[str, Tensor]

EOS = 1
ROWS = [
    {"prompt": f"Is {place} in the {region}?", "reference": answer, "place": place}
    for place, region, answer in [
        ("Ohio", "Midwest", "Yes"),
        ("Texas", "South", "Yes"),
        ("Maine", "West", "No"),
        ("Utah", "West", "Yes"),
        ("Iowa", "South", "No"),
        ("Delaware", "Midwest", "No"),
    ]
]
TRACED = [Sample(f"Is {n} odd?", "Yes", f"Step 1: {n}.\nConclusion: Yes") for n in range(4)]
HELD_OUT = [{"prompt": "Is Nevada in the West?", "response": "Yes", "place": "Nevada"}]


@pytest.fixture(scope="module")
def base(make_policy: MakePolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder. Half of the tokens end a text, so that completions differ in length."""
    policy = make_policy()
    policy.model.generation_config.eos_token_id = [EOS, *range(100, 160)]
    folder = tmp_path_factory.mktemp("base")
    policy.save(folder)
    return folder


@pytest.fixture
def configure(base: Path, tmp_path: Path) -> Callable[..., TrainingConfig]:
    def make(folder: str = "run", **settings: Any) -> TrainingConfig:
        return TrainingConfig(
            **{
                "base_model": str(base),
                "checkpoint_dir": tmp_path / folder,
                "device": "cpu",
                "use_lora": False,
                "system_prompt": "",
                "model_max_length": 64,
                "generation_max_length": 6,
                "batch_size": 2,
                "gradient_accumulation_steps": 1,
                "num_rollouts": 4,
                "max_steps": 2,
                "learning_rate": 1e-3,
                "lr_scheduler": "constant",
                "grpo_tau": 1.0,
                **settings,
            }
        )

    return make


Configure = Callable[..., TrainingConfig]


def trainer_of(config: TrainingConfig, reward: Any = None, rows: Any = None) -> GRPOTrainer:
    trainer = GRPOTrainer(config, rows or ROWS, HELD_OUT, reward, show_progress=False)
    trainer.initialize()
    return trainer


def train(config: TrainingConfig, reward: Any = None, rows: Any = None) -> GRPOTrainer:
    trainer = trainer_of(config, reward, rows)
    trainer.train()
    return trainer


def weights(trainer: GRPOTrainer) -> State:
    return {name: p.detach().clone() for name, p in trainer.policy.trainable()}


def same(one: State, other: State) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def steps_of(trainer: GRPOTrainer) -> list[dict[str, Any]]:
    return [event for event in read_events(trainer.folder.events) if event["event"] == "step"]


def rollouts_of(trainer: GRPOTrainer) -> list[dict[str, Any]]:
    return list(read_rollouts(trainer.folder.rollouts))


def share_of_low_bytes(prompt: str, response: str, reference: str) -> float:
    """Differs between nearly all completions of a random model."""
    return sum(ord(c) % 7 for c in response) / (6 * max(1, len(response)))


# ── records ──────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_recorded(configure: Configure) -> None:
    config = configure(max_steps=3, eval_steps=2, save_steps=2, tasks=["a"], report_to=[])
    origins = {"max_steps": "flag"}
    trainer = GRPOTrainer(config, ROWS, HELD_OUT, origins=origins, show_progress=False)
    trainer.initialize()
    figures = trainer.train()
    root = config.checkpoint_dir

    assert resolve(TrainingConfig, {}, file=root / "config.yaml", environment={}).config == config
    manifest = json.loads((root / "manifest.json").read_text())
    assert manifest["settings_from"] == origins
    assert {name: data["samples"] for name, data in manifest["data"].items()} == {
        "train": 6,
        "eval": 1,
    }
    assert manifest["trainable_parameters"] == manifest["parameters"] > 10_000
    assert manifest["versions"]["torch"] == torch.__version__

    events = read_events(root / "events.jsonl")
    assert [(event["event"], event["step"]) for event in events] == [
        *(("eval", 0), ("step", 1), ("step", 2), ("eval", 2), ("step", 3), ("eval", 3))
    ]
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    for event in events:
        if event["event"] == "eval":
            assert event["samples"] == 1
        else:
            stages = ("generate", "score", "batch", "update", "record")
            assert all(event[f"seconds/{stage}"] >= 0 for stage in stages)
    assert figures["steps"] == 3
    assert figures["train/reward"] == events[4]["reward"]
    assert figures["eval/accuracy"] == events[5]["accuracy"]

    files = sorted(path.name for path in (root / "rollouts").iterdir())
    assert files == [f"step-{step:06d}.parquet" for step in (1, 2, 3)]
    assert [path.name for path in (root / "checkpoints").iterdir()] == ["step-2"]
    assert read_card(root / "final")["step"] == 3
    assert [s.reference for s in read_samples(root / "final" / "eval.jsonl")] == ["Yes"]
    assert [p.name for p in root.rglob("*") if p.name.startswith(".")] == [".run.lock"]


def test_every_completion_is_recorded_with_what_became_of_it(configure: Configure) -> None:
    trainer = train(configure(max_steps=3, grpo_tau=0.5))
    rows, events = rollouts_of(trainer), steps_of(trainer)
    assert len(rows) == 3 * 2 * 4
    # One epoch of six samples: each came once.
    assert len({row["sample_id"] for row in rows}) == 6
    for row in rows:
        assert trainer.policy.decode(row["token_ids"]) == row["completion"]
        assert len(row["logprobs"]) == len(row["token_ids"]) > 0
        assert all(logprob < 0 for logprob in row["logprobs"])
        prompt = trainer.policy.tokenizer(row["prompt"])["input_ids"]
        assert row["prompt_tokens"] == len(prompt)
        form, outcome, length = (row[f"reward.{p}"] for p in ("format", "outcome", "verbosity"))
        assert row["reward"] == pytest.approx(0.3 * form + 0.5 * outcome + 0.2 * length)
        before = [event["updates"] for event in events if event["step"] < row["step"]]
        assert row["policy_version"] == sum(before)
        assert row["entered_loss"] == (row["why"] == "entered")
    groups = [rows[start : start + 4] for start in range(0, len(rows), 4)]
    for group in groups:
        assert len({row["sample_id"] for row in group}) == 1
        rewards = [row["reward"] for row in group]
        sigma = statistics.stdev(rewards)
        for row in group:
            expected = (row["reward"] - statistics.fmean(rewards)) / (sigma + 1e-4) / 0.5
            assert row["advantage"] == pytest.approx(expected if sigma > 1e-6 else 0, abs=1e-9)
    for event in events:
        mine = [row for row in rows if row["step"] == event["step"]]
        assert event["reward"] == pytest.approx(statistics.fmean(row["reward"] for row in mine))
        lengths = [len(row["token_ids"]) for row in mine]
        assert event["completion_tokens"] == pytest.approx(statistics.fmean(lengths))
        entered = sum(len(row["token_ids"]) for row in mine if row["entered_loss"])
        if event["updates"]:
            assert event["loss_tokens"] == entered
            assert event["loss_token_share"] == pytest.approx(entered / sum(lengths))
            assert event["grad_norm_clipped"] == pytest.approx(min(event["grad_norm"], 1.0))
            # The engine and the trainer see the same distribution.
            assert event["rollout_mismatch"] < 1e-4
    assert any(event["updates"] for event in events)


def test_truncated_completions_are_marked(configure: Configure) -> None:
    seen: list[tuple[str, int]] = []

    def reward(prompt: str, response: str, reference: str, **columns: Any) -> float:
        seen.append((columns["finish_reason"], columns["completion_tokens"]))
        return share_of_low_bytes(prompt, response, reference)

    trainer = train(configure(generation_max_length=3, batch_size=6, max_steps=1), reward)
    ends = {EOS, *range(100, 160)}
    rows = rollouts_of(trainer)
    for row in rows:
        ended = row["token_ids"][-1] in ends
        assert row["finish_reason"] == ("stop" if ended else "length")
        assert ended or len(row["token_ids"]) == 3
        assert not ends & set(row["token_ids"][:-1])
        assert (row["finish_reason"], len(row["token_ids"])) in seen
    share = statistics.fmean(row["finish_reason"] == "length" for row in rows)
    assert 0 < share < 1, "both ways to end must occur for this test to say anything"
    assert steps_of(trainer)[0]["truncation_share"] == share
    # Not only the tokenizer's own EOS ends a text here.
    assert {row["token_ids"][-1] for row in rows if row["finish_reason"] == "stop"} - {EOS}


def test_conversations_and_their_template(
    configure: Configure, make_policy: MakePolicy, tmp_path: Path
) -> None:
    make_policy(template="gemma").save(tmp_path / "chat")
    turns = [{"role": "user", "content": "Who sues?"}]
    rows = [{"prompt": turns, "reference": "Ava"}, {"prompt": "Who is sued?", "reference": "Mia"}]
    config = configure(base_model=str(tmp_path / "chat"), system_prompt="Be brief.", max_steps=1)
    trainer = train(config, share_of_low_bytes, rows)
    written = {row["reference"]: row for row in rollouts_of(trainer)}
    assert json.loads(written["Ava"]["prompt"]) == turns
    assert written["Mia"]["prompt"] == "Who is sued?"
    text = "<bos><start_of_turn>user\nBe brief.\n\nWho sues?<end_of_turn>\n<start_of_turn>model\n"
    ids = trainer.policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert written["Ava"]["prompt_tokens"] == len(ids)


def test_a_scored_group_is_shown_every_logging_steps(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(max_steps=3, logging_steps=2)
    GRPOTrainer(config, ROWS, HELD_OUT, show_progress=True)
    trainer = GRPOTrainer(config, ROWS, HELD_OUT)
    trainer.initialize()
    trainer.train()
    shown = capsys.readouterr()
    assert shown.out == ""
    samples = [line for line in shown.err.splitlines() if line.startswith("sample ")]
    second = [row["sample_id"] for row in rollouts_of(trainer) if row["step"] == 2]
    assert len(samples) == 1
    assert samples[0].split()[1] == second[0]


def test_nothing_runs_before_the_model_is_loaded(configure: Configure) -> None:
    trainer = GRPOTrainer(configure(), ROWS, HELD_OUT, show_progress=False)
    calls: dict[str, Callable[[], Any]] = {
        "train": trainer.train,
        "step": trainer.step,
        "evaluate": trainer.evaluate,
        "save_checkpoint": lambda: trainer.save_checkpoint("x"),
        "load_checkpoint": lambda: trainer.load_checkpoint("x"),
    }
    for name, call in calls.items():
        with pytest.raises(JudicaitaError, match=rf"^{name}\(\) before initialize\(\): no model"):
            call()


def test_steps_may_be_taken_one_at_a_time(configure: Configure) -> None:
    """What `train` does, evaluations apart; the log is closed in between."""
    config = configure(max_steps=2)
    single = trainer_of(config, share_of_low_bytes)
    for number in (1, 2):
        assert single.step().step == number
        assert [event["step"] for event in steps_of(single)] == list(range(1, number + 1))
    whole = train(configure("whole", max_steps=2), share_of_low_bytes)
    assert same(weights(single), weights(whole))
    assert rollouts_of(single) == rollouts_of(whole)


# ── what enters the loss ─────────────────────────────────────────────────────────────────────────


def test_groups_without_signal_are_counted_and_skipped(configure: Configure) -> None:
    def reward(prompt: str, response: str, reference: str, place: str) -> float:
        # Equal but for what adding floats leaves behind.
        noise = 1e-16 * len(response)
        return 0.3 + noise if place == "Maine" else share_of_low_bytes(prompt, response, reference)

    trainer = train(configure(batch_size=6, max_steps=1), reward)
    [event] = steps_of(trainer)
    rows = rollouts_of(trainer)
    flat = [row for row in rows if "Maine" in row["prompt"]]
    others = [row for row in rows if "Maine" not in row["prompt"]]
    assert event["zero_signal_share"] == pytest.approx(1 / 6)
    assert {(row["advantage"], row["entered_loss"], row["why"]) for row in flat} == {
        (0.0, False, "no signal")
    }
    assert {row["why"] for row in others} == {"entered"}
    # Its tokens count in the mean, though they add nothing to it.
    tokens = [sum(len(row["token_ids"]) for row in part) for part in (others, flat)]
    assert event["loss_tokens"] == tokens[0]
    assert event["loss_token_share"] == pytest.approx(tokens[0] / sum(tokens))


@pytest.mark.parametrize("score", [0.25, None], ids=["equal", "abstained"])
def test_without_any_signal_the_weights_stay(configure: Configure, score: float | None) -> None:
    def reward(prompt: str, response: str, reference: str) -> RewardResult:
        return RewardResult(score)

    trainer = trainer_of(configure(weight_decay=0.1, learning_rate=0.1), reward)
    before = weights(trainer)
    trainer.train()
    assert same(weights(trainer), before)
    events, rows = steps_of(trainer), rollouts_of(trainer)
    assert [event["updates"] for event in events] == [0, 0]
    assert [event["zero_signal_share"] for event in events] == [1, 1]
    why = "no signal" if score is not None else "reward abstained"
    assert {(row["why"], row["entered_loss"], row["reward"]) for row in rows} == {
        (why, False, score)
    }


def test_a_rehearsal_goes_on_where_nothing_is_rewarded(configure: Configure) -> None:
    """Twice a step, since it has two updates; the samples come in turn."""
    config = configure(
        rehearsal_weight=1.0, rehearsal_samples=4, num_iterations=2, num_epochs=10, max_steps=10
    )
    trainer = GRPOTrainer(
        config, ROWS, HELD_OUT, lambda p, r, reference: 0.5, rehearsal=TRACED, show_progress=False
    )
    trainer.initialize()
    trainer.train()
    events = steps_of(trainer)
    assert {event["updates"] for event in events} == {2}
    assert not any(name in event for event in events for name in ("loss", "policy_loss"))
    assert events[-1]["rehearsal/loss"] < 0.6 * events[0]["rehearsal/loss"]
    # As many as with a BOS in place of the EOS.
    tokens = sum(len(trainer.policy.tokenizer(sample.trace)["input_ids"]) for sample in TRACED)
    assert {event["rehearsal/tokens"] for event in events} == {2 * tokens}


def test_strata_are_drawn_and_recorded(configure: Configure) -> None:
    rows = [row | {"task": str(row["prompt"]).split()[-1]} for row in ROWS]
    trainer = train(configure(sampler="balance", batch_size=3), share_of_low_bytes, rows)
    for event in steps_of(trainer):
        tasks = {row["task"] for row in rollouts_of(trainer) if row["step"] == event["step"]}
        assert tasks == {"Midwest?", "South?", "West?"}
        for task in tasks:
            assert event[f"sampler/count/{task}"] == 1
            assert event[f"sampler/weight/{task}"] == pytest.approx(1 / 3)
    last = trainer.sampler.state_dict()["strata"]
    assert all(steps_of(trainer)[-1][f"sampler/reward/{t}"] == last[t]["reward"] for t in last)


def test_abstaining_on_some_completions_is_refused(configure: Configure) -> None:
    def reward(prompt: str, response: str, reference: str) -> RewardResult:
        return RewardResult(None if ord(response[:1] or "a") % 2 else 1.0)

    with pytest.raises(RewardError, match="reward abstained on some completions of sample .* only"):
        train(configure(batch_size=6), reward)


def test_a_reward_that_fails_names_itself_and_the_sample(configure: Configure) -> None:
    def brittle(prompt: str, response: str, reference: str, place: str) -> float:
        if place == "Iowa":
            raise ZeroDivisionError("no answers")
        return 1.0

    trainer = trainer_of(configure(batch_size=6), brittle)
    [iowa] = [sample for sample in trainer.train_samples if sample.facts["place"] == "Iowa"]
    with pytest.raises(RewardError) as error:
        trainer.train()
    for word in ("'brittle'", iowa.id, "Is Iowa in the South?", "ZeroDivisionError: no answers"):
        assert word in str(error.value)


def test_the_facts_of_a_sample_reach_the_reward(configure: Configure) -> None:
    seen: dict[str, Any] = {}

    def reward(prompt: str, response: str, reference: str, **columns: Any) -> float:
        if "Utah" in prompt:
            seen.update(columns, prompt=prompt, reference=reference)
        return 0.0

    rows = [row | {"task": "places", "facts": {"judges": ["A", "B"]}} for row in ROWS]
    trainer = train(configure(batch_size=6, max_steps=1), reward, rows)
    sample = next(s for s in trainer.train_samples if "Utah" in str(s.prompt))
    assert {key: seen[key] for key in ("place", "judges", "task", "sample_id", "reference")} == {
        "place": "Utah",
        "judges": ["A", "B"],
        "task": "places",
        "sample_id": sample.id,
        "reference": "Yes",
    }


class Recited:
    """A rollout engine that writes given texts, the same ones to every prompt, and ends them."""

    def __init__(self, policy: Policy, answers: dict[tuple[int, ...], list[str]]) -> None:
        self.policy, self.answers = policy, answers

    def generate(
        self, prompts: Sequence[tuple[int, ...]], n: int, sampling: SamplingParams
    ) -> list[tuple[Completion, ...]]:
        return [tuple(map(self._completion, self.answers[prompt][:n])) for prompt in prompts]

    def _completion(self, text: str) -> Completion:
        ids = (*self.policy.tokenizer(text, add_special_tokens=False)["input_ids"], EOS)
        return Completion(ids, (-1.0,) * len(ids), "stop", 0)

    def sync(self) -> None: ...

    def close(self) -> None: ...


PER_STEP: dict[str, Any] = {
    "step_mode": "per_step",
    "step_weight": 0.5,
    "verbosity_weight": 0.0,
    "num_rollouts": 2,
    "grpo_gamma": 0.5,
    "max_steps": 1,
    "model_max_length": 200,
    "generation_max_length": 50,
    "allow_contamination": True,
}


def test_steps_earn_credit_of_their_own(configure: Configure) -> None:
    """Two right answers of the same form, of which one opens with a step beside the point: the
    rewards are equal, and what is learned is the difference."""
    samples = generate("hearsay", 3, split="train", seed=0, levels=[2])
    trainer = GRPOTrainer(configure(**PER_STEP), samples, samples[:1], show_progress=False)
    trainer.initialize()
    answers = {}
    for sample, ids in trainer.sampler.items:
        steps = sample.trace.splitlines()
        answers[ids] = [sample.trace, "\n".join(["Step 1: it rained.", *steps[1:]])]
    trainer.engine = Recited(trainer.policy, answers)
    before = weights(trainer)
    trainer.train()
    for row in rollouts_of(trainer):
        assert (row["advantage"], row["why"]) == (0.0, "entered")
        count = len(parse_reasoning(row["completion"]).steps)
        credits = [1.0] * (2 * count - 1) + [0.0]
        hit, miss = (
            (credit - statistics.fmean(credits)) / (statistics.stdev(credits) + 1e-4)
            for credit in (1.0, 0.0)
        )
        earned = [miss if "it rained" in row["completion"] else hit, *[hit] * (count - 1)]
        # Steps weigh 0.5 / 0.8; a step earns a half of the next one, a quarter of that after it …
        expected = [
            0.625 * sum(0.5 ** (i - j) * earned[i] for i in range(j, count)) for j in range(count)
        ]
        assert row["step_returns"] == pytest.approx(expected, abs=1e-12)
    assert steps_of(trainer)[0]["zero_signal_share"] == 0
    assert not same(weights(trainer), before)


def test_credit_of_steps_needs_a_reward_that_checks_them(configure: Configure) -> None:
    with pytest.raises(ConfigError, match="step_mode=per_step, but that of the reward"):
        trainer_of(configure(**PER_STEP), share_of_low_bytes)


@pytest.mark.parametrize("probe", [True, False])
def test_steps_that_are_never_sampled_are_told(
    configure: Configure, capsys: pytest.CaptureFixture[str], probe: bool
) -> None:
    """The random model writes no step at all."""
    samples = generate("hearsay", 4, split="train", seed=0, levels=[1])
    settings = PER_STEP | {"probe_coverage": probe, "generation_max_length": 6}
    trainer = GRPOTrainer(configure(**settings), samples, samples[:1])
    trainer.initialize()
    trainer.train()
    told = " ".join(capsys.readouterr().err.split())
    assert ("hearsay: no sampled answer decided anything by a true step (0 of 8)" in told) == probe
    events = [e for e in read_events(trainer.folder.events) if e["event"] == "coverage"]
    assert len(events) == probe
    for event in events:
        assert (event["step"], event["hearsay"]["answers"]) == (0, 8)
        assert set(event["hearsay"]["never"]) == event["hearsay"]["points"].keys()


# ── learning ─────────────────────────────────────────────────────────────────────────────────────


def chances(trainer: GRPOTrainer) -> dict[str, float]:
    """Probability of each letter as the first token of an answer, over all prompts."""
    tokenizer, found = trainer.policy.tokenizer, dict.fromkeys(string.ascii_lowercase, 0.0)
    for _, prompt in trainer.sampler.items:
        with trainer.policy.inference():
            logits = trainer.policy.model(torch.tensor([prompt])).logits[0, -1]
        for letter in found:
            [token] = tokenizer(letter, add_special_tokens=False)["input_ids"]
            found[letter] += float(logits.softmax(-1)[token]) / len(trainer.sampler.items)
    return found


@pytest.mark.parametrize(
    "settings",
    [{"learning_rate": 3e-3}, {"learning_rate": 3e-2, "use_lora": True, "lora_r": 4}],
    ids=["full", "lora"],
)
def test_what_is_rewarded_becomes_likelier(configure: Configure, settings: dict[str, Any]) -> None:
    def reward(prompt: str, response: str, reference: str) -> float:
        return float(response.startswith(letter))

    sizes = {"max_steps": 25, "num_epochs": 25, "batch_size": 6, "num_rollouts": 8}
    trainer = trainer_of(configure(generation_max_length=2, **sizes, **settings), reward)
    before = chances(trainer)
    letter = max(before, key=lambda each: before[each])
    trainer.train()
    assert before[letter] < 0.05
    assert chances(trainer)[letter] > 0.15
    rewards = [event["reward"] for event in steps_of(trainer)]
    assert statistics.fmean(rewards[-3:]) > 0.2 > 0.1 > statistics.fmean(rewards[:3])


@pytest.mark.parametrize(("iterations", "clipped"), [(1, False), (2, True)])
def test_the_bounds_matter_from_the_second_update_on(
    configure: Configure, iterations: int, clipped: bool
) -> None:
    config = configure(num_iterations=iterations, learning_rate=3e-2, max_grad_norm=0, batch_size=6)
    trainer = train(config, share_of_low_bytes)
    events = steps_of(trainer)
    assert [event["updates"] for event in events] == [iterations] * 2
    assert all((event["clip_fraction"] > 0.05) == clipped for event in events)
    assert clipped or {event["clip_fraction"] for event in events} == {0}
    assert trainer.policy.version == 2 * iterations


def test_kl_to_the_reference_grows_from_nothing(configure: Configure) -> None:
    # Without dropout nothing but the adapter sets the two apart.
    config = configure(use_lora=True, lora_dropout=0, beta=0.1, learning_rate=3e-2, batch_size=6)
    trainer = train(config, share_of_low_bytes)
    first, second = steps_of(trainer)
    # A new adapter is the model without it.
    assert first["kl"] == 0
    assert first["loss"] == first["policy_loss"]
    assert second["kl"] > 1e-4
    assert second["loss"] == pytest.approx(second["policy_loss"] + 0.1 * second["kl"])


def test_with_a_penalty_even_equal_rewards_enter(configure: Configure) -> None:
    trainer = train(configure(use_lora=True, beta=0.1, max_steps=1), lambda p, r, reference: 0.5)
    [event] = steps_of(trainer)
    assert (event["zero_signal_share"], event["loss_token_share"]) == (1, 1)
    assert {(row["advantage"], row["why"]) for row in rollouts_of(trainer)} == {(0, "entered")}


class Scripted:
    """A rollout engine that answers a prompt with tokens of its length, unevenly long."""

    def generate(
        self, prompts: Sequence[tuple[int, ...]], n: int, sampling: SamplingParams
    ) -> list[tuple[Completion, ...]]:
        return [tuple(self._answer(len(prompt), k) for k in range(n)) for prompt in prompts]

    def _answer(self, length: int, k: int) -> Completion:
        tokens = tuple(40 + (7 * length + 11 * k + 3 * t) % 50 for t in range(1 + (length * k) % 6))
        return Completion(tokens, (-1.0,) * len(tokens), "length", 0)

    def sync(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("lora", [False, True])
def test_splitting_a_step_changes_no_update(configure: Configure, lora: bool) -> None:
    def one_step(folder: str, batch_size: int, accumulation: int) -> tuple[GRPOTrainer, State]:
        config = configure(
            folder,
            batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            use_lora=lora,
            lora_dropout=0.0,
        )
        trainer = trainer_of(config, share_of_low_bytes)
        trainer.engine = Scripted()
        before = weights(trainer)
        trainer.train()
        assert not same(weights(trainer), before)
        return trainer, weights(trainer)

    whole, expected = one_step("whole", 4, 1)
    for batch_size, accumulation in ((1, 4), (2, 2)):
        split, found = one_step(f"split-{batch_size}", batch_size, accumulation)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=2e-5)
        [one], [other] = steps_of(whole), steps_of(split)
        for figure in ("loss", "policy_loss", "grad_norm", "entropy", "loss_tokens"):
            assert other[figure] == pytest.approx(one[figure], rel=1e-5, abs=1e-7)


def test_packing_by_tokens_changes_no_update(configure: Configure) -> None:
    def one_step(folder: str, tokens: int | None) -> GRPOTrainer:
        config = configure(folder, batch_size=6, max_steps=1, micro_batch_tokens=tokens)
        trainer = trainer_of(config, share_of_low_bytes)
        trainer.engine = Scripted()
        trainer.train()
        return trainer

    whole = one_step("whole", None)
    for budget in (1, 40, 90):
        packed = one_step(f"packed-{budget}", budget)
        for name, value in weights(whole).items():
            torch.testing.assert_close(weights(packed)[name], value, rtol=0, atol=2e-5)
        [one], [other] = steps_of(whole), steps_of(packed)
        for figure in ("loss", "grad_norm", "entropy", "loss_tokens"):
            assert other[figure] == pytest.approx(one[figure], rel=1e-5, abs=1e-7)


def run_out_of_memory(trainer: GRPOTrainer, rows: int) -> list[int]:
    """Let the allocator refuse whenever more rows than these go through a pass, once it has drawn
    its dropout and an earlier pass has left gradients; returns the rows of each, as they come."""
    logprobs, passes = trainer.policy.logprobs, list[int]()

    def greedy(batch: Any, *rest: Any, **more: Any) -> Any:
        passes.append(len(batch.rows))
        found = logprobs(batch, *rest, **more)
        has_gradients = any(p.grad is not None for _, p in trainer.policy.trainable())
        if torch.is_grad_enabled() and len(batch.rows) > rows and has_gradients:
            torch.empty(2**62, dtype=torch.uint8)
        return found

    trainer.policy.logprobs = greedy  # type: ignore[method-assign]
    return passes


OUT_OF_MEMORY: dict[str, Any] = {
    **{"use_lora": True, "lora_dropout": 0.3, "num_iterations": 2},
    **{"batch_size": 2, "gradient_accumulation_steps": 2, "num_epochs": 3},
    **{"rehearsal_weight": 0.1, "rehearsal_samples": 5, "max_steps": 3, "save_steps": 1},
}


def out_of_memory_settings(tmp_path: Path) -> dict[str, Any]:
    write_samples(tmp_path / "traced.jsonl", TRACED)
    return OUT_OF_MEMORY | {"rehearsal_dataset": str(tmp_path / "traced.jsonl")}


def test_a_step_that_runs_out_of_memory_goes_on_in_halves(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if it had been split so from the start: same random numbers, and nothing counted twice."""
    settings = out_of_memory_settings(tmp_path)
    told = trainer_of(configure("told", **settings), share_of_low_bytes)
    told.updater.halvings = 2
    told.train()

    trainer = trainer_of(configure("short", **settings), share_of_low_bytes)
    passes = run_out_of_memory(trainer, rows=2)
    trainer.train()

    # Twice 2 prompts × 4 completions are tried as 8, then as 4; from then on 2 at a time.
    assert passes[:5] == [8, 8, 4, 4, 2]
    assert max(passes[4:]) == 2
    assert same(weights(trainer), weights(told))
    events = read_events(trainer.folder.events)
    [event] = [event for event in events if event["event"] == "out_of_memory"]
    assert (event["step"], event["micro_batches_divided_by"]) == (1, 4)
    assert [s["loss"] for s in steps_of(trainer)] == [s["loss"] for s in steps_of(told)]


def test_a_resumed_run_stays_in_halves(configure: Configure, tmp_path: Path) -> None:
    settings = out_of_memory_settings(tmp_path)
    whole = trainer_of(configure("whole", **settings), share_of_low_bytes)
    run_out_of_memory(whole, rows=2)
    whole.train()
    checkpoint = whole.folder.step(1)
    resumed = trainer_of(configure("whole", **settings, resume=str(checkpoint)), share_of_low_bytes)
    assert resumed.updater.halvings == 2
    resumed.train()
    assert same(weights(resumed), weights(whole))


def test_too_little_memory_for_one_row_is_told(configure: Configure) -> None:
    trainer = trainer_of(configure(gradient_accumulation_steps=2), share_of_low_bytes)
    run_out_of_memory(trainer, rows=0)
    with pytest.raises(OutOfMemory, match="one completion at a time .*Set gradient_checkpointing"):
        trainer.train()


def test_other_errors_of_a_pass_are_no_lack_of_memory(configure: Configure) -> None:
    trainer = trainer_of(configure(), share_of_low_bytes)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    trainer.policy.logprobs = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        trainer.train()
    assert trainer.updater.halvings == 0


# ── the reference ────────────────────────────────────────────────────────────────────────────────


def test_full_fine_tuning_is_compared_with_its_start(configure: Configure) -> None:
    """The penalty is 0 at first and grows as the weights move; the reference stays."""
    config = configure(beta=0.1, learning_rate=3e-3, batch_size=6)
    trainer = trainer_of(config, share_of_low_bytes)
    start = weights(trainer)
    trainer.train()
    first, second = steps_of(trainer)
    assert (first["kl"], first["loss"]) == (0, first["policy_loss"])
    assert second["kl"] > 1e-4
    assert trainer.state.reference is not None
    assert same(trainer.state.reference.weights, start)
    assert not same(weights(trainer), start)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_reference_follows_the_policy(configure: Configure, lora: bool) -> None:
    """θ_ref ← 0.25 θ + 0.75 θ_ref after steps 2 and 4, by hand; 1 makes a copy."""
    config = configure(
        **{"beta": 0.1, "use_lora": lora, "lora_dropout": 0.0, "max_steps": 4, "num_epochs": 2},
        **{"reference_sync_steps": 2, "reference_mixup": 0.25},
    )
    trainer = trainer_of(config, share_of_low_bytes)
    assert trainer.state.reference is not None
    expected = {name: value.double() for name, value in weights(trainer).items()}
    for step in range(1, 5):
        trainer.step()
        if step % 2 == 0:
            for name, value in weights(trainer).items():
                expected[name] = 0.25 * value.double() + 0.75 * expected[name]
        for name, value in trainer.state.reference.weights.items():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-6, atol=1e-7)
    trainer.state.reference.mixup = 1.0
    trainer.state.reference.follow(2)
    assert same(trainer.state.reference.weights, weights(trainer))
    assert steps_of(trainer)[1]["kl"] > 0


def test_the_reference_leaves_weights_and_mode_alone(configure: Configure) -> None:
    trainer = trainer_of(configure(beta=0.1))
    reference, own = trainer.state.reference, weights(trainer)
    assert reference is not None
    for name in reference.weights:
        reference.weights[name] = reference.weights[name] + 1.0
    trainer.policy.model.train()

    def fails() -> None:
        with reference():
            assert not trainer.policy.model.training
            assert same(weights(trainer), reference.weights)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert trainer.policy.model.training
    assert same(weights(trainer), own)


def test_equal_seeds_give_equal_runs(configure: Configure) -> None:
    runs = [
        train(configure(folder, seed=seed), share_of_low_bytes)
        for folder, seed in (("one", 1), ("again", 1), ("other", 2))
    ]
    one, again, other = ([row["token_ids"] for row in rollouts_of(run)] for run in runs)
    assert one == again
    assert one != other
    assert same(weights(runs[0]), weights(runs[1]))
    assert not same(weights(runs[0]), weights(runs[2]))


# ── evaluation ───────────────────────────────────────────────────────────────────────────────────


def test_evaluation_changes_nothing(configure: Configure) -> None:
    trainer = trainer_of(configure(lora_dropout=0.5, use_lora=True), share_of_low_bytes)
    before = weights(trainer), torch.get_rng_state()
    trainer.policy.model.train()
    assert trainer.evaluate() == trainer.evaluate()
    assert same(weights(trainer), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_part_of_the_rows_is_held_out(configure: Configure) -> None:
    trainer = GRPOTrainer(configure(eval_fraction=0.34, max_steps=1), ROWS, show_progress=False)
    trainer.initialize()
    figures = trainer.train()
    assert figures["eval/samples"] == 2
    held = {s.id for s in read_samples(trainer.folder.final / "eval.jsonl")}
    trained = {s.id for s in trainer.train_samples}
    assert len(held) == 2
    assert len(trained) == 4
    assert not held & trained


# ── prompts that do not fit ──────────────────────────────────────────────────────────────────────


def test_long_prompts_are_refused_or_left_out_with_a_count(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*ROWS, {"prompt": "long " * 30, "reference": "Yes", "place": "x"}]
    with pytest.raises(DataError, match="training .* over the 64 tokens .*1 of 7"):
        trainer_of(configure(), rows=rows)
    assert not (configure().checkpoint_dir).exists()

    trainer = GRPOTrainer(configure(long_prompts="drop", max_steps=1), rows, HELD_OUT)
    trainer.initialize()
    assert "1 of 7 training prompts" in capsys.readouterr().err
    assert len(trainer.sampler.items) == 6
    trainer.train()

    with pytest.raises(DataError, match="over the 8 tokens .*7 of 7"):
        trainer_of(configure("none", long_prompts="drop", model_max_length=8), rows=rows)


# ── other algorithms ─────────────────────────────────────────────────────────────────────────────


def only_on_odd(prompt: str, response: str, reference: str) -> float:
    """Half of the questions have a signal."""
    return share_of_low_bytes(prompt, response, reference) if reference == "Yes" else 0.5


def test_dynamic_sampling_replaces_groups_without_signal(configure: Configure) -> None:
    settings: dict[str, Any] = {"batch_size": 3, "max_steps": 2, "dynamic_sampling": 8}
    rows = [row | {"reference": "Yes" if n % 2 else "No"} for n, row in enumerate(ROWS)]
    trainer = train(configure(**settings), only_on_odd, rows)
    for event in steps_of(trainer):
        recorded = [row for row in rollouts_of(trainer) if row["step"] == event["step"]]
        whys = Counter(row["why"] for row in recorded)
        replaced = int(event["replaced_groups"])
        assert whys == {"entered": 3 * 4, **({"replaced": 4 * replaced} if replaced else {})}
        assert all(row["reference"] == "Yes" for row in recorded if row["why"] == "entered")
        # What was thrown away is not in the mean.
        assert event["loss_token_share"] == 1
    assert trainer.sampler.further == sum(e["replaced_groups"] for e in steps_of(trainer)) > 0
    assert trainer.sampler.position == 6, "questions to come are where they were"


def test_dynamic_sampling_ends_when_its_attempts_are_used_up(configure: Configure) -> None:
    settings: dict[str, Any] = {"batch_size": 3, "max_steps": 1, "dynamic_sampling": 2}
    trainer = train(configure(**settings), lambda *_: 0.5)
    [event] = steps_of(trainer)
    assert (event["replaced_groups"], event["updates"]) == (6, 0)
    whys = Counter(row["why"] for row in rollouts_of(trainer))
    assert whys == {"no signal": 12, "replaced": 24}
    assert trainer.sampler.further == 6


def test_parts_that_cancel_are_told(configure: Configure) -> None:
    """One part gives what the other takes; the record says so, and nothing is learned."""
    reward = CompositeReward(
        0,
        0,
        0,
        {
            "low": (lambda p, r, _: share_of_low_bytes(p, r, _), 0.5),
            "high": (lambda p, r, _: 1 - share_of_low_bytes(p, r, _), 0.5),
        },
    )
    trainer = train(configure(max_steps=1), reward)
    assert {row["why"] for row in rollouts_of(trainer)} == {"rewards cancel"}
    assert steps_of(trainer)[0]["updates"] == 0


def test_beta_adapts_to_the_divergence(configure: Configure) -> None:
    """Far below its target it falls by a fiftieth with every step, as is recorded."""
    for place in ("loss", "reward"):
        settings: dict[str, Any] = {"beta": 0.5, "max_steps": 3}
        settings["kl"] = {"place": place, "target": 50.0}
        trainer = train(configure(place, **settings), share_of_low_bytes)
        betas = [event["beta"] for event in steps_of(trainer)]
        assert betas == pytest.approx([0.5, 0.5 * 0.98, 0.5 * 0.98**2])
        assert all(0 <= event["kl"] < 5 for event in steps_of(trainer))
        assert trainer.state.beta == pytest.approx(0.5 * 0.98**3)


def test_truncated_completions_stay_out(configure: Configure) -> None:
    """Completions of six tokens at most; those that end by themselves are few."""
    trainer = train(configure(mask_truncated=True, max_steps=2), share_of_low_bytes)
    by_step = {event["step"]: event for event in steps_of(trainer)}
    entering = Counter[int]()
    for row in rollouts_of(trainer):
        if row["why"] == "entered" and row["finish_reason"] != "length":
            entering[row["step"]] += len(row["token_ids"])
    for step, event in by_step.items():
        assert event.get("loss_tokens", 0) == entering[step]
    whys = {(row["why"], row["finish_reason"] == "length") for row in rollouts_of(trainer)}
    assert ("entered", True) not in whys
    assert ("truncated", True) in whys


def test_two_mini_batches_are_two_updates(configure: Configure) -> None:
    settings: dict[str, Any] = {"batch_size": 4, "max_steps": 2, "lr_scheduler": "linear"}
    trainer = train(configure(**settings, mini_batches=2, num_iterations=2), share_of_low_bytes)
    assert [event["updates"] for event in steps_of(trainer)] == [4, 4]
    assert trainer.policy.version == trainer.updater.step_count == 8
    assert trainer.updater.total_steps == 8


def test_few_uncertain_tokens_of_nothing(configure: Configure) -> None:
    """A step in which no group enters has no tokens to choose from, and goes on."""
    for name, more in (("one", {}), ("two", {"mini_batches": 2})):
        trainer = train(configure(name, top_entropy=0.2, **more), lambda *_: 0.5)
        assert [event["updates"] for event in steps_of(trainer)] == [0, 0]


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_divergences_in_16_bits_are_from_the_reference(configure: Configure, lora: bool) -> None:
    """The reference is a copy that takes the weights' place, of which autocast keeps casts."""
    settings: dict[str, Any] = {"use_lora": lora, "lora_dropout": 0.0, "beta": 0.1, "max_steps": 1}
    settings |= {"kl": {"place": "reward", "estimator": "k1"}, "reference_sync_steps": 100}
    found = {}
    for precision in ("fp32", "bf16"):
        trainer = trainer_of(configure(precision, precision=precision, **settings), lambda *_: 1)
        torch.manual_seed(3)
        for _, parameter in trainer.policy.trainable():
            parameter.data += 0.05 * torch.randn_like(parameter)
        items = trainer.sampler.items[:2]
        groups = sample_groups(
            trainer.policy, trainer.engine, items, trainer.config, random.Random(0)
        )
        if found:
            groups = found["groups"]
        found |= {"groups": groups, precision: trainer.update.divergences(groups)}
    exact, rounded = (torch.tensor(found[name]) for name in ("fp32", "bf16"))
    assert float(exact.abs().min()) > 0.05
    torch.testing.assert_close(rounded, exact, rtol=0.25, atol=0.3)


def test_a_divergence_that_is_not_finite_is_a_fault(configure: Configure) -> None:
    settings: dict[str, Any] = {"beta": 0.1, "kl": {"place": "reward", "target": 0.1}}
    trainer = trainer_of(configure(**settings), share_of_low_bytes)
    trainer.update.reference = lambda: pytest.fail("not asked")  # type: ignore[assignment]

    @contextmanager
    def broken() -> Any:
        head = trainer.policy.model.get_output_embeddings()
        hook = head.register_forward_hook(lambda _, __, output: output * math.nan)
        with torch.no_grad():
            yield
        hook.remove()

    trainer.update.reference = broken
    record = trainer.step()
    assert record.fault is not None
    assert trainer.state.beta == 0.1


def test_divergences_go_on_in_halves(configure: Configure) -> None:
    settings: dict[str, Any] = {"beta": 0.1, "kl": {"place": "reward"}, "max_steps": 1}
    trainer = trainer_of(configure(**settings), share_of_low_bytes)
    logprobs, passes = trainer.policy.logprobs, list[int]()

    def greedy(batch: Any, *rest: Any, **more: Any) -> Any:
        passes.append(len(batch.rows))
        if len(batch.rows) > 4:
            torch.empty(2**62, dtype=torch.uint8)
        return logprobs(batch, *rest, **more)

    trainer.policy.logprobs = greedy  # type: ignore[method-assign]
    trainer.step()
    assert passes[:5] == [8, 4, 4, 4, 4]
    assert trainer.updater.halvings == 1


def test_another_beta_on_resume(configure: Configure) -> None:
    """One that does not adapt is the configuration's."""
    settings: dict[str, Any] = {"save_steps": 1, "max_steps": 2}
    first = trainer_of(configure(beta=0.1, **settings), share_of_low_bytes)
    first.train()
    step = str(first.folder.step(1))
    again = trainer_of(configure(beta=0.9, resume=step, **settings), share_of_low_bytes)
    assert again.state.beta == 0.9


def test_gdpo_needs_parts(configure: Configure) -> None:
    gated = CompositeReward(step_weight=0.5, step_mode="gated")
    for reward in (share_of_low_bytes, gated):
        with pytest.raises(ConfigError, match="advantage.type=gdpo with the reward"):
            GRPOTrainer(configure(advantage="gdpo"), ROWS, HELD_OUT, reward)
    trainer = train(configure(advantage="gdpo", max_steps=1), CompositeReward())
    assert steps_of(trainer)[0]["updates"] == 1


def test_dynamic_sampling_follows_the_sampler_s_strategy(configure: Configure) -> None:
    """Locked levels stay locked."""
    rows = [
        {"prompt": f"{level}: is {n} odd?", "reference": "No", "task": f"odd_{level}"}
        | {"family": "odd", "level": level}
        for level in (1, 2)
        for n in range(6)
    ]
    settings: dict[str, Any] = {"sampler": "curriculum", "dynamic_sampling": 3, "max_steps": 2}
    trainer = train(configure(**settings), lambda *_: 0.5, rows)
    assert {row["task"] for row in rollouts_of(trainer)} == {"odd_1"}
    assert trainer.sampler.further == 12


def test_nothing_is_kept_beyond_a_step(configure: Configure) -> None:
    trainer = trainer_of(configure(), lambda *_: 0.5)
    trainer.step()
    assert trainer.kept._passes == []


# ── held-out samples among those to train on ─────────────────────────────────────────────────────


def test_a_held_out_sample_to_train_on_is_refused(configure: Configure, base: Path) -> None:
    """Before a model is loaded, unless it is allowed; and then the manifest has it."""
    rows = [*ROWS, {"prompt": " is OHIO  in the midwest? ", "reference": "Yes", "place": "x"}]
    held_out = [ROWS[0]]
    config = configure("no")
    trainer = GRPOTrainer(config, rows, held_out, share_of_low_bytes, show_progress=False)
    with pytest.raises(DataError, match="hold 1 of 1 held-out samples .*allow_contamination=true"):
        trainer.initialize()
    assert not hasattr(trainer, "policy")
    assert not config.checkpoint_dir.exists()
    allowed = configure("yes", allow_contamination=True)
    trainer = GRPOTrainer(allowed, rows, held_out, share_of_low_bytes, show_progress=False)
    trainer.initialize()
    recorded = json.loads((trainer.folder.root / "manifest.json").read_text())["contamination"]
    assert (recorded["status"], recorded["held_out_overlapping"]) == ("overlap", 1)
    trainer.close()
    clean = trainer_of(configure("clean"), share_of_low_bytes)
    recorded = json.loads((clean.folder.root / "manifest.json").read_text())["contamination"]
    assert recorded["status"] == "no overlap"
    clean.close()


def test_what_is_like_a_held_out_sample_of_ones_own_is_left_out(configure: Configure) -> None:
    """Copies in other case share no prompt, so that a split by prompts may divide them."""
    rows = [
        row | {"prompt": change(str(row["prompt"]))}
        for row in ROWS
        for change in (str.upper, str.lower)
    ]
    trainer = GRPOTrainer(configure(eval_fraction=0.3), rows, show_progress=False)
    prompts = [
        [str(s.prompt).lower() for s in own]
        for own in (trainer.train_samples, trainer.eval_samples)
    ]
    assert not set(prompts[0]) & set(prompts[1])
    assert not trainer.contamination.pairs
    assert len(prompts[1]) == 4
    same = [
        row | {"prompt": change("Is it so?")}
        for row in ROWS[:2]
        for change in (str.upper, str.lower)
    ]
    with pytest.raises(DataError, match="every training sample is like one that was held out"):
        GRPOTrainer(configure(), same, show_progress=False)


def test_rehearsal_is_compared_with_held_out_samples(configure: Configure) -> None:
    traced = [replace(TRACED[0], prompt=HELD_OUT[0]["prompt"])]
    config = configure(rehearsal_weight=0.1)
    trainer = GRPOTrainer(config, ROWS, HELD_OUT, share_of_low_bytes, rehearsal=traced)
    with pytest.raises(DataError, match="hold 1 of 1 held-out samples"):
        trainer.initialize()


# ── going on ─────────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """Stands for the end of a process: nothing in the house catches it."""


def comparable(trainer: GRPOTrainer) -> list[dict[str, Any]]:
    """The events without what a clock says."""
    clock = ("time", "tokens_per_second")
    return [
        {k: v for k, v in event.items() if k not in clock and not k.startswith("seconds/")}
        for event in read_events(trainer.folder.events)
    ]


SPIKES = {"factor": 1.01, "window": 2, "skip": False, "backoff": 0.5}
"""A guard to which many gradients are spikes, and which makes their updates at a lower rate."""


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_lora": True, "lora_dropout": 0.3, "beta": 0.05, "num_iterations": 2},
        {"sampler": "difficulty", "rehearsal_weight": 0.1, "rehearsal_samples": 3},
        {"sampler": "curriculum"},
        {"beta": 0.1, "reference_sync_steps": 1, "reference_mixup": 0.3},
        {
            **{"use_lora": True, "lora_dropout": 0.0, "beta": 0.05, "num_iterations": 2},
            **{"top_k": 90, "min_p": 1e-3, "stop_strings": ["e"], "micro_batch_tokens": 60},
            **{"correction": {"type": "token_truncate"}, "sampler": "unrewarded"},
            **{"rehearsal_weight": 0.1, "rehearsal_samples": 3},
        },
        {
            **{"beta": 0.2, "kl": {"place": "reward", "target": 0.01}, "dynamic_sampling": 2},
            **{"mini_batches": 2, "top_entropy": 0.5, "entropy_bonus": 0.01, "loss": "sapo"},
            **{"advantage": "batch", "advantage_bound": "winsorise", "overlong_buffer": 3},
        },
        {"optimizer": "muon", "spikes": SPIKES, "max_grad_value": 1e-3, "num_iterations": 2},
    ],
    ids=[
        "full",
        "lora",
        "rehearsal",
        "curriculum",
        "reference",
        "everything",
        "algorithms",
        "stability",
    ],
)
def test_a_killed_run_goes_on_bit_for_bit(
    configure: Configure, tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings = settings | {"max_steps": 4, "num_epochs": 2, "save_steps": 2, "eval_steps": 2}
    settings |= {"lr_scheduler": "cosine", "warmup_steps": 1}
    if "rehearsal_weight" in settings:
        write_samples(tmp_path / "traced.jsonl", TRACED)
        settings["rehearsal_dataset"] = str(tmp_path / "traced.jsonl")
    rows = [row | {"task": str(row["prompt"]).split()[-1]} for row in ROWS]
    whole = train(configure("whole", **settings), share_of_low_bytes, rows)

    calls = 0

    def killed_in_step_4(prompt: str, response: str, reference: str) -> float:
        nonlocal calls
        calls += 1
        # Before the first step and after the second the one held-out sample is scored, too.
        if calls == 3 * 8 + 2 + 5:
            raise Killed
        return share_of_low_bytes(prompt, response, reference)

    config = configure("killed", **settings)
    first = trainer_of(config, killed_in_step_4, rows)
    with pytest.raises(Killed):
        first.train()
    root = config.checkpoint_dir
    assert {event["step"] for event in read_events(root / "events.jsonl")} == {0, 1, 2, 3}
    assert (root / "rollouts" / "step-000003.parquet").exists()
    torch.manual_seed(12345)  # a new process knows nothing of the old one's random numbers

    second = trainer_of(config.model_copy(update={"resume": "auto"}), share_of_low_bytes, rows)
    assert second.steps_done == 2
    assert {event["step"] for event in read_events(root / "events.jsonl")} == {0, 1, 2}
    assert not (root / "rollouts" / "step-000003.parquet").exists()
    second.train()

    assert same(weights(second), weights(whole))
    assert comparable(second) == comparable(whole)
    assert rollouts_of(second) == rollouts_of(whole)
    assert second.policy.version == whole.policy.version
    for name in ("model.safetensors", "adapter_model.safetensors"):
        if (root / "final" / name).exists():
            mine = (root / "final" / name).read_bytes()
            assert mine == (whole.folder.final / name).read_bytes()


def test_resume_auto_begins_where_nothing_is(configure: Configure) -> None:
    trainer = train(configure(resume="auto"), share_of_low_bytes)
    fresh = train(configure("fresh"), share_of_low_bytes)
    assert comparable(trainer) == comparable(fresh)


def test_resume_auto_leaves_a_finished_run_alone(configure: Configure) -> None:
    done = train(configure(save_steps=1), share_of_low_bytes)
    files = {p: p.read_bytes() for p in done.folder.root.rglob("*") if p.is_file()}
    again = trainer_of(configure(save_steps=1, resume="auto"), share_of_low_bytes)
    assert same(weights(again), weights(done))
    assert again.train() == {"steps": 2}
    assert {p: p.read_bytes() for p in done.folder.root.rglob("*") if p.is_file()} == files


def test_a_run_killed_before_its_last_save_still_gets_it(configure: Configure) -> None:
    done = train(configure(save_steps=1), share_of_low_bytes)
    shutil.rmtree(done.folder.final)
    again = train(configure(save_steps=1, resume="auto"), share_of_low_bytes)
    assert read_card(done.folder.final)["step"] == 2
    assert same(weights(again), weights(done))


def test_a_named_checkpoint_is_gone_on_from(configure: Configure) -> None:
    settings: dict[str, Any] = {"save_steps": 1, "max_steps": 3}
    done = train(configure(**settings), share_of_low_bytes)
    expected = weights(done), comparable(done)
    step = done.folder.step(1)
    again = trainer_of(configure(**settings, resume=str(step)), share_of_low_bytes)
    assert again.steps_done == 1
    # Were the run killed now, resume=auto must not take up what the first one ended with.
    assert not done.folder.final.exists()
    assert done.folder.steps() == [(1, step)]
    again.train()
    assert (weights(again).keys(), comparable(again)) == (expected[0].keys(), expected[1])
    assert same(weights(again), expected[0])


def test_a_checkpoint_of_another_run_is_refused(configure: Configure) -> None:
    """Going on from it here would overwrite the records of this run."""
    one = train(configure("one", save_steps=1), share_of_low_bytes)
    two = train(configure("two", save_steps=1), share_of_low_bytes)
    before = two.folder.events.read_bytes()
    with pytest.raises(ConfigError, match="no checkpoint of the run in .*two"):
        trainer_of(configure("two", resume=str(one.folder.step(1))), share_of_low_bytes)
    with pytest.raises(ConfigError, match="no checkpoint of the run in .*fresh"):
        trainer_of(configure("fresh", resume=str(one.folder.step(1))), share_of_low_bytes)
    assert two.folder.events.read_bytes() == before
    assert not (one.folder.root.parent / "fresh").exists()


def test_other_settings_on_resume_are_told(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    train(configure(save_steps=1, max_steps=2), share_of_low_bytes)
    shutil.rmtree(configure().checkpoint_dir / "final")
    other = configure(save_steps=1, max_steps=2, resume="auto", learning_rate=3e-5)
    trainer = GRPOTrainer(other, ROWS, HELD_OUT, share_of_low_bytes)
    capsys.readouterr()
    trainer.initialize()
    told = " ".join(capsys.readouterr().err.split())
    assert "after step 2 resumed with other settings: learning_rate " in told
    assert told.endswith("→ 3e-05")


def test_a_used_folder_is_refused_before_anything_is_loaded(configure: Configure) -> None:
    train(configure(max_steps=1), share_of_low_bytes)
    with pytest.raises(ConfigError, match="it holds another run .* resume=auto"):
        trainer_of(configure(base_model="no-such-folder"))


def test_a_run_killed_before_its_first_checkpoint_begins_again(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(configure("whole"), share_of_low_bytes)
    calls = iter(range(1000))

    def dies_in_step_2(prompt: str, response: str, reference: str) -> float:
        if next(calls) > 12:
            raise Killed
        return share_of_low_bytes(prompt, response, reference)

    with pytest.raises(Killed):
        train(configure(), dies_in_step_2)
    again = GRPOTrainer(configure(resume="auto"), ROWS, HELD_OUT, share_of_low_bytes)
    again.initialize()
    assert "nothing was saved yet; starting over" in capsys.readouterr().err.replace("\n", " ")
    again.train()
    assert comparable(again) == comparable(whole)
    assert rollouts_of(again) == rollouts_of(whole)
    assert same(weights(again), weights(whole))


def test_the_newest_whole_checkpoint_is_gone_on_from(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {"save_steps": 1, "max_steps": 3, "save_total_limit": None}
    done = train(configure(**settings), share_of_low_bytes)
    expected = weights(done), comparable(done)
    for folder in (done.folder.final, done.folder.step(3)):
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
    again = GRPOTrainer(configure(**settings, resume="auto"), ROWS, HELD_OUT, share_of_low_bytes)
    again.initialize()
    told = " ".join(capsys.readouterr().err.split())
    assert "final is damaged: model.safetensors is not what was written" in told
    assert "step-3 is damaged" in told
    assert again.steps_done == 2
    again.train()
    assert same(weights(again), expected[0])
    assert comparable(again) == expected[1]
    for folder in (done.folder.final, *(path for _, path in done.folder.steps())):
        (folder / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match="none of the 4 checkpoints of .* is whole"):
        trainer_of(configure(**settings, resume="auto"), share_of_low_bytes)
    assert len(done.folder.steps()) == 3, "nothing is thrown away"


def test_the_last_checkpoints_and_the_best_stay(configure: Configure) -> None:
    """Greedy answers to the held-out question are worth less and less."""
    worth = iter([0.1, 0.9, 0.5, 0.4, 0.3, 0.2, 0.1])

    class Falling:
        name = "falling"

        def compute(self, prompt: str, response: str, reference: str = "", **columns: Any) -> float:
            if "Nevada" in prompt:
                return next(worth)
            return share_of_low_bytes(prompt, response, reference)

    settings: dict[str, Any] = {"save_steps": 1, "eval_steps": 1, "max_steps": 6, "num_epochs": 2}
    done = train(configure(**settings, save_total_limit=2), Falling())
    assert [number for number, _ in done.folder.steps()] == [1, 5, 6]
    assert done.folder.best("reward") == done.folder.step(1)
    assert read_card(done.folder.step(5))["evaluation"]["reward"] == 0.2


def test_random_numbers_of_a_reward_go_on(configure: Configure) -> None:
    """Rewards may draw from Python's and NumPy's generators."""

    def dice(prompt: str, response: str, reference: str) -> float:
        return random.random() + float(np.random.rand())

    settings: dict[str, Any] = {"save_steps": 1, "max_steps": 3, "save_total_limit": None}
    whole = train(configure("whole", **settings), dice)
    train(configure(**settings), dice)
    random.seed(99)
    np.random.seed(99)
    step = str(configure().checkpoint_dir / "checkpoints" / "step-1")
    again = train(configure(**settings, resume=step), dice)
    assert rollouts_of(again) == rollouts_of(whole)
    assert same(weights(again), weights(whole))


def test_threads_are_those_of_before_unless_told_otherwise(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    settings: dict[str, Any] = {"save_steps": 1, "max_steps": 2}
    try:
        train(configure(**settings, num_threads=2), share_of_low_bytes)
        shutil.rmtree(configure().checkpoint_dir / "final")
        torch.set_num_threads(1)
        trainer_of(configure(**settings, resume="auto"), share_of_low_bytes).close()
        assert torch.get_num_threads() == 2
        other = configure(**settings, resume="auto", num_threads=1)
        capsys.readouterr()
        trainer = GRPOTrainer(other, ROWS, HELD_OUT, share_of_low_bytes)
        trainer.initialize()
        trainer.close()
        assert torch.get_num_threads() == 1
        told = " ".join(capsys.readouterr().err.split())
        assert "num_threads 2 → 1" in told
        assert "resumed elsewhere: threads 2 → 1; the last digits may differ" in told
    finally:
        torch.set_num_threads(before)


# ── stops and faults ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", ["generate", "score", "update", "evaluate"])
def test_a_stopped_run_goes_on_bit_for_bit(configure: Configure, place: str) -> None:
    """A step that is stopped is as if it had not begun; an evaluation is made up for."""
    settings: dict[str, Any] = {
        "max_steps": 4,
        "num_epochs": 2,
        "eval_steps": 2,
        "use_lora": True,
        "lora_dropout": 0.3,
        "sampler": "difficulty",
    }
    rows = [row | {"task": str(row["prompt"]).split()[-1]} for row in ROWS]
    whole = train(configure("whole", **settings), share_of_low_bytes, rows)

    trainer = trainer_of(configure(**settings), share_of_low_bytes, rows)
    owner, name = {
        "generate": (trainer.engine, "generate"),
        "score": (trainer.reward, "compute"),
        "update": (trainer.policy, "logprobs"),
        "evaluate": (trainer, "evaluate"),
    }[place]
    original = getattr(owner, name)

    def signalling(*arguments: Any, **named: Any) -> Any:
        if trainer.steps_done == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **named)

    setattr(owner, name, signalling)
    with pytest.raises(RunStopped, match="SIGTERM: the run stopped after step 2 of 4 .* resume="):
        trainer.train()
    assert trainer.folder.steps() == [(2, trainer.folder.step(2))]
    assert {event["step"] for event in read_events(trainer.folder.events)} == {0, 1, 2}
    again = train(configure(**settings, resume="auto"), share_of_low_bytes, rows)
    assert comparable(again) == comparable(whole)
    assert rollouts_of(again) == rollouts_of(whole)
    assert same(weights(again), weights(whole))


def test_a_run_out_of_time_saves_and_goes_on(configure: Configure) -> None:
    whole = train(configure("whole"), share_of_low_bytes)
    trainer = trainer_of(configure(time_limit="1d"), share_of_low_bytes)
    assert trainer.supervisor.time_limit == 86400
    trainer.step()
    trainer.supervisor.slowest_save = 86400.0
    with pytest.raises(RunStopped, match="time_limit=86400 s: the run stopped after step 1 of 2"):
        trainer.train()
    again = train(configure(resume="auto"), share_of_low_bytes)
    assert same(weights(again), weights(whole))


def test_a_run_stopped_before_its_first_step_saves_nothing(configure: Configure) -> None:
    with pytest.raises(RunStopped, match="stopped before its first step"):
        train(configure(time_limit=1e-9), share_of_low_bytes)
    assert trainer_of(configure(resume="auto"), share_of_low_bytes).steps_done == 0


Breaks = Callable[[GRPOTrainer], None]


def break_reward(trainer: GRPOTrainer) -> None:
    original = trainer.reward.compute

    def compute(prompt: str, response: str, reference: str = "", **columns: Any) -> RewardResult:
        if trainer.steps_done == 1:
            return as_reward(lambda *_: math.nan).compute(prompt, response, reference)
        return original(prompt, response, reference, **columns)

    trainer.reward.compute = compute  # type: ignore[method-assign]


def break_generation(trainer: GRPOTrainer) -> None:
    break_logits(trainer, training=False)


def break_loss(trainer: GRPOTrainer) -> None:
    break_logits(trainer, training=True)


def break_logits(trainer: GRPOTrainer, *, training: bool) -> None:
    """The head is not finite in the second step, in one of the two passes."""

    def hook(module: Any, inputs: Any, output: Tensor) -> Tensor:
        is_broken = trainer.steps_done == 1 and torch.is_grad_enabled() == training
        return output * math.nan if is_broken else output

    trainer.policy.model.get_output_embeddings().register_forward_hook(hook)


def break_gradient(trainer: GRPOTrainer) -> None:
    """Everything is finite but for one number of one gradient."""

    def hook(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        if trainer.steps_done == 1:
            gradient.view(-1)[0] = math.inf
        return gradient

    trainer.policy.trainable()[0][1].register_hook(hook)


@pytest.mark.parametrize(
    ("broken", "kind", "rows"),
    [
        (break_reward, "reward", 8),
        (break_generation, "log-probability", 0),
        (break_loss, "loss", 8),
        (break_gradient, "gradient", 8),
    ],
)
def test_what_is_not_finite_skips_the_step(
    configure: Configure, broken: Breaks, kind: str, rows: int
) -> None:
    settings: dict[str, Any] = {"max_steps": 3, "eval_steps": 3, "lr_scheduler": "linear"}
    trainer = trainer_of(configure(**settings), share_of_low_bytes)
    broken(trainer)
    trainer.step()
    before = weights(trainer)
    adamw = trainer.updater.optimizers["adamw"]
    moments = {k: v.clone() for k, v in adamw.state_dict()["state"][0].items()}
    drawn = trainer.sampler.position
    record = trainer.step()
    assert same(weights(trainer), before)
    after = adamw.state_dict()["state"][0]
    assert all(torch.equal(after[name], moments[name]) for name in moments)
    assert (record.metrics["updates"], trainer.updater.step_count) == (0, 2)
    assert trainer.sampler.position == drawn + 2, "the next step asks other questions"
    trainer.step()
    assert not same(weights(trainer), before)

    (fault,) = [e for e in read_events(trainer.folder.events) if e["event"] == "fault"]
    assert (fault["step"], fault["kind"], fault["in_a_row"]) == (2, kind, 1)
    assert re.search("finite|is nan|is inf", fault["message"])
    assert set(fault["samples"]) <= {sample.id for sample in trainer.train_samples}
    recorded = [row for row in rollouts_of(trainer) if row["step"] == 2]
    assert len(recorded) == rows
    assert {row["why"] for row in recorded} <= {f"fault: {kind}"}
    assert not any(row["entered_loss"] for row in recorded)
    assert {row["sample_id"] for row in recorded} <= set(fault["samples"])


@pytest.mark.parametrize("skip", [True, False], ids=["left out", "made"])
def test_spikes_are_told(
    configure: Configure, capsys: pytest.CaptureFixture[str], skip: bool
) -> None:
    """A gradient 100,000 times as long in one of the two updates of the third step."""
    spikes = {"factor": 100, "window": 6, "skip": skip, "backoff": 0.5, "recovery": 4}
    config = configure(max_steps=4, num_epochs=2, num_iterations=2, spikes=spikes)
    trainer = GRPOTrainer(config, ROWS, HELD_OUT, share_of_low_bytes)
    trainer.initialize()

    def hook(gradient: Tensor) -> Tensor:
        return gradient * (1e5 if trainer.updater.step_count == 5 else 1)

    for _, parameter in trainer.policy.trainable():
        parameter.register_hook(hook)
    trainer.train()
    steps = steps_of(trainer)
    assert [event["spike"] for event in steps] == [0, 0, 1, 0]
    assert [event["updates"] for event in steps] == [2, 2, 1 if skip else 2, 2]
    # At the spike, and at the first update behind it; the second one is back at the schedule's.
    assert [event["learning_rate_factor"] for event in steps] == [1, 1, 0.5, 1]
    assert steps[2]["learning_rate"] == 0.5e-3
    events = read_events(trainer.folder.events)
    [event] = [event for event in events if event["event"] == "spike"]
    assert (event["step"], event["applied"], event["learning_rate_factor"]) == (3, not skip, 0.5)
    assert event["grad_norm"] == steps[2]["grad_norm"] > 1e3 * steps[1]["grad_norm"]
    assert trainer.policy.version == 8 - skip
    assert not [event for event in events if event["event"] == "fault"]
    assert trainer.state.faults_in_a_row == 0
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "over 100 times the median of those before it; the update was "
        f"{'left out' if skip else 'made'}, and the learning rate is multiplied by 0.5."
    ) in told


def test_without_a_guard_nothing_is_said_of_spikes(configure: Configure) -> None:
    for event in steps_of(train(configure(), share_of_low_bytes)):
        assert not {"spike", "learning_rate_factor"} & event.keys()


def test_too_many_faults_in_a_row_stop_the_run(configure: Configure) -> None:
    config = configure(max_steps=3, num_epochs=3, max_faults=2, learning_rate=1e-4)
    trainer = trainer_of(config, share_of_low_bytes)

    def nan(prompt: str, response: str, reference: str = "", **columns: Any) -> RewardResult:
        return as_reward(lambda *_: math.nan).compute(prompt, response, reference)

    trainer.step()
    good = weights(trainer)
    trainer.reward.compute = nan  # type: ignore[method-assign]
    with pytest.raises(NumericalError, match="2 steps in a row .* saved in .*step-3") as error:
        trainer.train()
    assert error.value.kind == "reward"
    assert "\n" not in str(error.value)
    assert trainer.folder.steps()[-1] == (3, trainer.folder.step(3))
    again = trainer_of(config.model_copy(update={"resume": "auto"}), share_of_low_bytes)
    assert same(weights(again), good)
    assert again.state.faults_in_a_row == 0


def test_a_folder_that_vanishes_stops_the_run(configure: Configure) -> None:
    trainer = trainer_of(configure(save_steps=1), share_of_low_bytes)
    trainer.step()
    shutil.rmtree(trainer.folder.root)
    with pytest.raises(CheckpointError, match=r"resume=auto"):
        trainer.train()
    assert not trainer.folder.root.exists()


def test_two_runs_in_one_folder_are_refused(configure: Configure) -> None:
    trainer = trainer_of(configure(), share_of_low_bytes)
    with pytest.raises(ConfigError, match=f"process {os.getpid()} on .* is writing there"):
        trainer_of(configure(resume="auto"), share_of_low_bytes)
    trainer.train()
    trainer_of(configure(resume="auto"), share_of_low_bytes).close()


def test_an_evaluation_that_meets_nan_is_no_end(configure: Configure) -> None:
    """Such a reward of one held-out sample would stop every run before its first step."""

    def reward(prompt: str, response: str, reference: str) -> float:
        return math.nan if "Nevada" in prompt else share_of_low_bytes(prompt, response, reference)

    trainer = train(configure(), reward)
    events = read_events(trainer.folder.events)
    assert [(e["event"], e["step"]) for e in events] == [
        ("fault", 0),
        ("step", 1),
        ("step", 2),
        ("fault", 2),
    ]
    with pytest.raises(NumericalError, match="no finite number"):
        trainer.evaluate()


def test_an_evaluation_made_up_for_enters_the_choice_of_the_best(configure: Configure) -> None:
    settings: dict[str, Any] = {"max_steps": 3, "eval_steps": 1, "save_steps": 1, "num_epochs": 2}
    trainer = trainer_of(configure(**settings), share_of_low_bytes)
    original = trainer.evaluate

    def signalling() -> dict[str, float]:
        if trainer.steps_done == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original()

    trainer.evaluate = signalling  # type: ignore[method-assign]
    with pytest.raises(RunStopped):
        trainer.train()
    assert "evaluation" not in read_card(trainer.folder.step(2))
    trainer.evaluate = original  # type: ignore[method-assign]
    trainer.train()  # the same trainer may go on
    assert "evaluation" in read_card(trainer.folder.step(2))
    assert trainer.steps_done == 3


def test_faults_do_not_push_good_checkpoints_out(configure: Configure) -> None:
    settings: dict[str, Any] = {"max_steps": 9, "num_epochs": 9, "save_steps": 1}
    config = configure(**settings, save_total_limit=1, max_faults=3, eval_steps=100)
    trainer = trainer_of(config, share_of_low_bytes)
    trainer.step()
    trainer.save_checkpoint(trainer.folder.step(1))
    trainer.reward.compute = lambda *_, **__: as_reward(lambda *_: math.nan).compute("", "")  # type: ignore[method-assign]
    with pytest.raises(NumericalError):
        trainer.train()
    assert [number for number, _ in trainer.folder.steps()] == [1, 2, 3, 4]


def test_a_resume_that_is_refused_removes_nothing(configure: Configure) -> None:
    settings: dict[str, Any] = {"save_steps": 1, "max_steps": 3}
    done = train(configure(**settings), share_of_low_bytes)
    done.folder.events.write_bytes(done.folder.events.read_bytes()[:50])
    files = {path for path in done.folder.root.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="whole lines are missing"):
        trainer_of(configure(**settings, resume=str(done.folder.step(2))), share_of_low_bytes)
    assert {path for path in done.folder.root.rglob("*") if path.is_file()} == files


def test_a_fault_in_a_later_update_keeps_the_earlier_one(configure: Configure) -> None:
    trainer = trainer_of(configure(num_iterations=3, max_steps=1), share_of_low_bytes)
    passes = iter(range(100))

    def hook(module: Any, inputs: Any, output: Tensor) -> Tensor:
        return output * math.nan if torch.is_grad_enabled() and next(passes) else output

    trainer.policy.model.get_output_embeddings().register_forward_hook(hook)
    before = weights(trainer)
    record = trainer.step()
    assert record.metrics["updates"] == trainer.policy.version == 1
    assert trainer.updater.step_count == 3
    assert not same(weights(trainer), before)
    assert all(bool(value.isfinite().all()) for value in weights(trainer).values())


def test_other_held_out_samples_are_refused(configure: Configure) -> None:
    train(configure(save_steps=1), share_of_low_bytes)
    shutil.rmtree(configure().checkpoint_dir / "final")
    other = [{"prompt": "Is Rome in the West?", "response": "No", "place": "Rome"}]
    config = configure(save_steps=1, resume="auto")
    trainer = GRPOTrainer(config, ROWS, other, share_of_low_bytes, show_progress=False)
    with pytest.raises(CheckpointError, match="trained or evaluated on other samples"):
        trainer.initialize()


def test_a_numerical_error_reaches_another_process() -> None:
    error = pickle.loads(pickle.dumps(NumericalError("loss", "the loss is nan.")))
    assert (error.kind, str(error)) == ("loss", "the loss is nan.")


def test_a_trainer_may_be_used_from_another_thread(configure: Configure) -> None:
    trainer = trainer_of(configure(), share_of_low_bytes)
    thread = threading.Thread(target=trainer.train)
    thread.start()
    thread.join()
    assert trainer.steps_done == 2
    trainer_of(configure(resume="auto"), share_of_low_bytes).close()
