"""Failures that no process survives: whose they are, and what follows. Decides, and does nothing."""

from __future__ import annotations

import signal
from collections.abc import Collection

from daf_cogames.play.failures import CRASHED, FLOODED, HUNG, PolicyFailure
from daf_cogames.play.marks import Mark


class PlayerDied(Exception):
    """A player ended, or had to be ended.

    reason: of the forfeit, should it be a policy's doing; message: what happened; mark: who was at work; exact: whether
    only the first of the episodes that had not come was being played.
    """

    def __init__(self, reason: str, message: str, mark: Mark | None, exact: bool) -> None:
        super().__init__(message)
        self.reason, self.message, self.mark, self.exact = reason, message, mark, exact


def blame(death: PlayerDied, forfeited: Collection[int], again: bool) -> PolicyFailure | None:
    """The failure of the policy that a death is laid at, or None if the episode is to be tried once more.

    A death is tried once more, with one episode played alone, where it is not certain which episode it belongs to; and
    where the process ended by itself, since a machine that is short of memory ends processes that did nothing wrong.

    Args:
        death: how the player died.
        forfeited: policies that did not play.
        again: whether this was the second try.

    Raises:
        PlayerDied: in the second try, too, no policy was at work.
    """
    if not again and (death.reason == CRASHED or not death.exact):
        return None
    if death.mark is None or death.mark.policy in forfeited:
        if again:
            raise death
        return None
    return PolicyFailure(death.mark.policy, death.mark.seat, death.mark.stage, death.message, death.reason)


def crashed(code: int, mark: Mark | None, exact: bool) -> PlayerDied:
    """A process that ended by itself with this exit code, negative for a signal."""
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return PlayerDied(CRASHED, f"its process {how}", mark, exact)


def broken(mark: Mark | None, exact: bool) -> PlayerDied:
    """A process that had to be ended since its connection was closed, or said what is no message."""
    return PlayerDied(CRASHED, "its process broke the connection to its supervisor", mark, exact)


def hung(limit_seconds: float, mark: Mark | None, exact: bool) -> PlayerDied:
    """A process that had to be ended since one call took too long."""
    return PlayerDied(HUNG, f"it took longer than {limit_seconds:g} s", mark, exact)


def flooded(limit_bytes: int, mark: Mark | None, exact: bool) -> PlayerDied:
    """A process that had to be ended since it printed too much."""
    return PlayerDied(FLOODED, f"it printed more than {limit_bytes >> 20} MiB in one episode", mark, exact)


class Patience:
    """Adds up how long one call has lasted, as far as its watcher was awake to see it.

    So a machine that sleeps, or stops both, or a watcher that was busy elsewhere, is not held against a policy.
    """

    def __init__(self, glance_seconds: float) -> None:
        """A watcher looks every so often; between two looks no more than twice that time counts."""
        self._most = 2 * glance_seconds
        self._call: object = None
        self._last = self._waited = 0.0

    def waited(self, call: object, now: float) -> float:
        """Looks at which call goes on; the seconds for which it has been seen to do so."""
        self._waited = self._waited + min(now - self._last, self._most) if call == self._call else 0.0
        self._call, self._last = call, now
        return self._waited
