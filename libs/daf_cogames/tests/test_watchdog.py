"""The watchdog bites what hangs, and leaves alone what is slow."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from daf_cogames.training import watchdog as watchdogs
from daf_cogames.training.watchdog import Watchdog

LIMIT = 60.0


class Clock:
    """Takes the place of `time`, and goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.looked = threading.Semaphore(0)
        """Counts how often the watchdog has looked."""

    def monotonic(self) -> float:
        if threading.current_thread().name == "watchdog":
            self.looked.release()
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of watchdogs that look a hundred times a second."""
    clock = Clock()
    monkeypatch.setattr(watchdogs, "time", clock)
    monkeypatch.setattr(watchdogs, "TICKS_PER_LIMIT", 100 * LIMIT)
    return clock


def test_it_bites_with_the_stacks_of_all_threads_when_nothing_is_touched(clock: Clock) -> None:
    bitten = threading.Event()
    stacks: list[str] = []

    def on_stall(text: str) -> None:
        stacks.append(text)
        bitten.set()

    def hang_in_a_policy() -> None:
        bitten.wait(60)

    hanging = threading.Thread(target=hang_in_a_policy)
    hanging.start()
    watchdog = Watchdog(LIMIT, on_stall)
    watchdog.start()
    clock.seconds += LIMIT + 1

    assert bitten.wait(30)
    hanging.join()
    assert "hang_in_a_policy" in stacks[0]
    watchdog.stop()


def test_it_leaves_alone_what_goes_on_for_longer_than_its_limit(clock: Clock) -> None:
    stalled: list[str] = []
    watchdog = Watchdog(LIMIT, stalled.append)
    watchdog.start()
    for _ in range(4):
        clock.seconds += LIMIT - 1
        while clock.looked.acquire(blocking=False):
            pass
        assert clock.looked.acquire(timeout=30)
        watchdog.touch()
    watchdog.stop()

    assert not stalled


def test_it_ends_a_process_whose_native_code_never_lets_go_of_the_interpreter() -> None:
    program = """
import ctypes, faulthandler, threading
from daf_cogames.training.watchdog import Watchdog
set_timer, timer_is_set = faulthandler.dump_traceback_later, threading.Event()
def watched(*arguments, **options):
    set_timer(*arguments, **options)
    timer_is_set.set()
faulthandler.dump_traceback_later = watched
sleep = ctypes.PyDLL(None).sleep  # PyDLL keeps the interpreter
def native(): sleep(1000)
watchdog = Watchdog(2.0, lambda stacks: None)
watchdog.start()
timer_is_set.wait()
native()
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)

    assert ended.returncode == 1
    assert "in native" in ended.stderr
