"""The optimizers of a run: which parameters each one moves, and by which rule.

A new one is a branch here and a name in `RunConfig.optimizer`; what it needs of a machine stands in
`compatibility.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from judicaita.training.config import RunConfig
    from judicaita.training.policy import Policy


def make_optimizers(policy: Policy, config: RunConfig) -> dict[str, Optimizer]:
    """One for each rule, by its name; together they move every parameter that learns, once.

    Their rates are set before each update; all take the same.
    """
    parameters = [parameter for _, parameter in policy.trainable()]
    if config.optimizer != "muon":
        return {config.optimizer: _adamw(parameters, config)}
    hidden = _hidden_matrices(parameters, policy)
    taken = {id(parameter) for parameter in hidden}
    others = [parameter for parameter in parameters if id(parameter) not in taken]
    # With LoRA there are no others, as a rule, and torch refuses an optimizer of nothing.
    return {
        **({"muon": _muon(hidden, config)} if hidden else {}),
        **({"adamw": _adamw(others, config)} if others else {}),
    }


def _adamw(parameters: Sequence[nn.Parameter], config: RunConfig) -> Optimizer:
    """AdamW, decoupled decay of matrices alone (arXiv 1711.05101); or with its moments in 8 bits,
    block by block (arXiv 2110.02861)."""
    adamw: Any = torch.optim.AdamW
    if config.optimizer == "adamw_8bit":
        import bitsandbytes

        adamw = bitsandbytes.optim.AdamW8bit
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    made: Optimizer = adamw(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, config.adam_beta2),
    )
    return made


def _muon(parameters: Sequence[nn.Parameter], config: RunConfig) -> Optimizer:
    """Momentum whose singular values are all set to about 1 (K. Jordan et al., "Muon", 2024).

    An update times 0.2 · √(larger side) has the root mean square of AdamW's, so that its learning
    rate and decay do for both (arXiv 2502.16982 §2.2).
    """
    return torch.optim.Muon(
        parameters,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )


def _hidden_matrices(parameters: Sequence[nn.Parameter], policy: Policy) -> list[nn.Parameter]:
    """Matrices that map states to states, LoRA's included: not those of embeddings and head, whose
    rows are tokens."""
    model: Any = policy.model
    # An adapter on one of these is a module around it, and no longer of its class.
    outer: list[nn.Module] = [model.get_input_embeddings(), model.get_output_embeddings()]
    outer += [module for module in model.modules() if isinstance(module, nn.Embedding)]
    excluded = {id(p) for module in outer for p in module.parameters()}
    return [p for p in parameters if p.ndim == 2 and id(p) not in excluded]
