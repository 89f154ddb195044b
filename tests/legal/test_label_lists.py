"""Answers that name several labels."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judicaita.legal.answers import grade_answer
from judicaita.legal.label_lists import read_labels

TORTS = (
    *("battery", "conversion", "defamation", "negligence", "trespass", "false imprisonment"),
    "none",
)
TWO = "battery, trespass"


def reason(answer: str, reference: str = TWO) -> str:
    grade = grade_answer(answer, reference, labels=TORTS, answer_type="multilabel")
    assert grade.correct == (grade.score == 1) == (grade.reason == "match")
    assert grade.score in (0, 1)
    return grade.reason


@pytest.mark.parametrize(
    "answer",
    [
        "battery, trespass",
        "Trespass, battery.",
        "battery,trespass",
        "Battery; trespass",
        "battery and trespass",
        "battery & trespass!",
        "battery, and trespass",
        "**Battery** and **trespass**.",
        '"battery", "trespass"',
        '"battery, trespass"',
        "a battery and a trespass",
        "Both battery and trespass",
        "- battery\n- trespass",
        "* Battery\n* Trespass\n",
        "1. Battery.\n2. Trespass.",
        "battery\n\ntrespass",
        "The torts are battery and trespass.",
        "The torts committed are: battery, trespass",
        "Torts: trespass, and battery",
        "The answer is battery, trespass.",
        "So the answer is: battery, trespass",
        "She committed battery and trespass",
        "battery, battery, trespass",
        "Step 1: punched Kim, so negligence.\nConclusion: battery, trespass",
    ],
)
def test_exactly_the_labels_in_any_order_and_shape(answer):
    assert reason(answer) == "match"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("battery", "mismatch"),
        ("battery, trespass, negligence", "mismatch"),
        ("battery, trespass, none", "mismatch"),
        ("none", "mismatch"),
        ("", "no answer"),
        ("Step 1: battery, trespass", "no answer"),
        ("battery or trespass", "hedged"),
        ("battery, trespass, maybe negligence", "hedged"),
        ("battery, trespass. It depends.", "hedged"),
        ("battery, not trespass", "contradicted"),
        ("battery and no trespass", "mismatch"),
        ("no battery, trespass", "mismatch"),
        ("There is no battery, trespass", "mismatch"),
        ("nobody committed battery, trespass", "mismatch"),
        ("battery and trespass are not raised", "mismatch"),
        ("battery, trespass?", "mismatch"),
        ("battery/trespass", "mismatch"),
        ("battery trespass", "mismatch"),
        ("battery, , trespass", "mismatch"),
        ("battery, trespass, robbery", "mismatch"),
        ("battery, trespasser", "mismatch"),
        ("battery, trespass because she hit Kim", "mismatch"),
    ],
)
def test_anything_else_earns_nothing(answer, why):
    assert reason(answer) == why


def test_no_label_at_all_is_a_label():
    assert reason("None.", "none") == "match"
    assert reason("The answer is none", "none") == "match"
    assert reason("none, battery", "none") == "mismatch"
    assert reason("no torts", "none") == "mismatch"


def test_labels_of_several_words_and_labels_inside_labels():
    assert reason("False imprisonment and battery", "battery, false imprisonment") == "match"
    assert reason("imprisonment, battery", "battery, false imprisonment") == "mismatch"
    offered = ["offer", "acceptance", "offer and acceptance", "U.S.C."]
    assert read_labels("offer and acceptance", offered) == {"offer and acceptance"}
    assert read_labels("acceptance and offer", offered) == {"offer", "acceptance"}
    assert read_labels("offer, u.s.c.", offered) == {"offer", "u.s.c."}


def test_a_reference_that_is_no_list_of_the_labels_is_refused():
    with pytest.raises(ValueError, match="'battery, arson' is no list of the labels battery, none"):
        grade_answer(
            "battery", "battery, arson", labels=["battery", "none"], answer_type="multilabel"
        )
    with pytest.raises(ValueError, match=r"\(none\)"):
        grade_answer("battery", "battery", answer_type="multilabel")


def test_other_answer_types_are_graded_as_without():
    for answer_type in ("yes_no", "multiclass", None, "essay"):
        assert grade_answer("Yes, because.", "Yes", answer_type=answer_type).correct


@given(
    st.permutations(TORTS[:-1]),
    st.integers(1, len(TORTS) - 1),
    st.sampled_from([", ", "; ", " and ", ", and ", "\n", "\n- "]),
    st.sampled_from(["", "The torts are ", "They are: ", "**"]),
    st.sets(st.sampled_from(TORTS[:-1]), min_size=1),
)
def test_the_set_decides(order, count, between, filler, wanted):
    named = set(order[:count])
    text = filler + between.join(order[:count])
    assert read_labels(text, TORTS) == named
    assert (reason(text, ", ".join(sorted(wanted))) == "match") == (named == wanted)
    assert read_labels(f"{text}, arson", TORTS) is None
    assert read_labels(f"not {text}", TORTS) is None


@pytest.mark.parametrize(
    "junk", ["battery, ", "battery\n", " \n", "and ", "- ", "the ", "1. ", " "]
)
def test_time_is_linear_in_runs_of_junk(junk):
    text = "battery " + junk * (20_000 // len(junk)) + "x"
    start = time.perf_counter()
    reason(text)
    assert time.perf_counter() - start < 1
