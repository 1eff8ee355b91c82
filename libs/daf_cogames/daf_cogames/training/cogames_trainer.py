"""`cogames.train` and PuffeRL, the optimiser loop inside it, imported without what that import does to a process."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import warnings
from collections.abc import Iterator

__all__ = ["cogames_train", "pufferl"]


@contextlib.contextmanager
def _process_left_alone() -> Iterator[None]:
    """Undo what importing pufferl does to a process: it turns every RuntimeWarning into an error, makes SIGINT end the
    process with status 0, and has tracebacks printed by rich."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler, hook = signal.getsignal(signal.SIGINT), sys.excepthook
    with warnings.catch_warnings():
        yield
    sys.excepthook = hook
    if in_main_thread:
        signal.signal(signal.SIGINT, handler)


with _process_left_alone():
    from cogames import train as cogames_train
    from pufferlib import pufferl
