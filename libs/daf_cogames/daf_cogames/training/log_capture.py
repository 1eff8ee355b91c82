"""What a worker prints, collected line by line while it still goes where it went before.

Only what is printed through Python is seen. What native code prints goes to the process's own output alone, as does
everything else, so that nothing is lost with a process that dies.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO


@contextlib.contextmanager
def captured(take: Callable[[str], None]) -> Iterator[None]:
    """Hands whole lines of both outputs to `take`, also those of log handlers that were made before."""
    outputs = sys.stdout, sys.stderr
    doubles = Double(outputs[0], take), Double(outputs[1], take)
    handlers = [
        (handler, doubles[outputs.index(handler.stream)])
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream in outputs
    ]
    sys.stdout, sys.stderr = doubles
    for handler, double in handlers:
        handler.setStream(double)
    try:
        yield
    finally:
        for handler, double in handlers:
            handler.setStream(double.original)
        sys.stdout, sys.stderr = outputs
        for double in doubles:
            double.hand_over_rest()


class Double(io.TextIOBase):
    """A text output that also hands whole lines on."""

    def __init__(self, original: TextIO, take: Callable[[str], None]) -> None:
        self.original = original
        self._take = take
        self._line = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """See `io.TextIOBase.write`."""
        self.original.write(text)
        with self._lock:
            whole, newline, self._line = (self._line + text).rpartition("\n")
            if newline:
                self._take(whole + newline)
        return len(text)

    def hand_over_rest(self) -> None:
        """Hands on what has no newline yet."""
        with self._lock:
            if self._line:
                self._take(self._line + "\n")
            self._line = ""

    def flush(self) -> None:
        """See `io.TextIOBase.flush`."""
        self.original.flush()

    def fileno(self) -> int:
        """See `io.TextIOBase.fileno`."""
        return self.original.fileno()

    def isatty(self) -> bool:
        """See `io.TextIOBase.isatty`."""
        return self.original.isatty()

    def writable(self) -> bool:
        """See `io.TextIOBase.writable`."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """See `io.TextIOBase.encoding`."""
        return self.original.encoding
