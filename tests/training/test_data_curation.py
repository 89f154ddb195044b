"""Rows to samples, files, splits; every malformed row has its sentence."""

import json
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.errors import DataError
from judicaita.legal.tasks import FAMILIES, Split
from judicaita.training.config import TrainingConfig
from judicaita.training.data_curation import (
    DEFAULT_GENERATED,
    load_dataset_source,
    load_training_data,
    read_samples,
    split_samples,
    to_samples,
    write_samples,
)
from judicaita.types import Sample

ROW = {"prompt": "Who wins?", "reference": "Yes"}
TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who wins?"}]


def write_lines(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_columns_become_the_sample() -> None:
    row = {
        **ROW,
        "trace": "Step 1: x.\nConclusion: Yes",
        "task": "t",
        "license": "MIT",
        "source": "s",
        "authorities": ["28 U.S.C. § 1332(a)"],
        "facts": '{"level": 2}',
        "court": "9th Cir.",
        "filed": date(2024, 2, 29),
        "judge": None,
    }
    assert to_samples([row]) == [
        Sample(
            prompt="Who wins?",
            reference="Yes",
            trace="Step 1: x.\nConclusion: Yes",
            task="t",
            license="MIT",
            source="s",
            authorities=("28 U.S.C. § 1332(a)",),
            facts={"level": 2, "court": "9th Cir.", "filed": "2024-02-29"},
        )
    ]


def test_alias_conversation_and_samples() -> None:
    sample = Sample(prompt="a", reference="b")
    rows: list[dict[str, Any] | Sample] = [
        {"prompt": "Who wins?", "response": "Yes"},
        {"prompt": "Who wins?", "reference": "Yes", "response": "Yes"},
        {"prompt": TURNS, "reference": "Yes", "response": None},
        sample,
    ]
    plain, both, turns, same = to_samples(rows)
    assert plain == both == Sample(prompt="Who wins?", reference="Yes")
    assert turns.prompt == tuple(TURNS)
    assert same is sample


def test_datasets_object() -> None:
    import datasets

    dataset = datasets.Dataset.from_list(
        [{**ROW, "prompt": TURNS, "extra": 1}, {**ROW, "prompt": TURNS}]
    )
    first, second = to_samples(dataset)
    assert first.prompt == tuple(TURNS)
    assert (first.facts, second.facts) == ({"extra": 1}, {})
    with pytest.raises(DataError, match=r"mapping with the keys train: pick one split"):
        to_samples(datasets.DatasetDict(train=dataset))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"reference": "Yes"}, r"row 2: has no prompt\. Add"),
        ({"prompt": None, "reference": "Yes"}, r"row 2: has no prompt\. Add"),
        ({"prompt": "Who?"}, r"row 2: has no reference\. Add .*'reference' \(or 'response'\)"),
        ({"prompt": " \n", "reference": "Yes"}, "row 2: prompt is empty"),
        ({"prompt": "Who?", "reference": ""}, "row 2: reference is empty"),
        (
            {"prompt": 3, "reference": "Yes"},
            r"row 2: prompt is int\. Give text, or a list of turns",
        ),
        ({"prompt": "Who?", "reference": 3}, "row 2: reference is int, not text"),
        ({**ROW, "response": "No"}, "row 2: reference 'Yes' and response 'No' differ"),
        ({**ROW, "prompt": []}, "row 2: prompt is an empty list"),
        ({**ROW, "prompt": ["Who?"]}, "row 2, turn 1: expected a mapping of role .* got str"),
        ({**ROW, "prompt": [{"role": "judge", "content": "x"}]}, "row 2, turn 1: expected a map"),
        ({**ROW, "prompt": [{"role": "user"}]}, "row 2, turn 1: expected a mapping"),
        ({**ROW, "prompt": [{"role": "user", "content": " "}]}, "turn 1: content is empty"),
        (
            {**ROW, "prompt": [*TURNS, {"role": "assistant", "content": "I"}]},
            "last turn of the prompt is the assistant's",
        ),
        ({**ROW, "trace": 1}, "row 2: trace is int, not text"),
        ({**ROW, "facts": "{"}, r"row 2: facts is no valid JSON \("),
        ({**ROW, "facts": "[1]"}, "row 2: facts is list"),
        ({**ROW, "facts": {"a": 1}, "a": 1}, "row 2: a is both a column and one of the facts"),
        ({**ROW, "a": {1, 2}}, r"row 2: a column cannot be written as JSON: set \{1, 2\}"),
        ({**ROW, "authorities": "28 U.S.C."}, "row 2: authorities is str"),
        ("Who wins?", "row 2: is str, not a mapping of columns"),
        (Sample(prompt="", reference="Yes"), "row 2: prompt is empty"),
        (Sample(prompt="Who?", reference=" "), "row 2: reference is empty"),
    ],
)
def test_malformed_rows_name_themselves(row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_samples([ROW, row])


def test_empty_data_sets() -> None:
    with pytest.raises(DataError, match="The data set is empty"):
        to_samples([])


def test_jsonl(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ROW, "", {**ROW, "prompt": TURNS, "task": "t"})
    first, second = load_dataset_source(path)
    assert first == Sample(prompt="Who wins?", reference="Yes")
    assert second == Sample(prompt=tuple(TURNS), reference="Yes", task="t")
    assert load_dataset_source(str(path), tasks=["t*"]) == [second]
    with pytest.raises(DataError, match=r"'u' is no task in .*a\.jsonl\. There are: t\."):
        load_dataset_source(path, tasks=["u"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'prompt': 1}", r"bad\.jsonl, line 3: not valid JSON \(.*, column 2\)"),
        ('{"prompt": "Who?"}', r"bad\.jsonl, line 3: has no reference"),
        ("[]", r"bad\.jsonl, line 3: is an empty list, not a mapping"),
    ],
)
def test_malformed_lines_are_numbered_as_in_the_file(
    tmp_path: Path, line: str, message: str
) -> None:
    path = write_lines(tmp_path / "bad.jsonl", ROW, "", line)
    with pytest.raises(DataError, match=message):
        load_dataset_source(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"neither a generated .* path\. Did you mean 'diversity'\?"
    ):
        load_dataset_source("diversty")
    with pytest.raises(DataError, match="no LegalBench checkout"):
        load_dataset_source(tmp_path)
    with pytest.raises(DataError, match=r"known endings: \.jsonl, \.parquet, \.csv"):
        load_dataset_source(write_lines(tmp_path / "a.txt", "x"))
    with pytest.raises(DataError, match=r"empty\.jsonl is empty"):
        load_dataset_source(write_lines(tmp_path / "empty.jsonl"))
    with pytest.raises(DataError, match="does not exist"):
        read_samples(tmp_path / "missing.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}\n')
    with pytest.raises(DataError, match="is not UTF-8 text"):
        load_dataset_source(tmp_path / "latin.jsonl")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_dataset_source(write_lines(tmp_path / "a.parquet", "x"))


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    rows = [{**ROW, "filed": date(2024, 2, 29)}, {"prompt": "Who?", "reference": "No"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    first, second = load_dataset_source(path)
    assert first.facts == {"filed": "2024-02-29"}
    assert second == Sample(prompt="Who?", reference="No")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW, {"prompt": "Who?"}]), path)
    with pytest.raises(DataError, match=r"a\.parquet, row 2: has no reference"):
        load_dataset_source(path)


def test_several_families_come_in_turn_and_evenly() -> None:
    mixed = load_dataset_source("hearsay, negligence", max_samples=24)
    assert [sample.facts["family"] for sample in mixed[:4]] == ["hearsay", "negligence"] * 2
    # Six levels each, in turn, so two questions of each level of each family.
    assert Counter(sample.task for sample in mixed) == {
        f"{family}_{level}": 2 for family in ("hearsay", "negligence") for level in range(1, 7)
    }
    assert len({sample.id for sample in mixed}) == 24
    assert [s for s in mixed if s.facts["family"] == "hearsay"] == load_dataset_source(
        "hearsay", max_samples=12
    )


@pytest.mark.parametrize("split", ["train", "eval"])
def test_all_families_mixed(split: Split) -> None:
    count = 12 * len(FAMILIES) + 5
    mixed = load_dataset_source("generated", max_samples=count, split=split, seed=3)
    assert len({sample.id for sample in mixed}) == len(mixed) == count
    families = Counter(str(sample.facts["family"]) for sample in mixed)
    assert families.keys() == FAMILIES.keys()
    assert max(families.values()) - min(families.values()) == 1
    for name in FAMILIES:
        levels = Counter(s.facts["level"] for s in mixed if s.facts["family"] == name)
        assert set(levels) == set(FAMILIES[name].levels)
        assert max(levels.values()) - min(levels.values()) <= 1


def test_fewer_questions_than_families() -> None:
    assert len(load_dataset_source("generated", max_samples=2)) == 2


@pytest.mark.parametrize(
    ("tasks", "selected"),
    [
        (["3"], {"hearsay_3", "negligence_3"}),
        (["hearsay_3", "negligence_1"], {"hearsay_3", "negligence_1"}),
        (["hearsay_*"], {f"hearsay_{level}" for level in range(1, 7)}),
        (["easy"], {f"{f}_{n}" for f in ("hearsay", "negligence") for n in (1, 2)}),
        (["hard", "5"], {f"{f}_{n}" for f in ("hearsay", "negligence") for n in (3, 4, 5, 6)}),
        (["easy", "hearsay_5"], {"hearsay_5", *(f"{f}_{n}" for f in FAMILIES for n in (1, 2))}),
    ],
)
def test_levels_of_several_families(tasks: list[str], selected: set[str]) -> None:
    found = load_dataset_source("hearsay,negligence", tasks=tasks, max_samples=40)
    offered = {f"{name}_{level}" for name in ("hearsay", "negligence") for level in range(1, 7)}
    assert {sample.task for sample in found} == selected & offered


def test_a_level_is_unknown_only_if_no_family_has_it() -> None:
    [sample] = load_dataset_source("diversity,hearsay", tasks=["7"], max_samples=1)
    assert sample.task == "diversity_7"  # hearsay has five
    with pytest.raises(DataError, match="'99' is no level of these families"):
        load_dataset_source("diversity,hearsay", tasks=["99"])
    with pytest.raises(DataError, match="'harder' is no level of hearsay"):
        load_dataset_source("hearsay", tasks=["harder"])
    with pytest.raises(DataError, match=r"'negligance' is no generated.*nearest is negligence"):
        load_dataset_source("hearsay,negligance")


def test_a_path_with_a_comma(tmp_path: Path) -> None:
    assert len(load_dataset_source(write_lines(tmp_path / "a,b.jsonl", ROW))) == 1


def test_a_mixture_holds_out_its_own_patterns() -> None:
    config = TrainingConfig(
        base_model="tiny", dataset="hearsay,negligence", tasks=["easy"], eval_samples=6
    )
    data = load_training_data(config)
    assert data.held_out is not None
    assert [sample.task for sample in data.held_out[:4]] == [
        *("hearsay_1", "negligence_1", "hearsay_2", "negligence_2")
    ]
    patterns = [
        {FAMILIES[str(s.facts["family"])].pattern(s.facts) for s in samples}
        for samples in (data.train, data.held_out)
    ]
    assert patterns[0].isdisjoint(patterns[1])


def test_generated_family() -> None:
    assert len(load_dataset_source("diversity")) == DEFAULT_GENERATED
    few = load_dataset_source("diversity", tasks=["3", "diversity_[56]"], max_samples=6, seed=1)
    assert [sample.facts["level"] for sample in few] == [3, 5, 6, 3, 5, 6]
    assert few == load_dataset_source(
        "diversity", tasks=["3", "5", "6"], max_samples=6, seed=1, split="train"
    )
    held_out = load_dataset_source("diversity", max_samples=6, seed=1, split="eval")
    assert {sample.id for sample in held_out}.isdisjoint(sample.id for sample in few)
    with pytest.raises(DataError, match=r"'diversity_10' is no level of diversity\. The nearest"):
        load_dataset_source("diversity", tasks=["diversity_10"])


def test_only_families_have_splits(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ROW)
    with pytest.raises(DataError, match=r"split='eval' is for generated families; .*split_samples"):
        load_dataset_source(path, split="eval")


def test_max_samples_subsamples_in_order(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n:02}", "reference": "Yes"} for n in range(40)]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    chosen = [sample.prompt for sample in load_dataset_source(path, max_samples=10, seed=1)]
    assert len(chosen) == len(set(chosen)) == 10
    assert chosen == sorted(chosen) != [f"{n:02}" for n in range(10)]
    again = [sample.prompt for sample in load_dataset_source(path, max_samples=10, seed=1)]
    other = [sample.prompt for sample in load_dataset_source(path, max_samples=10, seed=2)]
    assert chosen == again != other
    assert len(load_dataset_source(path, max_samples=99)) == 40
    with pytest.raises(DataError, match="max_samples=0"):
        load_dataset_source(path, max_samples=0)


def test_public_legalbench(shared_data: Path) -> None:
    samples = load_dataset_source(shared_data / "legalbench", tasks=["contract_qa"], max_samples=5)
    assert [sample.task for sample in samples] == ["contract_qa"] * 5


filled = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
free = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | free,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(free, inner, max_size=3),
    max_leaves=6,
)
turns = st.lists(st.tuples(st.sampled_from(["system", "user"]), filled), max_size=2).map(
    lambda head: tuple(
        {"role": role, "content": content} for role, content in [*head, ("user", "Who wins?")]
    )
)
samples_strategy = st.lists(
    st.builds(
        Sample,
        prompt=filled | turns,
        reference=filled,
        trace=free,
        task=free,
        facts=st.dictionaries(free, json_values, max_size=3),
        authorities=st.lists(free, max_size=2).map(tuple),
        license=free,
        source=free,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(samples=samples_strategy)
def test_samples_survive_the_file(
    samples: list[Sample], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("round") / "held_out.jsonl"
    write_samples(path, samples)
    again = read_samples(path)
    assert again == samples
    assert [sample.id for sample in again] == [sample.id for sample in samples]


def test_generated_samples_survive_the_file(tmp_path: Path) -> None:
    samples = load_dataset_source("diversity", max_samples=12)
    write_samples(tmp_path / "a.jsonl", samples)
    assert read_samples(tmp_path / "a.jsonl") == samples


def test_unwritable_samples_leave_no_file(tmp_path: Path) -> None:
    samples = [Sample(prompt="a", reference="b"), Sample("a", "b", facts={"x": {1}})]
    with pytest.raises(DataError, match="cannot be written as JSON"):
        write_samples(tmp_path / "a.jsonl", samples)
    assert not (tmp_path / "a.jsonl").exists()


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.integers(0, 30), min_size=2, max_size=40).filter(lambda p: len({*p}) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 1_000),
)
def test_splits_are_disjoint_and_complete(prompts: list[int], fraction: float, seed: int) -> None:
    samples = [Sample(prompt=f"{n}", reference="Yes" if n % 2 else "No") for n in prompts]
    train, held_out = split_samples(samples, fraction, seed)
    assert train
    assert held_out
    assert {s.id for s in train}.isdisjoint(s.id for s in held_out)
    assert len(train) + len(held_out) == len(samples)
    distinct = len(set(prompts))
    assert len({s.id for s in held_out}) == min(max(1, round(fraction * distinct)), distinct - 1)
    # Membership depends on content and seed, not on order.
    reversed_held_out = split_samples(samples[::-1], fraction, seed)[1]
    assert reversed_held_out == held_out[::-1]


def test_split_keeps_questions_together_and_follows_the_seed() -> None:
    samples = [Sample(prompt=f"{n // 2}", reference=f"{n % 2}") for n in range(40)]
    train, held_out = split_samples(samples, 0.25, seed=0)
    assert (len(train), len(held_out)) == (30, 10)
    assert {s.prompt for s in train}.isdisjoint(s.prompt for s in held_out)
    assert split_samples(samples, 0.25, seed=0) == (train, held_out)
    assert split_samples(samples, 0.25, seed=1) != (train, held_out)


def test_impossible_splits() -> None:
    sample = Sample(prompt="a", reference="b")
    with pytest.raises(DataError, match="1 distinct prompts cannot be divided"):
        split_samples([sample, sample], 0.5, seed=0)
    for fraction in (0, 1, -0.1, float("nan")):
        with pytest.raises(DataError, match="must lie between 0 and 1"):
            split_samples([sample], fraction, seed=0)


def test_importing_stays_light() -> None:
    code = (
        "import sys, judicaita.training.data_curation\n"
        "print([m for m in ('torch', 'datasets', 'pyarrow', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
