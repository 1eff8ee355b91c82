"""The stopwatches of simulations, which nobody reads here.

Each asks for a logger of its own, and Python's logging keeps what it was asked for for ever: about two kilobytes an
episode, gigabytes in a long run. And in every step they take half as long as the simulation does.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from mettagrid.profiling import stopwatch
from mettagrid.simulator.simulator import Simulation


def let_loggers_go() -> None:
    """From now on, the logger of a stopwatch (which is silent) ends with it. Doing it again changes nothing."""
    vars(stopwatch)["logging"] = SimpleNamespace(getLogger=logging.Logger)


def stop_timing(simulation: Simulation) -> None:
    """Take a simulation's stopwatch away."""
    vars(simulation)["_timer"] = _NoStopwatch()


class _NoStopwatch:
    """What `mettagrid.profiling.stopwatch.Stopwatch` is to a simulation, without the timing."""

    _untimed = nullcontext()

    def __call__(self, *args: Any, **kwargs: Any) -> nullcontext[None]:
        return self._untimed

    time = __call__

    def start(self, name: str) -> None:
        pass

    def stop(self, name: str) -> None:
        pass
