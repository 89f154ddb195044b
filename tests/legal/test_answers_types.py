"""Grading by answer type: labels, amounts, dates, extraction; and the shapes of honest answers."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judicaita.legal.amounts import read_amounts
from judicaita.legal.answers import ANSWER_TYPES, grade_answer
from judicaita.legal.dates import read_dates
from judicaita.legal.polarity import normalise

TORTS = ("battery", "trespass", "negligence", "none")
MARKS = ("generic", "descriptive", "suggestive", "arbitrary", "fanciful")

SHAPES = (
    *("{}", "{}.", "{}\n", "\n\n{}\n\n", "**{}**", "**{}.**", '"{}"', "`{}`", "({})", "- {}"),
    *("The answer is {}.", "The answer is **{}**.", "Answer: {}", "Final answer: {}"),
    *("My final answer is {}.", "Therefore, the answer is {}.", "<answer>{}</answer>"),
    *(r"\boxed{{{}}}", r"$\boxed{{\text{{{}}}}}$", "Conclusion: {}", "**Conclusion:** {}"),
    *("## Conclusion: {}", "Conclusion:\n{}", "Conclusion: The answer is {}."),
    "Step 1: The record was read.\nStep 2: The rule was applied.\nConclusion: {}",
    "1. The record was read.\n2. The rule was applied.\nAnswer: {}",
    "The record was read and the rule applied. The answer is {}.",
    "The record was read.\nAnswer: {}",
    "The record was read.\r\n{}",
    "The rule was applied.\n<answer>{}</answer>",
    "The rule was applied.\n\n\\boxed{{{}}}",
    "{}. The record was read and the rule applied.",
    "{}\n\nThe rule was applied to the record.",
)
GOLDS = {
    "yes": ("Yes", {"answer_type": "yes_no"}),
    "no": ("No", {"answer_type": "binary_yes_no", "labels": ("Yes", "No")}),
    "multiclass": ("descriptive", {"answer_type": "multiclass", "labels": MARKS}),
    "letter": ("B", {"answer_type": "multiclass", "labels": ("A", "B", "C", "D")}),
    "not hearsay": ("Not hearsay", {"labels": ("Hearsay", "Not hearsay")}),
    "dollars": ("$27,181", {"answer_type": "numeric"}),
    "percentage": ("15%", {"answer_type": "numeric"}),
    "date": ("March 2, 1999", {"answer_type": "date"}),
    "multilabel": ("battery, trespass", {"answer_type": "multilabel", "labels": TORTS}),
}


def reason(text: str, reference: str, **options) -> str:
    grade = grade_answer(text, reference, **options)
    assert grade.correct == (grade.score > 0) == (grade.reason == "match")
    return grade.reason


@pytest.mark.parametrize("name", GOLDS)
def test_honest_shapes_score_alike(name):
    gold, options = GOLDS[name]
    assert len(SHAPES) >= 20
    shown = [shape.format(form) for shape in SHAPES for form in (gold, gold.lower(), gold.upper())]
    scores = {text: grade_answer(text, gold, **options).score for text in shown}
    assert max(scores.values()) - min(scores.values()) <= 0.05, min(scores, key=scores.__getitem__)
    assert min(scores.values()) == 1


class TestLabels:
    @pytest.mark.parametrize(
        "text",
        [
            "The parties are diverse and the claim is large, so the answer is yes.",
            "Because no party shares a state, the answer is yes.",
            "Affirmative.",
            "It is settled law. Therefore, yes.",
            "Y\u200be\u2060s", "\u202eYes", "\u0423es", "Y\u0435\u0455", "\uff39\uff45\uff53",
            "\U0001d418\U0001d41e\U0001d42c", r"\textbf{Yes}", r"\(\boxed{\mathrm{Yes}}\)",
        ],
    )  # fmt: skip
    def test_yes(self, text):
        assert reason(text, "Yes", answer_type="yes_no") == "match"
        assert reason(text, "No", answer_type="yes_no") != "match"

    @pytest.mark.parametrize("gold", ["Yes", "No"])
    @pytest.mark.parametrize(
        "text",
        [
            "It is false that the answer is yes", "If both were from Ohio, the answer is yes.",
            "One might say no. The answer is yes, or no.", "No. The answer is yes.",
            "The answer is no. The answer is yes.", "The answer is yes. The answer is no.",
            "No\nYes", "Yes\nNo", "Could be.\nAnswer: yes or no", "It depends.\nYes",
            "Yes\n\u0421onclusion: No", "I can not tell.\nNo", "Yes and N\u200bo",
            "The answer is not in doubt", "Whether the answer is yes, the answer is unclear",
        ],
    )  # fmt: skip
    def test_neither(self, text, gold):
        assert reason(text, gold, answer_type="yes_no") != "match"

    def test_reasons_first_need_known_rivals(self):
        text = "Generic, at first sight. The answer is descriptive."
        assert reason(text, "descriptive") != "match"
        assert reason(text, "descriptive", labels=MARKS) != "match"
        assert reason("It describes. The answer is descriptive.", "descriptive", labels=MARKS) == (
            "match"
        )

    def test_aliases(self):
        labels = ("UCC", "Common Law")
        for text in ("The Uniform Commercial Code.", "U.C.C.", "the answer is the UCC"):
            assert reason(text, "UCC", labels=labels) == "match"
            assert reason(text, "Common Law", labels=labels) != "match"
        assert reason("affirmative", "Yes", labels=("Yes", "Affirmative")) != "match"

    def test_not_hearsay(self):
        labels = ("Hearsay", "Not hearsay")
        for text in ("non-hearsay", "It isn't hearsay.", "This is not hearsay."):
            assert reason(text, "Not hearsay", labels=labels) == "match"
            assert reason(text, "Hearsay", labels=labels) != "match"
        assert reason("It is not hearsay.\nHearsay", "Hearsay", labels=labels) != "match"

    def test_labels_may_be_explained(self):
        options = {"labels": TORTS, "answer_type": "multilabel"}
        gold = "battery, trespass"
        assert reason("Battery and trespass. He struck her on her land.", gold, **options) == (
            "match"
        )
        assert reason("He struck her.\nThe torts are battery, trespass", gold, **options) == "match"
        for text in (
            "Battery and trespass. Also negligence.",
            "Battery, trespass. It depends.",
            "There was no negligence.\nbattery, trespass",
        ):
            assert reason(text, gold, **options) != "match"


class TestAmounts:
    @pytest.mark.parametrize(
        ("text", "value", "unit"),
        [
            ("$27,181.50", 27181.5, "$"), ("27181 dollars", 27181, "$"), ("USD 40", 40, "$"),
            ("$1.5 million", 1.5e6, "$"), ("seventy-five thousand dollars", 75000, "$"),
            ("one hundred and five", 105, ""), ("75k", 75000, ""), (r"\$5", 5, "$"),
            ("-$500", -500, "$"), ("ten percent", 10, "%"), ("4.5 per cent", 4.5, "%"),
            ("two years", 24, "month"), ("six-week", 42, "day"), ("thirty (30) days", 30, "day"),
            ("Section 230", 230, "section"), ("\u00a7 12", 12, "section"),
        ],
    )  # fmt: skip
    def test_read(self, text, value, unit):
        (amount,) = read_amounts(f"It is {text}, they say.")
        assert (amount.value, amount.unit) == (value, unit)

    @pytest.mark.parametrize(
        ("text", "gold"),
        [
            ("27181", "$27,181"), ("$27,181.00", "$27181"), ("$27,181.32", "$27,181"),
            ("Bob owes $27,181, because 15% of $181,206 is that.", "$27,181"),
            ("15% of $36,900 is $5,535.", "$5,535"), ("$1,200 - $300 = $900", "$900"),
            ("The rate is 28% and the income is $1,000, so the tax is $280.", "$280"),
            ("fifteen percent", "15%"), ("15", "15%"), ("24 months", "two years"), ("3", "three"),
            ("Rent of $400 for three months is $1,200.", "$1,200"), ("$0", "$0"),
        ],
    )  # fmt: skip
    def test_right(self, text, gold):
        assert reason(text, gold, answer_type="numeric") == "match"

    @pytest.mark.parametrize(
        ("text", "gold"),
        [
            ("$27,182", "$27,181"), ("27,181%", "$27,181"), ("$271.81", "$27,181"),
            ("$500 or $600", "$500"), ("$500, $600, $700", "$500"), ("$500\n$600", "$500"),
            ("$500. No, $600.", "$500"), ("$500. Actually $600", "$600"), ("not $500", "$500"),
            ("$500. The answer is $600.", "$500"), ("$500. The answer is $600.", "$600"),
            ("between $400 and $500", "$500"), ("maybe $500", "$500"), ("It depends: $5", "$5"),
            ("0.15%", "15%"), ("2 months", "two years"), ("none", "$0"), ("1 2 3", "3"),
        ],
    )  # fmt: skip
    def test_wrong(self, text, gold):
        assert reason(text, gold, answer_type="numeric") != "match"

    def test_a_reference_without_one_amount_is_refused(self):
        for gold in ("much", "$5 or $6"):
            with pytest.raises(ValueError, match="amounts, not one"):
                grade_answer("$5", gold, answer_type="numeric")


class TestDates:
    @pytest.mark.parametrize(
        "text",
        [
            "March 2, 1999", "2 March 1999", "Mar. 2nd, 1999", "the 2d day of March, 1999",
            "the second of March 1999", "1999-03-02", "3/2/1999", "03/02/1999", "MARCH 2 1999",
        ],
    )  # fmt: skip
    def test_one_day_in_many_forms(self, text):
        assert [(d.year, d.month, d.day) for d in read_dates(f"On {text}.")] == [(1999, 3, 2)]
        for shape in ("{}", "It expired on {}.", "Served on May 1, 1998; so it expired on {}."):
            assert reason(shape.format(text), "March 2, 1999", answer_type="date") == "match"
            assert reason(shape.format(text), "March 3, 1999", answer_type="date") != "match"

    @pytest.mark.parametrize(
        "text",
        [
            "March 1999", "March 2", "1999", "February 30, 1999", "not March 2, 1999",
            "It was not due on March 2, 1999", "March 2, 1999 or March 3, 1999",
            "March 2, 1999; March 3, 1999", "maybe March 2, 1999",
            "March 2, 1999. Wait, May 2, 1999",
        ],
    )  # fmt: skip
    def test_wrong(self, text):
        assert reason(text, "1999-03-02", answer_type="date") != "match"

    def test_a_gold_month_takes_any_day_of_it(self):
        assert reason("March 2, 1999", "March 1999", answer_type="date") == "match"
        assert reason("April 2, 1999", "March 1999", answer_type="date") != "match"

    def test_a_reference_without_one_date_is_refused(self):
        with pytest.raises(ValueError, match="dates, not one"):
            grade_answer("March 2, 1999", "February 30, 1999", answer_type="date")


class TestExtraction:
    @pytest.mark.parametrize(
        "text",
        ["land", "Land.", "“land”", "the land", "The term is land.", "The court defines “land”.",
         "Term: land", "It is quoted. The answer is land.", "land, as ground"],
    )  # fmt: skip
    def test_term(self, text):
        assert reason(text, "land, ground", answer_type="extraction") == "match"

    @pytest.mark.parametrize(
        "text", ["soil", "land, soil, water", "“land” or “soil”", "not land", "landlord", "…"]
    )
    def test_no_term(self, text):
        assert reason(text, "land, ground", answer_type="extraction") != "match"

    def test_names_are_matched_one_against_one(self):
        options = {"answer_type": "extraction_list", "threshold": 0.1}
        two = "['Ruth C May', 'Donna E Ledgerwood']"

        def score(text: str, gold: str) -> float:
            return grade_answer(text, gold, **options).score

        assert score("Donna Ledgerwood and Ruth C. May", two) == 1
        assert score("1. Ruth C. May\n2. Donna E. Ledgerwood", two) == 1
        assert score("Ruth C. May", two) == pytest.approx(2 / 3)  # 2·1 / (2 + 1)
        assert score("Ruth C. May, Ruth C. May", two) == pytest.approx(2 / 3)
        assert score("Ruth C. May, Ann Lee, Bo Li", two) == pytest.approx(2 / 5)
        assert score("Juniper Networks", "Juniper Networks, Inc.") == 1
        assert score("Jupiter Networks, Inc.", "Juniper Networks, Inc.") == 0

    def test_case_names(self):
        options = {"answer_type": "free_text_short"}
        gold = "Phillips v. AWH Corp."
        assert reason("Phillips vs. AWH Corp., 415 F.3d 1303", gold, **options) == "match"
        assert reason("The case is Phillips v. AWH Corp.", gold, **options) == "match"
        for text in (
            "Phillips",
            "Phillips v. AWH Corp. or Jones v. Smith",
            "not Phillips v. AWH Corp",
        ):
            assert reason(text, gold, **options) != "match"


def test_an_explicit_mode_wins_over_the_type():
    assert reason("March 2, 1999", "2 March 1999", answer_type="date") == "match"
    assert reason("March 2, 1999", "2 March 1999", answer_type="date", mode="exact") != "match"
    assert (
        grade_answer("no state", "no state of", mode="overlap", answer_type="yes_no").score == 0.8
    )


def test_look_alikes_and_invisible_characters():
    assert normalise("\u0421\u043eurt \u200b\u202eN\u041e") == "court no"
    assert normalise("\u0391\u0392") == "ab"


@pytest.mark.parametrize("answer_type", sorted(ANSWER_TYPES))
@given(st.text(max_size=80))
def test_any_text_grades_within_bounds(answer_type, text):
    gold = {"numeric": "$5", "dollars": "$5", "percentage": "5%", "date": "1999-03-02"}
    reference = gold.get(answer_type, "battery")
    assert 0 <= grade_answer(text, reference, answer_type=answer_type, labels=TORTS).score <= 1


@pytest.mark.parametrize("answer_type", sorted(ANSWER_TYPES))
@pytest.mark.parametrize(
    "junk",
    ["$5 ", "1, ", "March ", "so ", "the answer is ", "not ", "no one ", "a, ", " ", "\n", "-"],
)
def test_time_is_linear_in_runs_of_junk(answer_type, junk):
    gold = {"numeric": "$5", "dollars": "$5", "percentage": "5%", "date": "1999-03-02"}
    reference = gold.get(answer_type, "battery")
    text = junk * (20_000 // len(junk)) + "x"
    start = time.perf_counter()
    grade_answer(text, reference, answer_type=answer_type, labels=TORTS)
    assert time.perf_counter() - start < 1
