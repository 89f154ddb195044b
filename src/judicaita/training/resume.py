"""Going on with a run: from which checkpoint, and with which changes of mind."""

from __future__ import annotations

from pathlib import Path

from judicaita.errors import ConfigError
from judicaita.training.checkpoints import RunFolder, read_card
from judicaita.training.config import TrainingConfig
from judicaita.training.settings import flatten


def checkpoint_to_resume(config: TrainingConfig, folder: RunFolder) -> Path | None:
    """The checkpoint to go on from, the folder's ``final/`` for a finished run, or None to begin.

    `ConfigError` for a checkpoint of another run, or a used folder without `resume`.
    """
    if config.resume == "auto":
        if read_card(folder.final):
            return folder.final
        newest = folder.newest()
        if newest is None:
            folder.refuse_if_used()
        return newest
    if config.resume != "never":
        chosen = Path(config.resume)
        if chosen.absolute().parent != folder.step(0).absolute().parent:
            raise ConfigError(
                f"resume={chosen}: it is no checkpoint of the run in {folder.root}, whose "
                "records would be overwritten. Set checkpoint_dir to the folder of its run."
            )
        return chosen
    folder.refuse_if_used()
    return None


def changed_settings(checkpoint: Path, config: TrainingConfig) -> list[str]:
    """``name before → now`` of each setting that differs from what the checkpoint recorded."""
    before = flatten(read_card(checkpoint).get("config", {}))
    now = flatten(config.model_dump(mode="json"))
    return [
        f"{name} {before[name]!r} → {value!r}"
        for name, value in now.items()
        if name in before and before[name] != value and name != "resume"
    ]
