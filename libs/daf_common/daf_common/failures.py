"""Why something ended other than well, as rows and decisions hold it: `daf.common.v1.Failure` without its message."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """A cause."""

    reason: str
    """Machine-readable, in UPPER_SNAKE_CASE."""
    message: str
    """One sentence for a person."""
    subject: str = ""
    """The part of the request or of the work that it concerns."""
