"""What sampled answers decide by true steps, and what a person is told of the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from judicaita.legal.tasks import generate, get_family
from judicaita.training.config import TrainingConfig
from judicaita.training.coverage import BUDGET, PROMPTS, StepCoverage, probe_coverage
from judicaita.training.policy import Policy
from judicaita.training.rollouts.base import SamplingParams
from judicaita.types import Completion, Sample

MakePolicy = Callable[..., Policy]
Answer = Callable[[Sample, int], str]

NEVER = "not_opponent"


class Reciting:
    """A rollout engine that writes what ``answer`` gives for a sample and a number."""

    def __init__(self, policy: Policy, samples: Sequence[Sample], answer: Answer) -> None:
        self.policy, self.answer = policy, answer
        self.samples = {policy.encode(sample.prompt): sample for sample in samples}
        self.asked: list[str] = []
        self.seeds: list[int] = []

    def generate(
        self, prompts: Sequence[tuple[int, ...]], n: int, sampling: SamplingParams
    ) -> list[tuple[Completion, ...]]:
        self.seeds.append(sampling.seed)
        return [tuple(self._completion(prompt, k) for k in range(n)) for prompt in prompts]

    def _completion(self, prompt: tuple[int, ...], k: int) -> Completion:
        self.asked.append(self.samples[prompt].task)
        text = self.answer(self.samples[prompt], k)
        ids = tuple(self.policy.tokenizer(text, add_special_tokens=False)["input_ids"])
        return Completion(ids, (-1.0,) * len(ids), "stop", 0)

    def sync(self) -> None: ...

    def close(self) -> None: ...


def without_a_point(sample: Sample, k: int) -> str:
    """The worked solution; of a hearsay question without the step on `NEVER`."""
    if sample.facts["family"] != "hearsay":
        return sample.trace
    family = get_family("hearsay")
    lines = sample.trace.splitlines()
    kept = [
        line
        for line in lines
        if family.check(sample.facts, line[len("Step 1: ") :]).factor != NEVER
    ]
    return "\n".join(kept)


def probe(
    policy: Policy, samples: list[Sample], answer: Answer, **settings: Any
) -> tuple[tuple[StepCoverage, ...], Reciting]:
    engine = Reciting(policy, samples, answer)
    items = [(sample, policy.encode(sample.prompt)) for sample in samples]
    config = TrainingConfig(**{"num_rollouts": 8, "batch_size": 4, **settings})
    return probe_coverage(policy, engine, items, config), engine


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Of levels on which all four elements are in dispute."""
    hearsay = generate("hearsay", 40, split="train", seed=0, levels=[4, 5])
    return hearsay + generate("negligence", 20, split="train", seed=0, levels=[4])


def test_a_point_that_is_never_decided_is_found(
    make_policy: MakePolicy, samples: list[Sample]
) -> None:
    """Two tasks of hearsay and one of negligence, 8 questions each with 8 answers."""
    found, engine = probe(make_policy(), samples, without_a_point)
    hearsay, negligence = found
    assert (hearsay.family, hearsay.answers) == ("hearsay", 128)
    assert (negligence.family, negligence.answers) == ("negligence", 64)
    assert hearsay.never == (NEVER,)
    assert hearsay.asked[NEVER] == 128  # both levels need every element
    assert {n for point, n in hearsay.decided.items() if point != NEVER} == {128}
    assert list(hearsay.warnings()) == [
        "hearsay: no sampled answer ever decided not_opponent (0 of 128); an unsampled step is "
        "never rewarded. Add traces of it to the warm start."
    ]
    assert (negligence.never, list(negligence.warnings())) == ((), [])
    assert hearsay.as_fields()["points"][NEVER] == [0, 128]
    assert hearsay.as_fields()["never"] == [NEVER]
    assert hearsay.as_fields()["fullest"] == {"4": 3}  # the rest of every question was decided
    assert len(set(engine.seeds)) == len(engine.seeds) == 6  # 24 questions, 4 at a time


def test_answers_that_are_never_complete_are_found(
    make_policy: MakePolicy, samples: list[Sample]
) -> None:
    """Every point is decided now and then, but no more than two of the four in one answer."""

    def two_steps(sample: Sample, k: int) -> str:
        steps = sample.trace.splitlines()[:-1]
        return "\n".join(steps[:2] if k % 2 else steps[2:])

    (hearsay, negligence), _ = probe(make_policy(), samples, two_steps)
    assert hearsay.never == negligence.never == ()
    assert hearsay.fullest == negligence.fullest == {4: 2}
    assert list(hearsay.warnings()) == [
        "hearsay: of 4 points no sampled answer decided more than 2, so that none is complete; "
        "what is never sampled is never rewarded. Add traces with as many steps to the warm start."
    ]
    easy = generate("hearsay", 4, split="train", seed=0, levels=[1])
    (found,), _ = probe(make_policy(), easy, lambda sample, k: sample.trace)
    assert list(found.warnings()) == []
    assert list(found.fullest) == list(found.fullest.values())


def test_one_true_step_is_enough(make_policy: MakePolicy, samples: list[Sample]) -> None:
    def seldom(sample: Sample, k: int) -> str:
        return sample.trace if k == 7 else without_a_point(sample, k)

    (hearsay, _), _ = probe(make_policy(), samples, seldom)
    assert hearsay.never == ()
    assert hearsay.decided[NEVER] == 16


def test_a_family_of_which_nothing_is_sampled_is_one_sentence(
    make_policy: MakePolicy, samples: list[Sample]
) -> None:
    (hearsay, _), _ = probe(make_policy(), samples, lambda sample, k: "Conclusion: Yes")
    [warning] = hearsay.warnings()
    assert warning.startswith("hearsay: no sampled answer decided anything by a true step (0 of 12")


def test_the_budget_is_kept(make_policy: MakePolicy, samples: list[Sample]) -> None:
    policy = make_policy()
    _, engine = probe(policy, samples, without_a_point, num_rollouts=64)
    # 512 / (64 · 3) questions of each of three tasks.
    counts = {task: engine.asked.count(task) for task in set(engine.asked)}
    assert counts == dict.fromkeys({sample.task for sample in samples}, 128)
    assert len(counts) == 3
    assert sum(counts.values()) <= BUDGET
    _, engine = probe(policy, samples[:3], without_a_point)
    assert len(engine.asked) == 3 * 8 < PROMPTS * 8  # all there are
    plain = [Sample("Is it?", "Yes", task="plain")]
    assert probe(policy, plain, without_a_point)[0] == ()


def test_equal_seeds_ask_the_same(make_policy: MakePolicy, samples: list[Sample]) -> None:
    policy = make_policy()
    one, again, other = (
        probe(policy, samples, without_a_point, seed=seed)[1].seeds for seed in (1, 1, 2)
    )
    assert one == again != other
