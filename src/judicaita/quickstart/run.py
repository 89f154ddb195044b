"""One seed after another: warm start, arms, evaluation, and what to tell of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from judicaita.legal.tasks import (
    FAMILIES,
    bag_of_words,
    best_factors,
    generate_mixture,
    get_family,
)
from judicaita.quickstart.arms import STEPS, VERIFIED, run_arms, training_samples
from judicaita.quickstart.report import SeedReport, compare_answers, print_seed, summary
from judicaita.training.config import PROFILES
from judicaita.training.embedded import RECIPE, TAUGHT, TINY, lessons, tiny_folder
from judicaita.training.evaluation import EvaluationReport, evaluate_checkpoint
from judicaita.types import Sample

HELD_OUT_EACH = 100
"""Held-out questions of each family, half of them of each hard level."""

_WORDS_FROM = 5_000
"""Training questions that the bag-of-words classifier is fitted on."""


def run_quickstart(
    output_dir: Path, *, seeds: Sequence[int] = (0,), json_file: Path | None = None
) -> str:
    """Train, evaluate and compare for every seed; returns what to tell the person.

    Each seed gets a folder in ``output_dir``, with a number where it is taken. ``json_file`` gets
    the figures after every seed.
    """
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
    reports: list[SeedReport] = []
    for seed in seeds:
        folder = _unused(output_dir / f"seed-{seed}")
        report = _run_seed(folder, seed)
        print_seed(report)
        reports.append(report)
        if json_file is not None:
            figures = {"seeds": [report.figures() for report in reports]}
            json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return summary(reports)


def _run_seed(folder: Path, seed: int) -> SeedReport:
    began = perf_counter()
    base = tiny_folder(replace(RECIPE, seed=seed))
    held_out = _questions(TAUGHT, RECIPE.hard_levels, HELD_OUT_EACH, seed)
    easy = _questions(TAUGHT, FAMILIES[TAUGHT[0]].easy_levels, HELD_OUT_EACH // 2, seed)
    # Of the top levels, which no small model masters, the other hard levels say nothing.
    left_out = [
        sample
        for name in FAMILIES
        if name not in TAUGHT
        for sample in _questions([name], FAMILIES[name].hard_levels[:-1], HELD_OUT_EACH // 2, seed)
    ]
    models = {"before": base, **run_arms(base, folder, held_out, seed)}
    evaluations = {name: _evaluate(model, held_out) for name, model in models.items()}
    return SeedReport(
        seed=seed,
        folder=folder,
        model=models[VERIFIED],
        evaluations=evaluations,
        easy={name: _evaluate(models[name], easy) for name in ("before", VERIFIED)},
        left_out=_evaluate(models[VERIFIED], left_out),
        one_factor=best_factors(held_out, 1),
        two_factors=best_factors(held_out, 2),
        bag_of_words=bag_of_words(training_samples(seed, _WORDS_FROM), held_out),
        overlap=_overlap(held_out, seed),
        answers=compare_answers(evaluations["before"], evaluations[VERIFIED], held_out),
        seconds=perf_counter() - began,
    )


def _questions(
    families: Sequence[str], levels: Sequence[int | str], each: int, seed: int
) -> list[Sample]:
    """Held-out questions, every family and level equally often."""
    chosen = dict.fromkeys(families, levels)
    return generate_mixture(chosen, each * len(chosen), split="eval", seed=seed)


def _evaluate(model: Path, samples: list[Sample]) -> EvaluationReport:
    return evaluate_checkpoint(model, samples, text_overlap=False, batch_size=100)


def _overlap(held_out: Sequence[Sample], seed: int) -> int:
    """How many of the held-out fact patterns were trained on, by lessons or by GRPO."""
    recipe = replace(RECIPE, seed=seed)
    learnt = itertools.islice(lessons(recipe, seed + 1), recipe.steps * recipe.batch_size)
    trained = training_samples(seed, STEPS * PROFILES[TINY]["batch_size"])
    seen = {_pattern(sample) for sample in itertools.chain(learnt, trained)}
    return len({_pattern(sample) for sample in held_out} & seen)


def _pattern(sample: Sample) -> str:
    return get_family(sample.facts["family"]).pattern(sample.facts)


def _unused(folder: Path) -> Path:
    """The folder, or the first of ``folder-2``, ``folder-3`` … that is not there."""
    candidate, number = folder, 1
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
