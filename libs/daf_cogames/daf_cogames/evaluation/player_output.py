"""What a player prints: passed on to the worker's log up to a limit, counted, and stopped when it floods."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable
from fcntl import F_SETPIPE_SZ, fcntl

from daf_cogames.play.marks import EPISODE, WHO, Mark, decode

KEPT_BYTES = 256 * 1024
"""Of one episode's output, in the log."""

FLOOD_BYTES = 16 * 1024 * 1024
"""Of one episode's output: who prints more cannot be meant to be read."""

# A page: so that a policy waits for its reader, and is found at work when what it printed is counted.
PIPE_BYTES = 4096

_F_SETPIPE_SZ = 1031

_JOIN_SECONDS = 1.0


class Output:
    """Reads a player's output in a thread of its own, so that no player ever waits long for a supervisor."""

    def __init__(self, descriptor: int, cells: memoryview[int], log: int, on_flood: Callable[[], None]) -> None:
        """Reads a pipe, which it closes, and writes to the descriptor `log`.

        on_flood: called once, from the thread, when an episode has printed more than FLOOD_BYTES.
        """
        self._descriptor, self._cells, self._log, self._on_flood = descriptor, cells, log, on_flood
        self._episode = 0
        self._printed: Counter[Mark | None] = Counter()
        self._flooded = False
        with contextlib.suppress(PermissionError):  # where the system has given out all its pipes' memory
            fcntl(descriptor, F_SETPIPE_SZ, PIPE_BYTES)
        self._thread = threading.Thread(target=self._read, name="player output", daemon=True)
        self._thread.start()

    @property
    def flooded(self) -> bool:
        """Whether too much was printed."""
        return self._flooded

    def loudest(self) -> Mark | None:
        """Who was at work while most of it was printed; the seat is left open."""
        return self._printed.most_common(1)[0][0] if self._printed else None

    def join(self) -> None:
        """Waits for the rest of what a dead player printed, unless a process that it left behind keeps printing."""
        self._thread.join(_JOIN_SECONDS)

    def _read(self) -> None:
        try:
            while data := os.read(self._descriptor, 1 << 16):
                self._take(data)
        finally:
            os.close(self._descriptor)
        self._say_what_was_dropped()

    def _take(self, data: bytes) -> None:
        if (episode := self._cells[EPISODE]) != self._episode:
            self._say_what_was_dropped()
            self._episode = episode
            self._printed.clear()
        before = self._printed.total()
        mark = decode(self._cells[WHO])
        self._printed[mark and Mark(mark.policy, None, mark.stage)] += len(data)
        if before < KEPT_BYTES:
            _write(self._log, data[: KEPT_BYTES - before])
        if before + len(data) > FLOOD_BYTES and not self._flooded:
            self._flooded = True
            self._on_flood()

    def _say_what_was_dropped(self) -> None:
        if (dropped := self._printed.total() - KEPT_BYTES) > 0:
            _write(self._log, f"\n[{dropped} more bytes of this episode's output were dropped]\n".encode())


def _write(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(OSError):  # a full disk: the log suffers, not who prints
        while data:
            data = data[os.write(descriptor, data) :]
