"""Errors on the wire: `google.rpc.Status` with one `ErrorInfo`, `BadRequest` for fields and `RetryInfo` for retries."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from daf_common.errors import BY_CODE, DafError, Internal, Unavailable, Violation

DOMAIN = "daf"
_MAX_VIOLATIONS = 50  # an error has to fit into the trailing metadata
_MAX_MESSAGE = 4000
_CANCELLED_HERE = "Locally cancelled by application!"  # gRPC's own words


def to_status(error: DafError) -> status_pb2.Status:
    """The wire form of an error."""
    details: list[Any] = []

    def attach(
        message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
    ) -> None:
        packed = Any()
        packed.Pack(message)
        details.append(packed)

    attach(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if error.violations:
        attach(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=v.field[:200], description=v.message[:1000])
                    for v in error.violations[:_MAX_VIOLATIONS]
                ]
            )
        )
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        attach(error_details_pb2.RetryInfo(retry_delay=delay))
    code: int = grpc.StatusCode[error.code].value[0]
    return status_pb2.Status(code=code, message=error.message[:_MAX_MESSAGE], details=details)


def from_call(error: grpc.RpcError) -> DafError:
    """The error that a server raised, as the caller sees it."""
    kind = Unavailable if _cut_off(error) else BY_CODE.get(error.code().name, Internal)
    reason, metadata, retry, violations = "", {}, None, []
    status = rpc_status.from_call(error) if error.trailing_metadata() else None
    for detail in status.details if status else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations = [Violation(v.field, v.description) for v in bad.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            info_retry = error_details_pb2.RetryInfo()
            detail.Unpack(info_retry)
            retry = info_retry.retry_delay.ToNanoseconds() / 1e9
    message = error.details() or error.code().name
    if kind is Unavailable and error.code() is grpc.StatusCode.CANCELLED:
        message = "the service stopped before it answered"
    return kind(message, reason=reason, metadata=metadata, retry_after_seconds=retry, violations=violations)


def _cut_off(error: grpc.RpcError) -> bool:
    """Whether no service answered: the server stopped before it took up the call, which gRPC then cancels, or what lies
    between reset the stream, as nginx does when the service dies, which gRPC calls an internal error. What a service
    says itself comes with details in the trailing metadata."""
    if error.trailing_metadata():
        return False
    details = error.details() or ""
    if error.code() is grpc.StatusCode.CANCELLED:
        return details != _CANCELLED_HERE
    return error.code() is grpc.StatusCode.INTERNAL and "RST_STREAM" in details
