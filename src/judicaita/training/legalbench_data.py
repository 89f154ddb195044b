"""`LegalBenchDataset`: rows of LegalBench as samples, from the Hub or a local checkout.

Train rows are few (median 6 a task, 835 in all); they are what published scores leave to learn
from. Test rows are what those scores are measured on, so that a run learns from a part of them only
where it is asked to, and everything that comes of it says so.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from judicaita.errors import DataError
from judicaita.legal.legalbench import GOLD_COLUMNS, TASKS, Task, demonstrated, load_tasks, select
from judicaita.legal.legalbench.checkout import task_names
from judicaita.legal.legalbench.prompts import own_prompt
from judicaita.training.hub import HubSplit, legalbench_rows
from judicaita.training.provenance import Loaded, chosen
from judicaita.training.sources import LEGALBENCH
from judicaita.types import Sample

if TYPE_CHECKING:
    import datasets

LegalBenchSplit = Literal["train", "test", "test_partition"]
PromptStyle = Literal["auto", "base", "own"]

GUIDE_TASKS = ("rule_qa", "contract_qa", "issue_spotting")
"""What the training guide trains on; the last one is a category of 17 tasks."""

NOT_COMPARABLE = "not comparable with published scores"

_SHOWN = "in_demonstrations"


class LegalBenchDataset(Sequence[Sample]):
    """Samples of some LegalBench tasks, loaded when they are first looked at.

    Args:
        tasks: Names, shell patterns such as ``cuad_*``, or categories; () for all 162 tasks.
        folder: A local checkout of LegalBench; None is the Hub.
        split: ``train``; ``test``, to measure on; or ``test_partition``, which divides the test
            rows by ``seed`` into some to train on and, in `held_out`, the rest.
        samples_per_task: At most so many of each task, drawn with ``seed``.
        licenses: Licences to keep, or shell patterns of such, as ``CC-BY-4.0``.
        commercial: Keep only tasks whose licence allows commercial use.
        prompts: ``base`` fills in the task's own base prompt, which a checkout holds and the Hub
            does not; ``own`` is this project's question without demonstrations (`own_prompt`);
            ``auto`` is the base prompt where there is one.
        revision: Commit, tag or branch on the Hub; None is ``main``.
        eval_fraction: Share of the test rows that ``test_partition`` holds out.

    A sample's facts are its row's other columns, its task's labels, answer type, official metric
    and category, and the split. Tasks without train rows (rule_qa, scalr) are left out with a
    notice where others are left; on their own they are a `DataError`.
    """

    def __init__(
        self,
        tasks: Sequence[str] = GUIDE_TASKS,
        *,
        folder: str | Path | None = None,
        split: LegalBenchSplit = "train",
        samples_per_task: int | None = None,
        licenses: Sequence[str] = (),
        commercial: bool = False,
        prompts: PromptStyle = "auto",
        revision: str | None = None,
        seed: int = 0,
        eval_fraction: float = 0.1,
    ) -> None:
        if samples_per_task is not None and samples_per_task < 1:
            raise DataError(
                f"samples_per_task={samples_per_task} leaves nothing. Set samples_per_task >= 1."
            )
        if not 0 < eval_fraction < 1:
            raise DataError(f"eval_fraction={eval_fraction} must lie between 0 and 1, such as 0.1.")
        if folder is None and prompts == "base":
            raise DataError(
                "prompts=base: the Hub has no base prompts. Give the folder of a checkout, or set "
                "prompts=own."
            )
        if isinstance(tasks, str):
            tasks = [tasks]
        self.folder = None if folder is None else Path(folder)
        self.split, self.prompts, self.revision = split, prompts, revision
        self._filters = {
            "tasks": tuple(tasks),
            "samples_per_task": samples_per_task,
            "licenses": tuple(licenses),
            "commercial": commercial,
        }
        self._per_task = samples_per_task
        self._licenses, self._commercial = tuple(licenses), commercial
        self._seed, self._eval_fraction = seed, eval_fraction
        self._wanted, self._notices = self._choose(tuple(tasks))
        self._rows: list[Sample] | None = None
        self._held_out: list[Sample] = []
        self._alike = 0
        self._revisions: set[str] = set()

    # ── what it holds ────────────────────────────────────────────────────────────────────────────

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order in which they were asked for."""
        return self._wanted

    def load(self) -> Loaded:
        """The samples, with where they came from."""
        return Loaded(self._samples, self.origin, self.notices)

    @property
    def held_out(self) -> Loaded:
        """Test rows that ``test_partition`` keeps to measure on; none in other splits."""
        _ = self._samples
        return Loaded(self._held_out, self.origin | {"part": "held out"})

    @property
    def origin(self) -> dict[str, Any]:
        """Source, revision, split and filters, for a manifest."""
        _ = self._samples
        revisions = sorted(self._revisions)
        partition = {"part": "train", "seed": self._seed, "eval_fraction": self._eval_fraction}
        return {
            "source": str(self.folder) if self.folder else "nguha/legalbench",
            "revision": revisions[0] if len(revisions) == 1 else revisions or None,
            "split": self.split,
            "prompts": "own" if self.folder is None or self.prompts == "own" else "base",
            "filters": chosen(**self._filters),
            **(partition | {"note": NOT_COMPARABLE} if self.split == "test_partition" else {}),
        }

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know before they trust the figures; a sentence each."""
        told = list(self._notices)
        if self.split == "test_partition":
            told.append(
                f"The run learns from {len(self)} of LegalBench's test rows, and is measured on "
                f"{len(self._held_out)} others: its figures are {NOT_COMPARABLE}."
                + (
                    f" {self._alike} rows are like one of these, and left out."
                    if self._alike
                    else ""
                )
            )
        if shown := demonstrated(self._samples):
            told.append(
                f"{shown} of {len(self)} rows stand with their answer among the demonstrations of "
                "their own LegalBench prompt, and others' prompts show them too: accuracy on these "
                "rows says nothing about the test set."
            )
        return tuple(told)

    def to_dataset(self) -> datasets.Dataset:
        """The same as a `datasets.Dataset`, the facts as JSON text: tasks differ in theirs."""
        from datasets import Dataset

        return Dataset.from_list(
            [
                {
                    "prompt": sample.prompt,
                    "reference": sample.reference,
                    "task": sample.task,
                    "license": sample.license,
                    "source": sample.source,
                    "facts": json.dumps(dict(sample.facts), ensure_ascii=False),
                }
                for sample in self._samples
            ]
        )

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        return self._samples[index]

    # ── which tasks ──────────────────────────────────────────────────────────────────────────────

    def _choose(self, tasks: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
        """Names of the tasks that have rows, and what there is to tell of the others."""
        filters = {"licenses": self._licenses, "commercial": self._commercial}
        if self.folder is None:
            names = [task.name for task in select(tasks, **filters)]  # type: ignore[arg-type]
        else:
            names = task_names(self.folder, tasks)
            known = [name for name in names if name in TASKS]
            if known and (self._licenses or self._commercial):
                kept = {task.name for task in select(known, **filters)}  # type: ignore[arg-type]
                names = [name for name in names if name in kept or name not in TASKS]
        if self.split != "train":
            return tuple(names), []
        empty = [name for name in names if name in TASKS and TASKS[name].train_rows == 0]
        left = tuple(name for name in names if name not in empty)
        if not left:
            raise DataError(
                f"{' and '.join(empty)}: LegalBench publishes test rows alone, and none to train "
                "on. Set legalbench_split=test_partition to train on a part of these, or name a "
                "task that has some, such as contract_qa."
            )
        if not empty or not tasks:
            return left, []
        verb = "has" if len(empty) == 1 else "have"
        return left, [
            f"{' and '.join(empty)} {verb} no train rows, and {'is' if verb == 'has' else 'are'} "
            "left out. legalbench_split=test_partition would train on a part of the test rows."
        ]

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def _samples(self) -> list[Sample]:
        if self._rows is None:
            self._rows = self._load()
        return self._rows

    def _load(self) -> list[Sample]:
        rows: list[Sample] = []
        held_out: list[Sample] = []
        for name in self._wanted:
            samples = self._of_hub(TASKS[name]) if self.folder is None else self._of_folder(name)
            samples = [self._stamped(sample) for sample in samples]
            if self.split == "test_partition":
                held_out += [sample for sample in samples if self._is_held_out(sample)]
                samples = [sample for sample in samples if not self._is_held_out(sample)]
            rows += self._drawn(samples)
        rows = self._apart_from(held_out, rows)
        if not rows:
            raise DataError(
                f"No row of {', '.join(self._wanted)} is left. Widen the choice of licences, "
                "lower eval_fraction, or name other tasks."
            )
        if self.split == "test_partition" and not held_out:
            raise DataError(
                f"eval_fraction={self._eval_fraction:g} holds out none of {len(rows)} test rows, "
                "so that nothing would be measured. Raise it, or name more tasks."
            )
        self._held_out = held_out
        return rows

    def _apart_from(self, held_out: list[Sample], rows: list[Sample]) -> list[Sample]:
        """The rows without those that are like one held out: LegalBench has near copies."""
        if not held_out:
            return rows
        from judicaita.training.contamination import find_overlap

        alike = set(find_overlap(rows, held_out).train_ids)
        kept = [sample for sample in rows if sample.id not in alike]
        self._alike = len(rows) - len(kept)
        return kept

    def _of_hub(self, task: Task) -> list[Sample]:
        found = legalbench_rows(task.name, self._file, revision=self.revision)
        self._revisions.add(found.revision)
        gold = next((name for name in GOLD_COLUMNS if name in found.rows[0]), None)
        if gold is None:
            raise DataError(
                f"{found.source} has no gold column: expected {' or '.join(GOLD_COLUMNS)} among "
                f"its columns {', '.join(found.rows[0])}. Take another revision."
            )
        samples = []
        for number, row in enumerate(found.rows, start=1):
            if not row[gold].strip():
                raise DataError(
                    f"{found.source}, row {number}: its {gold} is empty, so an answer cannot be "
                    "graded. Take another revision."
                )
            facts = {name: cell for name, cell in row.items() if name != gold}
            samples.append(Sample(own_prompt(task, row), row[gold], task=task.name, facts=facts))
        return samples

    def _of_folder(self, name: str) -> list[Sample]:
        assert self.folder is not None
        samples = load_tasks(self.folder, [name], split=self._file)
        if name not in TASKS:
            return [sample for sample in samples if self._allows(sample.license)]
        if self.prompts != "own":
            return samples
        return [
            replace(
                sample,
                prompt=own_prompt(TASKS[name], sample.facts),
                facts={key: fact for key, fact in sample.facts.items() if key != _SHOWN},
            )
            for sample in samples
        ]

    @property
    def _file(self) -> HubSplit:
        return "train" if self.split == "train" else "test"

    def _allows(self, license: str) -> bool:
        named = not self._licenses or any(fnmatch.fnmatch(license, it) for it in self._licenses)
        return named and not (self._commercial and "-NC" in license)

    def _stamped(self, sample: Sample) -> Sample:
        """The sample with what the registry knows of its task, and the split."""
        name, task = sample.task, TASKS.get(sample.task)
        stamp: dict[str, Any] = {"split": self.split}
        if task is not None:
            stamp |= {
                "labels": list(task.labels),
                "answer_type": task.answer_type,
                "metric": task.metric,
                "category": task.category,
            }
        if self.split == "test_partition":
            stamp["caveat"] = NOT_COMPARABLE
        ending = "" if self.split == "train" else f"/{self.split}"
        return replace(
            sample,
            facts={**sample.facts, **stamp},
            license=sample.license if task is None else task.license,
            source=f"{LEGALBENCH}:{name}{ending}",
        )

    def _is_held_out(self, sample: Sample) -> bool:
        """By the texts of the row alone: rows of several tasks with one text stay on one side, and
        no choice of tasks moves a row to the other."""
        task = TASKS.get(sample.task)
        columns = task.prompt_columns if task else ()
        cells = [str(sample.facts[name]) for name in columns if name in sample.facts]
        content = [self._seed, *(" ".join(cell.split()) for cell in cells or [str(sample.prompt)])]
        digest = hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).digest()
        return int.from_bytes(digest[:8], "big") < self._eval_fraction * 2**64

    def _drawn(self, samples: list[Sample]) -> list[Sample]:
        if self._per_task is None or len(samples) <= self._per_task:
            return samples
        task = samples[0].task
        picked = random.Random(f"{self._seed}:{task}").sample(range(len(samples)), self._per_task)
        return [samples[index] for index in sorted(picked)]
