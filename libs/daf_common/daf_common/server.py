"""The gRPC server of a service: every call passes the same steps before it reaches the servicer."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from daf_common.auth import Tokens, authentication
from daf_common.channel import REQUEST_ID_KEY
from daf_common.errors import DafError, Internal, InvalidArgument, Unavailable, Unimplemented
from daf_common.faults import FAULTS, InjectedFault
from daf_common.rpc_metrics import UNARY_UNARY, count_unknown, served
from daf_common.status import to_status
from daf_common.telemetry import REQUEST_ID

log = logging.getLogger(__name__)

CONNECTION_SECONDS = 300
"""After which a client is asked for a new connection, so that every replica gets its share of the calls. Those under
way end where they are, however long they last."""

Step = Callable[["Call"], AbstractContextManager[None]]
"""One step that wraps every call; it sees the call and may raise a `DafError`."""


class Call:
    """A call that is being served."""

    def __init__(self, method: str, metadata: dict[str, str], kind: str = UNARY_UNARY) -> None:
        self.method, self.kind = method, kind
        self.metadata = metadata
        self.code = "OK"


@contextmanager
def telemetry(call: Call) -> Any:
    """Measures the call."""
    with served(call.method, call.kind).measured(lambda: call.code):
        yield


@contextmanager
def request_id(call: Call) -> Any:
    """Takes over the caller's request id, so that logs of all services can be joined by it."""
    token = REQUEST_ID.set(call.metadata.get(REQUEST_ID_KEY, "")[:64] or uuid.uuid4().hex[:16])
    try:
        yield
    finally:
        REQUEST_ID.reset(token)


@contextmanager
def errors(call: Call) -> Any:
    """Turns whatever is raised inside into a `DafError`; defects are logged here, and only here."""
    try:
        yield
    except DafError as error:
        call.code = error.code
        raise
    except InjectedFault as fault:
        call.code = Unavailable.code
        raise Unavailable(f"injected: {fault}") from fault
    except NotImplementedError as error:  # what the generated base class raises
        call.code = Unimplemented.code
        raise Unimplemented(f"{call.method.rpartition('/')[2]} is not built yet") from error
    except Exception as error:
        call.code = Internal.code
        log.exception("%s failed", call.method)
        raise Internal(f"an unexpected error, logged under request id {REQUEST_ID.get()}") from error


@contextmanager
def faults(call: Call) -> Any:
    """Lets calls fail on demand, before or after they were carried out."""
    FAULTS.inject(f"{call.method}.before")
    yield
    FAULTS.inject(f"{call.method}.after")


def create_steps(tokens: Tokens | None) -> tuple[Step, ...]:
    """All steps, in their order. With tokens, only callers that have one are served."""
    return telemetry, request_id, errors, authentication(tokens), faults


class Interceptor(grpc.aio.ServerInterceptor):
    """Runs the steps around every call."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._steps = steps

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(details)
        if handler is None:
            count_unknown()
        if handler is None or not details.method.startswith("/daf."):
            return handler
        metadata = {k: v for k, v in details.invocation_metadata or () if isinstance(v, str)}
        parse = handler.request_deserializer
        kind = (
            ("stream" if handler.request_streaming else "unary")
            + "_"
            + ("stream" if handler.response_streaming else "unary")
        )
        inner = getattr(handler, kind)

        def read(raw: bytes) -> Any:
            try:
                return parse(raw)
            except DecodeError as error:
                raise InvalidArgument.field("request", f"these bytes are no message of {details.method}") from error

        async def read_all(stream: AsyncIterator[bytes]) -> AsyncIterator[Any]:
            async for raw in stream:
                yield read(raw)

        def begin(stack: ExitStack, raw: Any) -> Any:
            call = Call(details.method, metadata, kind)
            for step in self._steps:
                stack.enter_context(step(call))
            return read_all(raw) if handler.request_streaming else read(raw)

        async def unary(raw: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                with ExitStack() as stack:
                    return await inner(begin(stack, raw), context)
            except DafError as error:
                await context.abort_with_status(rpc_status.to_status(to_status(error)))

        async def streaming(raw: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                with ExitStack() as stack:
                    async for message in inner(begin(stack, raw), context):
                        yield message
            except DafError as error:
                await context.abort_with_status(rpc_status.to_status(to_status(error)))

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        # The bytes are parsed inside the steps, so that a broken message is an error like any other.
        return make(streaming if handler.response_streaming else unary, None, handler.response_serializer)


def create_server(address: str, tokens: Tokens | None = None) -> tuple[grpc.aio.Server, int]:
    """A server that listens on `unix:PATH` or `HOST:PORT` once started; returns it with its port (1 for a socket)."""
    server = grpc.aio.server(
        interceptors=[Interceptor(create_steps(tokens))],
        options=(
            ("grpc.max_receive_message_length", 4 << 20),
            ("grpc.so_reuseport", 0),
            # Idle watches are kept open by pings (see `daf_common.channel`), which a server refuses by default.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.max_connection_age_ms", int(CONNECTION_SECONDS * 1000)),
        ),
    )
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise Unavailable(f"cannot listen on {address}: {error}") from error
    return server, port
