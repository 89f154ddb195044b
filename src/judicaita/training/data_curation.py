"""Where samples come from: generated families, LegalBench, files and data sets; and their splits.

Whatever the source, a row becomes a `Sample` or a `DataError` that names the row and the fix.
Columns: ``prompt`` (text, or turns of a conversation) and ``reference`` (alias ``response``) are
required; ``trace``, ``task``, ``license``, ``source``, ``authorities`` and ``facts`` are optional;
every other column joins the facts. Importing this module loads neither torch nor datasets.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from judicaita.errors import DataError
from judicaita.legal.legalbench import demonstrated, load_tasks, tasks_folder
from judicaita.legal.names import match_names
from judicaita.legal.tasks import FAMILIES, Split, generate_mixture
from judicaita.legal.tasks.selection import ALL_FAMILIES, select_families, select_levels
from judicaita.training.config import RunConfig, TrainingConfig, nearest
from judicaita.types import Message, Prompt, Sample

DEFAULT_GENERATED = 1_000
"""Samples drawn from generated families when ``max_samples`` is not given."""

_KEPT_NAMES = {"completion_tokens", "finish_reason", "sample_id"}
"""What rewards see of a completion beside the sample's own columns (`rewards.columns_of`)."""

_ROLES = ("system", "user", "assistant")
_TEXT_COLUMNS = ("trace", "task", "license", "source")
_OWN_COLUMNS = {"prompt", "reference", "response", "authorities", "facts", *_TEXT_COLUMNS}


def load_dataset_source(
    source: str | Path,
    *,
    tasks: Sequence[str] = (),
    max_samples: int | None = None,
    seed: int = 0,
    split: Split = "train",
) -> list[Sample]:
    """Samples from generated families, a LegalBench folder, or a JSONL or Parquet file.

    Args:
        source: Names in `FAMILIES` with commas between them, ``generated`` for all of them, or a
            path. Several families are mixed evenly.
        tasks: Which tasks to keep: names or shell patterns. For families these are levels
            (``3``, ``diversity_3``, ``hearsay_*``, or ``easy`` and ``hard`` for those that each
            family calls so), for LegalBench its tasks and categories, for a file the values of
            its ``task`` column. Without any, all of them.
        max_samples: How many samples at most; a larger source is subsampled with ``seed``.
            Generated families draw exactly so many, `DEFAULT_GENERATED` without it.
        seed: Of the generated instances and of subsampling.
        split: Of generated families. Other sources hold what they hold: divide them with
            `split_samples`.
    """
    if max_samples is not None and max_samples < 1:
        raise DataError(f"max_samples={max_samples} leaves nothing. Set max_samples >= 1.")
    if families := select_families(source):
        count = max_samples or DEFAULT_GENERATED
        return generate_mixture(select_levels(families, tasks), count, split=split, seed=seed)
    if split != "train":
        raise DataError(
            f"split={split!r} is for generated families; {source} has no splits of its own. "
            "Load it whole and divide it with split_samples."
        )
    samples = _load_path(Path(source), tasks)
    return samples if max_samples is None else subsample(samples, max_samples, seed)


def subsample(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """``count`` of the samples at most, drawn with ``seed``, in the order they came in."""
    if count >= len(samples):
        return list(samples)
    chosen = random.Random(seed).sample(range(len(samples)), count)
    return [samples[index] for index in sorted(chosen)]


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from and is measured on."""

    train: list[Sample]
    held_out: list[Sample] | None
    """None leaves it to the trainer to hold out a part of ``train``."""
    notices: tuple[str, ...] = ()
    """What a person should know before they trust the figures; a sentence each."""


def load_training_data(config: RunConfig) -> TrainingData:
    """The samples that a configuration names.

    Generated families give held-out fact patterns of their own, so only other sources are divided.
    """
    train = load_dataset_source(
        config.dataset, tasks=config.tasks, max_samples=config.max_samples, seed=config.seed
    )
    held_out = None
    if isinstance(config, TrainingConfig):
        if config.eval_dataset is not None:
            tasks = [] if Path(config.eval_dataset).is_file() else config.tasks
            held_out = load_evaluation_data(config.eval_dataset, tasks, seed=config.seed)
        elif select_families(config.dataset):
            held_out = load_evaluation_data(
                config.dataset, config.tasks, config.eval_samples, seed=config.seed
            )
    return TrainingData(train, held_out, _notices(train))


def load_evaluation_data(
    source: str, tasks: Sequence[str] = (), max_samples: int | None = None, *, seed: int = 0
) -> list[Sample]:
    """Samples to measure on: of generated families, fact patterns that none ever trains on."""
    split: Split = "eval" if select_families(source) else "train"
    return load_dataset_source(source, tasks=tasks, max_samples=max_samples, seed=seed, split=split)


def _notices(samples: Sequence[Sample]) -> tuple[str, ...]:
    shown = demonstrated(samples)
    if not shown:
        return ()
    return (
        f"{shown} of {len(samples)} rows stand with their answer among the demonstrations of their "
        "own LegalBench prompt, and others' prompts show them too: accuracy on these rows says "
        "nothing about the test set.",
    )


def _load_path(path: Path, tasks: Sequence[str]) -> list[Sample]:
    if path.is_dir():
        if tasks_folder(path) is None:
            raise DataError(
                f"{path} is a folder, but no LegalBench checkout (no tasks/*/base_prompt.txt). "
                "Give such a checkout, or a .jsonl or .parquet file."
            )
        return load_tasks(path, tasks)
    if not path.exists():
        raise DataError(
            f"{path} is neither a generated family nor an existing path."
            f"{nearest(str(path), [*FAMILIES, ALL_FAMILIES])} Give a .jsonl or .parquet file, a "
            f"LegalBench checkout, {ALL_FAMILIES}, or some of {', '.join(FAMILIES)}."
        )
    samples = read_samples(path)
    if not tasks:
        return samples
    known = sorted({sample.task for sample in samples if sample.task})
    wanted = set(match_names(tasks, known, f"task in {path}"))
    return [sample for sample in samples if sample.task in wanted]


def to_samples(dataset: Iterable[Mapping[str, Any] | Sample]) -> list[Sample]:
    """Samples from rows: a `datasets.Dataset`, a list of dicts, or Samples already."""
    if isinstance(dataset, Mapping):
        raise DataError(
            f"The data set is a mapping with the keys {', '.join(map(str, dataset))}: pick one "
            "split, such as dataset['train']."
        )
    return _collect(((f"row {n}", row) for n, row in enumerate(dataset, start=1)), "The data set")


def read_samples(path: str | Path) -> list[Sample]:
    """The samples of a .jsonl or .parquet file; exactly what `write_samples` wrote."""
    path = Path(path)
    readers = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise DataError(f"{path} has none of the known endings: {', '.join(readers)}.")
    if not path.is_file():
        raise DataError(f"{path} does not exist, or is no file. Check the path.")
    return _collect(readers[path.suffix](path), str(path))


def write_samples(path: str | Path, samples: Iterable[Sample]) -> None:
    """Write samples as JSONL, one a line, UTF-8; `read_samples` gives equal samples back."""
    Path(path).write_text(to_jsonl(samples), encoding="utf-8", newline="\n")


def to_jsonl(samples: Iterable[Sample]) -> str:
    """The text of `write_samples`; `DataError` for a sample that JSON cannot hold."""
    lines = []
    for sample in samples:
        try:
            lines.append(json.dumps(asdict(sample), ensure_ascii=False) + "\n")
        except TypeError as error:
            raise DataError(f"Sample {sample.id} cannot be written as JSON: {error}.") from error
    return "".join(lines)


def split_samples(
    samples: Sequence[Sample], eval_fraction: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Divide samples into (train, eval); each keeps the order it came in.

    Samples with the same prompt stay together, so that no question, and no id, is in both. What
    is held out depends on the prompts and the seed, not on the order of the samples:
    ``eval_fraction`` of the distinct prompts, rounded, but at least one and never all.
    """
    if not 0 < eval_fraction < 1:
        raise DataError(f"eval_fraction={eval_fraction} must lie between 0 and 1, such as 0.1.")
    ranks = {_rank(sample.prompt, seed) for sample in samples}
    if len(ranks) < 2:
        raise DataError(
            f"{len(ranks)} distinct prompts cannot be divided into train and eval: at least 2 are "
            "needed. Add samples, or give an evaluation data set of its own."
        )
    n_eval = min(max(1, round(eval_fraction * len(ranks))), len(ranks) - 1)
    held_out = set(sorted(ranks)[:n_eval])
    train = [sample for sample in samples if _rank(sample.prompt, seed) not in held_out]
    evaluation = [sample for sample in samples if _rank(sample.prompt, seed) in held_out]
    return train, evaluation


def _rank(prompt: Prompt, seed: int) -> str:
    """A pseudo-random place in the order of prompts, the same on every machine."""
    content = json.dumps([seed, prompt], ensure_ascii=False, sort_keys=True, default=dict)
    return hashlib.sha256(content.encode()).hexdigest()


def _read_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    """Lines end at \\n alone: JSON text may hold other characters that str.splitlines splits at."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    where = f"{path}, line {number}"
                    try:
                        yield where, json.loads(line)
                    except json.JSONDecodeError as error:
                        raise DataError(
                            f"{where}: not valid JSON ({error.msg}, column {error.colno}). Each "
                            "line must be one JSON object."
                        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error


def _read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row


def _collect(rows: Iterable[tuple[str, Any]], origin: str) -> list[Sample]:
    samples = [_to_sample(row, where) for where, row in rows]
    if not samples:
        raise DataError(f"{origin} is empty: training needs at least one row.")
    return samples


def _to_sample(row: Any, where: str) -> Sample:
    if isinstance(row, Sample):
        _check_prompt(row.prompt, where)
        _check_text(row.reference, "reference", where)
        return row
    if not isinstance(row, Mapping):
        raise DataError(
            f"{where}: is {_kind(row)}, not a mapping of columns. Give rows like "
            '{"prompt": "…", "reference": "…"}.'
        )
    columns = {name: value for name, value in row.items() if value is not None}
    if "prompt" not in columns:
        raise DataError(f"{where}: has no prompt. Add the question in a column named 'prompt'.")
    return Sample(
        prompt=_check_prompt(columns["prompt"], where),
        reference=_read_reference(columns, where),
        facts=_read_facts(columns, where),
        authorities=_read_authorities(columns.get("authorities", ()), where),
        **{
            name: _check_text(columns[name], name, where, allow_empty=True)
            for name in _TEXT_COLUMNS
            if name in columns
        },
    )


def _check_prompt(prompt: Any, where: str) -> Prompt:
    if isinstance(prompt, str):
        return _check_text(prompt, "prompt", where)
    if not isinstance(prompt, Sequence) or not prompt:
        raise DataError(
            f"{where}: prompt is {_kind(prompt)}. Give text, or a list of turns like "
            '{"role": "user", "content": "…"}.'
        )
    turns = tuple(_check_turn(turn, f"{where}, turn {n}") for n, turn in enumerate(prompt, start=1))
    if turns[-1]["role"] != "user":
        raise DataError(
            f"{where}: the last turn of the prompt is the {turns[-1]['role']}'s, but the model is "
            "to answer the user. End the prompt with a user turn."
        )
    return turns


def _check_turn(turn: Any, where: str) -> Message:
    filled = {k: v for k, v in turn.items() if v is not None} if isinstance(turn, Mapping) else {}
    if set(filled) != {"role", "content"} or filled["role"] not in _ROLES:
        raise DataError(
            f"{where}: expected a mapping of role ({', '.join(_ROLES)}) and content, and nothing "
            f"else; got {filled or _kind(turn)}."
        )
    return {"role": filled["role"], "content": _check_text(filled["content"], "content", where)}


def _read_reference(columns: Mapping[str, Any], where: str) -> str:
    given = [columns[name] for name in ("reference", "response") if name in columns]
    if not given:
        raise DataError(
            f"{where}: has no reference. Add the gold answer in a column named 'reference' "
            "(or 'response')."
        )
    if given[0] != given[-1]:
        raise DataError(
            f"{where}: reference {given[0]!r} and response {given[-1]!r} differ, though one is an "
            "alias of the other. Keep one of them."
        )
    return _check_text(given[0], "reference", where)


def _read_facts(columns: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The facts column and all further columns, brought to what JSON gives back."""
    facts = columns.get("facts", {})
    if isinstance(facts, str):
        try:
            facts = json.loads(facts)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}: facts is no valid JSON ({error.msg}, column {error.colno}). Give an "
                "object as JSON text, or a mapping."
            ) from error
    if not isinstance(facts, Mapping):
        raise DataError(f"{where}: facts is {_kind(facts)}. Give a mapping, or one as JSON text.")
    further = {name: value for name, value in columns.items() if name not in _OWN_COLUMNS}
    if twice := sorted(further.keys() & facts.keys()):
        raise DataError(f"{where}: {twice[0]} is both a column and one of the facts. Keep one.")
    try:
        merged: dict[str, Any] = json.loads(json.dumps({**facts, **further}, default=_as_text))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: a column cannot be written as JSON: {error}.") from error
    if taken := sorted(_KEPT_NAMES & merged.keys()):
        raise DataError(
            f"{where}: rewards are told of each completion under the name {taken[0]}, so no column "
            "can have it. Rename the column."
        )
    labels = merged.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(
            f"{where}: labels is {labels!r}, not a list of texts. Give the answers that the task "
            'offers, like ["Yes", "No"].'
        )
    return merged


def _as_text(value: Any) -> str:
    """Dates as ISO 8601, which Parquet columns often hold; nothing else is guessed."""
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{_kind(value)} {value!r}"[:100])


def _read_authorities(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise DataError(f"{where}: authorities is {_kind(value)}. Give a list of texts.")
    return tuple(_check_text(item, "authorities", where, allow_empty=True) for item in value)


def _check_text(value: Any, name: str, where: str, *, allow_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} is {_kind(value)}, not text. Convert it to a string.")
    if not allow_empty and not value.strip():
        raise DataError(f"{where}: {name} is empty. Fill it in, or remove the row.")
    return value


def _kind(value: Any) -> str:
    empty = isinstance(value, list | tuple | dict) and not value
    return f"an empty {type(value).__name__}" if empty else type(value).__name__
