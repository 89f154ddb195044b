"""Two reports of the same samples: paired figures by hand."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from judicaita.errors import DataError
from judicaita.training.comparison import compare_reports, p_text
from judicaita.training.evaluation import EvaluationHarness
from judicaita.training.report import Origin, build_report
from judicaita.training.report_files import write_report
from judicaita.types import Sample

HARNESS = EvaluationHarness(text_overlap=False)
GOLD = ("Yes", "Yes", "No", "No")
SAMPLES = tuple(
    Sample(f"{task} {n}", gold, task=task, source=f"legalbench:{task}/test")
    for task in ("hearsay", "proa")
    for n, gold in enumerate(GOLD)
)
RIGHT = GOLD * 2
WRONG = tuple({"Yes": "No", "No": "Yes"}[gold] for gold in RIGHT)


@pytest.fixture
def write(tmp_path):
    def report(name, texts, samples=SAMPLES, **origin):
        evaluation = HARNESS.score(samples, texts, [3] * len(texts), ["stop"] * len(texts))
        folder = tmp_path / name
        write_report(build_report(evaluation, samples, Origin(name, **origin)), folder)
        return folder

    return report


def test_figures_by_hand(write):
    # A misses two of hearsay's, both Yes, and one of proa's, a No; B misses proa's No alone, and
    # reasons once, which is right and is no whole text.
    a = write("a", (*WRONG[:2], *RIGHT[2:7], WRONG[7]))
    b = write("b", ("Step 1: x.\nStep 2: y.\nConclusion: Yes", *RIGHT[1:7], WRONG[7]))
    found = compare_reports(a, b)
    assert (found.common, found.only_in_a, found.only_in_b, found.warnings) == (8, 0, 0, ())
    pair = found.shares["accuracy"]
    assert (pair.both, pair.only_a, pair.only_b, pair.neither) == (5, 0, 2, 1)
    assert (pair.a, pair.b, pair.p_value) == (5 / 8, 7 / 8, 0.5)
    assert found.by_task["hearsay"].only_b == 2
    assert found.by_task["proa"].difference.value == 0
    scores = {(row.scoring, row.name): row for row in found.scores}
    hearsay = scores["official", "hearsay"]
    assert (hearsay.a, hearsay.b) == (0.5, 0.75)  # recalls of Yes 0 and 1/2, of No 1
    assert scores["corrected", "hearsay"].b == 1
    proa = scores["official", "proa"]
    assert (proa.a, proa.b, proa.difference.low, proa.difference.high) == (0.75, 0.75, 0, 0)
    overall = scores["official", "overall"]
    assert (overall.tasks, overall.samples) == (2, 8)
    assert (overall.a, overall.b) == pytest.approx((0.625, 0.75))
    assert overall.difference.value == pytest.approx(0.125)
    assert overall.difference.low <= 0.125 <= overall.difference.high
    assert scores["official", "interpretation"].tasks == 1
    assert found.conclusion() == "The difference in accuracy may be chance (+0.250, p = 0.500)."
    json.dumps(found.to_dict(), allow_nan=False)


def test_exchanged_and_reordered(write):
    a, b = write("a", (*WRONG[:2], *RIGHT[2:])), write("b", RIGHT)
    order = [3, 0, 7, 2, 1, 6, 5, 4]
    samples, texts = [SAMPLES[n] for n in order], [RIGHT[n] for n in order]
    mixed = write("mixed", texts, samples)
    there, back = compare_reports(a, b), compare_reports(b, a)
    assert there.shares["accuracy"].p_value == back.shares["accuracy"].p_value
    assert back.shares["accuracy"].difference.value == -0.25
    assert replace(compare_reports(a, mixed), b=str(b)) == there


def test_a_clear_difference(write):
    samples = [Sample(f"q{n}", "Yes", task="own") for n in range(40)]
    a = write("a", ["Conclusion: No"] * 20 + ["Conclusion: Yes"] * 20, samples)
    b = write("b", ["Conclusion: Yes"] * 40, samples)
    found = compare_reports(a, b)
    assert found.scores == ()
    assert found.conclusion() == "B is right more often (+0.500, p < 0.001)."
    assert compare_reports(b, a).conclusion() == "A is right more often (-0.500, p < 0.001)."
    page = found.to_markdown()
    assert "| accuracy | 40 | 0.500 | 1.000 | +0.500 (" in page
    assert "LegalBench" not in page


def test_other_samples_are_refused(write):
    a = write("a", RIGHT)
    b = write("b", ["Yes"] * 3, [Sample(f"q{n}", "Yes") for n in range(3)])
    with pytest.raises(DataError, match="all 8 of A are missing in B, and all 3 of B in A"):
        compare_reports(a, b)


def test_a_partial_overlap_is_told(write):
    a, b = write("a", RIGHT[:5], SAMPLES[:5]), write("b", WRONG[3:], SAMPLES[3:])
    found = compare_reports(a, b)
    assert (found.common, found.only_in_a, found.only_in_b) == (2, 3, 3)
    assert "3 of A's 5 are missing in B, and 3 of B's 5 in A. The 2 that both" in found.warnings[0]
    assert found.shares["accuracy"].a == 1
    # Scores are those of the common samples as well.
    assert {row.samples for row in found.scores} == {1, 2}


def test_equal_samples_are_paired_one_by_one(write):
    twice = (SAMPLES[0], SAMPLES[0])
    a, b = write("a", ("Yes", "No"), twice), write("b", ("Yes", "Yes"), twice)
    assert compare_reports(a, b).shares["accuracy"].only_b == 1


def test_other_graders_are_told(write):
    a, b = write("a", RIGHT), write("b", RIGHT, grading={"outcome_match": "exact"})
    [warning] = compare_reports(a, b).warnings
    assert "A was graded by the defaults, and B by outcome_match=exact" in warning


def test_files_in_place_of_folders(write, tmp_path):
    a, b = write("a", RIGHT), write("b", RIGHT)
    assert compare_reports(a / "report.json", b / "samples.parquet").common == 8
    for path, message in ((tmp_path, "is no report"), (a / "report.md", "is no report")):
        with pytest.raises(DataError, match=message):
            compare_reports(path, b)
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        compare_reports(torn, b)
    pq.write_table(pa.table({"x": [1]}), torn)
    with pytest.raises(DataError, match="has no column sample_id"):
        compare_reports(torn, b)


def test_nothing_graded(write):
    samples = [Sample("open", "")]
    a, b = write("a", ["x"], samples), write("b", ["y"], samples)
    assert "No sample is graded in both" in compare_reports(a, b).conclusion()


def test_p_text():
    assert [p_text(p) for p in (1.0, 0.04, 0.001, 0.0009)] == ["1.000", "0.040", "0.001", "< 0.001"]
