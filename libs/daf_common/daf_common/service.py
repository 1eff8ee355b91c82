"""The frame of a service process: settings, logs, metrics, server, signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from daf_common.auth import create_tokens
from daf_common.channel import connect
from daf_common.clock import Clock, SystemClock
from daf_common.credentials import TokenFile
from daf_common.errors import InvalidArgument
from daf_common.ids import Ids, RandomIds
from daf_common.metrics_server import MetricsServer
from daf_common.rpc_metrics import measured_calls
from daf_common.server import create_server
from daf_common.settings import ServiceSettings
from daf_common.telemetry import REQUEST_ID, configure_logging

log = logging.getLogger(__name__)


class Service(Protocol):
    """One of the five services, wired but not yet at work."""

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the servicers to a server; returns the full names of the gRPC services."""
        ...

    async def start(self) -> None:
        """Begins the work behind the servicers: reconcilers, watches. The server already listens."""
        ...

    async def stop(self) -> None:
        """Ends that work, and all watches. Calls that are being served go on."""
        ...

    async def close(self) -> None:
        """Closes the store. The server has stopped."""
        ...


class Part(Protocol):
    """What works behind the servicers of a service: reconcilers, leaders, watchers, what is done now and then."""

    def start(self) -> None:
        """Begins to work."""
        ...

    async def stop(self) -> None:
        """Stops."""
        ...


class Parts:
    """The parts of a service: each may need those before it, and is stopped before them."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts

    def start(self) -> None:
        """Begins to work."""
        for part in self._parts:
            part.start()

    async def stop(self) -> None:
        """Stops."""
        for part in reversed(self._parts):
            await part.stop()


@dataclass
class Context:
    """What a service is given to be built with; tests give it other parts."""

    settings: ServiceSettings
    clock: Clock = field(default_factory=SystemClock)
    ids: Ids = field(default_factory=RandomIds)
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    def peer(self, service: str) -> grpc.aio.Channel:
        """The channel to another service, by its short name, for example `statistics`."""
        address: str = getattr(self.settings, f"{service}_address")
        if address not in self._channels:
            self._channels[address] = connect(address, REQUEST_ID.get, self.token(), measured_calls())
        return self._channels[address]

    def token(self) -> Callable[[], str] | None:
        """The token that this service sends to the others, read anew for each call; None if it sends none.

        Raises:
            InvalidArgument: there is none in the file that is to hold it.
        """
        if not self.settings.token_file:
            return None
        try:
            return TokenFile(Path(self.settings.token_file)).token
        except InvalidArgument as error:
            raise InvalidArgument.field("DAF_TOKEN_FILE", error.violations[0].message) from None

    async def close(self) -> None:
        """Closes all channels."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))


class Host:
    """Serves one or more services on one address, with health, reflection and metrics."""

    def __init__(self, context: Context, services: Sequence[Service]) -> None:
        self._context, self._services = context, services
        tokens = create_tokens(context.settings, context.clock, context.token())
        self._server, self.port = create_server(context.settings.listen, tokens)
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._names = [name for service in services for name in service.register(self._server)]
        reflection.enable_server_reflection([*self._names, reflection.SERVICE_NAME], self._server)
        self._serving = False
        settings = context.settings
        self.metrics = MetricsServer(settings.metrics_port, lambda: self._serving, settings.metrics_host)

    async def start(self) -> None:
        """Listens, then begins the services' work."""
        await self._server.start()
        for service in self._services:
            await service.start()
        for name in ["", *self._names]:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._serving = True
        self.metrics.start()
        log.info("serving on %s, metrics on port %s", self._context.settings.listen, self.metrics.port)

    async def stop(self) -> None:
        """Ends the services' work, takes no new calls, and lets running ones end."""
        self._serving = False
        await self._health.enter_graceful_shutdown()
        for service in reversed(self._services):
            await service.stop()
        await self._server.stop(self._context.settings.drain_seconds)
        for service in self._services:
            await service.close()
        await self._context.close()
        self.metrics.stop()


def run(settings: ServiceSettings, build: Callable[[Context], Sequence[Service]]) -> None:
    """The main function of a service process: serves until SIGTERM or SIGINT."""
    configure_logging(settings.log_level, settings.log_format)

    async def serve() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        context = Context(settings)
        try:
            host = Host(context, build(context))
            await host.start()
        except Exception as error:
            log.critical("cannot start: %s", error, exc_info=True)
            logging.shutdown()
            os._exit(1)  # asyncio would wait for a subprocess that was being started, which never ends once cancelled
        await stopping.wait()
        log.info("stopping")
        await host.stop()

    asyncio.run(serve())
