"""Folders on disk: the run's, and the checkpoints in it.

    <checkpoint_dir>/
      config.yaml      the configuration, as `--config` reads it
      manifest.json    versions, device, where each setting came from, fingerprints of the data
      eval.jsonl       the held-out samples
      events.jsonl     what happened, a line each
      rollouts/        every completion, a file a step
      checkpoints/     step-N/: model or adapter, tokenizer, and the state to go on from
      final/           model or adapter, tokenizer, and the held-out samples

A checkpoint is written aside and renamed, so that a folder under its own name is whole. It holds
safetensors and JSON alone: nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from judicaita.errors import CheckpointError, ConfigError
from judicaita.training.config import CARD, RunConfig, TrainingConfig
from judicaita.training.policy import Policy, load_policy_for_inference, merge_adapter
from judicaita.types import Sample

HELD_OUT = "eval.jsonl"
"""In the run's folder and in every checkpoint of it: the samples that were held out."""
_STATE, _TENSORS = "trainer_state.json", "trainer_state.safetensors"
_RUN_NAMES = ("config.yaml", "events.jsonl", "rollouts", "checkpoints", "final", HELD_OUT)
_PACKAGES = ("judicaita", "torch", "transformers", "peft", "tokenizers", "safetensors")


class RunFolder:
    """The folder of one run and the names in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events = root / "events.jsonl"
        self.rollouts = root / "rollouts"
        self.final = root / "final"
        self.held_out = root / HELD_OUT

    def step(self, number: int) -> Path:
        """Folder of the checkpoint after step ``number``."""
        return self.root / "checkpoints" / f"step-{number}"

    def newest(self) -> Path | None:
        """The checkpoint of the highest step, if there is one."""
        found = [(number, path) for number, path in self._steps() if is_resumable(path)]
        return max(found)[1] if found else None

    def remove_checkpoints_after(self, step: int) -> None:
        """Delete what a run that goes on from ``step`` will write again, ``final/`` included: else
        a later ``resume=auto`` would take up the older of the two."""
        for number, path in self._steps():
            if number > step:
                shutil.rmtree(path)
        shutil.rmtree(self.final, ignore_errors=True)

    def _steps(self) -> list[tuple[int, Path]]:
        named = ((re.fullmatch(r"step-(\d+)", p.name), p) for p in self.step(0).parent.glob("*"))
        return [(int(match[1]), path) for match, path in named if match]

    def refuse_if_used(self) -> None:
        """`ConfigError` when the folder holds a run, which must not be mixed with another."""
        if self.root.exists() and not self.root.is_dir():
            raise ConfigError(f"checkpoint_dir={self.root}: it is a file. Name a new folder.")
        for name in _RUN_NAMES:
            if (self.root / name).exists():
                raise ConfigError(
                    f"checkpoint_dir={self.root}: it holds another run ({name}). Name a new "
                    "folder, or, once it has saved a checkpoint, go on with it by resume=auto."
                )

    def begin(self, config: RunConfig, manifest: Mapping[str, Any]) -> None:
        """Make the folder and write what the run is."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"checkpoint_dir={self.root}: it cannot be made ({error.strerror}). Name a folder "
                "that can be written to."
            ) from error
        settings = config.model_dump(mode="json")
        (self.root / "config.yaml").write_text(
            yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        _write_json(self.root / "manifest.json", manifest)


def describe_run(
    policy: Policy, origins: Mapping[str, str], **data: Sequence[Sample]
) -> dict[str, Any]:
    """The manifest: versions, machine, sources of the settings, a fingerprint per data set."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "device": str(policy.placement.device),
        "compute_dtype": str(policy.placement.compute).removeprefix("torch."),
        "trainable_parameters": sum(p.numel() for _, p in policy.trainable()),
        "parameters": sum(p.numel() for p in policy.model.parameters()),
        "settings_from": dict(origins),
        "data": {
            name: {"samples": len(samples), "sha256": fingerprint(samples)}
            for name, samples in data.items()
        },
    }


def fingerprint(samples: Sequence[Sample]) -> str:
    """SHA-256 over the samples' ids, in their order."""
    return hashlib.sha256("\n".join(sample.id for sample in samples).encode()).hexdigest()


def save_checkpoint(
    folder: Path,
    policy: Policy,
    config: RunConfig,
    *,
    step: int,
    state: Mapping[str, Any] | None = None,
    held_out: Path | None = None,
) -> Path:
    """Write a checkpoint: what plain tools load, a card, and ``state`` to go on from.

    ``state`` nests dicts and lists of JSON values and tensors. ``held_out`` is a file of samples to
    put beside the model. An existing checkpoint of that name is replaced; any other folder is a
    `CheckpointError`.
    """
    folder = folder.absolute()
    if folder.exists() and not (folder / CARD).is_file():
        raise CheckpointError(
            f"{folder} exists and is no checkpoint, so it is not replaced. Name a new folder."
        )
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    policy.save(aside)
    card = {
        "step": step,
        "policy_version": policy.version,
        "config": config.model_dump(mode="json"),
    }
    _write_json(aside / CARD, card)
    if state is not None:
        plain, tensors = _take_tensors_out(state)
        _write_json(aside / _STATE, plain)
        save_file(tensors, aside / _TENSORS)
    if held_out is not None:
        shutil.copyfile(held_out, aside / HELD_OUT)
    replaced = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        folder.replace(replaced)
    aside.replace(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    return folder


def is_resumable(folder: Path) -> bool:
    """True when the folder holds the state of a trainer."""
    return (folder / _STATE).is_file() and (folder / _TENSORS).is_file()


def load_state(folder: Path) -> dict[str, Any]:
    """The ``state`` that `save_checkpoint` was given."""
    if not is_resumable(folder):
        raise CheckpointError(
            f"{folder} holds no {_STATE}, so no run can go on from it. Name a checkpoints/step-N "
            "folder."
        )
    try:
        plain = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        state: dict[str, Any] = _put_tensors_in(plain, load_file(folder / _TENSORS))
    except (ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: its state is damaged ({error}). Remove it to go on from an earlier one."
        ) from error
    return state


def read_card(folder: Path) -> dict[str, Any]:
    """What made a checkpoint: its step and configuration; empty for a folder of other origin."""
    path = folder / CARD
    if not path.is_file():
        return {}
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no valid JSON ({error}). Restore it.") from error
    return card


def require_checkpoint(folder: Path) -> None:
    """`CheckpointError` unless a model or an adapter can be loaded from the folder."""
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder. Name a checkpoint, such as a run's final/."
        )
    if not any((folder / name).is_file() for name in ("adapter_config.json", "config.json")):
        raise CheckpointError(
            f"{folder} holds neither config.json nor adapter_config.json, so it is no checkpoint. "
            "Name a run's final/ or checkpoints/step-N."
        )


@dataclass(frozen=True)
class OpenCheckpoint:
    """A checkpoint that is ready to answer, with what it records of its run."""

    policy: Policy
    card: Mapping[str, Any]

    def setting(self, name: str) -> Any:
        """A setting of the run, or the default of `TrainingConfig` where none is recorded."""
        recorded = self.card.get("config", {})
        return recorded.get(name, TrainingConfig.model_fields[name].default)

    @property
    def max_tokens(self) -> int:
        """Longest answer: the run's ``generation_max_length``, or where none is recorded (a
        supervised run, a folder of other origin) the default, but half the model's positions at
        most, so that a prompt has room."""
        limit = int(self.setting("generation_max_length"))
        positions = self.policy.max_positions
        recorded = "generation_max_length" in self.card.get("config", {})
        return limit if recorded or positions is None else min(limit, positions // 2)


def open_checkpoint(folder: Path, device: str) -> OpenCheckpoint:
    """Load a model or adapter folder with the system prompt and template of its run.

    A folder of other origin gets the default system prompt if it is a chat model, and none if it
    is not. Raises `CheckpointError` for a folder that is no checkpoint, `ModelError` for one that
    cannot be loaded.
    """
    require_checkpoint(folder)
    card = read_card(folder)
    opened = OpenCheckpoint(load_policy_for_inference(folder, device), card)
    policy = opened.policy
    if card or policy.tokenizer.chat_template:
        policy.system_prompt = opened.setting("system_prompt")
        policy.chat_template = opened.setting("chat_template")
    policy.version = card.get("policy_version", 0)
    return opened


def export_checkpoint(folder: Path, output: Path, *, merge: bool) -> None:
    """Write what other tools load, and nothing of the run, into a new folder.

    ``merge`` makes one model of an adapter and its base, in float32, in copies of the weights.
    """
    require_checkpoint(folder)
    if output.exists():
        raise CheckpointError(f"{output} exists already. Name a new folder.")
    is_adapter = (folder / "adapter_config.json").is_file()
    if merge and not is_adapter:
        raise CheckpointError(
            f"{folder} is a whole model with no adapter to merge. Leave --merge out."
        )
    if merge:
        merge_adapter(folder, output)
    else:
        own = shutil.ignore_patterns(CARD, HELD_OUT, _STATE, _TENSORS)
        shutil.copytree(folder, output, ignore=own)


def _take_tensors_out(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Replace each tensor of a nested structure by its name in a flat dictionary."""
    tensors: dict[str, Tensor] = {}

    def walk(node: Any, path: str) -> Any:
        if isinstance(node, Tensor):
            tensors[path] = node.detach().cpu().contiguous()
            return {"tensor": path}
        if isinstance(node, Mapping):
            return {str(key): walk(value, f"{path}/{key}") for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [walk(value, f"{path}/{index}") for index, value in enumerate(node)]
        return node

    return walk(tree, ""), tensors


def _put_tensors_in(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if node.keys() == {"tensor"}:
            return tensors[node["tensor"]]
        return {key: _put_tensors_in(value, tensors) for key, value in node.items()}
    if isinstance(node, list):
        return [_put_tensors_in(value, tensors) for value in node]
    return node


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
