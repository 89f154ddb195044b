"""Where figures go beside the run's own files: TensorBoard, trackio, Weights & Biases.

One interface, and one class each behind it; a tracker is imported when a run asks for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from judicaita.errors import ConfigError


class Tracker(Protocol):
    """Where figures go beside the run's own files."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take the figures of a step; steps rise."""

    def close(self) -> None:
        """Write out what is pending and end the run there."""


def require_trackers(names: Sequence[str]) -> None:
    """`ConfigError` for a tracker that is not installed, before a run's folder is made."""
    for name in names:
        _import_tracker(name)


def make_trackers(
    names: Sequence[str],
    run_dir: Path,
    run_name: str,
    config: Mapping[str, Any],
    *,
    resume: bool = False,
) -> list[Tracker]:
    """The trackers called `names`: ``tensorboard``, ``trackio``, ``wandb``.

    They are handed figures and `config`, never prompts, completions or the environment. `config`
    is published as it is: keep secrets out of it. With `resume` trackio and W&B go on with the run
    they had under this name and folder.
    """
    for name in names:
        if name not in _TRACKERS:
            raise ConfigError(f"report_to: unknown tracker {name!r}. Use {', '.join(_TRACKERS)}.")
    run = _Run(run_dir, run_name, dict(config), resume)
    trackers: list[Tracker] = []
    try:
        for name in names:
            trackers.append(_TRACKERS[name](run))
    except BaseException:
        for tracker in trackers:
            tracker.close()
        raise
    return trackers


@dataclass(frozen=True)
class _Run:
    """What a tracker learns of the run."""

    folder: Path
    name: str
    config: dict[str, Any]
    resume: bool


class _TensorBoard:
    """Event files in ``run_dir/tensorboard``; nothing leaves the machine."""

    def __init__(self, run: _Run) -> None:
        _import_tracker("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        # A killed run loses at most ten seconds of figures here; all of them are in events.jsonl.
        self._writer = SummaryWriter(str(run.folder / "tensorboard"), flush_secs=10)
        if not run.resume:
            text = json.dumps(run.config, indent=2, default=str)
            self._writer.add_text("config", f"```json\n{text}\n```")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    """A local SQLite file that ``trackio show --project judicaita`` draws live.

    It goes where trackio puts it (``TRACKIO_DIR``, else the Hugging Face cache folder), and to a
    Space or server only if ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` says so.
    """

    def __init__(self, run: _Run) -> None:
        self._trackio = _import_tracker("trackio")
        remote = os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL")
        with contextlib.nullcontext() if remote else _hub_offline(), _prints_to_stderr():
            self._run = self._trackio.init(
                project="judicaita",
                name=run.name,
                config=run.config,
                resume="allow" if run.resume else "never",
                embed=False,
            )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        with _prints_to_stderr():
            self._trackio.finish()  # the run's own finish() would happen a second time at exit


class _Wandb:
    """Weights & Biases, online unless the user's ``WANDB_MODE`` says offline or disabled.

    What it collects by itself from code, git and the console stays here: console output holds
    prompts and completions.
    """

    def __init__(self, run: _Run) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own crash reports
        wandb = _import_tracker("wandb")
        id_file = run.folder / "wandb" / "run-id"
        id_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "judicaita"),
                name=run.name,
                id=id_file.read_text() if run.resume and id_file.exists() else None,
                resume="allow" if run.resume else None,
                dir=str(run.folder),
                config=run.config,
                settings=wandb.Settings(console="off", disable_git=True, disable_code=True),
            )
        except wandb.Error as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(
                f"report_to: W&B did not start a run ({reason}). Log in with `wandb login`, or set "
                "WANDB_MODE=offline."
            ) from error
        id_file.write_text(self._run.id)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


_TRACKERS: dict[str, Callable[[_Run], Tracker]] = {
    "tensorboard": _TensorBoard,
    "trackio": _Trackio,
    "wandb": _Wandb,
}


def _import_tracker(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"report_to: {package} cannot be imported ({error}). "
            'Install it with pip install "judicaita[track]", or leave it out.'
        ) from error


@contextlib.contextmanager
def _hub_offline() -> Iterator[None]:
    """Keep trackio from asking the Hub for the user's name, which it does for local runs too."""
    hub: Any = import_module("huggingface_hub.constants")
    before, hub.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _prints_to_stderr() -> contextlib.AbstractContextManager[Any]:
    """Stdout belongs to results that other programs read; a tracker's notices do not go there."""
    return contextlib.redirect_stdout(sys.stderr)
