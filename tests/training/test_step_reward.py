"""The step reward, and its place in the composite: numbers by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judicaita.errors import ConfigError
from judicaita.legal.tasks import FAMILIES, check_trace, generate, get_family
from judicaita.training.rewards import (
    CompositeReward,
    Reward,
    StepReward,
    columns_of,
    composite_from_config,
    reward_parts,
)
from judicaita.types import Sample

QUESTION = (
    "Ava spoke at lunch. Ava is the other side. Ava's words go to prove the debt. "
    "Ava told it weeks later. Does the hearsay rule bar Ava's words?"
)
FACTS = get_family("hearsay").parse(QUESTION)  # four points to decide; the answer is No
FIRST = "Step 1: at lunch, so out of court."
SOUND = (
    f"{FIRST}\nStep 2: the other side, so an opponent.\n"
    "Step 3: to prove the debt, so for its truth.\nStep 4: weeks later, so no exception.\n"
    "Conclusion: No"
)
RIGHT_BY_A_FALSE_STEP = f"{FIRST}\nStep 2: the other side, so no opponent.\nConclusion: No"


def steps(response, **columns):
    return StepReward().compute("", response, **(columns or FACTS))


def composite(response, step_mode="additive", weights=(0.2, 0.4, 0), **columns):
    reward = CompositeReward(*weights, step_weight=0.4, step_mode=step_mode)
    return reward.compute("", response, "No", **(columns or FACTS))


class TestStepReward:
    @pytest.mark.parametrize(
        ("response", "score", "credits"),
        [
            (SOUND, 1.0, [1, 1, 1, 1]),
            # One of four points; then two, and one of them falsely.
            (f"{FIRST}\nConclusion: No", 1 / 4, [1]),
            (RIGHT_BY_A_FALSE_STEP, 1 / 4, [1, 0]),
            # The same again and something beside the point: one true step of five written.
            (
                f"{FIRST} Step 2: At lunch, so out of court. Step 3: Hm. Step 4: So. Step 5: So.",
                1 / 5,
                [1, 0, 0, 0, 0],
            ),
            ("Conclusion: No", 0.0, []),
            ("", 0.0, []),
        ],
    )
    def test_by_hand(self, response, score, credits):
        result = steps(response)
        assert result.score == pytest.approx(score)
        assert result.details["credits"] == credits

    def test_details(self):
        details = steps(SOUND).details
        assert details["verdicts"][0] == {"status": "true", "factor": "out_of_court", "reason": ""}
        holds = {"is_true": True, "is_sound": True, "coverage": 1.0, "has_false_step": False}
        assert {name: details[name] for name in holds} == holds
        wrong = steps(RIGHT_BY_A_FALSE_STEP).details
        holds = {"is_true": False, "is_sound": False, "has_false_step": True}
        assert {name: wrong[name] for name in holds} == holds
        assert wrong["coverage"] == 1 / 4
        assert [verdict["status"] for verdict in wrong["verdicts"]] == ["true", "false"]

    def test_a_question_of_one_point_asks_for_one_step(self):
        question = (
            "Ava spoke at lunch. Nothing else is disputed. Does the hearsay rule bar Ava's words?"
        )
        facts = get_family("hearsay").parse(question)
        answer = f"{FIRST}\nConclusion: Yes"
        assert steps(answer, **facts).details["is_sound"]
        assert CompositeReward().compute("", answer, "Yes", **facts).details["format"]["score"] == 1
        # Without its facts, one step of two: 0.4 / 2 + 0.4.
        plain = CompositeReward().compute("", answer, "Yes").details["format"]
        assert plain["score"] == pytest.approx(0.6)

    def test_no_more_steps_are_asked_for_than_there_are_points(self):
        assert StepReward(min_steps=5).compute("", SOUND, **FACTS).details["is_sound"]

    @pytest.mark.parametrize(
        "columns",
        [{"court": "x"}, {"family": "Smith"}, {"family": "hearsay"}, {"family": ["hearsay"]}],
    )
    def test_abstains_where_no_family_drew_the_facts(self, columns):
        assert steps(SOUND, **columns).score is None

    @pytest.mark.parametrize("name", FAMILIES)
    def test_every_familys_worked_solutions_score_1(self, name):
        for sample in generate(name, 50, split="train", seed=1):
            columns = columns_of(sample, 128, "stop")
            result = StepReward().compute("", sample.trace, **columns)
            assert result.score == 1
            assert result.details["is_sound"]
            whole = CompositeReward(step_weight=1, step_mode="gated")
            assert whole.compute("", sample.trace, sample.reference, **columns).score == 1

    @given(st.lists(st.sampled_from([*SOUND.splitlines(), "so so", "Step 9: no opponent."])))
    def test_credits_are_the_verdicts(self, lines):
        text = "\n".join(lines)
        check, result = check_trace(get_family("hearsay"), FACTS, text), steps(text)
        assert 0 <= result.score <= 1
        assert sum(result.details["credits"]) == sum(v.status == "true" for v in check.verdicts)
        assert len(result.details["credits"]) == len(check.verdicts)


class TestInTheComposite:
    def test_weight_0_is_no_part(self):
        assert CompositeReward().part_names == ("format", "outcome", "verbosity")
        assert isinstance(StepReward(), Reward)

    def test_additive(self):
        assert composite(SOUND).score == 1
        # Format 1, outcome 1, a quarter of the steps: 0.2 + 0.4 + 0.4 / 4.
        result = composite(RIGHT_BY_A_FALSE_STEP)
        assert result.score == pytest.approx(0.7)
        assert result.details["steps"]["weight"] == pytest.approx(0.4)
        assert "gated" not in result.details["outcome"]["details"]

    def test_gated(self):
        assert composite(SOUND, "gated").score == 1
        # The right answer earns nothing: 0.2 + 0.4 / 4; its own score stands.
        result = composite(RIGHT_BY_A_FALSE_STEP, "gated")
        assert result.score == pytest.approx(0.3)
        outcome = result.details["outcome"]
        assert (outcome["score"], outcome["weight"]) == (1.0, pytest.approx(0.4))
        assert outcome["details"] == {
            **{"answer": "No", "correct": True, "reason": "match", "gated": True}
        }
        assert composite(SOUND, "gated").details["outcome"]["details"]["gated"] is False
        # True but incomplete opens the gate; no steps at all do not.
        one_step = f"{FIRST}\nConclusion: No"  # format 0.4 / 2 + 0.4
        assert composite(one_step, "gated").score == pytest.approx(0.2 * 0.6 + 0.4 + 0.1)
        assert composite("Conclusion: No", "gated").score == pytest.approx(0.2 * 0.4)

    def test_per_step(self):
        # Format and outcome alone, 0.2 and 0.4 of 0.6.
        result = composite(RIGHT_BY_A_FALSE_STEP, "per_step")
        assert result.score == pytest.approx(1)
        assert [part["weight"] for part in result.details.values()] == pytest.approx(
            [1 / 3, 2 / 3, 0, 0]
        )
        assert reward_parts(result)["steps"] == 1 / 4
        assert result.details["steps"]["details"]["credits"] == [1, 0]

    def test_other_samples_are_scored_without_steps(self):
        for mode in ("additive", "gated", "per_step"):
            result = composite("Conclusion: No", mode, court="x")
            assert result.score == pytest.approx((0.2 * 0.4 + 0.4) / 0.6)
            assert reward_parts(result).keys() == {"format", "outcome", "verbosity"}

    def test_from_a_configuration(self):
        settings = {"step_weight": 1.0, "step_mode": "gated", "min_steps": 4}
        reward = composite_from_config(settings)
        assert reward.part_names == ("format", "outcome", "verbosity", "steps")
        assert (reward.step_mode, reward.step_reward.min_steps) == ("gated", 4)
        assert reward.parts["steps"][1] == pytest.approx(0.5)

    def test_bad_settings(self):
        with pytest.raises(ConfigError, match="step_mode=gated with step_weight=0"):
            CompositeReward(step_mode="gated")
        with pytest.raises(ConfigError, match="additive, gated or per_step"):
            CompositeReward(step_weight=1, step_mode="doubled")
        with pytest.raises(ConfigError, match="steps has weight -1"):
            CompositeReward(step_weight=-1)
        with pytest.raises(ConfigError, match="every reward weight is 0"):
            CompositeReward(0, 0, 0, step_weight=1, step_mode="per_step")
        with pytest.raises(ConfigError, match="'steps', which is taken"):
            CompositeReward(step_weight=1, parts={"steps": (StepReward(), 1)})

    def test_facts_and_columns_are_told_apart(self):
        sample = Sample("p", "No", facts=FACTS)
        assert steps(SOUND, **columns_of(sample, 30, "stop")) == steps(SOUND)
