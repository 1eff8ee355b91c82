"""Requests that several suites send, and what identifies a sweep's result."""

from __future__ import annotations

import hashlib
import json

from daf_common.channel import raising, streaming
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.scheduler.v1 import scheduler_service_pb2 as pb
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_protos.scheduler.v1.sweep_pb2 import (
    SWEEP_STATE_CANCELLED,
    SWEEP_STATE_FAILED,
    SWEEP_STATE_SUCCEEDED,
    Choices,
    Domain,
    EvaluationPlan,
    GridSearch,
    Interval,
    Objective,
    RandomSearch,
    Search,
    Sweep,
    SweepSpec,
    Trial,
)
from daf_protos.training.v1.training_job_pb2 import TrainingSpec

MISSION = Mission(name="cogsguard_machina_1.miner_tutorial", cogs=4, max_steps=10)
TERMINAL = (SWEEP_STATE_SUCCEEDED, SWEEP_STATE_FAILED, SWEEP_STATE_CANCELLED)


def sweep_request(sweep_id: str, trials: int, parallel: int, *, grid: bool = False) -> pb.CreateSweepRequest:
    """A sweep over learning rates that costs next to nothing with stand-in compute."""
    rates = [Value(real=0.0001 * (n + 1)) for n in range(trials)]
    domain = (
        Domain(choices=Choices(values=rates))
        if grid
        else Domain(interval=Interval(minimum=1e-5, maximum=1e-1, logarithmic=True))
    )
    spec = SweepSpec(
        training=TrainingSpec(
            policy_class=PolicyClass(class_path="lstm"), missions=[MISSION], agent_steps=1000, seed=1
        ),
        space={"trainer.learning_rate": domain},
        search=Search(grid=GridSearch()) if grid else Search(random=RandomSearch(trials=trials)),
        objective=Objective(metric="reward"),
        evaluation=EvaluationPlan(episodes=4, seed=10_000),
        held_out=EvaluationPlan(episodes=6, seed=20_000),
        baselines=[Policy(label="random", policy_class=PolicyClass(class_path="random"))],
        max_parallel_trials=parallel,
        seed=7,
    )
    return pb.CreateSweepRequest(request_id=f"create-{sweep_id}", sweep_id=sweep_id, spec=spec)


async def finished_sweep(stub: SchedulerServiceStub, name: str) -> Sweep:
    """Watches a sweep to its end."""
    async for changes in streaming(stub.WatchSweeps(pb.WatchSweepsRequest(name=name))):
        for sweep in changes.sweeps:
            if sweep.state in TERMINAL:
                return sweep
    raise AssertionError("the watch ended before the sweep")


async def all_trials(stub: SchedulerServiceStub, sweep: str) -> list[Trial]:
    """The trials of a sweep, page by page."""
    trials: list[Trial] = []
    token = ""
    while True:
        request = pb.ListTrialsRequest(parent=sweep, page_token=token, page_size=1000)
        page = await raising(stub.ListTrials(request))
        trials += page.trials
        token = page.next_page_token
        if not token:
            return trials


def result_digest(sweep: Sweep, trials: list[Trial]) -> str:
    """SHA-256 over what a sweep found out, without names of processes, times or revisions."""

    def trial(t: Trial) -> list[object]:
        parameters = {name: value.real for name, value in t.parameters.items()}
        return [t.number, sorted(parameters.items()), t.state, t.score.mean.hex(), t.score.evaluation_digest]

    held_out = sweep.held_out
    text = json.dumps(
        [
            sweep.state,
            sweep.best_trial,
            held_out.best.mean.hex(),
            [(b.label, b.score.mean.hex(), b.difference.mean.hex()) for b in held_out.baselines],
            [trial(t) for t in trials],
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()
