"""Calls from a worker to its service that outlast the service's absence.

A worker holds hours of work, so it gives up on its service only when the service says that the work is no longer its
own. "Unreachable" never means that.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from daf_common.channel import blocking_errors
from daf_common.errors import (
    Aborted,
    Cancelled,
    DafError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 24 * 3600.0
FIRST_DELAY_SECONDS = 0.1
MAX_DELAY_SECONDS = 5.0

_TRIED_AGAIN = (Unavailable, DeadlineExceeded, ResourceExhausted, Cancelled, Internal)
_TAKEN_OVER = (Aborted, NotFound, PermissionDenied, Unauthenticated, FailedPrecondition)


class Superseded(Exception):
    """The work is no longer this worker's: somebody else has it, or nobody wants it. The worker is to end at once."""


class GaveUp(Exception):
    """The service did not answer for as long as anybody would wait, or the caller stopped waiting."""


def persist[T](
    call: Callable[[], T],
    what: str,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    wait: Callable[[float], bool] | None = None,
    tried_again: tuple[type[DafError], ...] = (),
) -> T:
    """Makes a blocking call again and again until it is answered.

    Args:
        call: the call; making it twice must be like making it once.
        what: what it does, for the log.
        patience_seconds: how long to go on while there is no answer.
        wait: waits for some seconds and says whether to stop trying, for example `threading.Event.wait`.
        tried_again: errors that are tried again beside those of an absent service.

    Raises:
        Superseded: the service knows this worker no longer.
        GaveUp: no answer, and `wait` said so, or the worker's directory was removed.
        DafError: any other refusal: a defect of the worker.
    """
    give_up_at = time.monotonic() + patience_seconds
    delay = FIRST_DELAY_SECONDS
    absent = False
    while True:
        try:
            with blocking_errors():
                answer = call()
        except DafError as error:
            if isinstance(error, _TAKEN_OVER) and not isinstance(error, tried_again):
                raise Superseded(f"{what}: {error}") from error
            if not isinstance(error, (*_TRIED_AGAIN, *tried_again)):
                raise
            if not absent:
                logger.warning("%s is tried again until it succeeds: %s", what, error)
            absent = True
            if time.monotonic() >= give_up_at:
                raise GaveUp(f"{what}: {error}") from error
            if not _has_directory():
                raise GaveUp(f"{what}: nobody can want it, since this worker's directory was removed") from error
        else:
            if absent:
                logger.warning("%s succeeded at last", what)
            return answer
        if wait is None:
            time.sleep(delay)
        elif wait(delay):
            raise GaveUp(f"{what} was given up")
        delay = min(2 * delay, MAX_DELAY_SECONDS)


def _has_directory() -> bool:
    """Whether the working directory is still there: it goes with the workload, or with the whole installation."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True
