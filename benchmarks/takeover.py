"""How long nobody leads a service after the leader of two replicas has ended in order, was killed or stands still.

All services run, each in a process of its own on one PostgreSQL, with stand-in compute (`tests.replicas`), and sweeps
keep the leader at work: it ends wherever it is. What is awaited is that the other replica holds the lease, which is
looked at 20 times a second. The peer is what an operator of Kubernetes is used to: a controller that leads by
client-go's leader election, with its defaults, is silent for 15 s before another tries, which it does every 2 s or so
(https://pkg.go.dev/k8s.io/client-go/tools/leaderelection); that is not measured here.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from daf_common.channel import connect
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from tests.postgres_server import PostgresServer, postgres_binaries
from tests.replicas import Replicas
from tests.sweep_runs import create, digest_of

SERVICES = ("scheduler", "training", "evaluation")
ENDS = {"asked to end": signal.SIGTERM, "killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
ROUNDS = 5
TARGET_SECONDS = 15.0
TRIALS = 50


def main() -> None:
    """Prints the figures."""
    binaries = postgres_binaries()
    if binaries is None:
        print("skipped: there is no PostgreSQL on this machine")
        return
    server = PostgresServer(binaries)
    try:
        with tempfile.TemporaryDirectory() as directory:
            measured = asyncio.run(_measure(Path(directory) / "r", server.url))
    finally:
        server.close()
    print(f"seconds until the other replica leads, {ROUNDS} times each: median (longest)")
    print(f"{'':<12}" + "".join(f"{how:>16}" for how in ENDS))
    for service in SERVICES:
        figures = [measured[service, how] for how in ENDS]
        print(f"{service:<12}" + "".join(f"{statistics.median(f):>9.1f} ({max(f):.1f})" for f in figures))
    longest = max(itertools.chain.from_iterable(measured.values()))
    print(f"longest {longest:.1f} (target {TARGET_SECONDS:g}; client-go's defaults, by their documentation: 15 to 17)")


async def _measure(directory: Path, database_url: str) -> dict[tuple[str, str], list[float]]:
    replicas = Replicas(directory, database_url, dict.fromkeys(SERVICES, 2))
    measured = {}
    async with replicas.running(), connect(replicas.address("scheduler")) as channel:
        busy = asyncio.create_task(_sweeps_without_end(SchedulerServiceStub(channel)))
        try:
            for service, how in itertools.product(SERVICES, ENDS):
                measured[service, how] = [await _seconds(replicas, service, ENDS[how]) for _ in range(ROUNDS)]
        finally:
            busy.cancel()
            with suppress(asyncio.CancelledError):
                await busy
    return measured


async def _sweeps_without_end(stub: SchedulerServiceStub) -> None:
    for number in itertools.count():
        await digest_of(stub, await create(stub, f"busy-{number}", TRIALS))


async def _seconds(replicas: Replicas, service: str, how: signal.Signals) -> float:
    """Ends the leader; seconds until the other leads, for whom it is at hand again afterwards."""
    leader, fence = replicas.leader(service)
    start = time.monotonic()
    await asyncio.to_thread(replicas.signal, service, leader, how)
    await replicas.until_another_leads(service, fence)
    seconds = time.monotonic() - start
    if how is signal.SIGSTOP:
        replicas.signal(service, leader, signal.SIGCONT)
    else:
        replicas.start(service, leader)
    await replicas.ready(service, leader)
    await asyncio.sleep(2.0)  # it has looked at the lease, and the sweeps go on
    return seconds
