"""Where samples come from: generated families, LegalBench, files and data sets; and their splits.

Whatever the source, a row becomes a `Sample` or a `DataError` that names the row and the fix.
Columns: ``prompt`` (text, or turns of a conversation) and ``reference`` (alias ``response``) are
required; ``trace``, ``task``, ``license``, ``source``, ``authorities`` and ``facts`` are optional;
every other column joins the facts. Columns of other names are mapped (`columns.py`). Importing this
module loads neither torch nor datasets.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from judicaita.errors import DataError
from judicaita.legal.legalbench import tasks_folder
from judicaita.legal.names import match_names
from judicaita.legal.tasks import FAMILIES, Split, generate_mixture
from judicaita.legal.tasks.selection import ALL_FAMILIES, select_families, select_levels
from judicaita.training.columns import (
    SAMPLE_COLUMNS,
    TEXT_COLUMNS,
    parse_columns,
    read_csv,
    renamed,
)
from judicaita.training.config import RunConfig, TrainingConfig, nearest
from judicaita.training.hub import hub_table
from judicaita.training.legalbench_data import (
    GUIDE_TASKS,
    LegalBenchDataset,
    LegalBenchSplit,
    PromptStyle,
)
from judicaita.training.pile_of_law import PileOfLawDataset
from judicaita.training.provenance import Loaded, chosen, notices_of, origin_of
from judicaita.training.sources import FILE_ENDINGS, LEGALBENCH, hub_name, kind_of
from judicaita.types import Message, Prompt, Sample

__all__ = [
    "DEFAULT_GENERATED",
    "LegalBenchDataset",
    "PileOfLawDataset",
    "TrainingData",
    "create_training_dataset",
    "load_dataset_source",
    "load_evaluation_data",
    "load_training_data",
    "read_samples",
    "split_samples",
    "subsample",
    "to_jsonl",
    "to_samples",
    "write_samples",
]

DEFAULT_GENERATED = 1_000
"""Samples drawn from generated families when ``max_samples`` is not given."""

_KEPT_NAMES = {"completion_tokens", "finish_reason", "sample_id"}
"""What rewards see of a completion beside the sample's own columns (`rewards.columns_of`)."""

_ROLES = ("system", "user", "assistant")
_logger = logging.getLogger(__name__)


def load_dataset_source(
    source: str | Path,
    *,
    tasks: Sequence[str] = (),
    max_samples: int | None = None,
    seed: int = 0,
    split: Split = "train",
    columns: Mapping[str, str] | None = None,
    legalbench_split: LegalBenchSplit = "train",
    samples_per_task: int | None = None,
    licenses: Sequence[str] = (),
    commercial: bool = False,
    prompts: PromptStyle = "auto",
    revision: str | None = None,
) -> list[Sample]:
    """Samples from generated families, LegalBench, a file, or a data set on the Hub.

    Args:
        source: Names in `FAMILIES` with commas between them, ``generated`` for all of them;
            ``legalbench`` for LegalBench on the Hub; the folder of a LegalBench checkout; a .jsonl,
            .parquet or .csv file; or ``owner/name`` of a data set on the Hub, with
            ``:configuration`` where it has several. Several families are mixed evenly.
        tasks: Which tasks to keep: names or shell patterns. For families these are levels
            (``3``, ``diversity_3``, ``hearsay_*``, or ``easy`` and ``hard`` for those that each
            family calls so), for LegalBench its tasks and categories, for others the values of
            their ``task`` column. Without any, all of them; of ``legalbench`` the training guide's.
        max_samples: How many samples at most; a larger source is subsampled with ``seed``.
            Generated families draw exactly so many, `DEFAULT_GENERATED` without it.
        seed: Of the generated instances, of subsampling and of ``test_partition``.
        split: Of generated families, and of data sets on the Hub (``eval`` is their test or
            validation split). Other sources hold what they hold: divide them with `split_samples`.
        columns: What columns of a file or data set on the Hub are called there, as in
            ``{"prompt": "question", "reference": "answer"}``.
        legalbench_split, samples_per_task, licenses, commercial, prompts: See `LegalBenchDataset`.
        revision: Of what comes from the Hub: a commit, tag or branch; None is ``main``.
    """
    if max_samples is not None and max_samples < 1:
        raise DataError(f"max_samples={max_samples} leaves nothing. Set max_samples >= 1.")
    kind = kind_of(source)
    filters = chosen(tasks=tuple(tasks), max_samples=max_samples, columns=dict(columns or {}))
    origin = {"source": str(source), "split": split, "filters": filters}
    if kind == "families":
        families = select_families(source)
        count = max_samples or DEFAULT_GENERATED
        levels = select_levels(families, tasks)
        return Loaded(generate_mixture(levels, count, split=split, seed=seed), origin)
    if split != "train" and kind != "hub":
        raise DataError(
            f"split={split!r} is for generated families; {source} has no splits of its own. "
            "Load it whole and divide it with split_samples."
        )
    if kind in ("legalbench", "checkout"):
        samples = _legalbench(
            source,
            tasks,
            split=legalbench_split,
            samples_per_task=samples_per_task,
            licenses=licenses,
            commercial=commercial,
            prompts=prompts,
            revision=revision,
            seed=seed,
        ).load()
    elif kind == "hub":
        samples = _load_hub(str(source), columns or {}, split, revision)
        samples = _of_tasks(samples, tasks, source)
    elif not Path(source).exists():
        raise _nowhere(source)
    else:
        samples = _of_tasks(read_samples(source, columns), tasks, source)
    if max_samples is not None:
        samples = Loaded(subsample(samples, max_samples, seed), samples.origin, samples.notices)
    samples.origin = {**origin, **samples.origin}
    samples.origin["filters"] = {**filters, **samples.origin["filters"]}
    return samples


def create_training_dataset(
    *,
    generate_cot: bool = False,
    samples_per_subset: int = 5_000,
    folder: str | Path | None = None,
    legalbench_split: LegalBenchSplit = "train",
    licenses: Sequence[str] = (),
    commercial: bool = False,
    revision: str | None = None,
    seed: int = 0,
) -> tuple[LegalBenchDataset, PileOfLawDataset]:
    """The training guide's data: its LegalBench tasks as samples, and Pile of Law.

    Args:
        generate_cot: Not built yet: True is a `DataError`.
        samples_per_subset: At most so many of each LegalBench task, and of each subset of Pile of
            Law.
        folder: A local checkout of LegalBench; None is the Hub.
        legalbench_split, licenses, commercial, revision, seed: See `LegalBenchDataset`.
    """
    if generate_cot:
        raise DataError(
            "generate_cot=True: this release writes no chains of thought. Leave it out, or give "
            "worked solutions of your own in a column `trace`."
        )
    samples = LegalBenchDataset(
        GUIDE_TASKS,
        folder=folder,
        split=legalbench_split,
        samples_per_task=samples_per_subset,
        licenses=licenses,
        commercial=commercial,
        revision=revision,
        seed=seed,
    )
    for notice in samples.notices:  # looking at it loads the rows: what is wrong is told here
        _logger.warning(notice)
    return samples, PileOfLawDataset(samples_per_subset=samples_per_subset)


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

    Generated families give held-out fact patterns of their own, and LegalBench's ``test_partition``
    the rest of the test rows, so only other sources are divided.
    """
    train, held_out = _train_and_rest(config)
    if isinstance(config, TrainingConfig):
        if config.eval_dataset is not None:
            kind = kind_of(config.eval_dataset)
            held_out = load_evaluation_data(
                config.eval_dataset,
                [] if kind in ("file", "hub") else config.tasks,
                seed=config.seed,
                **_choices_of_evaluation(config, config.eval_dataset),
            )
        elif select_families(config.dataset):
            held_out = load_evaluation_data(
                config.dataset, config.tasks, config.eval_samples, seed=config.seed
            )
    return TrainingData(train, held_out, notices_of(train))


def _train_and_rest(config: RunConfig) -> tuple[list[Sample], list[Sample] | None]:
    """What is learned from and, of ``test_partition``, what is left of the test rows."""
    if config.legalbench_split != "test_partition":
        options = {"legalbench_split": config.legalbench_split, **_choices(config)}
        train = load_dataset_source(
            config.dataset,
            tasks=config.tasks,
            max_samples=config.max_samples,
            seed=config.seed,
            **options,
        )
        return train, None
    options = {name: value for name, value in _choices(config).items() if name != "columns"}
    if isinstance(config, TrainingConfig):
        options["eval_fraction"] = config.eval_fraction
    dataset = _legalbench(
        config.dataset,
        config.tasks,
        split="test_partition",
        seed=config.seed,
        **options,
    )
    train = dataset.load()
    if config.max_samples is not None:
        few = subsample(train, config.max_samples, config.seed)
        train = Loaded(few, train.origin, train.notices)
    return train, dataset.held_out


def _choices(config: RunConfig) -> dict[str, Any]:
    """The settings that pick from a source, beside its tasks."""
    return {
        "columns": parse_columns(config.columns),
        "samples_per_task": config.samples_per_task,
        "licenses": config.licenses,
        "commercial": config.commercial_only,
        "prompts": config.legalbench_prompts,
        "revision": config.dataset_revision,
    }


def _choices_of_evaluation(config: RunConfig, source: str) -> dict[str, Any]:
    """The same for what is measured on, as far as it is of one kind with what is trained on; a
    revision is one repository's."""
    if kind_of(source) != kind_of(config.dataset):
        return {}
    revision = config.dataset_revision if source == config.dataset else None
    return {**_choices(config), "revision": revision, "samples_per_task": None}


def load_evaluation_data(
    source: str,
    tasks: Sequence[str] = (),
    max_samples: int | None = None,
    *,
    seed: int = 0,
    **choices: Any,
) -> list[Sample]:
    """Samples to measure on: of generated families, fact patterns that none ever trains on; of
    ``legalbench`` and data sets on the Hub, their test rows.

    ``choices`` are those of `load_dataset_source`.
    """
    kind = kind_of(source)
    split: Split = "eval" if kind in ("families", "hub") else "train"
    if kind == "legalbench":
        choices = {"legalbench_split": "test", **choices}
    return load_dataset_source(
        source, tasks=tasks, max_samples=max_samples, seed=seed, split=split, **choices
    )


def _legalbench(source: str | Path, tasks: Sequence[str], **options: Any) -> LegalBenchDataset:
    """LegalBench on the Hub, with the guide's tasks by default, or all tasks of a checkout."""
    if source == LEGALBENCH:
        return LegalBenchDataset(tuple(tasks) or GUIDE_TASKS, **options)
    path = Path(source)
    if path.is_dir() and tasks_folder(path) is None:
        raise DataError(
            f"{path} is a folder, but no LegalBench checkout (no tasks/*/base_prompt.txt). "
            "Give such a checkout, or a .jsonl or .parquet file."
        )
    if not path.exists():
        raise _nowhere(source)
    return LegalBenchDataset(tuple(tasks), folder=path, **options)


def _nowhere(source: str | Path) -> DataError:
    known = [*FAMILIES, ALL_FAMILIES, LEGALBENCH]
    return DataError(
        f"{source} is neither a generated family nor an existing path."
        f"{nearest(str(source), known)} Give {LEGALBENCH}, a LegalBench checkout, a file "
        f"({', '.join(FILE_ENDINGS)}), owner/name of a data set on the Hub, {ALL_FAMILIES}, or "
        f"some of {', '.join(FAMILIES)}."
    )


def _load_hub(
    source: str, columns: Mapping[str, str], split: Split, revision: str | None
) -> Loaded:
    """A data set on the Hub, by its train split or by one that is made to measure on."""
    name, configuration = hub_name(source)
    splits = ("train",) if split == "train" else ("test", "validation", "valid", "dev", "eval")
    table = hub_table(name, configuration, splits, revision=revision)
    place = f"{source} on the Hub, {table.split}"
    rows = ((f"{place}, row {n}", row) for n, row in enumerate(table.rows, start=1))
    origin = {"source": source, "revision": table.revision, "split": table.split, "filters": {}}
    return Loaded(_collect(renamed(rows, columns), place), origin)


def _of_tasks(samples: list[Sample], tasks: Sequence[str], source: str | Path) -> Loaded:
    """The samples whose ``task`` is one of some; all of them without any."""
    origin = {"filters": {}, **origin_of(samples)}
    if tasks:
        known = sorted({sample.task for sample in samples if sample.task})
        wanted = set(match_names(tasks, known, f"task in {source}"))
        samples = [sample for sample in samples if sample.task in wanted]
    return Loaded(samples, origin)


def to_samples(dataset: Iterable[Mapping[str, Any] | Sample]) -> list[Sample]:
    """Samples from rows: a `datasets.Dataset`, a list of dicts, or Samples already."""
    if isinstance(dataset, Mapping):
        raise DataError(
            f"The data set is a mapping with the keys {', '.join(map(str, dataset))}: pick one "
            "split, such as dataset['train']."
        )
    rows = ((f"row {n}", row) for n, row in enumerate(dataset, start=1))
    return Loaded(_collect(rows, "The data set"), origin_of(dataset), notices_of(dataset))


def read_samples(path: str | Path, columns: Mapping[str, str] | None = None) -> list[Sample]:
    """The samples of a .jsonl, .parquet or .csv file; exactly what `write_samples` wrote.

    ``columns`` says what columns are called there: ``{"prompt": "question"}``.
    """
    path = Path(path)
    readers = {".jsonl": _read_jsonl, ".parquet": _read_parquet, ".csv": read_csv}
    if path.suffix not in readers:
        raise DataError(f"{path} has none of the known endings: {', '.join(readers)}.")
    if not path.is_file():
        raise DataError(f"{path} does not exist, or is no file. Check the path.")
    return _collect(renamed(readers[path.suffix](path), columns or {}), str(path))


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
            for name in TEXT_COLUMNS
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
    further = {name: value for name, value in columns.items() if name not in SAMPLE_COLUMNS}
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
