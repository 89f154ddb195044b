"""Files and rows from the Hub, and what its clients raise as one sentence.

LegalBench's repository has gone through several layouts, and a loading script that data sets no
longer run. So its rows are looked for in three places, in this order: the file of the task itself,
the configuration of the task as `datasets` finds it, and the Parquet files that the Hub converts
every data set to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from judicaita.errors import DataError

LEGALBENCH = "nguha/legalbench"
CONVERTED = "refs/convert/parquet"
"""The Hub's own conversion; older than what the authors correct afterwards."""

Rows = list[dict[str, str]]
HubSplit = Literal["train", "test"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubRows:
    """Rows of a task, column → cell as text."""

    rows: Rows
    source: str
    """Repository, revision and file or configuration."""
    revision: str
    """The commit, as far as the client tells it."""


def legalbench_rows(task: str, split: HubSplit, *, revision: str | None = None) -> HubRows:
    """The rows of a task's split, as the data set's repository has them.

    Args:
        task: A name of the registry.
        split: ``train`` has a handful of rows, ``test`` the others.
        revision: A branch, tag or commit of the repository; None is ``main``.

    Raises:
        DataError: Without network, for a repository or task that is not there, for one that asks
            for access, and for rows that cannot be read; one sentence each.
    """
    ways: list[Callable[[], HubRows]] = [
        lambda: _own_file(task, split, revision),
        lambda: _configuration(task, split, revision),
        lambda: _converted(task, split),
    ]
    refusals = []
    for way in ways:
        try:
            found = way()
        except _NotThere as error:
            refusals.append(str(error))
            continue
        if not found.rows:
            raise DataError(f"{found.source} holds no rows. Name a task or split that has some.")
        if refusals:
            _logger.info("%s: taken from %s (%s)", task, found.source, "; ".join(refusals))
        return found
    raise DataError(
        f"LegalBench's {split} rows of {task} are nowhere on the Hub ({'; '.join(refusals)}). Give "
        "a local checkout by its folder, or another revision."
    )


@dataclass(frozen=True)
class HubTable:
    """Rows of any data set on the Hub."""

    rows: Iterable[dict[str, Any]]
    """Column → value; classes by their names."""
    split: str
    revision: str
    """The commit, as far as the client tells it."""


def hub_table(
    name: str, configuration: str | None, splits: Sequence[str], *, revision: str | None = None
) -> HubTable:
    """The rows of a data set, by the first of some splits that it has, or else by its only one.

    `DataError`, one sentence each, where it is not there, asks for access, names several
    configurations or other splits, or cannot be read.
    """
    from datasets import ClassLabel, load_dataset
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    with _in_a_sentence(f"{name} on the Hub"):
        try:
            found = load_dataset(name, configuration, revision=revision)
        except DatasetNotFoundError:  # which is a FileNotFoundError, too
            raise
        except (ValueError, RuntimeError, FileNotFoundError, DatasetGenerationError) as error:
            raise DataError(f"{name} on the Hub cannot be loaded: {_reason(error)}") from error
    split = next((split for split in splits if split in found), None)
    if split is None and len(found) == 1:
        split = str(next(iter(found)))
    if split is None:
        raise DataError(
            f"{name} on the Hub has none of the splits {', '.join(splits)}, but "
            f"{', '.join(map(str, found))}. Write the one that is meant to a .parquet file."
        )
    table = found[split]
    classes = {key: of for key, of in table.features.items() if isinstance(of, ClassLabel)}

    def named(row: dict[str, Any]) -> dict[str, Any]:
        own = {key: of.int2str(row[key]) for key, of in classes.items() if row[key] is not None}
        return {**row, **own}

    return HubTable(map(named, table), split, _commit_on_hub(name, revision))


def _commit_on_hub(name: str, revision: str | None) -> str:
    """The commit that a revision is now; its name where the Hub can't be asked."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return HfApi().dataset_info(name, revision=revision).sha or revision or "main"
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):
        return revision or "main"


def _reason(error: Exception) -> str:
    """What the client says, or what it was about; on one line, as a sentence."""
    text = " ".join(str(error.__cause__ or error).split())[:400]
    return text if text.endswith(".") else f"{text}."


class _NotThere(Exception):
    """A place that does not have the rows; there may be another."""


def _own_file(task: str, split: HubSplit, revision: str | None) -> HubRows:
    from judicaita.legal.legalbench.checkout import read_rows

    path = _download(f"data/{task}/{split}.tsv", revision)
    return HubRows(read_rows(path), f"{LEGALBENCH}:data/{task}/{split}.tsv", _commit_of(path))


def _configuration(task: str, split: HubSplit, revision: str | None) -> HubRows:
    from datasets import load_dataset

    with _in_a_sentence(f"{LEGALBENCH}, configuration {task}"):
        try:
            rows = load_dataset(LEGALBENCH, task, split=split, revision=revision).to_list()
        except (ValueError, RuntimeError, FileNotFoundError) as error:
            # No such configuration or split, or a loading script, which is not run.
            raise _NotThere(f"configuration {task}: {_first_line(error)}") from error
    return HubRows(_as_text(rows), f"{LEGALBENCH}:{task}/{split}", revision or "main")


def _converted(task: str, split: HubSplit) -> HubRows:
    import pyarrow.parquet

    path = _download(f"{task}/{split}/0000.parquet", CONVERTED)
    rows = _as_text(pyarrow.parquet.read_table(path).to_pylist())
    return HubRows(rows, f"{LEGALBENCH}@{CONVERTED}:{task}/{split}/0000.parquet", _commit_of(path))


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RevisionNotFoundError,
    )

    with _in_a_sentence(f"{LEGALBENCH}, file {name}"):
        try:
            return Path(hf_hub_download(LEGALBENCH, name, repo_type="dataset", revision=revision))
        except LocalEntryNotFoundError:  # the network's fault, not the repository's
            raise
        except EntryNotFoundError as error:
            raise _NotThere(f"{name} is not in the repository") from error
        except RevisionNotFoundError as error:
            if revision != CONVERTED:
                raise
            raise _NotThere("the Hub has converted nothing of it") from error


def _commit_of(path: Path) -> str:
    """The snapshot's folder is named after the commit."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else "main"


def _as_text(rows: list[dict[str, Any]]) -> Rows:
    return [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
    ]


@contextmanager
def _in_a_sentence(what: str) -> Iterator[None]:
    """What the clients raise, as a `DataError`."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise DataError(
            f"{what}: access has to be granted first. Ask for it on the repository's page, and set "
            "HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"{what}: there is no such revision. Leave it out for main.") from error
    except (RepositoryNotFoundError, DatasetNotFoundError) as error:
        if isinstance(error, DatasetNotFoundError) and "is a gated" in str(error):
            raise DataError(
                f"{what}: access has to be granted first. Ask for it on the repository's page, and "
                "set HF_TOKEN."
            ) from error
        raise DataError(
            f"{what}: there is no such repository, or it is private. Check the name, and HF_TOKEN."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError) as error:
        raise DataError(
            f"{what}: the Hub can't be reached, and nothing of it is in the cache. Connect, or "
            "give a local checkout by its folder."
        ) from error
    except HfHubHTTPError as error:
        raise DataError(
            f"{what}: the Hub refused ({_first_line(error)}). Try again later, or give a local "
            "checkout by its folder."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
