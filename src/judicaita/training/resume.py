"""Going on with a run: from which checkpoint, and with which changes of mind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from judicaita.errors import CheckpointError, ConfigError
from judicaita.training.checkpoints import read_card
from judicaita.training.config import TrainingConfig
from judicaita.training.durable import verify
from judicaita.training.run_folder import RunFolder
from judicaita.training.settings import flatten

Tell = Callable[[str], None]

_NO_EFFECT = {"resume", "time_limit", "stall_seconds", "save_total_limit", "logging_steps"}
"""Settings that change no weight and no event."""


def refuse_other_runs(config: TrainingConfig, folder: RunFolder) -> None:
    """`ConfigError` for a folder whose records are not this run's to go on with or to replace."""
    if config.resume == "never":
        folder.refuse_if_used()
    elif config.resume == "auto" and not folder.steps() and not folder.final.exists():
        folder.refuse_if_not_grpo()


def checkpoint_to_resume(config: TrainingConfig, folder: RunFolder, tell: Tell) -> Path | None:
    """The checkpoint to go on from, the folder's ``final/`` for a finished run, or None to begin.

    What ``resume=auto`` passes over because it is damaged, and why, is told. `ConfigError` for a
    checkpoint of another run, or a used folder without `resume`; `CheckpointError` for a named
    checkpoint that is damaged, or where none is whole.
    """
    refuse_other_runs(config, folder)
    if config.resume == "never":
        return None
    if config.resume == "auto":
        return _newest_whole(folder, tell)
    chosen = Path(config.resume)
    if chosen.absolute().parent != folder.checkpoints.absolute():
        raise ConfigError(
            f"resume={chosen}: it is no checkpoint of the run in {folder.root}, whose "
            "records would be overwritten. Set checkpoint_dir to the folder of its run."
        )
    if not chosen.is_dir():
        raise CheckpointError(f"resume={chosen}: no such folder. Name one that is there, or auto.")
    verify(chosen)
    return chosen


def _newest_whole(folder: RunFolder, tell: Tell) -> Path | None:
    candidates = [path for _, path in reversed(folder.steps())]
    if folder.final.exists():
        candidates.insert(0, folder.final)
    for path in candidates:
        try:
            verify(path)
        except CheckpointError as error:
            tell(f"passed over: {error}")
        else:
            return path
    if candidates:
        raise CheckpointError(
            f"resume=auto: none of the {len(candidates)} checkpoints of {folder.root} is whole. "
            "Restore one, or name a new folder."
        )
    return None


def changed_settings(checkpoint: Path, config: TrainingConfig) -> list[str]:
    """``name before → now`` of each setting that differs from what the checkpoint recorded."""
    before = flatten(read_card(checkpoint).get("config", {}))
    now = flatten(config.model_dump(mode="json"))
    return [
        f"{name} {before[name]!r} → {value!r}"
        for name, value in now.items()
        if name in before and before[name] != value and name not in _NO_EFFECT
    ]


def changed_runtime(checkpoint: Path, now: Mapping[str, Any]) -> list[str]:
    """``name before → now`` of whatever else rounding depends on, and has changed."""
    before = read_card(checkpoint).get("runtime", {})
    return [
        f"{name} {before[name]} → {value}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
