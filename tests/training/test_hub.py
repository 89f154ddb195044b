"""The real clients against a server that imitates the Hub, each in a process of its own: they read
its address when they are imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

ROWS = [
    {"index": "0", "question": "Is it void?", "text": "One\nline, and\ta tab.", "answer": "Yes"},
    {"index": "1", "question": "Is it binding?", "text": 'He said "no".', "answer": "No"},
]
CODE = """
import json, sys
from judicaita.errors import JudicaitaError
from judicaita.training.hub import legalbench_rows
try:
    found = legalbench_rows(*json.loads(sys.argv[1]))
    print(json.dumps({"rows": found.rows, "source": found.source, "revision": found.revision}))
except JudicaitaError as error:
    print(json.dumps({"error": str(error)}))
"""

Ask = Callable[..., dict[str, Any]]


def tsv(rows: list[dict[str, str]]) -> str:
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    return "".join(
        "\t".join('"' + cell.replace('"', '""') + '"' for cell in line) + "\n" for line in lines
    )


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """`legalbench_rows` in a process of its own."""

    def run(*arguments: Any, **environment: str) -> dict[str, Any]:
        port = tmp_path / "port"
        address = f"http://127.0.0.1:{port.read_text() if port.exists() else 9}"
        known = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", CODE, json.dumps(arguments)],
            env={**known, **environment},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    return run


def put(repository: Path, name: str, content: str | bytes, revision: str = "main") -> None:
    path = repository / revision / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def parquet(rows: list[dict[str, str]], path: Path) -> bytes:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path.read_bytes()


def test_a_task_s_own_file(hub: Path, ask: Ask) -> None:
    """Quoted cells over several lines, and a name with brackets and a comma."""
    name = "cuad_affiliate_license-licensor(a,b)"
    put(hub, f"data/{name}/test.tsv", tsv(ROWS))
    found = ask(name, "test")
    assert found["rows"] == ROWS
    assert found["source"] == f"nguha/legalbench:data/{name}/test.tsv"
    assert len(found["revision"]) == 40
    # From the cache, once the network is gone.
    assert ask(name, "test", HF_HUB_OFFLINE="1")["rows"] == ROWS


def test_the_configuration_of_a_task(hub: Path, ask: Ask, tmp_path: Path) -> None:
    put(
        hub,
        "README.md",
        "---\nconfigs:\n- config_name: contract_qa\n  data_files:\n  - split: test\n"
        "    path: contract_qa/test.parquet\n---\n",
    )
    put(hub, "contract_qa/test.parquet", parquet(ROWS, tmp_path / "rows.parquet"))
    found = ask("contract_qa", "test")
    assert found["rows"] == ROWS
    assert found["source"] == "nguha/legalbench:contract_qa/test"


def test_the_conversion_of_the_hub(hub: Path, ask: Ask, tmp_path: Path) -> None:
    """Beside a loading script, which is not run."""
    put(hub, "legalbench.py", "raise SystemExit('it was run')\n")
    content = parquet(ROWS, tmp_path / "rows.parquet")
    put(hub, "rule_qa/test/0000.parquet", content, "refs%2Fconvert%2Fparquet")
    found = ask("rule_qa", "test")
    assert found["rows"] == ROWS
    assert "refs/convert/parquet" in found["source"]


def test_what_is_nowhere_is_told_with_all_places(hub: Path, ask: Ask) -> None:
    error = ask("contract_qa", "test")["error"]
    assert "rows of contract_qa are nowhere on the Hub" in error
    assert "data/contract_qa/test.tsv is not in the repository" in error
    assert "configuration contract_qa" in error
    assert error.endswith("or another revision.")
    assert "\n" not in error


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (lambda hub: (hub / "GATED").touch(), "access has to be granted first"),
        (lambda hub: hub.rename(hub.with_name("other")), "there is no such repository"),
        (
            lambda hub: put(hub, "data/contract_qa/test.tsv", "a\tanswer\n1\tYes\textra\n"),
            "row 1: has not the 2 cells",
        ),
        (lambda hub: put(hub, "data/contract_qa/test.tsv", "a\tanswer\n"), "holds no rows"),
    ],
    ids=["gated", "missing", "malformed", "empty"],
)
def test_what_cannot_be_had_is_one_sentence(
    hub: Path, ask: Ask, break_it: Callable[[Path], Any], expected: str
) -> None:
    break_it(hub)
    error = ask("contract_qa", "test")["error"]
    assert expected in error
    assert "\n" not in error


def test_without_network(ask: Ask) -> None:
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        error = ask("contract_qa", "test", **environment)["error"]
        assert "the Hub can't be reached, and nothing of it is in the cache" in error
        assert error.endswith("give a local checkout by its folder.")
