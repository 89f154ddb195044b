"""Reading and grading answers."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.legal.answers import extract_answer, grade_answer, parse_reasoning
from judicaita.legal.polarity import contradict, normalise
from judicaita.legal.tasks.diversity import Diversity

VOCABULARY = (
    *("clause", "court", "jurisdiction", "enforceable", "binding", "valid", "party"),
    *("employee", "Texas", "exceed", "amount", "hearsay", "statement", "void"),
)
words = st.lists(st.sampled_from(VOCABULARY), min_size=4, max_size=12)


def is_right(text: str, reference: str, **options) -> bool:
    grade = grade_answer(text, reference, **options)
    assert grade.correct == (grade.score > 0)
    return grade.correct


class TestParseReasoning:
    def test_lines(self):
        text = "Step 1: Ohio and Iowa.\nStep 2: $80,000 is enough.\nConclusion: Yes"
        reasoning = parse_reasoning(text)
        assert [(s.number, s.text) for s in reasoning.steps] == [
            (1, "Ohio and Iowa."),
            (2, "$80,000 is enough."),
        ]
        assert reasoning.conclusion == "Yes"
        assert reasoning.boundaries == (0, 23, 50)
        assert reasoning.is_ordered

    def test_one_paragraph(self):
        reasoning = parse_reasoning("Step 1: a. Step 2: b. Conclusion: c")
        assert [s.text for s in reasoning.steps] == ["a.", "b."]
        assert reasoning.conclusion == "c"

    @pytest.mark.parametrize(
        "text",
        [
            "**Step 1:** a\n**Conclusion:** b",
            "**Step 1**: a\n**Conclusion**: b",
            "## Step 1: a\n\n## Conclusion: b",
            "- step 1 : a\n- CONCLUSION: b",
            "> Step 1: a\n> Conclusion: b",
            "Step 1\uff1a a\nConclusion\uff1a b",
        ],
    )
    def test_markdown_and_case(self, text):
        reasoning = parse_reasoning(text)
        assert [s.text for s in reasoning.steps] == ["a"]
        assert reasoning.conclusion == "b"

    @pytest.mark.parametrize("text", ["", "Yes", "as step 2 shows", "In step 2: x", "Steps: 1"])
    def test_no_marker(self, text):
        reasoning = parse_reasoning(text)
        assert reasoning.steps == ()
        assert reasoning.conclusion is None
        assert reasoning.boundaries == ()
        assert not reasoning.is_ordered

    def test_the_last_conclusion_counts_and_two_are_not_in_order(self):
        reasoning = parse_reasoning("Step 1: a\nConclusion: Yes\nConclusion: No")
        assert reasoning.conclusion == "No"
        assert reasoning.conclusions == 2
        assert not reasoning.is_ordered

    @pytest.mark.parametrize("junk", ["-", " ", "* ", "#", "**", "\n", ". ", "step 1 ", "yes, "])
    def test_time_is_linear_in_runs_of_junk(self, junk):
        text = "Yes " + junk * (20_000 // len(junk)) + "x"
        start = time.perf_counter()
        parse_reasoning(text)
        grade_answer(text, "Yes")
        assert time.perf_counter() - start < 1


def test_extract_answer():
    assert extract_answer("Step 1: Both are from Ohio. Conclusion: No") == "No"
    assert extract_answer("Conclusion: Yes. Conclusion: No, they are not.") == "No, they are not."
    assert extract_answer("Step 1: a\nConclusion:  ") == ""
    assert extract_answer("Yes") is None


class TestLabels:
    @pytest.mark.parametrize(
        "text",
        [
            "Yes", "yes.", "**Yes**", "YES", "“Yes.”", "(Yes)", "Y\u200bes", "\uff39\uff45\uff53",
            "Yes, because the parties differ.", "Yes. There is diversity jurisdiction.",
            "Yes there is.", "Yes - the amount exceeds it", "Yes—they are", "Yes, both are diverse",
            "Yes, there is no common state.", "Yes. No party shares a state.",
            "Yes, No. 12-345 so holds.", "Yes\n\nExplanation: see Rule No. 5.",
            "Answer: Yes", "Final answer: yes", "The answer is **Yes**.", "Therefore, yes.",
            "Therefore, the answer is Yes.", "So the answer to the question is yes, because x.",
            "\\boxed{Yes}", "<answer>Yes</answer>", "My final answer is yes.",
            "Step 1: No state is shared.\nConclusion: Yes",
        ],
    )  # fmt: skip
    def test_commits_to_yes(self, text):
        assert is_right(text, "Yes")
        assert not is_right(text, "No")

    @pytest.mark.parametrize(
        "text",
        [
            "No", "No.", "no, because", "No, there is no jurisdiction.", "No there is not.",
            "No. Both are from Ohio.", "The answer is no.", "Conclusion: **No**",
        ],
    )  # fmt: skip
    def test_commits_to_no(self, text):
        assert is_right(text, "No")
        assert not is_right(text, "Yes")

    @pytest.mark.parametrize("reference", ["Yes", "No"])
    @pytest.mark.parametrize(
        "text",
        [
            "", "...", "Conclusion:", "Conclusion: **", "Yesterday", "nothing", "yesno",
            "Yes or no", "Yes and No", "Yes/No", "Yes, no", "yes no", "No or yes", "No. Yes.",
            "maybe", "It depends", "Perhaps yes", "Yes, maybe", "Yes, it depends", "Yes, not sure",
            "either yes or no", "Yes?", "No?", "Yes if the amount is higher", "No, unless x",
            "It is not yes", "Yes is wrong", "The answer is not Yes", "Not yes.", "If asked, yes",
            "Yes ... so the answer is No", "No ... so the answer is Yes",
            "No, the answer is Yes", "Yes, the answer is No", "Yes is said, yet it is no",
            "Yes. Actually, no.", "No. Actually, yes.", "Yes. The answer: No", "No. I mean yes",
            "Yes. On reflection the correct answer would be no because x",
            "Step 1: Yes", "Step 1: No. Step 2: so yes", "No state is shared", "No. 5",
            "There is no jurisdiction", "I do not know whether yes",
        ],
    )  # fmt: skip
    def test_no_commitment(self, text, reference):
        assert not is_right(text, reference)

    @pytest.mark.parametrize(
        ("text", "reference"),
        [
            ("Hearsay", "hearsay"),
            ("This is hearsay.", "hearsay"),
            ("It's hearsay.", "hearsay"),
            ("The statement is hearsay because it was made out of court", "hearsay"),
            ("The statement is not hearsay.", "not hearsay"),
            ("non-hearsay", "not hearsay"),
            ("unenforceable", "not enforceable"),
            ("The clause isn't enforceable", "unenforceable"),
            ("irrelevant", "Irrelevant"),
            ("(A)", "A"),
            ("Option A", "A"),
            ("The answer is (A).", "A"),
            ("A. The clause under section 2(b) is fine", "A"),
            ("Label: Choice of Law", "Choice of law"),
            ("Common-Law", "Common Law"),
            ("The mark is classified as descriptive.", "descriptive"),
            ("75000", "$75,000"),
            ("The amount is $75,000.", "$75,000"),
        ],
    )
    def test_other_labels(self, text, reference):
        assert is_right(text, reference)

    @pytest.mark.parametrize(
        ("text", "reference"),
        [
            ("not hearsay", "hearsay"),
            ("This is not hearsay.", "hearsay"),
            ("It is false that this is hearsay", "hearsay"),
            ("It might be hearsay", "hearsay"),
            ("Hearsay?", "hearsay"),
            ("Hearsay. So it is not hearsay.", "hearsay"),
            ("Hearsay. Thus it is nonhearsay", "hearsay"),
            ("hearsay", "not hearsay"),
            ("unenforceable", "enforceable"),
            ("not enforceable", "enforceable"),
            ("non-enforceable", "enforceable"),
            ("Not enforceable. Thus it is enforceable", "not enforceable"),
            ("incorrect", "Correct"),
            ("not correct", "Correct"),
            ("A or B", "A"),
            ("A, B", "A"),
            ("A/B", "A"),
            ("(A) (B)", "A"),
            ("A. B. C.", "A"),
            ("A. The answer is B.", "A"),
            ("A contract is formed", "A"),
            ("generic, descriptive, fanciful", "generic"),
            ("Generic. Descriptive.", "generic"),
            ("generic\ndescriptive", "generic"),
            ("generic or descriptive", "generic"),
            ("generic descriptive", "generic"),
            ("generic. The answer is descriptive", "generic"),
            ("UCC and Common Law", "UCC"),
            ("75.5", "75"),
            ("A, yet the answer is B", "B"),
            ("Generic, but in truth it is descriptive", "descriptive"),
        ],
    )
    def test_other_labels_missed(self, text, reference):
        assert not is_right(text, reference)

    def test_named_labels_show_a_change(self):
        text = "Facts, as the court tells the story. But then: Issue."
        assert is_right(text, "Facts")
        assert not is_right(text, "Facts", labels=("Facts", "Issue", "Rule"))
        assert is_right("Facts. The rule comes later.", "Facts", labels=("Facts", "Issue", "Rule"))

    def test_exact_is_for_long_references_too(self):
        gold = "The clause is void under Texas law"
        assert is_right("the clause is void, under Texas law.", gold, mode="exact")
        assert not is_right("the clause is void under law", gold, mode="exact")

    def test_a_family_knows_its_own_traces(self):
        family, rng = Diversity(), random.Random(0)
        for level in family.levels:
            sample = family.sample(rng, level)
            other = "No" if sample.reference == "Yes" else "Yes"
            assert is_right(sample.trace, sample.reference)
            assert not is_right(sample.trace, other)


class TestFreeText:
    def test_f1_by_hand(self):
        # Articles aside: 4 words, 5 words, 4 in common: 2·4 / (4 + 5).
        grade = grade_answer("The clause is void here", "The clause is void here today")
        assert grade.score == pytest.approx(8 / 9)
        assert grade.correct

    def test_threshold(self):
        # 3 of 4 against 3 of 6 words: 2·3 / 10 = 0.6.
        text, gold = "court lacks personal mandate", "court lacks personal jurisdiction over Smith"
        assert grade_answer(text, gold, threshold=0.6).score == pytest.approx(0.6)
        below = grade_answer(text, gold, threshold=0.61)
        assert (below.score, below.correct, below.reason) == (0.0, False, "below threshold")

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("The clause is enforceable in Texas", "The clause is not enforceable in Texas"),
            ("The clause is enforceable in Texas", "The clause isn't enforceable in Texas"),
            ("The clause is enforceable in Texas", "The clause is unenforceable in Texas"),
            ("The contract binds the employee", "The contract does not bind the employee"),
            ("No, the clause holds in Texas", "Yes, the clause holds in Texas"),
            ("The court has jurisdiction over him", "The court lacks jurisdiction over him"),
            ("The clause is valid and not void", "The clause is not valid and void"),
            ("Valid here, and not valid here at all", "The clause is valid here at all"),
            ("It is the case that the court may hear it", "Never may the court hear this case"),
        ],
    )
    def test_contradiction_scores_0_both_ways(self, one, other):
        for text, gold in ((one, other), (other, one)):
            grade = grade_answer(text, gold, threshold=0.01)
            assert (grade.score, grade.reason) == (0.0, "contradicted")

    @pytest.mark.parametrize(
        ("text", "gold"),
        [
            ("The clause is unenforceable in Texas", "The clause is not enforceable in Texas"),
            ("The clause is not unenforceable in Texas", "The clause is enforceable in Texas"),
            ("The employee isn't bound by the clause", "The clause does not bind the employee"),
            ("It is enforceable, not merely suggestive", "It is enforceable and more"),
            ("Not only is it valid but binding", "It is valid and binding"),
            ("The merger needs information", "The merger is in formation"),
        ],
    )
    def test_no_false_alarm(self, text, gold):
        assert not contradict(normalise(text), normalise(gold))

    @given(words, st.integers(0, 11), st.sampled_from(["not", "never", "no"]))
    def test_a_negated_answer_never_outscores_the_plain_one(self, listed, place, negation):
        gold = " ".join(listed)
        place = min(place, len(listed) - 1)
        negated = " ".join([*listed[:place], negation, *listed[place:]])
        assert grade_answer(gold, gold).score == 1
        assert grade_answer(negated, gold, threshold=0.01).score == 0


def test_empty_reference_is_refused():
    with pytest.raises(ValueError, match="needs a reference"):
        grade_answer("Yes", " ")


@settings(max_examples=200)
@given(
    st.text(max_size=60), st.text(min_size=1, max_size=20), st.sampled_from(["", "Conclusion: "])
)
def test_any_text_grades_within_bounds(text, reference, marker):
    if reference.strip():
        for mode in ("auto", "exact", "overlap"):
            assert 0 <= grade_answer(marker + text, reference, mode=mode).score <= 1


def test_a_hundred_short_lines_after_a_label_cost_no_time() -> None:
    """Each line used to double the work of the pattern for lists."""
    text = "Conclusion: hearsay" + "\n\nfoo" * 200 + "\nthis is the end of it (x)"
    began = time.perf_counter()
    grade_answer(text, "hearsay")
    assert time.perf_counter() - began < 1


def test_a_later_change_of_mind_is_refused_for_labels_of_the_task() -> None:
    labels = ["generic", "descriptive", "arbitrary"]
    for text in ("generic. No wait, it is descriptive", "generic.\nThe mark is descriptive"):
        assert not grade_answer(f"Conclusion: {text}", "generic", labels=labels).correct
    kept = "generic, since it is not descriptive"
    assert grade_answer(f"Conclusion: {kept}", "generic", labels=labels).correct


class TestInsufficientFacts:
    """A third answer beside Yes and No, as tasks offer it where a needed fact may be missing."""

    labels = ("Yes", "No", "Insufficient facts")

    def matches(self, text: str) -> list[str]:
        """The references that an answer is right for."""
        return [gold for gold in self.labels if is_right(text, gold, labels=self.labels)]

    @pytest.mark.parametrize(
        ("text", "gold"),
        [
            *(("Yes", "Yes"), ("**No.**", "No"), ("No, because it was told weeks later.", "No")),
            ("Insufficient facts.", "Insufficient facts"),
            ("insufficient-facts", "Insufficient facts"),
            ("The answer is insufficient facts", "Insufficient facts"),
            ("There are insufficient facts", "Insufficient facts"),
            ("Insufficient facts because there is no word on notice.", "Insufficient facts"),
            ("No; there is no word on notice.", "No"),
        ],
    )
    def test_one_is_committed_to(self, text, gold):
        assert self.matches(text) == [gold]

    @pytest.mark.parametrize(
        "text",
        [
            *("Yes, but insufficient facts", "Insufficient facts, but yes", "Yes and no"),
            *("Yes. Insufficient facts.", "No, insufficient facts", "No (insufficient facts)"),
            *("Insufficient facts, so no", "Insufficient facts; probably yes", "Insufficient"),
            *("Yes - insufficient facts", "Insufficient facts or no", "Insufficient facts\nNo"),
            *("No word on notice", "No facts", "not insufficient facts", "Notice was given"),
        ],
    )
    def test_two_or_none_are_refused(self, text):
        assert self.matches(text) == []
