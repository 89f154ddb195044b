"""Watching over a run: signals and a time limit that end it, and steps that stand still.

Work is cut into pieces (a token of a batch, a scored completion, a micro-batch), and `pulse` is
called between them. A run that is to stop stops there, by `StopRequested`; no piece is broken off
in its midst, and none is broken off where the weights have begun to move.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, BinaryIO

_SHOW_CURSOR = "\x1b[?25h"

_OVER = b"\0"
"""No signal has this number."""

_RESERVE = 2.0
"""Times as long as the longest save so far is left for the last one, beside the longest piece."""

_RESERVE_SHARE, _RESERVE_SECONDS = 0.1, 30.0
"""Before anything was saved so much of a time limit is left for it, whichever is less."""


class StopRequested(BaseException):
    """The run is to stop; raised by `Supervisor.pulse` and caught by the trainer alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Supervisor:
    """Ends a run when it is asked to, and tells when it stands still.

    Args:
        time_limit: Seconds from now after which the run has stopped and saved; None for no limit.
        stall_seconds: Seconds without a pulse after which the run counts as standing still; 0 turns
            the watch off.
        stalls: File that then gets the stacks of all threads.
        tell: Shows a sentence to the person.
    """

    def __init__(
        self,
        time_limit: float | None,
        stall_seconds: float,
        stalls: Path,
        tell: Callable[[str], None],
    ) -> None:
        self.time_limit, self._began = time_limit, monotonic()
        self.slowest_save = 0.0
        """Seconds of the longest save so far."""
        self._reason = ""
        self._is_on_duty = self._is_deferred = False
        self._pulsed, self._longest_piece = 0.0, 0.0
        self._watchdog = _Watchdog(stall_seconds, stalls, tell) if stall_seconds else None

    @contextmanager
    def on_duty(self) -> Iterator[None]:
        """Within it signals are heeded and standing still is told. Signals reach the main thread
        alone: a run in another one is stopped by its time limit only."""
        self._reason, self._pulsed = "", monotonic()
        with contextlib.ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():
                stack.enter_context(_ending_at_the_second())
                stack.enter_context(_handling(self._on_signal))
            if self._watchdog:
                stack.enter_context(self._watchdog.watching())
            self._is_on_duty = True
            try:
                yield
            finally:
                self._is_on_duty = False

    def pulse(self) -> None:
        """Between two pieces of work: say that the run is alive, and stop it if it is to stop."""
        if not self._is_on_duty:
            return
        now = monotonic()
        self._longest_piece = max(self._longest_piece, now - self._pulsed)
        self._pulsed = now
        if self._watchdog:
            self._watchdog.feed()
        if not self._is_deferred and (reason := self._why_stop()):
            raise StopRequested(reason)

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Within it `pulse` stops nothing."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def _why_stop(self) -> str:
        if not self._reason and self.time_limit is not None:
            guess = min(_RESERVE_SECONDS, _RESERVE_SHARE * self.time_limit)
            reserve = (_RESERVE * self.slowest_save or guess) + self._longest_piece
            if monotonic() - self._began >= self.time_limit - reserve:
                self._reason = f"time_limit={self.time_limit:g} s"
        return self._reason

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._reason = self._reason or signal.Signals(number).name
        # From now on the system ends the process at a Ctrl-C, whatever it is busy with.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
        name, again = signal.Signals(number).name, "another " * (number == signal.SIGINT)
        # Not by print: the signal may have come in the midst of one.
        with contextlib.suppress(OSError):
            os.write(
                2,
                f"{cursor}\n{name}: stopping and saving; {again}Ctrl-C ends the run at once, "
                "without a checkpoint.\n".encode(),
            )


_before: dict[int, Any] = {}
"""Signal → its handler before a supervisor was on duty; empty while none is."""


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within it a handler has the signals that end a process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        _before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        _let_go_of_signals()


def _let_go_of_signals() -> None:
    for number in list(_before):
        signal.signal(number, _before.pop(number))


def _in_a_forked_child() -> None:
    """A child that was forked on duty (a reward's pool of processes) is no run of its own: it ends
    at a signal as it would have, and its signals are none of the run's."""
    if _before:
        signal.set_wakeup_fd(-1)
        _let_go_of_signals()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)


@contextmanager
def _ending_at_the_second() -> Iterator[None]:
    """Within it a Ctrl-C after another signal ends the process, also where Python cannot heed the
    first one: while a library computes, or waits for a device that hangs.

    The system's own handler writes each signal's number into a pipe, and a thread reads it. That
    needs the interpreter to be free; a library that holds it as well cannot be ended but by SIGKILL
    or SIGQUIT.
    """
    if os.name != "posix":
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def watch() -> None:
        signals = 0
        while (number := os.read(reading, 1)) != _OVER:
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                if signals and number[0] == signal.SIGINT:
                    os._exit(128 + signal.SIGINT)
                signals += 1

    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        # Said, rather than closed: a forked child may still hold the other end.
        os.write(writing, _OVER)
        thread.join()
        os.close(writing)
        os.close(reading)


class _Watchdog:
    """Tells of a run that stands still, and writes down where.

    The stacks are written by `faulthandler` from a thread of the C library, so that they are
    written even where a reward or an extension never lets go of the interpreter; the sentence comes
    from a thread of Python's, if it can run.
    """

    _STEPS_BETWEEN = 20
    """A new alarm is set that many times within ``seconds``, not at every pulse."""

    def __init__(self, seconds: float, stalls: Path, tell: Callable[[str], None]) -> None:
        self.seconds, self.stalls, self.tell = seconds, stalls, tell
        self._fed = self._armed = 0.0
        self._file: BinaryIO | None = None
        self._ended = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._file = self.stalls.open("ab", buffering=0)
        self._fed, self._armed = monotonic(), 0.0
        self._ended.clear()
        thread = threading.Thread(target=self._tell, name="watchdog", daemon=True)
        try:
            self.feed()
            thread.start()
            yield
        finally:
            self._ended.set()
            faulthandler.cancel_dump_traceback_later()
            thread.join()
            self._file.close()
            self._file = None
            with contextlib.suppress(OSError):
                if not self.stalls.stat().st_size:
                    self.stalls.unlink()

    def feed(self) -> None:
        if self._file is None:
            return
        self._fed = monotonic()
        if self._fed - self._armed > self.seconds / self._STEPS_BETWEEN:
            self._armed = self._fed
            faulthandler.dump_traceback_later(self.seconds, file=self._file)

    def _tell(self) -> None:
        """Once for each time that the run stands still."""
        told = 0.0
        while not self._ended.wait(self.seconds / self._STEPS_BETWEEN):
            still = monotonic() - self._fed
            if still > self.seconds and told != self._fed:
                told = self._fed
                self.tell(
                    f"The run has stood still for {still:.0f} s (a reward that waits, a device "
                    f"that hangs?). Where each thread stands is written to {self.stalls}."
                )
