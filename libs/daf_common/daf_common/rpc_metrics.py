"""Calls, counted and timed: those that are served, and those that are made to other services."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import grpc
from grpc.aio import ClientCallDetails
from prometheus_client import Counter, Gauge, Histogram

from daf_common import metrics

UNARY_UNARY, UNARY_STREAM = "unary_unary", "unary_stream"
_TYPES = {
    UNARY_UNARY: "unary",
    UNARY_STREAM: "server_stream",
    "stream_unary": "client_stream",
    "stream_stream": "bidi_stream",
}
"""From gRPC's names of the kinds of handlers to the label's values."""


class Method:
    """The numbers of one method. They are looked up once: that costs more than to change them."""

    def __init__(
        self, started: Counter, ended: Counter, seconds: Histogram, in_flight: Gauge, labels: tuple[str, str, str]
    ) -> None:
        self._started, self._in_flight = started.labels(*labels), in_flight.labels(*labels)
        self._seconds, self._ended = seconds.labels(*labels), ended
        self._labels, self._codes = labels, dict[str, Counter]()

    @contextmanager
    def measured(self, code: Callable[[], str]) -> Iterator[None]:
        """Measures one call; `code` is asked at its end."""
        self._started.inc()
        self._in_flight.inc()
        start = time.perf_counter()
        ended_with = ""
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            ended_with = "CANCELLED"
            raise
        finally:
            self._seconds.observe(time.perf_counter() - start)
            self._in_flight.dec()
            self._count(ended_with or code())

    def _count(self, code: str) -> None:
        if code not in self._codes:
            self._codes[code] = self._ended.labels(*self._labels, code)
        self._codes[code].inc()


@cache
def served(method: str, kind: str) -> Method:
    """The numbers of a method that is served; `kind` is one such as `unary_stream`.

    Only for methods that there are: whoever calls may name any.
    """
    return Method(
        metrics.SERVED_STARTED,
        metrics.SERVED,
        metrics.SERVED_SECONDS,
        metrics.SERVED_IN_FLIGHT,
        _labels(method, kind),
    )


@cache
def made(method: str, kind: str) -> Method:
    """The numbers of a method of another service."""
    return Method(
        metrics.MADE_STARTED, metrics.MADE, metrics.MADE_SECONDS, metrics.MADE_IN_FLIGHT, _labels(method, kind)
    )


def count_unknown() -> None:
    """Counts a call to a method that is not served."""
    labels = (metrics.UNKNOWN,) * 3
    metrics.SERVED_STARTED.labels(*labels).inc()
    metrics.SERVED.labels(*labels, "UNIMPLEMENTED").inc()


class MeasuredUnary(grpc.aio.UnaryUnaryClientInterceptor):
    """Measures calls with one request and one answer."""

    async def intercept_unary_unary(self, continuation: Any, details: ClientCallDetails, request: Any) -> Any:
        """See `grpc.aio.UnaryUnaryClientInterceptor`."""
        code = "UNKNOWN"
        with made(_text(details.method), UNARY_UNARY).measured(lambda: code):
            call = await continuation(details, request)
            try:
                code = (await call.code()).name
            except asyncio.CancelledError:
                call.cancel()
                raise
        return call


class MeasuredStream(grpc.aio.UnaryStreamClientInterceptor):
    """Measures calls that are answered by a stream."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[None]] = set()

    async def intercept_unary_stream(self, continuation: Any, details: ClientCallDetails, request: Any) -> Any:
        """See `grpc.aio.UnaryStreamClientInterceptor`."""
        call = await continuation(details, request)
        task = asyncio.create_task(_measure_stream(_text(details.method), call), name="measure a stream")
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        return call


async def _measure_stream(method: str, call: Any) -> None:
    code = "UNKNOWN"
    with made(method, UNARY_STREAM).measured(lambda: code):
        code = (await call.code()).name


def measured_calls() -> list[grpc.aio.ClientInterceptor]:
    """What measures the calls of a channel."""
    return [MeasuredUnary(), MeasuredStream()]


def _text(method: str | bytes) -> str:
    return method.decode() if isinstance(method, bytes) else method


def _labels(method: str, kind: str) -> tuple[str, str, str]:
    service, _, name = method.removeprefix("/").partition("/")
    return _TYPES[kind], service, name
