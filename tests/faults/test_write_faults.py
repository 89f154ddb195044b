"""Every write of a run may fail: the newest whole checkpoint loads, and nothing is doubled."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from judicaita.training.policy import Policy

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def model(make_policy: Callable[..., Policy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; half of the tokens end a text, so that completions differ in length."""
    policy = make_policy()
    policy.model.generation_config.eos_token_id = [1, *range(100, 160)]
    folder = tmp_path_factory.mktemp("model")
    policy.save(folder)
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("faults are put between a process and the C library of Linux, by a C compiler")
    library = tmp_path_factory.mktemp("library") / "faults.so"
    source = HERE / "faults.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


FAULTS = {
    "a disk that fills up": (errno.ENOSPC, True),
    "a device that fails once": (errno.EIO, False),
    "a folder that is closed": (errno.EACCES, False),
}


@pytest.mark.parametrize(
    "stride", [43, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"]
)
@pytest.mark.parametrize("fault", FAULTS)
def test_any_write_may_fail(
    model: Path, library: Path, tmp_path: Path, fault: str, stride: int
) -> None:
    code, stay = FAULTS[fault]
    first = 1 + list(FAULTS).index(fault) * 11 % stride
    command = [HERE / "worker.py", model, tmp_path, code, int(stay), first, stride]
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(ends) > 4
    assert [end for end in ends if "DEFECT" in end["ended"] or "\n" in end["ended"]] == []
    assert [end for end in ends if not end["same"]] == []
    # Else nothing was put to the test.
    assert sum(end["ended"] != "finished" for end in ends) > 0.4 * len(ends)
