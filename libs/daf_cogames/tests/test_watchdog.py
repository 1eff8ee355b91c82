"""The watchdog bites what hangs, and leaves alone what is slow."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from daf_cogames.training.watchdog import Watchdog


def test_it_bites_with_the_stacks_of_all_threads_when_nothing_is_touched() -> None:
    bitten = threading.Event()
    stacks: list[str] = []

    def on_stall(text: str) -> None:
        stacks.append(text)
        bitten.set()

    def hang_in_a_policy() -> None:
        bitten.wait(20)

    hanging = threading.Thread(target=hang_in_a_policy)
    hanging.start()
    watchdog = Watchdog(0.1, on_stall)
    watchdog.start()

    assert bitten.wait(20)
    hanging.join()
    assert "hang_in_a_policy" in stacks[0]
    watchdog.stop()


def test_it_leaves_alone_what_goes_on_for_longer_than_its_limit() -> None:
    stalled: list[str] = []
    watchdog = Watchdog(1.0, stalled.append)
    watchdog.start()
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        watchdog.touch()
        threading.Event().wait(0.01)
    watchdog.stop()

    assert not stalled


def test_it_ends_a_process_whose_native_code_never_lets_go_of_the_interpreter() -> None:
    program = """
import ctypes
from daf_cogames.training.watchdog import Watchdog
watchdog = Watchdog(0.2, lambda stacks: None)
watchdog.start()
import time; time.sleep(0.1)
def native(): ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the interpreter
native()
"""
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)

    assert ended.returncode == 1
    assert "in native" in ended.stderr
    assert time.monotonic() - started < 30
