"""How fast a run goes on."""

from __future__ import annotations

from collections import deque

_SECONDS = 60.0


class Pace:
    """How fast a count has grown in the last minute, by one's own clock."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, count: int, now: float) -> None:
        """Notes how far the run is. One that went back, as after a restart, is measured anew."""
        if self._seen and count < self._seen[-1][1]:
            self._seen.clear()
        if not self._seen or count > self._seen[-1][1]:
            self._seen.append((now, count))
        while len(self._seen) > 2 and self._seen[0][0] < now - _SECONDS:
            self._seen.popleft()

    def per_second(self) -> float | None:
        """By how much it grows a second; None before the run was seen to go on."""
        if len(self._seen) < 2:
            return None
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - begin)
