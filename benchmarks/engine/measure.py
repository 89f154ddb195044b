"""One measurement, in a process of its own: its number of threads and its allocator are fixed."""

from __future__ import annotations

import copy
import resource
import statistics
from dataclasses import replace
from typing import Any

import torch
from ours import Ours, tokens_of
from workload import Shape, Step, make_model, matmul_peak, prompt_texts, relative_l2


def pairs(shape: Shape, peer: str, count: int) -> dict[str, Any]:
    """Steps of both sides in turn, each pair on the same weights, prompts and tokens."""
    from peer import Peer  # it needs TRL

    model = make_model(shape.architecture)
    ours = Ours(copy.deepcopy(model), shape, precision=precision_beside(peer))
    theirs: list[Step] = []
    own: list[Step] = []
    differences: list[float] = []

    def sync() -> None:
        ours.policy.model.load_state_dict(trl.trainer.model.state_dict())

    def follow() -> None:
        step = ours.step(trl.prompts, trl.tokens)
        differences.append(relative_l2(step.gradient, trl.now.gradient))
        theirs.append(trl.now)
        own.append(step)

    trl = Peer(model, shape, peer, count + 1, sync, follow)
    trl.trainer.train()
    if peer == "trl_tuned":  # else it computes in bf16
        assert max(differences) < 1e-5, differences
    peak = matmul_peak()
    flops = ours.flops(trl.prompts, trl.tokens)
    tokens = sum(map(len, trl.tokens))
    own, theirs = own[1:], theirs[1:]  # the first of each warms up
    share = flops / own[-1].training / peak
    return {
        "seconds_ours": statistics.median(step.seconds["total"] for step in own),
        "seconds_peer": statistics.median(step.seconds["total"] for step in theirs),
        "ratio_step": _ratio(
            [(t.seconds["total"], o.seconds["total"]) for o, t in zip(own, theirs, strict=True)]
        ),
        "ratio_training": _ratio(
            [(t.training, o.training) for o, t in zip(own, theirs, strict=True)]
        ),
        "ratios_step": [
            t.seconds["total"] / o.seconds["total"] for o, t in zip(own, theirs, strict=True)
        ],
        "gradient_relative_l2": max(differences),
        "split": {"ours": _split(own), "peer": _split(theirs)},
        "share_of_peak": share,
        "peak_gflops": peak / 1e9,
        "tokens_of_last_step": tokens,
        "pairs": len(own),
    }


def growth(shape: Shape, count: int) -> dict[str, Any]:
    """Steps of this project's side alone."""
    ours = Ours(make_model(shape.architecture), shape)
    texts = prompt_texts(shape, count + 1)
    steps = []
    for number in range(count + 1):
        first = number * shape.prompts
        prompts = texts[first : first + shape.prompts]
        tokens = tokens_of(shape, number)
        steps.append(replace(ours.step(prompts, tokens), gradient={}))
    memory = _peak_mib()
    flops, peak = ours.flops(prompts, tokens), matmul_peak()
    training = statistics.median(step.training for step in steps[1:])
    return {
        "seconds": statistics.median(step.seconds["total"] for step in steps[1:]),
        "split": _split(steps[1:]),
        "share_of_peak": flops / training / peak,
        "tokens_of_last_step": sum(map(len, tokens)),
        "memory": memory,
    }


def precision_beside(peer: str) -> str:
    """TRL computes in bf16 by default."""
    return "bf16" if peer.startswith("trl_default") else "fp32"


def memory(shape: Shape, side: str) -> dict[str, Any]:
    """Peak resident memory of a process that takes one step, and before it, MiB."""
    model = make_model(shape.architecture)
    if side.startswith("ours"):
        precision = precision_beside(side.removeprefix("ours_beside_"))
        ours = Ours(model, shape, at_once=side == "ours_at_once", precision=precision)
        before = _peak_mib()
        ours.step(prompt_texts(shape, 1), tokens_of(shape, 0))
    else:
        from peer import Peer

        trl = Peer(model, shape, side, 1)
        before = _peak_mib()
        trl.trainer.train()
    return {"memory": _peak_mib(), "before": before}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _ratio(timed: list[tuple[float, float]]) -> float:
    return statistics.median(theirs / own for theirs, own in timed)


def _split(steps: list[Step]) -> dict[str, float]:
    return {name: statistics.median(step.split[name] for step in steps) for name in steps[0].split}


def measure(kind: str, shape: Shape, side: str, threads: int, count: int) -> dict[str, Any]:
    """What the parent process asks for."""
    torch.set_num_threads(threads)
    if kind == "pairs":
        return pairs(shape, side, count)
    return memory(shape, side) if kind == "memory" else growth(shape, count)
