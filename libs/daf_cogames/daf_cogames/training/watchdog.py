"""A watchdog on progress: it bites when nothing was done for a while, however long the work as a whole takes."""

from __future__ import annotations

import faulthandler
import tempfile
import threading
import time
from collections.abc import Callable

TICKS_PER_LIMIT = 20


class Watchdog:
    """A thread that waits for `touch` to stop.

    A second line of defence is a timer that needs no interpreter: native code that never lets go of it would hold this
    thread, too. The timer then writes the stacks to the process's stderr and ends the process with exit code 1.
    """

    def __init__(self, limit_seconds: float, on_stall: Callable[[str], None]) -> None:
        """Calls `on_stall` with the stacks of all threads, in a thread of its own, once nothing has been touched for
        `limit_seconds`."""
        self._limit, self._on_stall = limit_seconds, on_stall
        self._touched = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def touch(self) -> None:
        """Something was done. Costs next to nothing."""
        self._touched = time.monotonic()

    def start(self) -> None:
        """Begins to watch; now counts as touched."""
        self.touch()
        self._thread.start()

    def stop(self) -> None:
        """Watches no more."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _watch(self) -> None:
        tick = self._limit / TICKS_PER_LIMIT
        try:
            while not self._ended.wait(tick):
                faulthandler.dump_traceback_later(2 * self._limit, exit=True)
                if time.monotonic() - self._touched > self._limit:
                    return self._on_stall(_stacks())
        finally:
            faulthandler.cancel_dump_traceback_later()


def _stacks() -> str:
    """What every thread is doing, the innermost call first."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")
