"""Checkpoints: what plain tools load, what a run needs to go on, and what is known of both.

    step-N/ or final/
      config.json, *.safetensors, tokenizer …   as transformers or peft write and load them
      judicaita.json                            what made it: step, configuration, machine
      trainer_state.json, .safetensors          in step-N/ alone: the state to go on from
      eval.jsonl                                the samples that were held out
      SHA256SUMS                                the seal (`durable.py`)

A checkpoint is written aside and renamed, so that a folder under its own name is whole. It holds
safetensors and JSON alone: nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from judicaita.errors import CheckpointError
from judicaita.training.config import CARD, RunConfig, TrainingConfig
from judicaita.training.durable import SUMS, verify, write_json, writing_folder
from judicaita.training.loading import load_policy_for_inference, merge_adapter
from judicaita.training.policy import Policy
from judicaita.training.provenance import describe_samples
from judicaita.training.provenance import fingerprint as fingerprint
from judicaita.training.rollouts.base import SamplingParams
from judicaita.types import Sample

HELD_OUT = "eval.jsonl"
"""In the run's folder and in every checkpoint of it: the samples that were held out."""
_STATE, _TENSORS = "trainer_state.json", "trainer_state.safetensors"
_FORMAT = 1
"""Of checkpoints; raised when an older judicaita could misread a new one."""
_PACKAGES = ("judicaita", "torch", "transformers", "peft", "tokenizers", "safetensors")


def describe_run(
    policy: Policy,
    origins: Mapping[str, str],
    data_from: Mapping[str, Mapping[str, Any]] | None = None,
    **data: Sequence[Sample],
) -> dict[str, Any]:
    """The manifest: versions, machine, sources of the settings and, per data set, where it came
    from (``data_from``, as far as it is known), counts and a fingerprint."""
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
            name: describe_samples(samples, (data_from or {}).get(name))
            for name, samples in data.items()
        },
    }


def describe_runtime(policy: Policy) -> dict[str, Any]:
    """What rounding depends on beside the configuration."""
    device = policy.placement.device
    is_cuda = device.type == "cuda"
    return {
        **{name: _version(name) for name in ("torch", "transformers", "peft")},
        "device": torch.cuda.get_device_name(device) if is_cuda else device.type,
        "compute_dtype": str(policy.placement.compute).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def save_checkpoint(
    folder: Path,
    policy: Policy,
    config: RunConfig,
    *,
    step: int,
    state: Mapping[str, Any] | None = None,
    held_out: Path | None = None,
    evaluation: Mapping[str, float] | None = None,
) -> Path:
    """Write a checkpoint: what plain tools load, a card, and ``state`` to go on from.

    ``state`` nests dicts and lists of JSON values and tensors. ``held_out`` is a file of samples to
    put beside the model, ``evaluation`` the figures of these very weights. An existing checkpoint
    of that name is replaced; any other folder is a `CheckpointError`, and so is whatever keeps it
    from being written.
    """
    folder = folder.absolute()
    if folder.exists() and not (folder / CARD).is_file():
        raise CheckpointError(
            f"{folder} exists and is no checkpoint, so it is not replaced. Name a new folder."
        )
    card = {
        "format": _FORMAT,
        "step": step,
        "policy_version": policy.version,
        "runtime": describe_runtime(policy),
        **({"evaluation": dict(evaluation)} if evaluation else {}),
        "config": config.model_dump(mode="json"),
    }
    try:
        with writing_folder(folder) as aside:
            policy.save(aside)
            write_json(aside / CARD, card)
            if state is not None:
                plain, tensors = _take_tensors_out(state)
                write_json(aside / _STATE, plain)
                save_file(tensors, aside / _TENSORS)
            if held_out is not None:
                shutil.copyfile(held_out, aside / HELD_OUT)
    except Exception as error:  # the libraries that write have errors of every kind
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise CheckpointError(
            f"{folder}: the checkpoint could not be written ({reason}); those before it are "
            "untouched. Free space or mend the folder, and start again, a GRPO run by resume=auto."
        ) from error
    return folder


def is_resumable(folder: Path) -> bool:
    """True when the folder holds the state of a trainer."""
    return (folder / _STATE).is_file() and (folder / _TENSORS).is_file()


def load_state(folder: Path) -> dict[str, Any]:
    """The ``state`` that `save_checkpoint` was given; `CheckpointError` if anything is damaged."""
    if not is_resumable(folder):
        raise CheckpointError(
            f"{folder} holds no {_STATE}, so no run can go on from it. Name a checkpoints/step-N "
            "folder."
        )
    verify(folder)
    try:
        plain = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        state: dict[str, Any] = _put_tensors_in(plain, load_file(folder / _TENSORS))
    except (ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: its state cannot be read ({error}). Remove it to go on from an earlier one."
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
    if card.get("format", _FORMAT) > _FORMAT:
        raise CheckpointError(
            f"{folder} was written by a newer judicaita (format {card['format']}; this one knows "
            f"{_FORMAT}). Upgrade it."
        )
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

    @property
    def greedy(self) -> SamplingParams:
        """How its likeliest answers are drawn: as long as the run's, ended by the same texts."""
        stop = tuple(self.setting("stop_strings"))
        return SamplingParams(self.max_tokens, temperature=0.0, stop_strings=stop)


def open_checkpoint(folder: Path, device: str) -> OpenCheckpoint:
    """Load a model or adapter folder with the system prompt and template of its run.

    A folder of other origin gets the default system prompt if it is a chat model, and none if it
    is not. Raises `CheckpointError` for a folder that is no checkpoint, or a damaged one of
    judicaita's, `ModelError` for one that cannot be loaded.
    """
    require_checkpoint(folder)
    card = read_card(folder)
    if card and not (folder / SUMS).is_file():
        verify(folder)  # says what is missing; whatever has its seal is checked as it is loaded
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
    if read_card(folder) or (folder / SUMS).is_file():
        verify(folder)
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
        own = shutil.ignore_patterns(CARD, HELD_OUT, SUMS, _STATE, _TENSORS)
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


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
