"""A report folder: figures by hand, hostile texts, and what is not said."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from judicaita.errors import ConfigError, DataError
from judicaita.training import report_pages
from judicaita.training.contamination import NOT_CHECKED, find_overlap
from judicaita.training.data_curation import write_samples
from judicaita.training.evaluation import EvaluationHarness
from judicaita.training.legalbench_scores import check_rows, score_rows
from judicaita.training.report import (
    Origin,
    build_report,
    contamination_sentence,
    origin_of_checkpoint,
)
from judicaita.training.report_files import write_report
from judicaita.training.report_pages import to_html, to_markdown
from judicaita.types import Sample

HARNESS = EvaluationHarness(text_overlap=False)
HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(2)> [x](javascript:0) {{ 7*7 }} | `` ` $a_b"
)


def row(text, reference, task, **more):
    return Sample(text, reference, task=task, source=f"legalbench:{task}/test", **more)


SAMPLES = (
    row("h1", "Yes", "hearsay", license="CC-BY-4.0"),
    row("h2", "Yes", "hearsay", license="CC-BY-4.0"),
    row("h3", "No", "hearsay", license="CC-BY-4.0"),
    row("p1", "No", "proa", license="CC-BY-SA-4.0"),
    row("s1", "Ann Lee, Bob Roe", "ssla_plaintiff"),
    Sample("own", "Yes", task="hearsay", source="generated:hearsay"),
)
TEXTS = (
    "Yes.",
    "Step 1: a.\nStep 2: b.\nConclusion: Yes",
    "Yes",
    "No",
    "Ann Lee, Bob Roe",
    "Conclusion: No",
)


def evaluate(samples=SAMPLES, texts=TEXTS, finish="stop"):
    return HARNESS.score(samples, texts, [5] * len(samples), [finish] * len(samples))


def build(samples=SAMPLES, texts=TEXTS, origin=None, **more):
    return build_report(evaluate(samples, texts, **more), samples, origin)


# ── LegalBench ───────────────────────────────────────────────────────────────────────────────────


def test_scores_by_hand():
    scores = build().legalbench
    # Recall of Yes is 1/2 as whole texts and 1 as conclusions, that of No is 0.
    assert scores.official.value("hearsay") == 0.25
    assert scores.corrected.value("hearsay") == 0.5
    assert scores.official.value("proa") == scores.corrected.value("proa") == 1
    # Upstream counts the names left after each gold name: 2 hits and 1 false positive.
    assert scores.official.value("ssla_plaintiff") == pytest.approx(4 / 5)
    assert scores.corrected.value("ssla_plaintiff") == 1
    assert scores.official.overall.score.value == pytest.approx((0.25 + 1 + 0.8) / 3)
    categories = {board.name: board.score.value for board in scores.official.categories}
    assert categories == {
        "interpretation": pytest.approx((1 + 0.8) / 2),
        "rule-application/rule-conclusion": 0.25,
    }
    assert scores.official_right == (True, False, False, True, None, None)
    assert scores.corrected_right == (True, True, False, True, None, None)


@given(st.permutations(range(len(SAMPLES))))
@settings(max_examples=10, deadline=None)
def test_order_changes_no_score(order):
    found = score_rows([SAMPLES[n] for n in order], [TEXTS[n] for n in order])
    expected = score_rows(SAMPLES, TEXTS)
    assert (found.official, found.corrected) == (expected.official, expected.corrected)


def test_what_is_no_row_of_legalbench():
    others = (SAMPLES[-1], Sample("x", "Yes", task="hearsay"), row("y", "Yes", "no_such_task"))
    assert score_rows(others, ["Yes"] * 3) is None
    assert build(others, ["Yes"] * 3).to_dict()["legalbench"] is None


def test_a_task_judged_by_hand_is_told():
    samples = (*SAMPLES, row("r", "A rule.", "rule_qa"))
    check_rows(samples)
    report = build(samples, (*TEXTS, "A rule."))
    assert "rule_qa" in report.legalbench.not_scored
    assert "Not scored: rule\\_qa" in to_markdown(report)
    assert score_rows([samples[-1]], ["x"]) is None


def test_a_missing_stemmer_is_told_before_generation(monkeypatch):
    monkeypatch.setattr("judicaita.legal.legalbench.scoring.find_spec", lambda name: None)
    with pytest.raises(DataError, match="nltk"):
        check_rows([row("d", "bank", "definition_extraction")])


class TestReferences:
    def test_beside_public_models(self):
        report = build()
        told = report.to_dict()["legalbench"]["references"]
        assert "more lenient" in told["note"]
        standing = next(row for row in told["standings"] if row["model"] == "gpt-4o-mini")
        scores = report.legalbench
        assert standing["tasks"] == 3
        assert standing["official"] == scores.official.overall.score.value
        assert standing["corrected"] == scores.corrected.overall.score.value
        for page in (to_markdown(report), to_html(report)):
            assert "gpt-4o-mini" in page
            assert "Its scheme is more lenient than the official score" in page

    @pytest.mark.parametrize(
        ("facts", "sentence"),
        [
            ({"split": "test_partition"}, "1 of 5 samples are marked as not comparable"),
            ({"not_comparable": True}, "1 of 5 samples are marked as not comparable"),
            ({"split": "train"}, "1 of 5 samples are train rows"),
            ({"in_demonstrations": False}, "1 of 5 samples are train rows"),
        ],
    )
    def test_suppressed(self, facts, sentence):
        samples = (replace(SAMPLES[0], facts=facts), *SAMPLES[1:])
        report = build(samples)
        assert report.to_dict()["legalbench"]["references"] is None
        for page in (to_markdown(report), to_html(report)):
            assert sentence in page
            assert "gpt-4o-mini" not in page


# ── the folder ───────────────────────────────────────────────────────────────────────────────────


def test_the_folder(tmp_path):
    report = build(origin=Origin(checkpoint="runs/final", step=3))
    page = write_report(report, tmp_path / "new" / "report")
    folder = page.parent
    names = {"report.html", "report.md", "report.json", "samples.parquet"}
    assert {path.name for path in folder.iterdir()} == names
    told = json.loads((folder / "report.json").read_text())
    assert told["evaluated"]["checkpoint"] == "runs/final"
    assert told["metrics"] == report.evaluation.metrics
    assert told["by_task"]["proa"]["accuracy"] == 1
    official = told["legalbench"]["official"]
    assert official["overall"]["score"]["value"] == pytest.approx((0.25 + 1 + 0.8) / 3)
    assert {row["task"] for row in official["tasks"]} == {"hearsay", "proa", "ssla_plaintiff"}
    assert told["licenses"] == {"": 2, "CC-BY-4.0": 3, "CC-BY-SA-4.0": 1}

    rows = pq.read_table(folder / "samples.parquet").to_pylist()
    assert [row["sample_id"] for row in rows] == [sample.id for sample in SAMPLES]
    first, second, *_, fifth, sixth = rows
    assert first["category"] == "rule-application/rule-conclusion"
    assert (first["official_correct"], second["official_correct"]) == (True, False)
    assert second["corrected_correct"] is True
    assert (fifth["official_correct"], fifth["correct"]) == (None, True)
    assert (sixth["category"], sixth["source"], sixth["correct"]) == (
        None,
        "generated:hearsay",
        False,
    )
    assert (first["license"], first["completion"], first["answer"]) == ("CC-BY-4.0", "Yes.", "Yes.")
    assert (first["finish_reason"], first["completion_tokens"]) == ("stop", 5)
    assert second["completion_characters"] == len(TEXTS[1])
    assert second["reward.outcome"] == 1
    assert first["well_formed"] is False

    write_report(report, folder)  # an earlier report is replaced
    assert {path.name for path in folder.iterdir()} == names


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "config.yaml").write_text("x: 1\n")
    with pytest.raises(ConfigError, match=r"holds other files \(config.yaml\)"):
        write_report(build(), tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        write_report(build(), tmp_path / "config.yaml")


def test_samples_of_another_evaluation():
    with pytest.raises(ConfigError, match="not those of the evaluation"):
        build_report(evaluate(), SAMPLES[::-1])


# ── pages ────────────────────────────────────────────────────────────────────────────────────────


class Page(HTMLParser):
    """Tags, addresses and handlers of a page, and the text that a reader sees."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def hostile():
    sample = Sample(HOSTILE, "No" + HOSTILE, task=HOSTILE, source=HOSTILE, license=HOSTILE)
    origin = Origin(checkpoint=HOSTILE, dataset=HOSTILE, base_model=HOSTILE)
    escape = "\x1b[31mred\x00 \u202ebackwards"
    return build([sample], [f"{HOSTILE}</pre></details>{escape}"], origin)


def test_hostile_texts_in_html(hostile):
    page = Page(to_html(hostile))
    assert not {"script", "iframe", "object", "embed", "link", "base", "form", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    addresses = [value for name, value in page.attributes if name in {"src", "href"}]
    assert addresses
    assert all(value.startswith("data:image/svg+xml;base64,") for value in addresses)
    assert HOSTILE in page.text
    assert "49" not in page.text, "a text was taken for a template"
    assert not {"\x1b", "\x00", "\u202e"} & set(page.text)
    policy = next(value for name, value in page.attributes if name == "content" and "src" in value)
    assert policy.startswith("default-src 'none'")


def test_html_loads_nothing(hostile):
    page = to_html(hostile)
    assert page.startswith("<!doctype html>")
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", page)
    for image in re.findall(r"base64,([A-Za-z0-9+/=]+)", page):
        picture = base64.b64decode(image).decode()
        assert "<script" not in picture
        # Names of XML's vocabularies are no addresses to load from; nothing else looks like one.
        assert not re.search(r"https?:", re.sub(r'xmlns(:\w+)?="[^"]*"', "", picture))
        assert "onerror=" not in re.sub(r"<!--.*?-->", "", picture, flags=re.DOTALL)


def test_hostile_texts_in_markdown(hostile):
    blocks = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(to_markdown(hostile))
    kinds = {block.type for block in blocks}
    kinds |= {child.type for block in blocks for child in block.children or ()}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "em_open", "s_open"}
    # A pipe in a name begins no cell: every table has as many cells as its heading in every row.
    widths = re.findall(r"^\|.*\|$", to_markdown(hostile), re.M)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in widths[:3]}) == 1


def test_pages_without_matplotlib(monkeypatch):
    monkeypatch.setattr(report_pages, "find_spec", lambda name: None)
    assert "<img" not in to_html(build())


def test_the_same_figures_draw_the_same_picture():
    pages = [re.findall(r"base64,([^\"]+)", to_html(build())) for _ in range(2)]
    assert pages[0] == pages[1]
    assert len(pages[0]) == 3


def test_wrong_answers_come_first_and_tasks_in_turn():
    samples = [Sample(f"{task}{n}", "Yes", task=task) for task in "ab" for n in range(20)]
    texts = [f"Conclusion: {'No' if n % 20 < 15 else 'Yes'}" for n in range(40)]
    page = to_markdown(build(samples, texts))
    titles = re.findall(r"^### (\w) \w+: (\w+)$", page, re.M)
    assert titles == [("a", "wrong"), ("b", "wrong")] * 12
    assert "## Answers (24 of 40, wrong ones first)" in page


def test_notes():
    origin = Origin(predictions="a.jsonl", grading={"outcome_match": "exact"})
    page = to_markdown(build(origin=origin, finish="length"))
    assert "100.0% of the answers were cut at the token limit" in page
    assert "outcome\\_match=exact" in page
    assert "The answers come from a file" in page


# ── where it comes from ──────────────────────────────────────────────────────────────────────────


TEXT = " ".join(f"word{n}" for n in range(60))
OVERLAP = find_overlap([Sample(TEXT, "Yes")], [Sample(TEXT, "Yes"), Sample("other", "No")])


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (NOT_CHECKED, "was not checked"),
        (find_overlap([Sample("a", "b")], [Sample("c", "d")]), "None of the 1 held-out samples"),
        (OVERLAP, "hold 1 of its 2 held-out samples (1 exact)"),
    ],
)
def test_contamination_is_told(found, sentence):
    assert sentence in contamination_sentence(found.as_fields())
    # As it stands in a manifest.
    assert sentence in contamination_sentence(json.loads(json.dumps(found.as_fields())))


@pytest.mark.parametrize("name", ["final", "checkpoints/step-3"])
def test_the_manifest_s_word_counts_for_the_samples_that_its_run_held_out(tmp_path, name):
    checkpoint = tmp_path / "run" / name
    checkpoint.mkdir(parents=True)
    manifest = {"contamination": OVERLAP.as_fields()}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    config = {"base_model": "tiny", "outcome_match": "exact", "min_steps": 2}
    (checkpoint / "judicaita.json").write_text(json.dumps({"step": 3, "config": config}))
    held_out = [Sample(TEXT, "Yes"), Sample("other", "No")]
    write_samples(checkpoint / "eval.jsonl", held_out)
    origin = origin_of_checkpoint(checkpoint, held_out[:1])
    assert origin.contamination["status"] == "overlap"
    assert (origin.step, origin.base_model) == (3, "tiny")
    assert origin.grading == {"outcome_match": "exact"}
    others = origin_of_checkpoint(checkpoint, [*held_out, Sample("new", "Yes")], "new.jsonl")
    assert others.contamination == {"status": "not checked"}
    for damaged in ("{torn", "[]", '{"contamination": {"status": "overlap"}}'):
        (tmp_path / "run" / "manifest.json").write_text(damaged)
        found = origin_of_checkpoint(checkpoint, held_out)
        assert found.contamination == {"status": "not checked"}
