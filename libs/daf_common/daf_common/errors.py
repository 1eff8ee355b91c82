"""The errors that cross service boundaries: one class a kind, one table for status codes and exit codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Violation:
    """What is wrong with one field of a request."""

    field: str
    """Path of the field, for example `spec.missions[0].name`."""
    message: str
    """What is wrong and what to do."""


class DafError(Exception):
    """An error with a machine-readable reason and a sentence for a person."""

    code: ClassVar[str] = "INTERNAL"
    """Name of the gRPC status code."""
    exit_code: ClassVar[int] = 70
    """Exit code of `daf` when a command ends with this error."""
    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
        violations: Iterable[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds
        self.violations = tuple(violations)


class InvalidArgument(DafError, ValueError):
    """The request is wrong whatever the state; `violations` names the fields."""

    code = "INVALID_ARGUMENT"
    exit_code = 2
    default_reason = "INVALID_ARGUMENT"

    @classmethod
    def of(cls, violations: Iterable[Violation]) -> InvalidArgument:
        """One error for all that is wrong with a request."""
        violations = tuple(violations)
        return cls("; ".join(f"{v.field}: {v.message}" for v in violations), violations=violations)

    @classmethod
    def field(cls, field: str, message: str) -> InvalidArgument:
        """One wrong field."""
        return cls.of([Violation(field, message)])


class NotFound(DafError):
    """There is no such resource."""

    code = "NOT_FOUND"
    exit_code = 4
    default_reason = "NOT_FOUND"


class AlreadyExists(DafError):
    """The name or the request id is taken by something else."""

    code = "ALREADY_EXISTS"
    exit_code = 5
    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(DafError):
    """The state forbids it; the same request may work later."""

    code = "FAILED_PRECONDITION"
    exit_code = 6
    default_reason = "FAILED_PRECONDITION"


class Aborted(DafError):
    """Somebody else was faster: a stale fence or revision."""

    code = "ABORTED"
    exit_code = 7
    default_reason = "ABORTED"


class ResourceExhausted(DafError):
    """Too large, too many, or no space left."""

    code = "RESOURCE_EXHAUSTED"
    exit_code = 8
    default_reason = "RESOURCE_EXHAUSTED"


class DataLoss(DafError):
    """Stored data is broken: a digest does not match."""

    code = "DATA_LOSS"
    exit_code = 9
    default_reason = "DATA_LOSS"


class Unauthenticated(DafError):
    """Nobody is signed in."""

    code = "UNAUTHENTICATED"
    exit_code = 10
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(DafError):
    """Whoever is signed in may not do this."""

    code = "PERMISSION_DENIED"
    exit_code = 11
    default_reason = "PERMISSION_DENIED"


class Unimplemented(DafError):
    """Not built yet."""

    code = "UNIMPLEMENTED"
    exit_code = 12
    default_reason = "UNIMPLEMENTED"


class Unavailable(DafError):
    """The service cannot be reached now; a retry may work."""

    code = "UNAVAILABLE"
    exit_code = 13
    default_reason = "UNAVAILABLE"


class DeadlineExceeded(DafError):
    """No answer in time; the request may have been carried out."""

    code = "DEADLINE_EXCEEDED"
    exit_code = 14
    default_reason = "DEADLINE_EXCEEDED"


class Cancelled(DafError):
    """The caller went away."""

    code = "CANCELLED"
    exit_code = 130
    default_reason = "CANCELLED"


class Internal(DafError):
    """A defect of DAF."""


BY_CODE: Mapping[str, type[DafError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Aborted,
        ResourceExhausted,
        DataLoss,
        Unauthenticated,
        PermissionDenied,
        Unimplemented,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Internal,
    )
}
"""The one table between gRPC status codes and errors; a code that is not here is `Internal`."""

TRANSIENT = (Unavailable, DeadlineExceeded, Aborted)
"""Errors after which a loop tries again instead of giving up."""
