"""The folder of one run: what its names mean, who may write there, and which checkpoints stay.

<checkpoint_dir>/
  config.yaml      the configuration, as `--config` reads it
  manifest.json    versions, device, where each setting came from, fingerprints of the data
  eval.jsonl       the held-out samples
  events.jsonl     what happened, a line each
  rollouts/        every completion, a file a step
  checkpoints/     step-N/: model or adapter, tokenizer, and the state to go on from
  final/           model or adapter, tokenizer, and the held-out samples
  stalls.txt       the stacks of all threads, where a step stood still
  .run.lock        held by the process that writes here; .run.owner.json says which one
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from judicaita.errors import CheckpointError, ConfigError
from judicaita.training.checkpoints import HELD_OUT, read_card
from judicaita.training.config import RunConfig
from judicaita.training.durable import recover, remove_folder, write_file, write_json
from judicaita.training.metrics import remove_rollouts_after

_RECORDS = ("config.yaml", "events.jsonl", "rollouts", "checkpoints", "final", HELD_OUT)
_LOCK, _OWNER = ".run.lock", ".run.owner.json"


class RunFolder:
    """The folder of one run and the names in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.events = root / "events.jsonl"
        self.rollouts = root / "rollouts"
        self.checkpoints = root / "checkpoints"
        self.final = root / "final"
        self.held_out = root / HELD_OUT
        self.stalls = root / "stalls.txt"
        self._lock = FileLock(root / _LOCK, thread_local=False)

    def step(self, number: int) -> Path:
        """Folder of the checkpoint after step ``number``."""
        return self.checkpoints / f"step-{number}"

    def steps(self) -> list[tuple[int, Path]]:
        """Number and folder of each checkpoint, whole or not, the oldest first."""
        named = ((re.fullmatch(r"step-(\d+)", p.name), p) for p in self.checkpoints.glob("step-*"))
        return sorted((int(match[1]), path) for match, path in named if match)

    def _hidden(self) -> list[Path]:
        """What writers of checkpoints have left that were killed."""
        return [path for path in self.checkpoints.glob(".step-*") if path.is_dir()]

    # ── one run at a time ────────────────────────────────────────────────────────────────────────

    def lock(self) -> None:
        """Make the folder and keep other runs out of it, until `unlock` or the process's end; does
        nothing while it is locked.

        The system itself lets go of the lock of a process that died, and of what it started.
        """
        if self._lock.is_locked:
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._introduce()
        except Timeout:
            raise ConfigError(
                f"checkpoint_dir={self.root}: {self._owner()} is writing there, and two runs would "
                "overwrite each other. Wait for it or stop it, or name another folder."
            ) from None
        except (OSError, NotImplementedError) as error:
            self._lock.release()
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"checkpoint_dir={self.root}: it cannot be made and locked ({reason}). Name a "
                "folder that can be written to, on a file system with locks."
            ) from error

    def _introduce(self) -> None:
        """Say who has the lock, and clear up what the one before may have left."""
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self.root / _OWNER, owner)
        torn = {re.sub(r"\.(step-\d+)\.(?:old|tmp)$", r"\1", path.name) for path in self._hidden()}
        for place in (self.final, *(self.checkpoints / name for name in torn)):
            recover(place)

    def unlock(self) -> None:
        """Let other runs in; a folder in which nothing was begun is removed."""
        if not self._lock.is_locked:
            return
        with contextlib.suppress(OSError):  # what it says of the owner decides nothing
            (self.root / _OWNER).unlink(missing_ok=True)
            if {path.name for path in self.root.iterdir()} <= {_LOCK}:
                (self.root / _LOCK).unlink(missing_ok=True)
                self.root.rmdir()
        self._lock.release()

    def _owner(self) -> str:
        try:
            owner = json.loads((self.root / _OWNER).read_text(encoding="utf-8"))
            return f"process {owner['pid']} on {owner['host']} (since {owner['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"  # it has the lock and has not said yet who it is

    # ── beginning, going on ──────────────────────────────────────────────────────────────────────

    def refuse_if_used(self) -> None:
        """`ConfigError` when the folder holds a run, which must not be mixed with another."""
        if self.root.exists() and not self.root.is_dir():
            raise ConfigError(f"checkpoint_dir={self.root}: it is a file. Name a new folder.")
        for name in _RECORDS:
            if (self.root / name).exists():
                raise ConfigError(
                    f"checkpoint_dir={self.root}: it holds another run ({name}). Name a new "
                    "folder, or go on with that run by resume=auto."
                )

    def begin(self, config: RunConfig, manifest: Mapping[str, Any]) -> None:
        """Write what the run is, into the folder that `lock` made."""
        settings = yaml.safe_dump(
            config.model_dump(mode="json"), sort_keys=False, allow_unicode=True
        )
        write_file(self.config, lambda file: file.write(settings.encode()))
        write_json(self.root / "manifest.json", manifest)

    def refuse_if_not_grpo(self) -> None:
        """`ConfigError` for records of anything but a GRPO run, which are not to be replaced."""
        # A supervised run has no such setting.
        if not self.config.is_file() or "\nnum_rollouts:" not in self.config.read_text("utf-8"):
            self.refuse_if_used()

    def begin_again(self) -> None:
        """Remove the records of a run that ended before its first checkpoint."""
        remove_rollouts_after(self.rollouts, 0)
        for path in (self.events, self.held_out, self.config):
            path.unlink(missing_ok=True)

    def remove_checkpoints_after(self, step: int) -> None:
        """Delete what a run that goes on from ``step`` will write again, ``final/`` included: else
        a later ``resume=auto`` would take up the older of the two."""
        if self.final.exists():  # first: it says that the run is finished
            remove_folder(self.final)
        for number, path in self.steps():
            if number > step:
                remove_folder(path)

    def require(self) -> None:
        """`CheckpointError` when the folder is there no more: it is not made anew under a run."""
        if not self.root.is_dir():
            raise CheckpointError(
                f"{self.root} is gone: it was removed or unmounted while the run was writing to "
                "it. Bring it back, and go on by resume=auto."
            )

    @contextmanager
    def writing(self, way_out: str = "go on by resume=auto") -> Iterator[None]:
        """Turn what the system says of a full disk or a lost folder into a `CheckpointError`."""
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"{error.filename or self.root}: the run's records could not be written "
                f"({error.strerror or error}). Free space or mend the folder, and {way_out}."
            ) from error

    # ── which checkpoints stay ───────────────────────────────────────────────────────────────────

    def best(self, metric: str) -> Path | None:
        """The checkpoint that was evaluated best, the later of equals; None where none was."""
        scored = []
        for number, path in self.steps():
            with contextlib.suppress(CheckpointError):  # damage is told where it matters
                evaluation = read_card(path).get("evaluation", {})
                if metric in evaluation:
                    scored.append((evaluation[metric], number, path))
        return max(scored)[2] if scored else None

    def rotate(self, keep: int | None, metric: str) -> None:
        """Delete all checkpoints but the last ``keep`` (None: all of them) and the best."""
        best = self.best(metric)
        for _, path in self.steps()[: -keep if keep else 0]:
            if path != best:
                remove_folder(path)
