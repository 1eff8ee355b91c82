"""Sweeps that are run to their ends whatever happens to the services meanwhile."""

from __future__ import annotations

import asyncio

from daf_common.channel import raising, streaming
from daf_common.errors import Unavailable
from daf_protos.scheduler.v1 import scheduler_service_pb2 as pb
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_protos.scheduler.v1.sweep_pb2 import SWEEP_STATE_SUCCEEDED, Sweep
from tests.requests import TERMINAL, all_trials, result_digest, sweep_request

SWEEP_SECONDS = 600.0


async def create(stub: SchedulerServiceStub, id: str, trials: int) -> str:
    """Creates a sweep; returns its name."""
    created = await raising(stub.CreateSweep(sweep_request(id, trials, parallel=4)))
    return str(created.sweep.name)


async def digest_of(stub: SchedulerServiceStub, name: str) -> str:
    """Watches a sweep to its end, by as many streams as it takes; what it came to, whatever it is called."""
    cursor, sweep = "", Sweep()
    async with asyncio.timeout(SWEEP_SECONDS):
        while sweep.state not in TERMINAL:
            try:
                async for changes in streaming(stub.WatchSweeps(pb.WatchSweepsRequest(name=name, cursor=cursor))):
                    cursor = changes.cursor
                    sweep = next(iter(changes.sweeps), sweep)
                    if sweep.state in TERMINAL:
                        break
            except Unavailable:
                await asyncio.sleep(0.1)
    assert sweep.state == SWEEP_STATE_SUCCEEDED
    trials = await all_trials(stub, name)
    sweep.best_trial = sweep.best_trial.removeprefix(name)
    return result_digest(sweep, trials)


async def until_some_trials_have_ended(stub: SchedulerServiceStub, name: str) -> None:
    """Waits until a sweep is in its middle."""
    while (await raising(stub.GetSweep(pb.GetSweepRequest(name=name)))).sweep.trials.succeeded < 3:
        await asyncio.sleep(0.05)
