"""Whole trials per second: create, train, evaluate and score, through all five services, their databases and RPCs.

Only the computing is a stand-in (`tests.standin`), so what is measured is DAF itself. The peer is Optuna alone, which
does the same search in one process without services, training or evaluation: the price of everything else.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.standin_process import StandInProcess
from daf_common.channel import connect, raising
from daf_common.store import Store
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_standalone.settings import Home
from daf_standalone.stack import Backends
from tests.requests import all_trials, finished_sweep, sweep_request
from tests.standin_stack import standin_host

TRIALS = 1000
PARALLEL = 32
SLOTS = {
    "DAF_TRAINING_CPUS": "64",
    "DAF_TRAINING_MEMORY_GIB": "none",
    "DAF_EVALUATION_SLOTS": "64",
    "DAF_EVALUATION_WORKERS": "1",
}
"""Stand-in compute needs no cores, so the machine's number of them is no bound."""
TARGET_PER_SECOND = 50


class Commits:
    """Counts the writing transactions of all stores."""

    def __init__(self) -> None:
        self.stores: list[Store] = []
        original = Store.__init__

        def counted(store: Store, url: str, schema: str) -> None:
            original(store, url, schema)
            self.stores.append(store)

        Store.__init__ = counted  # type: ignore[method-assign]

    def per_trial(self) -> dict[str, float]:
        """Commits per trial of each service."""
        return {store.schema: store.commits / TRIALS for store in self.stores}


def calls_per_trial() -> float:
    """RPCs served per trial."""
    from prometheus_client import REGISTRY

    samples = (s for m in REGISTRY.collect() for s in m.samples)
    return sum(s.value for s in samples if s.name == "grpc_server_handled_total") / TRIALS


async def measure(home: Path, trials: int) -> tuple[float, list[float]]:
    """Runs one sweep; returns its wall time and when each trial ended, in seconds from the start."""
    host = standin_host(Home(home), Backends(StandInProcess(0.05), StandInProcess(0)))
    await host.start()
    try:
        async with connect(f"unix:{Home(home).socket()}") as channel:
            stub = SchedulerServiceStub(channel)
            start = time.perf_counter()
            sweep = (await raising(stub.CreateSweep(sweep_request("bench", trials, PARALLEL)))).sweep
            done = await finished_sweep(stub, sweep.name)
            wall = time.perf_counter() - start
            ends = sorted(t.end_time.ToNanoseconds() for t in await all_trials(stub, sweep.name))
            origin = done.create_time.ToNanoseconds()
            return wall, [(end - origin) / 1e9 for end in ends]
    finally:
        await host.stop()


def optuna_seconds(trials: int) -> float:
    """The same search by Optuna's random sampler alone."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7))
    start = time.perf_counter()
    study.optimize(lambda trial: trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True), n_trials=trials)
    return time.perf_counter() - start


def main() -> None:
    """Prints the figures."""
    trials = TRIALS
    os.environ |= SLOTS
    commits = Commits()
    with tempfile.TemporaryDirectory() as directory:
        wall, ends = asyncio.run(measure(Path(directory) / "home", trials))
    tenth = trials // 10
    first = tenth / ends[tenth - 1]
    last = tenth / (ends[-1] - ends[-tenth - 1])
    middle = statistics.median(tenth / (ends[i + tenth] - ends[i]) for i in range(0, trials - tenth, tenth))
    print(f"{trials} trials, {PARALLEL} at a time, 50 ms of stand-in training each: {wall:.1f} s")
    print(f"trials per second: {trials / wall:.1f} in all (target at least {TARGET_PER_SECOND})")
    print(f"                   first tenth {first:.1f}, median tenth {middle:.1f}, last tenth {last:.1f}")
    per_service = ", ".join(f"{name} {count:.1f}" for name, count in commits.per_trial().items())
    print(f"commits per trial: {sum(commits.per_trial().values()):.1f} ({per_service})")
    print(f"RPCs per trial:    {calls_per_trial():.1f}")
    print(f"Optuna alone, searching {trials} times without training or storing: {optuna_seconds(trials):.1f} s")


if __name__ == "__main__":
    sys.exit(main())
