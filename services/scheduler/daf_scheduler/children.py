"""What a trial or a sweep sees of the training jobs and evaluations that it has asked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from daf_common.errors import DafError, FailedPrecondition, InvalidArgument


@dataclass(frozen=True)
class Reason:
    """Why something ended other than well: `daf.common.v1.Failure` without its message object."""

    reason: str
    message: str = ""
    subject: str = ""


class ChildState(Enum):
    """How far a child is, as far as its parent cares."""

    LIVE = "live"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INFEASIBLE = "infeasible"
    """Its service refuses what it was to do; it was never created."""


@dataclass(frozen=True)
class Child:
    """A training job or an evaluation."""

    name: str
    """Its resource name."""
    state: ChildState
    reason: Reason | None = None
    """Why it failed or is infeasible."""
    checkpoint: bytes = b""
    """Of a job that succeeded, the policy that it trained: a serialized `PolicyCheckpoint`."""
    revision: int = 0
    """Of two sights of a child, the one with the greater revision is the newer."""

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.state is ChildState.LIVE

    def reason_or(self, reason: str, message: str) -> Reason:
        """Why it ended, or this if it does not say."""
        return self.reason or Reason(reason, message)


def refused(name: str, error: DafError) -> Child:
    """A child that its service will not create."""
    infeasible = isinstance(error, (InvalidArgument, FailedPrecondition))
    state = ChildState.INFEASIBLE if infeasible else ChildState.FAILED
    return Child(name, state, Reason(error.reason, error.message))
