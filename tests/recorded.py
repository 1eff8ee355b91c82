"""What metrics a training job has, after whatever happened to it."""

from __future__ import annotations

from collections.abc import Sequence


def assert_recorded_once(updates: Sequence[int], last: int) -> None:
    """Metrics are there up to the last update, in order and nothing twice. One point may be of several fast updates."""
    assert list(updates) == sorted(set(updates))
    assert updates[0] == 1
    assert updates[-1] == last
