"""What a person sees of a run: a progress bar, a scored group now and then, tables of figures.

All of it goes to stderr, so that stdout stays free for results. On a terminal there is one live
bar; elsewhere (a log file, CI) a plain line now and then. Text that a model or a data set wrote is
shown as it is: its brackets are no markup, and control characters, which could recolour or erase
what stands on the screen, are taken out. Importing this module imports rich.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.table import Column, Table
from rich.text import Text

from judicaita.training.rewards import reward_parts
from judicaita.types import Group, Prompt

_PROMPT_CHARACTERS = 1500
_COMPLETION_CHARACTERS = 1200
"""How much of a text `TrainingConsole.print_group` shows: about a screen, a group of four."""

_SHOWN = ("reward", "accuracy", "tokens_per_second")
_SHOWN_WITHOUT_REWARD = ("loss", "tokens_per_second")

# ECMA-48 control sequences; then every control character but line feed and tab, and the marks that
# reverse the direction of the text around them (Unicode Annex 9), so that a line reads as sampled.
_CONTROL_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Bar:
    """One line of progress; `TrainingConsole` and `progress` make them."""

    def __init__(
        self, console: Console, live: Progress | None, name: str, total: int, start: int, every: int
    ) -> None:
        """Show it in `live`, or without one print a line each `every` steps and at the last."""
        self._console, self._live = console, live
        self._name, self._total, self._start, self._every = name, total, start, every
        self._done, self._began = start, monotonic()
        if live:
            self._task = live.add_task(
                name, total=total, completed=start, start_at=start, status=""
            )

    def update(self, done: int, metrics: Mapping[str, float] | None = None) -> None:
        """Show that `done` of the total are done, with the figures of the latest."""
        self._done = done
        status = "  ".join(_figure(name, value) for name, value in (metrics or {}).items())
        if self._live:
            self._live.update(self._task, completed=done, status=status)
        elif done % self._every == 0 or done == self._total:
            seconds = monotonic() - self._began
            times = _times(seconds, done - self._start, self._total - done)
            self._console.print(
                Text("  ".join(filter(None, [self._name, f"{done}/{self._total}", status, times]))),
                soft_wrap=True,
            )

    def advance(self, count: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Show that `count` more are done."""
        self.update(self._done + count, metrics)

    def remove(self) -> None:
        """Take the line off the screen, where others stay on it."""
        if self._live:
            self._live.remove_task(self._task)


class TrainingConsole:
    """The screen of a run, as a context manager; with `enabled` false it shows nothing."""

    def __init__(
        self,
        total_steps: int,
        enabled: bool = True,
        *,
        first_step: int = 0,
        logging_steps: int = 10,
        console: Console | None = None,
    ) -> None:
        """
        Args:
            total_steps: Optimizer steps of the whole run.
            enabled: False shows nothing (another process of the run does).
            first_step: Steps done before, by the run that this one resumes.
            logging_steps: Steps between two lines where there is no terminal.
            console: Where to; stderr unless given.
        """
        self._total, self._first, self._every = total_steps, first_step, logging_steps
        self._console = _screen(enabled, console)
        self._live = _live(self._console)
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        self._bar = Bar(
            self._console, self._live, "training", self._total, self._first, self._every
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show that `step` is done, with reward, accuracy and tokens_per_second of `metrics`.

        A supervised step has no reward: there it is the loss and tokens_per_second.
        """
        assert self._bar is not None, "update() outside of the with block"
        names = _SHOWN if "reward" in metrics else _SHOWN_WITHOUT_REWARD
        self._bar.update(step, {name: metrics[name] for name in names if name in metrics})

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Bar]:
        """A second bar below the run's own, for an evaluation in its midst."""
        bar = Bar(self._console, self._live, description, total, 0, _tenth(total))
        try:
            yield bar
        finally:
            bar.remove()

    def print_group(self, group: Group, why: str) -> None:
        """Print a scored group: question, reference, and each completion with what it earned."""
        sample = group.sample
        title = "  ".join(filter(None, [f"sample {sample.id}", sample.task, why]))
        head = Table.grid(padding=(0, 1))
        head.add_row(Text("prompt", "bold"), _shown(_prompt(sample.prompt), _PROMPT_CHARACTERS))
        head.add_row(
            Text("reference", "bold"), _shown(sample.reference or "(none)", _PROMPT_CHARACTERS)
        )
        table = Table(show_lines=True)
        for name in ("#", "completion", "parts", "reward", "advantage", "finish"):
            table.add_column(name, overflow="fold", ratio=1 if name == "completion" else None)
        for number, completion in enumerate(group.completions):
            result = group.results[number]
            parts = [f"{part} {score:.3f}" for part, score in reward_parts(result).items()]
            table.add_row(
                str(number + 1),
                _shown(group.texts[number], _COMPLETION_CHARACTERS),
                Text("\n".join(parts)),
                "abstained" if result.score is None else f"{result.score:.3f}",
                f"{group.advantages[number]:+.3f}" if group.advantages else "none",
                completion.finish_reason,
            )
        self._console.print(Text(plain(title), "bold"), head, table, sep="\n")

    def print_metrics(self, title: str, metrics: Mapping[str, float]) -> None:
        """Print figures as a table of two columns, in the order given."""
        table = Table(show_header=False)
        table.add_column(overflow="fold")
        table.add_column(justify="right")
        for name, value in metrics.items():
            table.add_row(Text(plain(name)), f"{value:.6g}")
        self._console.print(Text(plain(title), "bold"), table, sep="\n")

    def print_comparison(
        self, title: str, columns: Mapping[str, Mapping[str, float]], names: Sequence[str]
    ) -> None:
        """Print some figures of several evaluations side by side, a column each."""
        table = Table(title=Text(plain(title)), title_justify="left")
        table.add_column("", no_wrap=True)
        for heading in columns:
            table.add_column(heading, justify="right", overflow="fold")
        for name in names:
            table.add_row(name, *(f"{figures[name]:.3f}" for figures in columns.values()))
        self._console.print(table)

    def print_rows(self, title: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows of texts below a heading; all but the first column stand to the right."""
        table = Table(title=Text(plain(title)), title_justify="left")
        for number, name in enumerate(heading):
            table.add_column(
                Text(plain(name)), justify="right" if number else "left", overflow="fold"
            )
        for row in rows:
            table.add_row(*(Text(plain(cell)) for cell in row))
        self._console.print(table)

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(Text(plain(text)), soft_wrap=True)


@contextmanager
def progress(
    description: str, total: int, *, enabled: bool = True, console: Console | None = None
) -> Iterator[Bar]:
    """A bar of its own, with the look of the training's; without a terminal, a line each tenth.

    Inside a `TrainingConsole` use its method of this name: a screen has one live area.
    """
    screen = _screen(enabled, console)
    live = _live(screen)
    with live or nullcontext():
        yield Bar(screen, live, description, total, 0, _tenth(total))


def plain(text: str) -> str:
    """`text` without terminal control sequences, control characters and direction marks."""
    return _CONTROL_CHARACTER.sub("", _CONTROL_SEQUENCE.sub("", text))


def shorten(text: str, limit: int) -> str:
    """At most about `limit` characters: the middle gives way to a note of how many are missing.

    The end stays, since that is where a prompt asks and an answer concludes.
    """
    missing = len(text) - limit
    if missing <= 0:
        return text
    head = limit * 2 // 3
    return f"{text[:head]}… (+{missing:,} characters) …{text[head + missing :]}"


class _Live(Progress):
    """Bars with their figures on a line below: together they would not fit 80 columns."""

    def get_renderables(self) -> Iterator[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["status"]:
                yield Text(f"  {task.fields['status']}", no_wrap=True, overflow="ellipsis")


class _Times(ProgressColumn):
    """Time gone and time left, at the mean pace since the start of this process.

    rich's own estimate forgets all but the last 30 seconds, in which a slow step never ends.
    """

    def render(self, task: Task) -> Text:
        done, left = task.completed - task.fields["start_at"], (task.total or 0) - task.completed
        return Text(_times(task.elapsed or 0.0, int(done), int(left)))


def _times(seconds: float, done: int, left: int) -> str:
    """``0:01:30 elapsed  0:04:30 left``; what is left is unknown until something is done."""
    elapsed = f"{timedelta(seconds=int(seconds))} elapsed"
    if done <= 0:
        return elapsed
    return f"{elapsed}  {timedelta(seconds=int(seconds / done * left))} left"


def _figure(name: str, value: float) -> str:
    if name == "tokens_per_second":
        return f"{value:,.0f} tokens/s"
    if name == "accuracy":
        return f"accuracy {value:.1%}"
    return f"{name} {value:.4g}"


def _screen(enabled: bool, console: Console | None) -> Console:
    if not enabled:
        return Console(quiet=True)
    return console or Console(stderr=True)


def _live(console: Console) -> Progress | None:
    """A live area with the house's columns, or None where lines must do."""
    if console.quiet or not console.is_terminal:
        return None
    return _Live(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        _Times(table_column=Column(no_wrap=True)),
        console=console,
        expand=True,
        refresh_per_second=4,
        redirect_stdout=sys.stdout.isatty(),  # a piped stdout is someone's input: leave it alone
    )


def _tenth(total: int) -> int:
    return max(1, total // 10)


def _prompt(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def _shown(text: str, limit: int) -> Text:
    return Text(shorten(plain(text), limit))
