"""Channels to services: deadlines, retries, request ids, and errors as `DafError`."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import grpc
from grpc.aio import ClientCallDetails, Metadata

from daf_common.auth import AUTHORIZATION_KEY
from daf_common.credentials import Tls
from daf_common.status import from_call

DEADLINE_SECONDS = 30.0
"""Deadline of calls that name none. Streams have none."""

REQUEST_ID_KEY = "x-request-id"

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    (
        # Every call of DAF is idempotent or carries a request id, so one that did not get through is sent again. A
        # server that stops cancels what it has not taken up yet; calls that the caller cancels are never sent again.
        "grpc.service_config",
        json.dumps(
            {
                "methodConfig": [
                    {
                        "name": [{}],
                        "retryPolicy": {
                            "maxAttempts": 4,
                            "initialBackoff": "0.1s",
                            "maxBackoff": "2s",
                            "backoffMultiplier": 2,
                            "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                        },
                    }
                ]
            }
        ),
    ),
)


def connect(
    address: str,
    request_id: Callable[[], str] = lambda: "",
    token: Callable[[], str] | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """An asynchronous channel. Its calls raise `grpc.aio.AioRpcError`; wrap them in `raising` for `DafError`.

    Args:
        address: `unix:PATH` or `HOST:PORT`.
        request_id: the id of the call on whose behalf calls are made; empty makes a new one a call.
        token: the bearer token that calls are made with, read anew for each; None sends none.
        interceptors: what else sees each call, before it is given a deadline.
    """
    with_token = [kind(token) for kind in _WITH_TOKEN] if token else []
    return grpc.aio.insecure_channel(
        address,
        options=_OPTIONS,
        interceptors=[*interceptors, _UnaryDefaults(request_id), *with_token],
    )


async def raising[T](call: Any) -> T:  # grpc.aio calls are awaitable, but the stubs do not share a type
    """Awaits a call.

    Raises:
        DafError: what the server raised.
    """
    try:
        answer: T = await call
        return answer
    except grpc.aio.AioRpcError as error:
        raise from_call(error) from None


async def streaming[T](call: Any) -> AsyncIterator[T]:
    """Iterates over a streaming call.

    Raises:
        DafError: what the server raised.
    """
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        raise from_call(error) from None


def connect_blocking(address: str, tls: Tls | None = None, token: str = "") -> grpc.Channel:
    """A blocking channel for scripts and workers. Its calls raise `grpc.RpcError`; see `blocking_errors`.

    Args:
        address: `unix:PATH` or `HOST:PORT`.
        tls: how the server proves itself; None speaks plain text.
        token: the bearer token that calls are made with; empty sends none.
    """
    with_token = [_BlockingWithToken(token)] if token else []
    return grpc.intercept_channel(bare_channel(address, tls, _OPTIONS), _BlockingDefaults(), *with_token)


def bare_channel(address: str, tls: Tls | None = None, options: Sequence[tuple[str, Any]] = ()) -> grpc.Channel:
    """A blocking channel that adds nothing to its calls, and sends none again."""
    if tls is None:
        return grpc.insecure_channel(address, options=options)
    name = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    credentials = grpc.ssl_channel_credentials(tls.ca.encode() or None)
    return grpc.secure_channel(address, credentials, options=[*options, *name])


class blocking_errors:  # noqa: N801 - reads as a statement: `with blocking_errors():`
    """Turns `grpc.RpcError` into `DafError` for the calls in its block."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, grpc.RpcError):
            raise from_call(error) from None


def blocking_stream[T](call: Iterator[T]) -> Iterator[T]:
    """Iterates over a blocking streaming call.

    Raises:
        DafError: what the server raised.
    """
    with blocking_errors():
        yield from call


class _UnaryDefaults(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, request_id: Callable[[], str]) -> None:
        self._request_id = request_id

    async def intercept_unary_unary(self, continuation: Any, details: ClientCallDetails, request: Any) -> Any:
        metadata = Metadata(*(details.metadata or ()))
        metadata.add(REQUEST_ID_KEY, self._request_id() or uuid.uuid4().hex[:16])
        timeout = DEADLINE_SECONDS if details.timeout is None else details.timeout
        return await continuation(
            ClientCallDetails(details.method, timeout, metadata, details.credentials, details.wait_for_ready), request
        )


def _authorized(details: ClientCallDetails, token: Callable[[], str]) -> ClientCallDetails:
    metadata = Metadata(*(details.metadata or ()))
    metadata.add(AUTHORIZATION_KEY, f"Bearer {token()}")
    return ClientCallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)


class _TokenInterceptor:
    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token


# A channel of grpc.aio takes an interceptor for one kind of calls only, even if it could do more.
class _UnaryUnaryToken(_TokenInterceptor, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: ClientCallDetails, request: Any) -> Any:
        return await continuation(_authorized(details, self._token), request)


class _UnaryStreamToken(_TokenInterceptor, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: ClientCallDetails, request: Any) -> Any:
        return await continuation(_authorized(details, self._token), request)


class _StreamUnaryToken(_TokenInterceptor, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, details: ClientCallDetails, requests: Any) -> Any:
        return await continuation(_authorized(details, self._token), requests)


class _StreamStreamToken(_TokenInterceptor, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, details: ClientCallDetails, requests: Any) -> Any:
        return await continuation(_authorized(details, self._token), requests)


_WITH_TOKEN = (_UnaryUnaryToken, _UnaryStreamToken, _StreamUnaryToken, _StreamStreamToken)


class _BlockingDetails(grpc.ClientCallDetails):
    def __init__(self, details: Any, timeout: float, metadata: list[tuple[str, str]]) -> None:
        self.method, self.timeout, self.metadata = details.method, timeout, tuple(metadata)
        self.credentials, self.wait_for_ready = details.credentials, details.wait_for_ready
        self.compression = details.compression


class _BlockingDefaults(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), (REQUEST_ID_KEY, uuid.uuid4().hex[:16])]
        timeout = DEADLINE_SECONDS if details.timeout is None else details.timeout
        return continuation(_BlockingDetails(details, timeout, metadata), request)


class _BlockingWithToken(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, token: str) -> None:
        self._header = (AUTHORIZATION_KEY, f"Bearer {token}")

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._authorized(details), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._authorized(details), request)

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(self._authorized(details), requests)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(self._authorized(details), requests)

    def _authorized(self, details: Any) -> _BlockingDetails:
        return _BlockingDetails(details, details.timeout, [*(details.metadata or ()), self._header])
