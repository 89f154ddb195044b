"""What a GRPO run writes and shows as it goes: events, completions, trackers, the screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from judicaita.errors import ConfigError, DataError, NumericalError
from judicaita.training.config import TrainingConfig
from judicaita.training.console import TrainingConsole
from judicaita.training.divergence import EVENT as DIVERGENCE
from judicaita.training.divergence import DivergenceWatch
from judicaita.training.metrics import EventLog, group_statistics, read_events, write_rollouts
from judicaita.training.run_folder import RunFolder
from judicaita.training.trackers import Tracker, make_trackers
from judicaita.types import Group


@dataclass
class StepRecord:
    """Figures of a step, filled in as it goes."""

    step: int
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    fault: NumericalError | None = None
    """What was not finite, where the step was skipped for that."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the wall-clock seconds of a stage; of its turns, where it has several."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - start


class RunRecorder:
    """Keeps the records of one run; what it writes to is open inside of `opened` alone."""

    def __init__(self, folder: RunFolder, config: TrainingConfig, *, show_progress: bool) -> None:
        self.folder, self.config, self.show_progress = folder, config, show_progress
        self.console = TrainingConsole(0, enabled=show_progress)
        self._events: EventLog | None = None
        self._trackers: list[Tracker] = []
        self._watch = DivergenceWatch()
        self._watched = 0
        """Length of the events, in bytes, that the watch knows."""

    @contextmanager
    def opened(self, steps_done: int, total_steps: int) -> Iterator[None]:
        """Open log, trackers and bar, and close them at the end; inside of another one nothing."""
        if self._events is not None:
            yield
            return
        with ExitStack() as stack:
            self._events = EventLog(self.folder.events)
            stack.callback(self._close)
            if self._length() != self._watched:  # a run is taken up, or goes on from earlier
                self._watch = self._watch_anew()
            for tracker in make_trackers(
                self.config.report_to,
                self.folder.root,
                self.folder.root.name,
                self.config.model_dump(mode="json"),
                resume=steps_done > 0,
            ):
                self._trackers.append(tracker)
                stack.callback(tracker.close)
            self.console = stack.enter_context(
                TrainingConsole(
                    total_steps,
                    enabled=self.show_progress,
                    first_step=steps_done,
                    logging_steps=self.config.logging_steps,
                )
            )
            yield

    def _close(self) -> None:
        assert self._events is not None, "closed once"
        self._events.close()
        self._events, self._trackers = None, []
        self._watched = self._length()
        self.console = TrainingConsole(0, enabled=self.show_progress)

    def _length(self) -> int:
        """Of the events, in bytes; −1 where they are gone."""
        try:
            return self.folder.events.stat().st_size
        except FileNotFoundError:
            return -1

    def _watch_anew(self) -> DivergenceWatch:
        try:
            return DivergenceWatch(read_events(self.folder.events))
        except DataError as error:  # what is only watched stops no run
            self.console.message(f"reward and accuracy are watched from here on alone: {error}")
            return DivergenceWatch()

    def _watch_for_divergence(self, event: str, step: int, metrics: Mapping[str, float]) -> None:
        found = self._watch.see(event, step, metrics)
        if found is not None:
            self.event(DIVERGENCE, step, found.as_fields())
            self.console.message(found.sentence(step))

    def _tell_trackers(self, metrics: Mapping[str, float], step: int) -> None:
        for name, tracker in zip(self.config.report_to, self._trackers, strict=True):
            try:
                tracker.log(metrics, step)
            except OSError as error:  # else it would be taken for one of the run's own files
                raise ConfigError(
                    f"report_to: {name} failed after step {step} ({error}). Mend it or leave it "
                    "out, and go on by resume=auto."
                ) from error

    def event(self, name: str, step: int, fields: Mapping[str, Any]) -> None:
        """Append one event to the run's log."""
        assert self._events is not None, "recording outside of opened()"
        self._events.write(name, step, fields)

    def fault(self, step: int, error: NumericalError, **fields: Any) -> None:
        """What was not finite, and where."""
        self.event("fault", step, {"kind": error.kind, "message": str(error), **fields})

    def step(
        self,
        record: StepRecord,
        groups: Sequence[Group],
        reasons: Sequence[Sequence[str]],
        *,
        parts: Sequence[str],
    ) -> None:
        """A step: its completions, its figures, and every ``logging_steps`` a group to look at.

        ``reasons`` say of each group's completions why they entered the loss or not; ``parts`` are
        the reward's.
        """
        with record.timed("record"):
            if groups:
                write_rollouts(self.folder.rollouts, record.step, groups, reasons, parts=parts)
        tokens = sum(len(c.token_ids) for group in groups for c in group.completions)
        record.metrics |= group_statistics(groups)
        record.metrics["tokens_per_second"] = tokens / sum(record.seconds.values())
        record.metrics |= {f"seconds/{stage}": s for stage, s in record.seconds.items()}
        self.event("step", record.step, record.metrics)
        self._tell_trackers(record.metrics, record.step)
        self.console.update(record.step, record.metrics)
        self._watch_for_divergence("step", record.step, record.metrics)
        if groups and record.step % self.config.logging_steps == 0:
            self.console.print_group(groups[0], reasons[0][0])

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """The figures of the held-out samples after a step."""
        self.event("eval", step, metrics)
        self._tell_trackers({f"eval/{name}": value for name, value in metrics.items()}, step)
        self.console.print_metrics(f"held-out samples, after step {step}", metrics)
        self._watch_for_divergence("eval", step, metrics)
