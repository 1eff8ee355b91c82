"""The scheduler as a process of its own, killed as by kill -9 at its commits, and with faults injected everywhere."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from daf_common.channel import connect
from daf_common.faults import EXIT_CODE
from daf_protos.scheduler.v1 import scheduler_service_pb2 as pb
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub

S = sweep_pb2
ENDED = (S.SWEEP_STATE_SUCCEEDED, S.SWEEP_STATE_FAILED, S.SWEEP_STATE_CANCELLED)


class Process:
    """A scheduler process that is started again whenever it ends."""

    def __init__(self, home: Path, peers: str, database_url: str) -> None:
        self.address = f"unix:{home}/scheduler.sock"
        self.crashes = 0
        self._environment = {
            **os.environ,
            "DAF_HOME": str(home),
            "DAF_DATABASE_URL": database_url,
            "DAF_LISTEN": self.address,
            "DAF_REPLICA": "a",
            "DAF_LOG_LEVEL": "ERROR",
            **{f"DAF_{peer}_ADDRESS": peers for peer in ("TRAINING", "EVALUATION", "STATISTICS")},
        }

    async def keep_running(self, faults: dict[str, str]) -> None:
        """Runs the process with faults, and after each crash again without."""
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "daf_scheduler.main", env={**self._environment, **faults}
            )
            try:
                code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            assert code == EXIT_CODE
            self.crashes += 1
            faults = {}
            # There is none if it was killed before it listened.
            Path(self.address.removeprefix("unix:")).unlink(missing_ok=True)


async def run_sweep(process: Process, spec: S.SweepSpec, faults: dict[str, str]) -> tuple[S.Sweep, list[S.Trial]]:
    """Creates a sweep and waits for its end, calling again as long as calls fail."""
    running = asyncio.create_task(process.keep_running(faults))
    channel = connect(process.address)
    stub = SchedulerServiceStub(channel)

    async def insist(method: Any, request: Any) -> Any:
        while not running.done():
            try:
                return await method(request, wait_for_ready=True, timeout=30)
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
                await asyncio.sleep(0.05)
        return await running

    try:
        async with asyncio.timeout(240):
            await insist(stub.CreateSweep, pb.CreateSweepRequest(sweep_id="lr", request_id="lr", spec=spec))
            while True:
                sweep = (await insist(stub.GetSweep, pb.GetSweepRequest(name="sweeps/lr"))).sweep
                if sweep.state in ENDED:
                    break
                await asyncio.sleep(0.05)
            listed = await insist(stub.ListTrials, pb.ListTrialsRequest(parent="sweeps/lr", page_size=1000))
            return sweep, list(listed.trials)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await channel.close()


def check(sweep: S.Sweep, trials: list[S.Trial], peers: Any) -> None:
    """The result of an undisturbed run, with every job and evaluation created once."""
    assert sweep.state == S.SWEEP_STATE_SUCCEEDED, sweep.failure
    assert sweep.best_trial == "sweeps/lr/trials/3"
    assert [trial.state for trial in trials] == [S.TRIAL_STATE_SUCCEEDED] * 4
    assert (sweep.trials.succeeded, sweep.trials.pending, sweep.trials.running) == (4, 0, 0)
    jobs = [trial.training_job for trial in trials]
    assert sorted(peers.training.created) == jobs
    assert sorted(peers.evaluation.created) == ["evaluations/lr-held-out", *(t.evaluation for t in trials)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("point", "count"), [("scheduler.commit.before", 5), ("scheduler.commit.after", 9)])
async def test_a_kill_at_a_commit_loses_and_doubles_nothing(
    point: str, count: int, database_url: str, tmp_path: Path, peers: Any, sweep_spec: S.SweepSpec
) -> None:
    process = Process(tmp_path, peers.address, database_url)
    sweep, trials = await run_sweep(process, sweep_spec, {"DAF_CRASH_AT": f"{point}:{count}"})
    assert process.crashes == 1
    check(sweep, trials, peers)


@pytest.mark.chaos
@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("count", range(1, 13))
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_at_any_commit_loses_and_doubles_nothing(
    when: str, count: int, database_url: str, tmp_path: Path, peers: Any, sweep_spec: S.SweepSpec
) -> None:
    process = Process(tmp_path, peers.address, database_url)
    faults = {"DAF_CRASH_AT": f"scheduler.commit.{when}:{count}"}
    check(*await run_sweep(process, sweep_spec, faults), peers)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(2, 12))])
async def test_faults_in_a_tenth_of_all_transactions_and_calls_change_nothing(
    seed: int, database_url: str, tmp_path: Path, peers: Any, sweep_spec: S.SweepSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daf_common import faults, server

    monkeypatch.setattr(server, "FAULTS", faults.Faults(rate=0.05, seed=seed))  # of the peers, before and after
    process = Process(tmp_path, peers.address, database_url)
    check(*await run_sweep(process, sweep_spec, {"DAF_FAULTS": f"0.05:{seed}"}), peers)
