"""One seed after another: warm start, arms, evaluation, and what to tell of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from judicaita.legal.tasks import (
    FAMILIES,
    bag_of_words,
    best_factors,
    generate_mixture,
    get_family,
)
from judicaita.quickstart.arms import VERIFIED, Scale, run_arms, training_samples
from judicaita.quickstart.report import SeedReport, compare_answers, print_seed, summary
from judicaita.training.config import PROFILES
from judicaita.training.embedded import (
    EASY_LEVELS,
    HARD_LEVELS,
    TAUGHT,
    TINY,
    lessons,
    tiny_folder,
)
from judicaita.training.evaluation import EvaluationReport, evaluate_checkpoint
from judicaita.types import Sample

DEFAULT_SCALE = Scale()


def run_quickstart(
    output_dir: Path,
    *,
    seeds: Sequence[int] = (0,),
    json_file: Path | None = None,
    scale: Scale | None = None,
) -> str:
    """Train, evaluate and compare for every seed; returns what to tell the person.

    Each seed gets a folder in ``output_dir``, with a number where it is taken. ``json_file`` gets
    the figures after every seed.
    """
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
    reports: list[SeedReport] = []
    for seed in seeds:
        folder = unused(output_dir / f"seed-{seed}")
        report = _run_seed(folder, seed, scale or DEFAULT_SCALE)
        print_seed(report)
        reports.append(report)
        if json_file is not None:
            figures = {"seeds": [report.figures() for report in reports]}
            json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return summary(reports)


def _run_seed(folder: Path, seed: int, scale: Scale) -> SeedReport:
    began = perf_counter()
    base = tiny_folder(scale.seeded(seed))
    each = scale.held_out_each
    held_out = questions(TAUGHT, HARD_LEVELS, each, seed)
    easy = questions(TAUGHT, EASY_LEVELS, each // 2, seed)
    # Of the top levels, which no small model masters, the other hard levels say nothing.
    left_out = [
        sample
        for name in FAMILIES
        if name not in TAUGHT
        for sample in questions([name], FAMILIES[name].hard_levels[:-1], each // 2, seed)
    ]

    models = {"before": base, **run_arms(base, folder, held_out, seed, scale)}
    evaluations = {name: evaluate(model, held_out) for name, model in models.items()}
    return SeedReport(
        seed=seed,
        folder=folder,
        model=models[VERIFIED],
        evaluations=evaluations,
        easy={name: evaluate(models[name], easy) for name in ("before", VERIFIED)},
        left_out=evaluate(models[VERIFIED], left_out),
        top=evaluate(
            models[VERIFIED], questions(TAUGHT, FAMILIES[TAUGHT[0]].levels[-1:], each // 2, seed)
        ),
        one_factor=best_factors(held_out, 1),
        two_factors=best_factors(held_out, 2),
        bag_of_words=bag_of_words(training_samples(seed, scale.words_from), held_out),
        overlap=_overlap(held_out, seed, scale),
        answers=compare_answers(evaluations["before"], evaluations[VERIFIED], held_out),
        seconds=perf_counter() - began,
    )


def questions(
    families: Sequence[str], levels: Sequence[int | str], each: int, seed: int
) -> list[Sample]:
    """Held-out questions, every family and level equally often."""
    chosen = dict.fromkeys(families, levels)
    return generate_mixture(chosen, each * len(chosen), split="eval", seed=seed)


def evaluate(model: Path, samples: list[Sample]) -> EvaluationReport:
    """Greedy answers of a model folder, graded and checked."""
    return evaluate_checkpoint(model, samples, text_overlap=False, batch_size=100)


def _overlap(held_out: Sequence[Sample], seed: int, scale: Scale) -> int:
    """How many of the held-out fact patterns were trained on, by lessons or by GRPO."""
    recipe = scale.seeded(seed)
    learnt = itertools.islice(lessons(recipe, seed + 1), recipe.steps * recipe.batch_size)
    trained = training_samples(seed, scale.steps * PROFILES[TINY]["batch_size"])
    seen = {_pattern(sample) for sample in itertools.chain(learnt, trained)}
    return len({_pattern(sample) for sample in held_out} & seen)


def _pattern(sample: Sample) -> str:
    return get_family(sample.facts["family"]).pattern(sample.facts)


def unused(folder: Path) -> Path:
    """The folder, or the first of ``folder-2``, ``folder-3`` … that is not there."""
    candidate, number = folder, 1
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
