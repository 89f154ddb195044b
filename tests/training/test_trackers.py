"""Outside trackers: real ones, read back with their own readers."""

from __future__ import annotations

import math
import socket
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from judicaita.errors import ConfigError
from judicaita.training.trackers import make_trackers


def test_tensorboard_reads_back(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tracker,) = make_trackers(["tensorboard"], tmp_path, "run", {"seed": 17})
    tracker.log({"reward/format": 0.25, "kl": math.nan}, 1)
    tracker.log({"reward/format": 0.5}, 2)
    tracker.close()
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward/format")] == [(1, 0.25), (2, 0.5)]
    assert math.isnan(events.Scalars("kl")[0].value)
    (config,) = events.Tensors("config/text_summary")
    assert '"seed": 17' in config.tensor_proto.string_val[0].decode()


def test_trackio_stays_local_and_off_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr(socket, "getaddrinfo", refuse_network)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_user")
    for step, resume in ((1, False), (2, True)):
        (tracker,) = make_trackers(["trackio"], tmp_path, "run", {"seed": 17}, resume=resume)
        tracker.log({"reward": step / 4}, step)
        tracker.close()
    assert capsys.readouterr().out == ""
    logs = storage.get_logs("judicaita", "run")
    assert [(entry["step"], entry["reward"]) for entry in logs] == [(1, 0.25), (2, 0.5)]


def refuse_network(host: str, *address: Any, **options: Any) -> None:
    pytest.fail(f"a local run wanted to reach {host}")


def test_wandb_goes_offline_as_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tracker,) = make_trackers(["wandb"], tmp_path, "run", {"seed": 17})
    tracker.log({"reward": 0.25}, 1)
    tracker.close()
    identity = (tmp_path / "wandb" / "run-id").read_text()
    assert list((tmp_path / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb"))


def test_a_tracker_that_is_not_installed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ConfigError, match=r'trackio cannot .* pip install "judicaita\[track\]"'):
        make_trackers(["trackio"], tmp_path, "run", {})


def test_an_unknown_tracker_is_refused_before_any_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown tracker 'mlflow'"):
        make_trackers(["tensorboard", "mlflow"], tmp_path, "run", {})
    assert list(tmp_path.iterdir()) == []


def test_trackers_are_closed_if_a_later_one_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = MagicMock()
    makers = {"tensorboard": lambda run: first, "trackio": MagicMock(side_effect=ConfigError("no"))}
    monkeypatch.setattr("judicaita.training.trackers._TRACKERS", makers)
    with pytest.raises(ConfigError, match="no"):
        make_trackers(["tensorboard", "trackio"], tmp_path, "run", {})
    first.close.assert_called_once_with()
