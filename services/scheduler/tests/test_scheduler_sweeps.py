"""Sweeps from creation to their end, on SQLite and PostgreSQL, over real gRPC."""

from __future__ import annotations

from collections import Counter
from typing import Any

import sqlalchemy as sa

from daf_common.store import Transaction
from daf_common.values import from_value
from daf_protos.scheduler.v1 import scheduler_service_pb2 as pb
from daf_protos.scheduler.v1 import sweep_pb2
from daf_scheduler.tables import TRANSITIONS


async def create(client: Any, spec: sweep_pb2.SweepSpec, id: str = "lr") -> str:
    answer = await client.stub.CreateSweep(pb.CreateSweepRequest(sweep_id=id, spec=spec, request_id=f"create-{id}"))
    return str(answer.sweep.name)


async def trials(client: Any, name: str) -> list[sweep_pb2.Trial]:
    answer = await client.stub.ListTrials(pb.ListTrialsRequest(parent=name, page_size=1000))
    return list(answer.trials)


def terminal_events(tx: Transaction) -> Counter[str]:
    terminal = ("SUCCEEDED", "FAILED", "INFEASIBLE", "CANCELLED")
    return Counter(tx.execute(sa.select(TRANSITIONS.c.name).where(TRANSITIONS.c.to_state.in_(terminal))).scalars())


async def test_a_sweep_trains_and_scores_every_trial_and_the_best_again(
    client: Any, peers: Any, sweep_spec: sweep_pb2.SweepSpec, ended: Any
) -> None:
    name = await create(client, sweep_spec)

    sweep = await ended(client, name)

    found = await trials(client, name)
    assert sweep.state == sweep_pb2.SWEEP_STATE_SUCCEEDED, sweep.failure
    assert [t.state for t in found] == [sweep_pb2.TRIAL_STATE_SUCCEEDED] * 4
    assert [from_value(t.parameters["trainer.learning_rate"]) for t in found] == [0.0001, 0.001, 0.002, 0.01]
    for trial in found:  # what was trained is what the trial says
        job = peers.training.jobs.get(trial.training_job)
        assert job.spec.trainer["learning_rate"] == trial.parameters["trainer.learning_rate"]
        assert peers.evaluation.evaluations.get(trial.evaluation).spec.seed == 1000
    assert (sweep.best_trial, sweep.trials.succeeded) == ("sweeps/lr/trials/3", 4)
    held_out = peers.evaluation.evaluations.get(sweep.held_out.evaluation).spec
    assert (held_out.seed, held_out.episodes, len(held_out.policies)) == (5000, 30, 2)
    assert held_out.policies[0].checkpoint == found[2].checkpoint
    assert sweep.held_out.best.mean == found[2].score.mean
    assert sweep.held_out.baselines[0].label == "random"
    assert sweep.held_out.baselines[0].difference.mean == found[2].score.mean + 9
    events = await client.scheduler.store.read(terminal_events)
    assert events == {**{t.name: 1 for t in found}, name: 1}
