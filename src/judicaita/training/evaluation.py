"""How good a policy's answers are: the training's own grader, and overlap with worked solutions.

`EvaluationHarness.score` sees texts only (no torch); `evaluate` generates them first, and
`evaluate_checkpoint` loads the model before that.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from judicaita.errors import CheckpointError, ConfigError, DataError, JudicaitaError
from judicaita.legal.answers import extract_answer
from judicaita.training.durable import write_json
from judicaita.training.rewards import (
    CompositeReward,
    Reward,
    as_reward,
    columns_of,
    composite_from_config,
    reward_parts,
    score_safely,
)
from judicaita.types import Completion, Group, Prompt, Sample

if TYPE_CHECKING:
    from judicaita.training.policy import Policy
    from judicaita.training.rollouts.base import RolloutEngine, SamplingParams

Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""

ROUGE = ("rouge1", "rouge2", "rougeL")

_CHECKED = ("is_true", "is_sound", "coverage", "has_false_step")
"""What the step reward's details and a record tell of the reasoning, by the same names."""


@dataclass(frozen=True)
class EvaluationRecord:
    """One sample, what the policy answered, and what that was worth."""

    sample_id: str
    task: str
    prompt: Prompt
    reference: str
    response: str
    answer: str | None
    """What was graded as the answer; None without a reference, or when the response gives none."""
    correct: bool | None
    """None without a reference."""
    well_formed: bool
    tokens: int | None
    """None, and likewise the reason, where a text comes without them, as from a file."""
    finish_reason: str | None
    reward: float | None
    """None where the reward abstained."""
    parts: Mapping[str, float]
    """Scores of the reward's parts that did not abstain."""
    rouge: Mapping[str, float]
    """ROUGE F1 by name; empty where it was not asked for, or nothing is there to compare with."""
    family: str | None = None
    """The generated family that checked the steps; None, here and below, for other samples."""
    is_true: bool | None = None
    """There are steps, each can be checked, and none is false."""
    is_sound: bool | None = None
    """And the answer is well-formed, complete and right."""
    coverage: float | None = None
    """Share of the points to decide that true steps decide."""
    has_false_step: bool | None = None


@dataclass(frozen=True)
class EvaluationReport:
    """The figures of one evaluation. A figure that nothing was there to compute from is absent."""

    metrics: Mapping[str, float]
    """Shares and scores in [0, 1], but for counts, tokens and BLEU:

    - ``samples``; ``graded``: those with a reference, which alone count in the accuracy;
      ``checked``: those of generated families, which alone count in the four
      figures of steps;
    - ``accuracy`` with ``accuracy_low`` and ``accuracy_high``, its 95 % Wilson interval;
    - ``true``, ``sound``, ``coverage``: share of true and of sound answers, mean coverage;
      ``right_with_false_step``: share of answers that are right and have a false step;
    - ``format_compliance``: share of well-formed responses; ``truncated``: cut at the token limit;
    - ``mean_tokens``: tokens a response, EOS included; absent, as ``truncated`` is, where the texts
      come from a file;
    - ``reward``, ``reward/<part>``: means where they did not abstain;
    - ``rouge1``, ``rouge2``, ``rougeL``: mean F1; ``bleu``: of the corpus, on sacrebleu's 0 to 100.
    """
    by_task: Mapping[str, Mapping[str, float]]
    """Per task, ``unnamed`` without: samples, graded, accuracy, its interval, format_compliance,
    and the figures of steps."""
    by_family: Mapping[str, Mapping[str, float]]
    """The same per generated family, its levels together."""
    records: tuple[EvaluationRecord, ...]
    """One per sample, in the order given."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        return asdict(self)

    def to_json(self, path: Path | str) -> None:
        """Write it as JSON, aside first and then renamed, so that no half file is ever read."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.to_dict())


class EvaluationHarness:
    """Grades a policy's answers.

    Accuracy, format compliance and what holds of the steps come from the reward's own parts if it
    is a `CompositeReward`, and else from those of ``grader``, so that training and evaluation share
    one.

    ROUGE (rouge-score, Porter stemming on) and corpus BLEU (sacrebleu, its default tokenizer)
    compare a whole response with the sample's worked solution where it has one, and else the
    answer alone with the reference. ``text_overlap=False`` leaves both out.
    """

    def __init__(
        self,
        reward: Any = None,
        *,
        grader: CompositeReward | None = None,
        text_overlap: bool = True,
    ) -> None:
        self.reward: Reward = CompositeReward() if reward is None else as_reward(reward)
        if isinstance(self.reward, CompositeReward):
            grader = self.reward
        grader = grader or CompositeReward()
        self._outcome, self._format = grader.outcome_reward, grader.format_reward
        self._steps = grader.step_reward
        self.text_overlap = text_overlap
        if text_overlap and not (find_spec("rouge_score") and find_spec("sacrebleu")):
            raise JudicaitaError(
                "ROUGE and BLEU need rouge-score and sacrebleu, which are not installed: "
                "pip install 'judicaita[eval]', or leave them out with text_overlap=False."
            )

    def score(
        self,
        samples: Sequence[Sample],
        texts: Sequence[str],
        token_counts: Sequence[int | None],
        finish_reasons: Sequence[str | None],
    ) -> EvaluationReport:
        """Grade one response per sample. The order of the samples changes no figure.

        Of texts without a known length in tokens `VerbosityReward` counts words.
        """
        if not samples:
            raise DataError("There are no samples to evaluate on; give a data set that has some.")
        rouge = None
        if self.text_overlap:
            from rouge_score.rouge_scorer import RougeScorer

            rouge = RougeScorer(ROUGE, use_stemmer=True)
        rows = zip(samples, texts, token_counts, finish_reasons, strict=True)
        records = tuple(self._record(*row, rouge) for row in rows)
        metrics = _figures(records)
        if counts := [record.tokens for record in records if record.tokens is not None]:
            metrics["mean_tokens"] = _mean(counts)
        if reasons := [record.finish_reason for record in records if record.finish_reason]:
            metrics["truncated"] = _mean(reason == "length" for reason in reasons)
        metrics |= _means("reward", ({"": r.reward} for r in records if r.reward is not None))
        metrics |= _means("reward/", (record.parts for record in records))
        metrics |= _means("", (record.rouge for record in records))
        if self.text_overlap:
            metrics |= _bleu(samples, texts)
        by_task = _by(records, lambda record: record.task or "unnamed")
        by_family = _by(records, lambda record: record.family)
        return EvaluationReport(metrics, by_task, by_family, records)

    def _record(
        self,
        sample: Sample,
        text: str,
        tokens: int | None,
        finish_reason: str | None,
        rouge: Any,
    ) -> EvaluationRecord:
        columns = columns_of(sample, tokens, finish_reason)
        row = (sample.prompt, text, sample.reference, columns)
        result = score_safely(self.reward, *row)
        graded = score_safely(self._outcome, *row).details
        steps = score_safely(self._steps, *row)
        checked = {} if steps.score is None else steps.details
        overlap: dict[str, float] = {}
        if rouge and (pair := _comparison(sample, text)):
            scores = rouge.score(target=pair[1], prediction=pair[0])
            overlap = {name: scores[name].fmeasure for name in ROUGE}
        return EvaluationRecord(
            sample_id=sample.id,
            task=sample.task,
            prompt=sample.prompt,
            reference=sample.reference,
            response=text,
            answer=graded.get("answer"),
            correct=graded.get("correct"),
            well_formed=score_safely(self._format, *row).details["well_formed"],
            tokens=tokens,
            finish_reason=finish_reason,
            reward=result.score,
            parts=reward_parts(result),
            rouge=overlap,
            family=sample.facts["family"] if checked else None,
            **{name: checked.get(name) for name in _CHECKED},
        )

    def accuracy(self, groups: Sequence[Group]) -> dict[str, float]:
        """Share of completions that the grader finds right, whatever the reward makes of them; {}
        where none can be graded."""
        verdicts = [
            verdict
            for group in groups
            for completion, text in zip(group.completions, group.texts, strict=True)
            if (verdict := self._verdict(group.sample, completion, text)) is not None
        ]
        return {"accuracy": _mean(verdicts)} if verdicts else {}

    def _verdict(self, sample: Sample, completion: Completion, text: str) -> bool | None:
        columns = columns_of(sample, len(completion.token_ids), completion.finish_reason)
        result = score_safely(self._outcome, sample.prompt, text, sample.reference, columns)
        verdict = result.details.get("correct")
        return verdict if isinstance(verdict, bool) else None

    def evaluate(
        self,
        policy: Policy,
        engine: RolloutEngine,
        samples: Sequence[Sample],
        sampling: SamplingParams,
        *,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> EvaluationReport:
        """Generate one response per sample, ``batch_size`` prompts at a time, and grade them.

        ``sampling`` is used as it is; temperature 0 is greedy, which published figures use.
        """
        completions: list[Completion] = []
        for start in range(0, len(samples), batch_size):
            prompts = [policy.encode(s.prompt) for s in samples[start : start + batch_size]]
            completions += [group[0] for group in engine.generate(prompts, 1, sampling)]
            if progress:
                progress(len(completions), len(samples))
        return self.score(
            samples,
            [policy.decode(completion.token_ids) for completion in completions],
            [len(completion.token_ids) for completion in completions],
            [completion.finish_reason for completion in completions],
        )


def evaluate_checkpoint(
    path: Path | str,
    eval_dataset: Iterable[Mapping[str, Any] | Sample] | Path | str | None = None,
    max_samples: int | None = None,
    output_file: Path | str | None = None,
    device: str = "auto",
    *,
    reward: Any = None,
    text_overlap: bool = True,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Load a checkpoint and grade its greedy answers.

    Args:
        path: A folder that holds a model or an adapter, such as a run's ``final/``.
        eval_dataset: Rows, Samples, a JSONL or Parquet file, a LegalBench folder, or generated
            families ("hearsay"), of which fact patterns are asked that no training draws; None is
            the held-out split that ``final/`` records.
        max_samples: At most so many, drawn with a fixed seed: data sets come sorted by task. Of
            generated families as many from each.
        output_file: Where the report goes as JSON.
        device: One of the configuration's.
        reward: For the reward figures; None is the composite of the run's configuration. A reward
            that the checkpoint names is not loaded: that would run code named by data.
        text_overlap: Whether to compute ROUGE and BLEU.
        batch_size: Prompts generated at once.
        progress: Called after each batch.

    The system prompt, chat template and longest answer are those of the checkpoint's run, or the
    defaults for a folder that records none.
    """
    from judicaita.training.checkpoints import open_checkpoint, require_checkpoint
    from judicaita.training.rollouts.native import NativeEngine

    folder = Path(path)
    _check_count(max_samples)
    require_checkpoint(folder)
    samples = evaluation_samples(folder, eval_dataset, max_samples)
    _refuse_output(output_file)
    opened = open_checkpoint(folder, device)
    policy = opened.policy
    grader = composite_from_config(opened.card.get("config", {}))
    harness = EvaluationHarness(reward or grader, grader=grader, text_overlap=text_overlap)
    report = harness.evaluate(
        policy,
        NativeEngine(policy),
        samples,
        opened.greedy,
        batch_size=batch_size,
        progress=progress,
    )
    if output_file is not None:
        report.to_json(output_file)
    return report


def _refuse_output(path: Path | str | None) -> None:
    if path is not None and Path(path).is_dir():
        raise ConfigError(f"{path} is a folder, and the report is one file. Name a file in it.")


def _check_count(max_samples: int | None) -> None:
    if max_samples is not None and max_samples < 1:
        raise ConfigError(
            f"max_samples={max_samples} leaves nothing to evaluate on; use 1 or more."
        )


def evaluation_samples(
    folder: Path | str,
    dataset: Iterable[Mapping[str, Any] | Sample] | Path | str | None = None,
    max_samples: int | None = None,
) -> list[Sample]:
    """What `evaluate_checkpoint` asks, in its order: the same arguments give the same samples."""
    from judicaita.training.checkpoints import HELD_OUT
    from judicaita.training.data_curation import (
        load_evaluation_data,
        read_samples,
        subsample,
        to_samples,
    )

    _check_count(max_samples)
    if isinstance(dataset, str | Path):
        samples = load_evaluation_data(str(dataset), max_samples=max_samples)
    elif dataset is not None:
        samples = to_samples(dataset)
    else:
        held_out = Path(folder) / HELD_OUT
        if not held_out.is_file():
            raise CheckpointError(
                f"{folder} records no held-out samples ({HELD_OUT}); give a data set to evaluate "
                "on."
            )
        samples = read_samples(held_out)
    return samples if max_samples is None else subsample(samples, max_samples, seed=0)


def wilson_interval(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a share (Wilson 1927, JASA 22(158), p. 209).

    With p = hits / trials and z the normal quantile:
    (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n).
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = hits / trials
    centre = p + z**2 / (2 * trials)
    spread = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _figures(records: Sequence[EvaluationRecord]) -> dict[str, float]:
    """Counts, accuracy with its interval, format compliance and truth of steps of some records."""
    marks = [record.correct for record in records if record.correct is not None]
    figures = {"samples": float(len(records)), "graded": float(len(marks))}
    if marks:
        figures["accuracy"] = sum(marks) / len(marks)
        low, high = wilson_interval(sum(marks), len(marks))
        figures |= {"accuracy_low": low, "accuracy_high": high}
    figures["format_compliance"] = _mean(record.well_formed for record in records)
    checked = [record for record in records if record.family]
    if checked:
        figures |= {
            "checked": float(len(checked)),
            "true": _mean(bool(record.is_true) for record in checked),
            "sound": _mean(bool(record.is_sound) for record in checked),
            "coverage": _mean(record.coverage or 0.0 for record in checked),
            "right_with_false_step": _mean(
                bool(record.correct and record.has_false_step) for record in checked
            ),
        }
    return figures


def _by(
    records: Sequence[EvaluationRecord], key: Callable[[EvaluationRecord], str | None]
) -> dict[str, dict[str, float]]:
    """The figures of the records of each key, in alphabetical order; None is left out."""
    groups: dict[str, list[EvaluationRecord]] = defaultdict(list)
    for record in records:
        if (name := key(record)) is not None:
            groups[name].append(record)
    return {name: _figures(groups[name]) for name in sorted(groups)}


def _mean(values: Iterable[float]) -> float:
    """The mean, summed exactly, so that the order of the values does not show."""
    listed = list(values)
    return math.fsum(listed) / len(listed)


def _means(prefix: str, rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every name, over the rows that have it."""
    columns: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            columns[prefix + name].append(value)
    return {name: _mean(values) for name, values in columns.items()}


def _comparison(sample: Sample, text: str) -> tuple[str, str] | None:
    """(response, target) for ROUGE and BLEU; None where there is nothing to compare with."""
    if sample.trace or not sample.reference:
        return (text, sample.trace) if sample.trace else None
    answer = extract_answer(text)
    return (text if answer is None else answer), sample.reference


def _bleu(samples: Sequence[Sample], texts: Sequence[str]) -> dict[str, float]:
    from sacrebleu import corpus_bleu

    rows = zip(samples, texts, strict=True)
    pairs = [pair for row in rows if (pair := _comparison(*row))]
    if not pairs:
        return {}
    responses, targets = zip(*pairs, strict=True)
    return {"bleu": corpus_bleu(list(responses), [list(targets)]).score}
