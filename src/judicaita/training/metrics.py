"""The record of a run: events, rollouts, and the figures of a step.

    events.jsonl              one JSON object a line, written as things happen      (EventLog)
    rollouts/step-N.parquet   one row per completion, one file a step               (write_rollouts)

A file of rollouts is there whole or not at all; of events only the last line may be torn.
Torch-free; pyarrow is imported by what needs it.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from judicaita.errors import CheckpointError, DataError
from judicaita.training.durable import write_file
from judicaita.training.rewards import reward_parts
from judicaita.types import Group, Prompt, RewardResult

ENTERED = "entered"
"""The reason that says a completion took part in the loss; any other says why it did not."""

_EVENT_KEYS = {"event", "step", "time"}


# ── events ───────────────────────────────────────────────────────────────────────────────────────


class EventLog:
    """Appends events to a JSON-lines file; each line has left the process when `write` returns.

    A line is ``{"event": "step", "step": 12, "time": 1767225600.5, …fields}``, the time in seconds
    since 1970. JSON has no word for non-finite numbers, so these stand as the strings "nan", "inf"
    and "-inf": ``float(value)`` reads either form back.
    """

    def __init__(self, path: Path) -> None:
        """Open `path` for appending; a last line that a killed run left unfinished is cut off."""
        self.path = path
        if path.exists():
            os.truncate(path, len(_complete_lines(path.read_bytes())))
        # Without a buffer: what could not be written shall not be tried again when it is closed.
        self._file = path.open("ab", buffering=0)

    def write(self, event: str, step: int, fields: Mapping[str, Any] | None = None) -> None:
        """Append one event. Arrays stand as lists, and what JSON does not know as its ``str``."""
        fields = fields or {}
        assert not _EVENT_KEYS & fields.keys(), f"reserved in events: {_EVENT_KEYS & fields.keys()}"
        record = {"event": event, "step": step, "time": time.time(), **fields}
        line = _strict_json(record).encode() + b"\n"
        if self._file.write(line) != len(line):  # the rest of the line had no room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        """Close the file; the log takes no further events."""
        self._file.close()


def sync_events(path: Path) -> int:
    """Make the events that were written last, and return their length in bytes."""
    with path.open("ab") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def require_events(path: Path, length: int) -> None:
    """`CheckpointError` unless a line ends after ``length`` bytes, as a checkpoint remembers."""
    last = b"\n"
    if length:
        last = b""
        if path.exists():
            with path.open("rb") as file:
                file.seek(length - 1)
                last = file.read(1)
    if last != b"\n":
        raise CheckpointError(
            f"{path} is not as the checkpoint knows it: {length} bytes of whole lines are "
            "missing. Restore the file, or resume from an earlier checkpoint."
        )


def cut_events(path: Path, length: int) -> None:
    """Remove what was written after the first ``length`` bytes; see `require_events`."""
    require_events(path, length)
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(length)
            os.fsync(file.fileno())


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a file in the order written; an unfinished last line is left out."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such events file. Give the events.jsonl of a run.") from None
    return _parse_events(path, _complete_lines(content).splitlines())


def _complete_lines(content: bytes) -> bytes:
    """`content` up to its last line end: without the line that a killed run left unfinished."""
    return content[: content.rfind(b"\n") + 1]


def _parse_events(path: Path, lines: Sequence[bytes]) -> list[dict[str, Any]]:
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(json.loads(line))
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: not a JSON object ({error}); the file was damaged from "
                "outside. Restore it, or remove the line."
            ) from None
    return events


def _strict_json(value: Any) -> str:
    return json.dumps(_jsonable(value), allow_nan=False, default=str)


def _jsonable(value: Any) -> Any:
    """`value` in plain containers; arrays and tensors as lists, non-finite numbers as strings."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return [_jsonable(item) for item in sorted(value, key=str)]  # equal runs, equal records
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if hasattr(value, "tolist"):  # of NumPy and torch alike, without importing either
        return _jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


# ── rollouts ─────────────────────────────────────────────────────────────────────────────────────


def write_rollouts(
    folder: Path,
    step: int,
    groups: Sequence[Group],
    reasons: Sequence[str | Sequence[str]],
    *,
    parts: Sequence[str],
) -> Path:
    """Write every completion of a step to ``folder/step-N.parquet`` and return that path.

    Columns: step, sample_id, task, source, license, prompt (text, or JSON of the messages),
    reference, prompt_tokens, completion, token_ids, logprobs (nats), uncut_logprobs (of the whole
    distribution; null where nothing was cut from it), finish_reason, policy_version, reward, one
    ``reward.<part>`` each (null: abstained), reward_details (JSON), penalty (what the reward loses
    before advantages; null where it cannot), advantage, step_returns (one a reasoning step; null
    unless steps earn credit of their own), entered_loss, why. The columns are the same at every
    step of a run.

    Args:
        folder: The run's rollout folder; made if absent, inside of the run's.
        step: Counted from 1; in the file's name with six digits.
        groups: Scored groups; advantages may be missing from groups that were skipped.
        reasons: For each group why it entered the loss or not: one word for all of its completions,
            or one for each. `ENTERED` sets ``entered_loss``.
        parts: Names of all reward parts of the run, whether or not they scored at this step.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        row
        for group, reason in zip(groups, reasons, strict=True)
        for row in _rollout_rows(step, group, reason, parts)
    ]
    schema = pa.schema(
        [
            ("step", pa.int64()),
            *((name, pa.string()) for name in ("sample_id", "task", "source", "license")),
            ("prompt", pa.string()),
            ("reference", pa.string()),
            ("prompt_tokens", pa.int32()),
            ("completion", pa.string()),
            ("token_ids", pa.list_(pa.int32())),
            ("logprobs", pa.list_(pa.float32())),
            ("uncut_logprobs", pa.list_(pa.float32())),
            ("finish_reason", pa.string()),
            ("policy_version", pa.int64()),
            ("reward", pa.float64()),
            *((f"reward.{part}", pa.float64()) for part in parts),
            ("reward_details", pa.string()),
            ("penalty", pa.float64()),
            ("advantage", pa.float64()),
            ("step_returns", pa.list_(pa.float64())),
            ("entered_loss", pa.bool_()),
            ("why", pa.string()),
        ]
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:06d}.parquet"
    write_file(path, lambda file: pq.write_table(table, file, compression="zstd"))
    return path


def _rollout_rows(
    step: int, group: Group, reason: str | Sequence[str], parts: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """One row per completion, keyed by column."""
    count = len(group.completions)
    reasons = [reason] * count if isinstance(reason, str) else reason
    advantages = group.advantages or (None,) * count
    penalties = group.penalties or (None,) * count
    returns = group.step_returns or (None,) * count
    sample = group.sample
    texts, results = group.texts, group.results
    for completion, text, result, penalty, advantage, own, why in zip(
        group.completions, texts, results, penalties, advantages, returns, reasons, strict=True
    ):
        scores = reward_parts(result)
        yield {
            "step": step,
            "sample_id": sample.id,
            "task": sample.task,
            "source": sample.source,
            "license": sample.license,
            "prompt": _prompt_column(sample.prompt),
            "reference": sample.reference,
            "prompt_tokens": len(group.prompt_ids),
            "completion": text,
            "token_ids": completion.token_ids,
            "logprobs": completion.logprobs,
            "uncut_logprobs": completion.uncut_logprobs,
            "finish_reason": completion.finish_reason,
            "policy_version": completion.policy_version,
            "reward": result.score,
            **{f"reward.{part}": scores.get(part) for part in parts},
            "reward_details": _strict_json(result.details),
            "penalty": penalty,
            "advantage": advantage,
            "step_returns": own,
            "entered_loss": why == ENTERED,
            "why": why,
        }


def _prompt_column(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return json.dumps([dict(message) for message in prompt], ensure_ascii=False)


def read_rollouts(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of all steps in order, as `write_rollouts` put them, one file in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for _, path in _rollout_files(folder):
        try:
            yield from pq.read_table(path).to_pylist()
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{path}: not a readable Parquet file ({error}); it was damaged from outside. "
                "Restore or remove it."
            ) from error


def remove_rollouts_after(folder: Path, step: int) -> None:
    """Delete the files of steps beyond `step`, which a resumed run is about to write again."""
    for number, path in _rollout_files(folder):
        if number > step:
            path.unlink()


def _rollout_files(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of each finished file, by step; files still aside do not match."""
    named = ((re.fullmatch(r"step-(\d+)\.parquet", p.name), p) for p in folder.glob("step-*"))
    return sorted((int(match[1]), path) for match, path in named if match)


# ── figures of a step ────────────────────────────────────────────────────────────────────────────


def group_statistics(groups: Sequence[Group]) -> dict[str, float]:
    """Figures over all scored completions of a step; a figure nothing was scored for is left out.

    - ``reward``, ``reward_std``: mean and standard deviation (of the population) of the total.
    - ``reward/<part>``: mean of a part over the completions it scored.
    - ``penalty``: mean of what rewards lose before advantages, by length or divergence.
    - ``accuracy``: share of completions whose outcome part found the answer correct. (Of a reward
      that does not tell, the trainer records the verdict of the configuration's grader.)
    - ``truncation_share``: share of completions cut by the token limit.
    - ``zero_signal_share``: share of groups whose rewards are equal, which teach nothing.
    - ``completion_tokens``, ``…_min``, ``…_max``: length in tokens, EOS included.
    """
    completions = [completion for group in groups for completion in group.completions]
    results = [result for group in groups for result in group.results]
    figures: dict[str, float] = {}
    rewards = [result.score for result in results if result.score is not None]
    if rewards:
        figures["reward"] = statistics.fmean(rewards)
        figures["reward_std"] = statistics.pstdev(rewards)
    if penalties := [lost for group in groups for lost in group.penalties]:
        figures["penalty"] = statistics.fmean(penalties)
    scores: dict[str, list[float]] = {}
    for result in results:
        for part, score in reward_parts(result).items():
            scores.setdefault(part, []).append(score)
    figures |= {f"reward/{part}": statistics.fmean(values) for part, values in scores.items()}
    verdicts = [verdict for result in results if (verdict := _correct(result)) is not None]
    if verdicts:
        figures["accuracy"] = statistics.fmean(verdicts)
    if completions:
        lengths = [len(completion.token_ids) for completion in completions]
        figures |= {
            "truncation_share": _share(c.finish_reason == "length" for c in completions),
            "zero_signal_share": _share(not group.has_signal for group in groups),
            "completion_tokens": statistics.fmean(lengths),
            "completion_tokens_min": float(min(lengths)),
            "completion_tokens_max": float(max(lengths)),
        }
    return figures


def _correct(result: RewardResult) -> bool | None:
    """The verdict of the outcome part, or of a single outcome reward; None if neither graded."""
    graded = "outcome" in reward_parts(result)
    details = result.details["outcome"]["details"] if graded else result.details
    verdict = details.get("correct")
    return verdict if isinstance(verdict, bool) else None


def _share(flags: Iterator[bool]) -> float:
    return statistics.fmean(float(flag) for flag in flags)
