"""The stopwatch of every simulation asks for a logger of its own, and Python's logging keeps what it was asked for for
ever: about two kilobytes an episode, gigabytes in a long run."""

from __future__ import annotations

import logging
from types import SimpleNamespace

from mettagrid.profiling import stopwatch


def let_loggers_go() -> None:
    """From now on, the logger of a stopwatch (which is silent) ends with it. Doing it again changes nothing."""
    vars(stopwatch)["logging"] = SimpleNamespace(getLogger=logging.Logger)
