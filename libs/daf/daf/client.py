"""Blocking stubs of all services behind one address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self, cast

import grpc

from daf.endpoint import Endpoint
from daf_common.channel import bare_channel, blocking_errors, blocking_stream, connect_blocking
from daf_protos.deployment.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from daf_protos.deployment.v1.deployment_service_pb2_grpc import DeploymentServiceStub
from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_protos.statistics.v1.comparison_service_pb2_grpc import ComparisonServiceStub
from daf_protos.statistics.v1.scoring_service_pb2_grpc import ScoringServiceStub
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1.catalog_service_pb2_grpc import CatalogServiceStub
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceStub

_SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse(status=SERVING)


class Client:
    """The services of one installation. Their calls raise `daf_common.errors.DafError`. Safe to share by threads."""

    def __init__(self, endpoint: Endpoint | str) -> None:
        """Opens no connection yet.

        Args:
            endpoint: where all services are found, or its address alone where no token and no authority of one's own
                is needed.

        Raises:
            InvalidArgument: it is no address.
        """
        self.endpoint = _endpoint(endpoint)
        self._channel = connect_blocking(self.endpoint.target, self.endpoint.tls, self.endpoint.token)
        self.scheduler = _raising(SchedulerServiceStub, self._channel)
        self.training = _raising(TrainingServiceStub, self._channel)
        self.catalog = _raising(CatalogServiceStub, self._channel)
        self.evaluation = _raising(EvaluationServiceStub, self._channel)
        self.statistics = _raising(StatisticsServiceStub, self._channel)
        self.comparison = _raising(ComparisonServiceStub, self._channel)
        self.scoring = _raising(ScoringServiceStub, self._channel)
        self.deployment = _raising(DeploymentServiceStub, self._channel)
        self.artifacts = _raising(ArtifactServiceStub, self._channel)

    @property
    def address(self) -> str:
        """Where the services are."""
        return self.endpoint.address

    def close(self) -> None:
        """Closes the connection; streams end."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_serving(endpoint: Endpoint | str, timeout_seconds: float = 1.0) -> bool:
    """Whether something answers there and says that it serves. No token is asked for, and none is sent."""
    found = _endpoint(endpoint)
    with bare_channel(found.target, found.tls) as channel:
        check: grpc.UnaryUnaryMultiCallable[None, bytes] = channel.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=lambda _: b"", response_deserializer=bytes
        )
        try:
            return bool(check(None, timeout=timeout_seconds) == _SERVING)
        except grpc.RpcError:
            return False


def all_pages[T](read: Callable[[str], tuple[list[T], str]]) -> Iterator[T]:
    """What all pages of a list hold.

    Args:
        read: reads the page with a token; returns its items and the token of the next.
    """
    token = ""
    while True:
        items, token = read(token)
        yield from items
        if not token:
            return


class Stream[T]:
    """A streaming answer; its errors are `DafError`."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[T]:
        return blocking_stream(self._call)

    def cancel(self) -> None:
        """Ends the stream."""
        self._call.cancel()


def _endpoint(given: Endpoint | str) -> Endpoint:
    return Endpoint(given) if isinstance(given, str) else given


class _Raising:
    """A stub whose methods raise `DafError`."""

    def __init__(self, stub: object) -> None:
        self._stub = stub

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._stub, name)

        def call(*arguments: Any, **options: Any) -> Any:
            with blocking_errors():
                answer = method(*arguments, **options)
            return Stream(answer) if isinstance(answer, grpc.RpcContext) else answer

        return call


def _raising[S](stub: Callable[[grpc.Channel], S], channel: grpc.Channel) -> S:
    return cast(S, _Raising(stub(channel)))
