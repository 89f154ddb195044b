"""What ends a run, and what is told when it stands still: with real signals and a real clock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from judicaita.training.supervision import StopRequested, Supervisor


def supervisor_of(
    folder: Path, time_limit: float | None = None, stall: float = 0, told: list[str] | None = None
) -> Supervisor:
    tell = (told if told is not None else []).append
    return Supervisor(time_limit, stall, folder / "stalls.txt", tell)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_the_next_pulse(
    tmp_path: Path, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    supervisor = supervisor_of(tmp_path)
    before = signal.getsignal(number)
    with supervisor.on_duty():
        supervisor.pulse()
        os.kill(os.getpid(), number)
        with supervisor.uninterrupted():
            supervisor.pulse()  # the weights are moving
        with pytest.raises(StopRequested, match=number.name):
            supervisor.pulse()
    assert signal.getsignal(number) is before
    again = "another Ctrl-C" if number == signal.SIGINT else "Ctrl-C"
    told = f"{number.name}: stopping and saving; {again} ends the run at once"
    assert told in capfd.readouterr().err


def test_signals_are_left_alone_off_duty_and_off_the_main_thread(tmp_path: Path) -> None:
    supervisor = supervisor_of(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with supervisor.on_duty():
            supervisor.pulse()
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


SECOND = """
import os, signal, sys, time
from pathlib import Path
from judicaita.training.supervision import Supervisor
with Supervisor(None, 0, Path("stalls.txt"), print).on_duty():
    os.kill(os.getpid(), signal.SIGINT)
    print("first", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
    print("second", flush=True)
"""

HANGING = """
import ctypes, os, signal, sys, threading, time
from pathlib import Path
from judicaita.training.supervision import Supervisor
def press():
    for _ in range(2):
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press, daemon=True).start()
print("first", flush=True)
with Supervisor(None, 0, Path("stalls.txt"), print).on_duty():
    # A library that waits, and starts anew when a signal comes; Python's handler never runs.
    lock = ctypes.CDLL(None).pthread_mutex_lock
    mutex = ctypes.create_string_buffer(64)
    lock(mutex)
    lock(mutex)
"""


@pytest.mark.parametrize(("code", "returned"), [(SECOND, -signal.SIGINT), (HANGING, 130)])
def test_a_second_ctrl_c_ends_the_process_at_once(tmp_path: Path, code: str, returned: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert done.stdout == "first\n"
    assert done.returncode == returned


def test_a_time_limit_leaves_time_to_save(tmp_path: Path) -> None:
    """A tenth of it at first, then twice the longest save so far."""
    supervisor = supervisor_of(tmp_path, time_limit=100)
    with supervisor.on_duty():
        supervisor.pulse()
        supervisor.slowest_save = 49.8  # the time is over in 0.4 s
        supervisor.pulse()
        time.sleep(0.25)  # a piece of work: another like it would end too late
        with pytest.raises(StopRequested) as stop:
            supervisor.pulse()
    assert stop.value.reason == "time_limit=100 s"
    supervisor.pulse()  # off duty nothing is stopped


def test_a_time_limit_that_is_over_stops_at_once(tmp_path: Path) -> None:
    supervisor = supervisor_of(tmp_path, time_limit=1e-9)
    with supervisor.on_duty(), pytest.raises(StopRequested):
        supervisor.pulse()


def test_a_run_that_was_stopped_may_go_on(tmp_path: Path) -> None:
    supervisor = supervisor_of(tmp_path)
    with supervisor.on_duty():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested):
            supervisor.pulse()
    with supervisor.on_duty():
        supervisor.pulse()


STALL = """
import sys, time
from pathlib import Path
from judicaita.training.supervision import Supervisor
supervisor = Supervisor(None, 0.2, Path("stalls.txt"), lambda text: print(text, flush=True))
def hold_the_interpreter():
    pow(7, 4_000_000)  # one call that never lets go of it
def wait():
    time.sleep(1)
with supervisor.on_duty():
    for _ in range(30):
        supervisor.pulse()
        time.sleep(0.02)
    assert not Path("stalls.txt").read_bytes(), "it was never still"
    {what}()
    supervisor.pulse()
"""


@pytest.mark.parametrize("what", ["wait", "hold_the_interpreter"])
def test_a_run_that_stands_still_says_where(tmp_path: Path, what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STALL.format(what=what)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    stacks = (tmp_path / "stalls.txt").read_text()
    assert f"in {what}" in stacks
    assert stacks.count("Timeout") == 1
    if what == "wait":
        assert "The run has stood still for 0 s" in done.stdout
        assert "written to stalls.txt" in done.stdout
        assert done.stdout.count("stood still") == 1


def test_a_run_that_never_stands_still_leaves_no_file(tmp_path: Path) -> None:
    told: list[str] = []
    supervisor = supervisor_of(tmp_path, stall=0.2, told=told)
    with supervisor.on_duty():
        for _ in range(20):
            supervisor.pulse()
            time.sleep(0.02)
    assert not told
    assert list(tmp_path.iterdir()) == []


FORKING = """
import multiprocessing, os, signal, time
from pathlib import Path
from judicaita.training.supervision import StopRequested, Supervisor
def work(_):
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    return os.getpid()
supervisor = Supervisor(None, 0, Path("stalls.txt"), print)
with supervisor.on_duty():
    kept = multiprocessing.get_context("fork").Pool(1)  # lives on after the run
    kept.map(work, range(2))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(work, range(4))
    time.sleep(0.2)
    supervisor.pulse()  # the pool was ended by SIGTERM, which was none of the run's
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    try:
        supervisor.pulse()
    except StopRequested:
        print("stopped", flush=True)
print("over", flush=True)
kept.terminate()
"""


def test_processes_that_a_reward_forks_are_no_run_of_their_own(tmp_path: Path) -> None:
    """Their signals do not count as the run's, and the run does not wait for them."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["stopped", "over"]
