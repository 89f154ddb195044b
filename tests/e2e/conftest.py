"""The command line as a person meets it, inside the test's own process."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from judicaita.cli import main
from judicaita.training.policy import Policy


@dataclass(frozen=True)
class Outcome:
    """What a command left behind on the screen."""

    code: int
    out: str
    err: str


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment without settings of ours."""
    for name in list(os.environ):
        if name.startswith(("GRPO_", "SFT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # the command sets it where it is not set
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def judicaita(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in the workspace, as ``judicaita("evaluate-model", path)``."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = 0
        with warnings.catch_warnings():
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as end:
                code = int(end.code or 0)
        screen = capsys.readouterr()
        return Outcome(code, screen.out, screen.err)

    return run


@pytest.fixture(scope="session")
def gemma(make_policy: Callable[..., Policy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Gemma-2 chat model. Many of its tokens end a text, so that answers
    differ in length and thereby in reward."""
    policy = make_policy(template="gemma")
    policy.model.generation_config.eos_token_id = [*range(100, 130), 1]
    folder = tmp_path_factory.mktemp("models") / "gemma"
    policy.save(folder)
    return folder


@pytest.fixture
def questions(workspace: Path) -> Path:
    """Six questions with answers and worked solutions."""
    rows = [
        {
            "prompt": f"Is {place} a state?",
            "reference": answer,
            "trace": f"Step 1: {place} is {kind}.\nStep 2: That decides.\nConclusion: {answer}",
            "task": kind.split()[-1],
        }
        for place, kind, answer in [
            *(("Ohio", "a state", "Yes"), ("Texas", "a state", "Yes"), ("Utah", "a state", "Yes")),
            *(("Paris", "a city", "No"), ("Rome", "a city", "No"), ("Lima", "a city", "No")),
        ]
    ]
    path = workspace / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
