"""How long attempts that start have waited for further replicas of their workloads."""

from __future__ import annotations

from daf_common.clock import Clock


class Patience:
    """Times in memory, on this process's monotonic clock: a restart only lets a wait begin anew, and no clock's jump
    shortens it."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        """`seconds` is how long one more replica is waited for."""
        self._clock, self._seconds = clock, seconds
        self._since: dict[str, tuple[int, float]] = {}

    def is_over(self, workload: str, running: int) -> bool:
        """Whether as many replicas of a workload have run for so long; one more, and the wait begins anew."""
        now = self._clock.monotonic()
        known, since = self._since.get(workload, (running, now))
        self._since[workload] = (running, since if known == running else now)
        return now - self._since[workload][1] >= self._seconds

    def forget(self, workload: str = "") -> None:
        """Says that a workload does not wait any more; or all."""
        if workload:
            self._since.pop(workload, None)
        else:
            self._since.clear()
