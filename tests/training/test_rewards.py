"""Rewards: numbers by hand, abstentions, and failures that never become scores."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judicaita.errors import ConfigError, NumericalError, RewardError
from judicaita.training.rewards import (
    CompositeReward,
    FormatReward,
    OutcomeReward,
    Reward,
    VerbosityReward,
    as_reward,
    columns_of,
    composite_from_config,
    load_reward,
    reward_parts,
    score_batch,
    score_safely,
)
from judicaita.types import RewardResult, Sample

GOOD = "Step 1: Ann is from Ohio.\nStep 2: Bob is from Iowa.\nConclusion: Yes"


class TestFormat:
    @pytest.mark.parametrize(
        "text",
        [
            GOOD,
            GOOD.replace("\n", " "),
            "**Step 1:** Ann.\n\n**Step 2:** Bob.\n\n**Conclusion:** Yes\n",
            GOOD.replace("Conclusion", "Step 3: So they differ.\nConclusion"),
        ],
    )
    def test_well_formed_is_1(self, text):
        result = FormatReward().compute("", text)
        assert (result.score, result.details["well_formed"]) == (1, True)

    @pytest.mark.parametrize(
        ("text", "score"),
        [
            ("", 0.0),
            ("Yes", 0.0),
            ("Conclusion: Yes", 0.4),
            ("Step 1: a\nConclusion: Yes", 0.6),
            ("Step 1: a\nStep 2: b", 0.4),
            ("Step 1: a\nStep 2: b\nConclusion:", 0.4),
            ("Step 1: a\nStep 2: b\nConclusion: **", 0.4),
            ("Step 1: a\nStep 2: b\nConclusion: Yes\nConclusion: No", 0.4),
            ("Conclusion: Yes\nStep 1: a\nStep 2: b", 0.4),
            ("Step 1: a\nConclusion: Yes\nStep 2: b", 0.4),
            ("Step 1: a\nStep 1: b\nConclusion: Yes", 0.6),
            ("Step 2: a\nStep 1: b\nConclusion: Yes", 0.4),
            ("Step 1: a\nStep 3: b\nConclusion: Yes", 0.6),
            ("Step 1:\nStep 2: b\nConclusion: Yes", 0.4),
            ("Step 1: …\nStep 2: b\nConclusion: Yes", 0.4),
            ("Step 1: a b.\nStep 2: A b\nConclusion: Yes", 0.6),
            ("Step 1: one two three four\nStep 2: so one two three four\nConclusion: Yes", 0.6),
            ("Step 1: a\nStep 2: b\nStep 3: a\nConclusion: Yes", 0.8),
            ("Let me think.\nStep 1: a\nStep 2: b\nConclusion: Yes", 0.8),
            ("Step 1: a\nStep 2: b\nConclusion: Yes\n\nNext question: who?", 0.8),
        ],
    )
    def test_partial_credit(self, text, score):
        result = FormatReward().compute("", text)
        assert result.score == pytest.approx(score)
        assert not result.details["well_formed"]

    def test_min_steps(self):
        # Two good steps of four: 0.4 · 2/4 + 0.4.
        assert FormatReward(min_steps=4).compute("", GOOD).score == pytest.approx(0.6)
        assert FormatReward(min_steps=1).compute("", "Step 1: a\nConclusion: b").score == 1
        with pytest.raises(ConfigError, match="min_steps=0"):
            FormatReward(min_steps=0)


class TestOutcome:
    def test_right_and_wrong(self):
        result = OutcomeReward().compute("", GOOD, "Yes")
        assert result == RewardResult(1.0, {"answer": "Yes", "correct": True, "reason": "match"})
        assert OutcomeReward().compute("", GOOD, "No").score == 0

    def test_abstains_without_a_reference(self):
        assert OutcomeReward().compute("", GOOD, " ").score is None

    def test_match_and_threshold_are_used(self):
        text, gold = "The clause is void here", "The clause is void here today"
        assert OutcomeReward().compute("", text, gold).score == pytest.approx(8 / 9)
        assert OutcomeReward(threshold=0.9).compute("", text, gold).score == 0
        assert OutcomeReward(match="exact").compute("", text, gold).score == 0
        assert OutcomeReward(match="overlap").compute("", "no state", "no state of").score == 0.8

    def test_labels_column(self):
        text = "Facts come first. Issue."
        assert OutcomeReward().compute("", "Facts. Then: Issue.", "Facts").score == 1
        labels = {"labels": ["Facts", "Issue"]}
        assert OutcomeReward().compute("", "Facts. Then: Issue.", "Facts", **labels).score == 0
        with pytest.raises(RewardError, match="must be a list"):
            score_safely(OutcomeReward(), "", text, "Facts", {"labels": "Facts,Issue"})

    @pytest.mark.parametrize(
        ("answer_type", "reference", "right", "wrong"),
        [
            ("numeric", "$27,181", "The tax is 27,181 dollars.", "The tax is $28,181."),
            ("date", "1999-03-02", "the 2d day of March, 1999", "the 3d day of March, 1999"),
            ("extraction", "land", "The term is “land”.", "The term is “soil”."),
            ("yes_no", "No", "It was told late, so the answer is no.", "No. Actually, yes."),
        ],
    )
    def test_answer_type_column(self, answer_type, reference, right, wrong):
        for text, score in ((right, 1), (wrong, 0)):
            result = OutcomeReward().compute("", text, reference, answer_type=answer_type)
            assert result.score == score

    def test_a_reference_that_its_type_cannot_read_stops_the_run(self):
        with pytest.raises(RewardError, match="dates, not one"):
            score_safely(OutcomeReward(), "", "May 1", "soon", {"answer_type": "date"})

    def test_bad_settings(self):
        with pytest.raises(ConfigError, match="auto, exact or overlap"):
            OutcomeReward(match="fuzzy")
        with pytest.raises(ConfigError, match="threshold=0"):
            OutcomeReward(threshold=0)


class TestVerbosity:
    @pytest.mark.parametrize(
        ("tokens", "score"),
        [(0, 0), (25, 0.5), (50, 1), (100, 1), (150, 1), (225, 0.5), (300, 0), (1000, 0)],
    )
    def test_by_hand(self, tokens, score):
        reward = VerbosityReward(target_tokens=100, tolerance=0.5)
        result = reward.compute("", "word", completion_tokens=tokens)
        assert result == RewardResult(score, {"tokens": tokens})

    def test_words_where_no_tokens_are_given(self):
        assert VerbosityReward(4, 0).compute("", "one two").score == 0.5

    @pytest.mark.parametrize("settings", [(0, 0.5), (10, -0.1), (10, math.nan)])
    def test_bad_settings(self, settings):
        with pytest.raises(ConfigError):
            VerbosityReward(*settings)


class TestComposite:
    def test_by_hand(self):
        # Format 1, outcome 1, verbosity 128 of at least 256 · 0.5 tokens.
        result = CompositeReward().compute("", GOOD, "Yes", completion_tokens=64)
        assert result.score == pytest.approx(0.3 + 0.5 + 0.2 * 0.5)
        assert reward_parts(result) == {"format": 1.0, "outcome": 1.0, "verbosity": 0.5}
        assert result.details["outcome"]["details"]["answer"] == "Yes"

    def test_weights_are_normalised(self):
        result = CompositeReward(3, 5, 2).compute("", GOOD, "No", completion_tokens=200)
        assert result.score == pytest.approx(0.5)
        weights = [part["weight"] for part in result.details.values()]
        assert weights == pytest.approx([0.3, 0.5, 0.2])

    def test_an_abstention_is_left_out(self):
        result = CompositeReward().compute("", GOOD, "", completion_tokens=64)
        assert result.score == pytest.approx((0.3 * 1 + 0.2 * 0.5) / 0.5)
        assert reward_parts(result) == {"format": 1.0, "verbosity": 0.5}
        assert result.details["outcome"]["weight"] == 0

    def test_all_abstain(self):
        reward = CompositeReward(0, 1, 0)
        with pytest.raises(RewardError, match=r"abstained on the sample 'Is it hearsay\?'"):
            reward.compute("Is it hearsay?", GOOD, "")

    def test_weight_0_is_shown_and_does_not_count(self):
        result = CompositeReward(0, 1, 0).compute("", GOOD, "No")
        assert result.score == 0
        assert reward_parts(result)["format"] == 1

    def test_further_parts(self):
        def shouts(prompt, response, reference):
            return float(response.isupper())

        reward = CompositeReward(0, 1, 0, parts={"shouts": (shouts, 3)})
        assert reward.part_names == ("format", "outcome", "verbosity", "shouts")
        assert reward.compute("", "YES", "No").score == 0.75
        with pytest.raises(ConfigError, match="'format', which is taken"):
            CompositeReward(parts={"format": (shouts, 1)})

    @pytest.mark.parametrize("weights", [(-0.1, 1, 1), (0, 0, 0), (math.nan, 1, 1)])
    def test_bad_weights(self, weights):
        with pytest.raises(ConfigError):
            CompositeReward(*weights)

    def test_components_and_configuration(self):
        settings = {"format_weight": 1.0, "outcome_weight": 1.0, "min_steps": 5}
        settings |= {"verbosity_target": 10, "verbosity_tolerance": 0.0, "learning_rate": 1.0}
        reward = composite_from_config(settings)
        assert reward.format_reward.min_steps == 5
        assert (reward.verbosity_reward.low, reward.verbosity_reward.high) == (10, 10)
        # The verbosity weight keeps its default.
        assert [weight for _, weight in reward.parts.values()] == pytest.approx(
            [1 / 2.2, 1 / 2.2, 0.2 / 2.2]
        )

    def test_batch_equals_one_by_one(self):
        columns = [{"completion_tokens": 64}, {"completion_tokens": 9}]
        results = CompositeReward().compute_batch(["p", "q"], [GOOD, "No"], ["Yes", "No"], columns)
        assert results == [
            CompositeReward().compute("p", GOOD, "Yes", completion_tokens=64),
            CompositeReward().compute("q", "No", "No", completion_tokens=9),
        ]
        with pytest.raises(ValueError, match="zip"):
            CompositeReward().compute_batch(["p"], [GOOD, GOOD], ["Yes"])

    @given(st.text(max_size=80), st.sampled_from(["Yes", "Choice of law", "a b c d e"]))
    def test_scores_stay_in_0_1(self, text, reference):
        for response in (text, f"Step 1: {text} Step 2: {text}x Conclusion: {text}"):
            result = CompositeReward().compute("", response, reference)
            assert 0 <= result.score <= 1
            assert all(0 <= score <= 1 for score in reward_parts(result).values())


class Length:
    """A user's own reward, as plain as can be."""

    def compute(self, prompt, response, reference):
        return len(response)


class TestUsersOwn:
    def test_only_the_columns_it_takes(self):
        def plain(prompt, response, reference):
            return 0.25

        def picky(prompt, response, reference, completion_tokens, *, amount=1):
            return completion_tokens * amount

        def greedy(prompt, response, reference, **columns):
            return RewardResult(float(len(columns)), dict(columns))

        columns = {"completion_tokens": 3, "amount": 2, "court": "x", "prompt": "a column"}
        scores = [
            score_safely(as_reward(function), "p", "r", "g", columns).score
            for function in (plain, picky, greedy)
        ]
        assert scores == [0.25, 6.0, 3.0]

    def test_classes_instances_and_rewards(self):
        assert as_reward(Length).compute("", "four").score == 4
        assert as_reward(Length()).name == "Length"
        composite = CompositeReward()
        assert as_reward(composite) is composite
        for reward in (composite, FormatReward(), OutcomeReward(), VerbosityReward()):
            assert isinstance(reward, Reward)

    def test_what_is_no_reward(self):
        with pytest.raises(ConfigError, match="is no reward"):
            as_reward(3)
        with pytest.raises(ConfigError, match="takes 1 positional"):
            as_reward(lambda response: 1.0)

        class Needy(Length):
            def __init__(self, size):
                pass

        with pytest.raises(ConfigError, match="'Needy' cannot be made without arguments"):
            as_reward(Needy)

    def test_an_exception_names_reward_and_sample(self):
        def broken(prompt, response, reference):
            raise ZeroDivisionError("half of nothing")

        expected = r"'broken' failed on .*'Who won\?'\): ZeroDivisionError: half of nothing"
        sample = Sample("Who won?", "Ann")
        with pytest.raises(RewardError, match=rf"{sample.id}") as caught:
            score_safely(as_reward(broken), "Who won?", "", "", columns_of(sample, 1, "stop"))
        assert caught.match(expected)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(RewardError, match="'broken' failed"):
            CompositeReward(parts={"mine": (broken, 1)}).compute("Who won?", "", "Ann")

    @pytest.mark.parametrize("score", [None, "1", [1.0], RewardResult("1")])
    def test_what_is_no_score(self, score):
        reward = as_reward(lambda prompt, response, reference: score)
        with pytest.raises(RewardError, match="which is no number"):
            reward.compute("p", "r")

    @pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, RewardResult(math.nan)])
    def test_what_is_not_finite_names_reward_and_sample_once(self, score):
        def divides(prompt, response, reference):
            return score

        expected = r"^reward 'divides' on the sample 'Who won\?': it returned .*no finite number"
        for reward in (as_reward(divides), CompositeReward(parts={"mine": (divides, 1)})):
            with pytest.raises(NumericalError, match=expected) as error:
                score_safely(reward, "Who won?", "", "Ann", {})
            assert error.value.kind == "reward"

    def test_booleans_and_abstentions_are_fine(self):
        assert as_reward(lambda p, r, g: True).compute("", "").score == 1.0
        assert as_reward(lambda p, r, g: RewardResult(None)).compute("", "").score is None

    def test_chat_prompts(self):
        prompt = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"})
        reward = as_reward(lambda prompt, response, reference: len(prompt))
        assert score_batch(reward, [prompt], ["a"], [""])[0].score == 2
        with pytest.raises(RewardError, match=r"'Be brief\. / Who\?'"):
            score_batch(as_reward(lambda p, r, g: None), [prompt], ["a"], [""])


class TestLoadReward:
    def test_file(self, tmp_path):
        path = tmp_path / "mine.py"
        path.write_text(
            "from __future__ import annotations\n"
            "from dataclasses import dataclass\n"
            "@dataclass\n"
            "class Mine:\n"
            "    bonus: float = 0.5\n"
            "    def compute(self, prompt, response, reference):\n"
            "        return self.bonus\n"
            "def half(prompt, response, reference):\n"
            "    return 0.5\n"
        )
        assert load_reward(f"{path}:half").compute("", "").score == 0.5
        assert as_reward(f"{path}:Mine").compute("", "").score == 0.5
        with pytest.raises(ConfigError, match="has no 'whole'"):
            load_reward(f"{path}:whole")

    def test_module_in_the_working_directory(self, tmp_path, monkeypatch):
        (tmp_path / "my_reward_module.py").write_text("def one(p, r, g):\n    return 1\n")
        monkeypatch.chdir(tmp_path)
        assert load_reward("my_reward_module:one").compute("", "").score == 1

    @pytest.mark.parametrize(
        ("spec", "sentence"),
        [
            ("judicaita", "module:function or"),
            ("no_such_module_here:f", "cannot be imported"),
            ("no/such/file.py:f", "does not exist"),
            ("json:no_such_function", "has no 'no_such_function'"),
        ],
    )
    def test_missing(self, spec, sentence):
        with pytest.raises(ConfigError, match=sentence):
            load_reward(spec)

    def test_a_file_that_fails(self, tmp_path):
        path = tmp_path / "broken.py"
        path.write_text("1 / 0\n")
        with pytest.raises(ConfigError, match="ZeroDivisionError"):
            load_reward(f"{path}:f")
