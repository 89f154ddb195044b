"""Local LegalBench folders: rows, prompts, names and refusals."""

import re
from pathlib import Path

import pytest

from judicaita.errors import DataError
from judicaita.legal.legalbench import demonstrated, load_tasks, tasks_folder

PROMPT = "Answer.\n\nClause: old text\nLabel: Yes\n\nClause: {{text}}\nLabel:"


def write_task(
    root: Path,
    name: str,
    rows: str = "index\ttext\tanswer\n0\tnew text\tNo\n",
    prompt: str = PROMPT,
    readme: str = "**License**: [CC By 4.0](https://example.org)\n",
) -> None:
    folder = root / "tasks" / name
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text(rows, encoding="utf-8")
    (folder / "base_prompt.txt").write_text(prompt, encoding="utf-8")
    (folder / "README.md").write_text(readme, encoding="utf-8")


def test_row_becomes_a_sample(tmp_path: Path) -> None:
    write_task(tmp_path, "a", "index\ttext\tanswer\tslice\n0\tnew text\tNo\tcivil\n")
    [sample] = load_tasks(tmp_path)
    assert sample.prompt == "Answer.\n\nClause: old text\nLabel: Yes\n\nClause: new text\nLabel:"
    assert sample.reference == "No"
    assert sample.facts == {
        "index": "0",
        "text": "new text",
        "slice": "civil",
        "in_demonstrations": False,
    }
    assert (sample.task, sample.source) == ("a", "legalbench:a")
    assert sample.license == "CC-BY-4.0"
    assert load_tasks(tmp_path / "tasks") == [sample]


def test_quoted_cells_span_lines_and_placeholders_in_them_stay(tmp_path: Path) -> None:
    write_task(tmp_path, "a", 'index\ttext\tanswer\n0\t"one ""two""\n{{index}}\tthree"\tNo\n')
    [sample] = load_tasks(tmp_path)
    assert sample.facts["text"] == 'one "two"\n{{index}}\tthree'
    assert str(sample.prompt).endswith('Clause: one "two"\n{{index}}\tthree\nLabel:')


def test_rows_shown_in_their_own_prompt_are_counted(tmp_path: Path) -> None:
    rows = 'index\ttext\tanswer\n0\t"Old ""text"""\tYes\n1\tnew text\tNo\n'
    write_task(tmp_path, "a", rows)
    samples = load_tasks(tmp_path)
    assert [sample.facts["in_demonstrations"] for sample in samples] == [True, False]
    assert demonstrated(samples) == 1


def test_gold_column_of_scalr(tmp_path: Path) -> None:
    write_task(tmp_path, "scalr", "text\tcorrect_choice_index\nwho?\t3\n")
    assert load_tasks(tmp_path)[0].reference == "3"


@pytest.mark.parametrize(
    ("readme", "license_name"),
    [
        ("**License**: [CC BY-NC-SA 4.0](https://example.org)", "CC-BY-NC-SA-4.0"),
        ("**Source**: x\n\n**License**: MIT\n", "MIT"),
        ("# a task about a license\n", ""),
    ],
)
def test_license(tmp_path: Path, readme: str, license_name: str) -> None:
    write_task(tmp_path, "a", readme=readme)
    assert load_tasks(tmp_path)[0].license == license_name


def test_names_patterns_and_the_category(tmp_path: Path) -> None:
    for name in ("learned_hands_torts", "learned_hands_estates", "corporate_lobbying", "other"):
        write_task(tmp_path, name)

    def names(*tasks: str) -> list[str]:
        return [sample.task for sample in load_tasks(tmp_path, tasks)]

    hands = ["learned_hands_estates", "learned_hands_torts"]
    assert names("other", "learned_hands_*", "other") == ["other", *hands]
    assert names("issue_spotting") == ["corporate_lobbying", *hands]
    assert names() == ["corporate_lobbying", *hands, "other"]


def test_tasks_without_train_rows(tmp_path: Path) -> None:
    write_task(tmp_path, "rule_qa", "index\ttext\tanswer\n")
    write_task(tmp_path, "scalr")
    (tmp_path / "tasks" / "scalr" / "train.tsv").unlink()
    for tasks in (["rule_qa"], ["scalr"], ["rule_*"], []):
        with pytest.raises(DataError, match="has no train rows: LegalBench publishes only test"):
            load_tasks(tmp_path, tasks)
    write_task(tmp_path, "other")
    assert [sample.task for sample in load_tasks(tmp_path)] == ["other"]


@pytest.mark.parametrize(
    ("rows", "prompt", "message"),
    [
        ("index\ttext\n0\tx\n", PROMPT, r"no gold column: expected answer or .* index, text\."),
        (
            "index\ttext\tanswer\n0\tx\tNo\n",
            "{{question}}",
            "asks for the column 'question', which train.tsv lacks; it has index, text, answer",
        ),
        ("index\ttext\tanswer\n0\tx\tNo\n1\tx\n", PROMPT, "row 2: has not the 3 cells"),
        ("index\ttext\tanswer\n0\tx\tNo\tmore\n", PROMPT, "row 1: has not the 3 cells"),
        ('index\ttext\tanswer\n0\t"x\tNo\n', PROMPT, "cannot be read as tab-separated UTF-8"),
        ("index\ttext\tanswer\n0\tx\t \n", PROMPT, "row 1: its answer is empty"),
    ],
)
def test_malformed_tasks_are_refused(tmp_path: Path, rows: str, prompt: str, message: str) -> None:
    write_task(tmp_path, "a", rows, prompt)
    with pytest.raises(DataError, match=message):
        load_tasks(tmp_path)


def test_unknown_task_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no LegalBench folder"):
        load_tasks(tmp_path)
    assert tasks_folder(tmp_path) is None
    write_task(tmp_path, "contract_qa")
    with pytest.raises(DataError, match=r"'contractqa' is no LegalBench task\. The nearest is con"):
        load_tasks(tmp_path, ["contractqa"])


def test_public_folder(shared_data: Path) -> None:
    samples = load_tasks(shared_data / "legalbench")
    assert len(samples) == 835
    assert not [sample.task for sample in samples if re.search(r"\{\{.+?\}\}", str(sample.prompt))]
    assert len(load_tasks(shared_data / "legalbench", ["issue_spotting"])) == 106
    qa = load_tasks(shared_data / "legalbench", ["contract_qa"])
    assert {sample.reference for sample in qa} == {"Yes", "No"}
    assert (len(qa), demonstrated(qa)) == (8, 8)
    with pytest.raises(DataError, match="rule_qa has no train rows"):
        load_tasks(shared_data / "legalbench", ["rule_qa"])
