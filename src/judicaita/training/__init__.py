"""Training and evaluation. Names load on first use: importing this package loads no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judicaita.training.config import SFTConfig, TrainingConfig
    from judicaita.training.data_curation import (
        LegalBenchDataset,
        PileOfLawDataset,
        create_training_dataset,
        load_dataset_source,
    )
    from judicaita.training.evaluation import EvaluationHarness, evaluate_checkpoint
    from judicaita.training.grpo_trainer import GRPOTrainer
    from judicaita.training.rewards import (
        CompositeReward,
        FormatReward,
        OutcomeReward,
        StepReward,
        VerbosityReward,
    )
    from judicaita.training.warm_start import supervised_fine_tuning

_HOMES = {
    "CompositeReward": "rewards",
    "EvaluationHarness": "evaluation",
    "FormatReward": "rewards",
    "GRPOTrainer": "grpo_trainer",
    "LegalBenchDataset": "data_curation",
    "OutcomeReward": "rewards",
    "PileOfLawDataset": "data_curation",
    "SFTConfig": "config",
    "StepReward": "rewards",
    "TrainingConfig": "config",
    "VerbosityReward": "rewards",
    "create_training_dataset": "data_curation",
    "evaluate_checkpoint": "evaluation",
    "load_dataset_source": "data_curation",
    "supervised_fine_tuning": "warm_start",
}

__all__ = [
    "CompositeReward",
    "EvaluationHarness",
    "FormatReward",
    "GRPOTrainer",
    "LegalBenchDataset",
    "OutcomeReward",
    "PileOfLawDataset",
    "SFTConfig",
    "StepReward",
    "TrainingConfig",
    "VerbosityReward",
    "create_training_dataset",
    "evaluate_checkpoint",
    "load_dataset_source",
    "supervised_fine_tuning",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
