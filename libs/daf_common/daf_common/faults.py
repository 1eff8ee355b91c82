"""Faults on demand, so that tests can show what survives them.

`DAF_CRASH_AT=name:n` ends the process, as kill -9 would, when the named crash point is reached for the nth time.
`DAF_FAULTS=rate:seed` makes a share of database transactions and RPCs fail, before they happen or after they succeeded.
"""

from __future__ import annotations

import os
import random
from collections import Counter

EXIT_CODE = 137


class InjectedFault(Exception):
    """A fault that was asked for."""


class Faults:
    """Decides where to crash and what to let fail."""

    def __init__(self, crash_at: str = "", rate: float = 0.0, seed: int = 0) -> None:
        point, _, count = crash_at.rpartition(":")
        self._crash_point, self._crash_count = (point, int(count)) if crash_at else ("", 0)
        self._rate = rate
        self._random = random.Random(seed)
        self._reached: Counter[str] = Counter()

    @classmethod
    def from_environment(cls) -> Faults:
        """What the environment asks for; nothing by default."""
        rate, _, seed = os.environ.get("DAF_FAULTS", "0:0").partition(":")
        return cls(os.environ.get("DAF_CRASH_AT", ""), float(rate), int(seed or 0))

    def crash_point(self, name: str) -> None:
        """A place where the process may end."""
        if name == self._crash_point:
            self._reached[name] += 1
            if self._reached[name] == self._crash_count:
                os._exit(EXIT_CODE)

    def inject(self, name: str) -> None:
        """A place where a call may fail.

        Raises:
            InjectedFault: this time it does.
        """
        if self._rate and self._random.random() < self._rate:
            raise InjectedFault(name)


FAULTS = Faults.from_environment()
"""The faults of this process."""
