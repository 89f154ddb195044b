"""Answers from a file: which sample each one is for, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judicaita.errors import DataError
from judicaita.training.evaluation import EvaluationHarness
from judicaita.training.predictions import answers_to, evaluate_predictions, read_predictions
from judicaita.types import Sample

SAMPLES = (
    Sample("First?", "Yes", task="hearsay"),
    Sample("Second?", "No", task="proa"),
    Sample("Third?", "Yes", task="hearsay"),
)
IDS = [sample.id for sample in SAMPLES]


@pytest.fixture
def write(tmp_path):
    def rows(*rows):
        path = tmp_path / "answers.jsonl"
        path.write_text(
            "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
        )
        return path

    return rows


def answers(path, samples=SAMPLES):
    return answers_to(samples, read_predictions(path), path)


def test_by_id_in_any_order(write):
    path = write(
        {"id": IDS[2], "generation": "c", "model": "ignored"},
        {"id": IDS[0], "generation": "a", "task": "hearsay"},
        "\n",
        {"id": IDS[1], "generation": ""},
    )
    assert answers(path) == ["a", "", "c"]


def test_by_task_in_the_samples_order(write):
    path = write(
        {"task": "hearsay", "generation": "a"},
        {"task": "hearsay", "generation": "c"},
        {"task": "proa", "generation": "b"},
    )
    assert answers(path) == ["a", "b", "c"]


def test_samples_of_one_id_share_an_answer(write):
    twice = (SAMPLES[0], SAMPLES[0])
    assert answers(write({"id": IDS[0], "generation": "a"}), twice) == ["a", "a"]


@given(st.permutations(range(3)))
def test_order_changes_nothing(tmp_path_factory, order):
    path = tmp_path_factory.mktemp("p") / "a.jsonl"
    rows = [json.dumps({"id": IDS[n], "generation": str(n)}) for n in order]
    path.write_text("\n".join(rows))
    assert answers(path) == ["0", "1", "2"]


ROW = {"id": IDS[0], "generation": "Yes"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no predictions"),
        (["\n\n"], "holds no predictions"),
        ([ROW, "{torn\n"], r"answers.jsonl, line 2: not valid JSON"),
        ([ROW, "[]\n"], "line 2: is no object"),
        ([{"id": IDS[0]}], "line 1: generation must be text, and is missing"),
        ([{"id": IDS[0], "generation": None}], "generation must be text, and is NoneType"),
        ([{"id": 3, "generation": "x"}], "id must be text, and is int"),
        ([{"generation": "x"}], "neither id nor task"),
        ([{"id": "", "generation": "x"}], "neither id nor task"),
        ([ROW, {"task": "proa", "generation": "x"}], "line 2: has no id, while the rows before"),
        ([{"task": "proa", "generation": "x"}, ROW], "line 2: has an id, while the rows before"),
        ([{"id": IDS[0], "generation": "\ud800"}], "half of a surrogate pair"),
        ([{"id": "0000", "generation": "x"}], "line 1: no sample has the id '0000'"),
        ([ROW, {**ROW, "generation": "No"}], r"line 2: answers sample \w+, as .*line 1 does"),
        ([{**ROW, "task": "proa"}], "is of the task 'hearsay', and the row says 'proa'"),
        ([{**ROW, "task": "sara"}], "line 1: answers the task 'sara', and the samples are hearsay"),
        ([ROW], r"answers 1 of 3 samples; \w+ is missing"),
        ([{"task": "proa", "generation": "x"}], "0 generations for the 2 samples of hearsay"),
    ],
)
def test_refused(write, rows, message):
    with pytest.raises(DataError, match=message):
        answers(write(*rows))


def test_no_file_no_text_no_samples(tmp_path, write):
    with pytest.raises(DataError, match="does not exist"):
        read_predictions(tmp_path / "none.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_predictions(tmp_path / "bytes.jsonl")
    with pytest.raises(DataError, match="no samples to evaluate on"):
        answers(write(ROW), ())


def test_figures_without_a_model(write):
    path = write(
        {"id": IDS[0], "generation": "Step 1: a.\nStep 2: b.\nConclusion: Yes"},
        {"id": IDS[1], "generation": "Conclusion: Yes"},
        {"id": IDS[2], "generation": "Yes"},
    )
    report = evaluate_predictions(path, SAMPLES, EvaluationHarness(text_overlap=False))
    assert report.metrics["accuracy"] == pytest.approx(2 / 3)
    assert not {"mean_tokens", "truncated"} & report.metrics.keys()
    assert {(record.tokens, record.finish_reason) for record in report.records} == {(None, None)}
    # Words in place of tokens: 8, 2 and 1 of at least 128.
    assert report.metrics["reward/verbosity"] == pytest.approx((8 + 2 + 1) / 128 / 3)
