"""What goes wrong around a sweep, and what must hold then."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from daf_cogames.catalog import catalog
from daf_common.store import Transaction
from daf_common.values import to_value
from daf_protos.scheduler.v1 import scheduler_service_pb2 as pb
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.training.v1 import training_job_pb2
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_scheduler.tables import TRANSITIONS

S = sweep_pb2


def rate(spec: TrainingSpec) -> float:
    return spec.trainer["learning_rate"].real


async def create(client: Any, spec: S.SweepSpec, id: str = "lr") -> str:
    answer = await client.stub.CreateSweep(pb.CreateSweepRequest(sweep_id=id, spec=spec))
    return str(answer.sweep.name)


async def trials(client: Any, name: str) -> list[S.Trial]:
    answer = await client.stub.ListTrials(pb.ListTrialsRequest(parent=name, page_size=1000))
    return list(answer.trials)


async def until(condition: Any, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def ends_of_trials(tx: Transaction) -> Counter[str]:
    ends = ("SUCCEEDED", "FAILED", "INFEASIBLE", "CANCELLED")
    query = sa.select(TRANSITIONS.c.name).where(TRANSITIONS.c.to_state.in_(ends), TRANSITIONS.c.name.contains("trials"))
    return Counter(tx.execute(query).scalars())


async def test_refused_failed_and_undefined_trials_end_with_their_reasons_and_the_rest_decide(
    client: Any, peers: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    peers.training.refuses = lambda spec: "too small" if rate(spec) == 0.0001 else None
    peers.training.fails = lambda spec: rate(spec) == 0.001
    peers.statistics.undefined = lambda spec: rate(spec) == 0.002

    sweep = await ended(client, await create(client, sweep_spec))

    first, second, third, fourth = await trials(client, sweep.name)
    assert (first.state, first.failure.reason) == (S.TRIAL_STATE_INFEASIBLE, "INVALID_ARGUMENT")
    assert "too small" in first.failure.message
    assert (second.state, second.failure.reason) == (S.TRIAL_STATE_FAILED, "DIVERGED")
    assert (third.state, third.failure.reason) == (S.TRIAL_STATE_FAILED, "OBJECTIVE_UNDEFINED")
    assert fourth.state == S.TRIAL_STATE_SUCCEEDED
    assert (sweep.state, sweep.best_trial) == (S.SWEEP_STATE_SUCCEEDED, fourth.name)
    assert (sweep.trials.failed, sweep.trials.succeeded) == (3, 1)


async def test_a_sweep_without_a_good_trial_fails(client: Any, peers: Any, sweep_spec: S.SweepSpec, ended: Any) -> None:
    peers.training.fails = lambda spec: True
    sweep = await ended(client, await create(client, sweep_spec))
    assert (sweep.state, sweep.failure.reason) == (S.SWEEP_STATE_FAILED, "NO_TRIAL_SUCCEEDED")
    assert not peers.evaluation.created


async def test_an_objective_that_nothing_measures_fails_the_trials_with_the_known_names(
    client: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    sweep_spec.objective.metric = catalog().agent_statistics[0]  # which this statistics service does not know
    sweep = await ended(client, await create(client, sweep_spec))
    found = await trials(client, sweep.name)
    assert {trial.failure.reason for trial in found} == {"OBJECTIVE_UNDEFINED"}
    assert "known: reward" in found[0].failure.message


async def test_too_many_failed_trials_end_a_sweep_and_its_other_trials(
    client: Any, peers: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    peers.training.fails = lambda spec: True
    sweep_spec.max_failed_trials = 1
    sweep_spec.max_parallel_trials = 1

    sweep = await ended(client, await create(client, sweep_spec))

    assert (sweep.state, sweep.failure.reason) == (S.SWEEP_STATE_FAILED, "TOO_MANY_FAILED_TRIALS")
    assert (sweep.trials.failed, sweep.trials.cancelled, sweep.trials.pending) == (2, 2, 0)
    assert len(peers.training.created) == 2


async def test_a_job_that_was_deleted_or_cancelled_by_somebody_else_ends_its_trial(
    start_scheduler: Any, peers: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    peers.training.holds = lambda name: True
    # Jobs are read again soon: the watch may tell of the deletion before the creation is answered.
    async with start_scheduler(reread_seconds=0.2) as client:
        name = await create(client, sweep_spec)
        await until(lambda: len(peers.training.created) == 2)
        first, second = (peers.training.jobs.get(job) for job in peers.training.created)
        peers.training.holds = lambda name: False

        await peers.training.jobs.delete(first.name)
        await peers.training.jobs.change(second, state=training_job_pb2.TRAINING_JOB_STATE_CANCELLED)
        await ended(client, name)
        found = await trials(client, name)

    by_job = {trial.training_job: trial for trial in found}
    assert (by_job[first.name].state, by_job[first.name].failure.reason) == (S.TRIAL_STATE_FAILED, "DELETED")
    assert by_job[second.name].state == S.TRIAL_STATE_CANCELLED


async def test_services_that_cannot_be_reached_fail_nothing(
    start_scheduler: Any, peers: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    await peers.stop()
    async with start_scheduler() as client:
        name = await create(client, sweep_spec)
        answer = await client.stub.GetSweep(pb.GetSweepRequest(name=name))
        assert answer.sweep.trials.failed == 0

        await peers.start()

        sweep = await ended(client, name)
        assert (sweep.state, sweep.trials.succeeded) == (S.SWEEP_STATE_SUCCEEDED, 4)


async def test_a_missed_event_costs_only_time(
    start_scheduler: Any, peers: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    peers.training.holds = lambda name: True
    async with start_scheduler(reread_seconds=0.2) as client:
        name = await create(client, sweep_spec)
        await until(lambda: len(peers.training.created) == 2)
        for job in map(peers.training.jobs.get, peers.training.created):  # ends without a word to the watch
            job.state = training_job_pb2.TRAINING_JOB_STATE_FAILED
        peers.training.holds = lambda name: False

        sweep = await ended(client, name)
        assert (sweep.trials.failed, sweep.trials.succeeded) == (2, 2)


@pytest.mark.parametrize("ended_meanwhile", [True, False])
async def test_a_scheduler_that_restarts_goes_on_with_the_same_jobs(
    start_scheduler: Any, peers: Any, sweep_spec: S.SweepSpec, ended: Any, ended_meanwhile: bool
) -> None:
    peers.training.holds = lambda name: True
    async with start_scheduler() as client:
        name = await create(client, sweep_spec)
        await until(lambda: len(peers.training.created) == 2)
    jobs = list(map(peers.training.jobs.get, peers.training.created))

    peers.training.holds = lambda name: False
    if ended_meanwhile:
        await asyncio.gather(*map(peers.training.finish, jobs))
    async with start_scheduler() as client:
        if not ended_meanwhile:
            await asyncio.gather(*map(peers.training.finish, jobs))
        sweep = await ended(client, name)
        ends = await client.scheduler.store.read(ends_of_trials)

    assert sweep.best_trial == f"{name}/trials/3"
    assert ends == {f"{name}/trials/{number}": 1 for number in range(1, 5)}
    assert len(peers.training.created) == len(set(peers.training.created)) == 4


async def test_of_two_schedulers_one_acts_and_the_other_takes_over(
    start_scheduler: Any, peers: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    peers.training.holds = lambda name: True
    long = {"leader_seconds": 30.0}  # neither is to lose the lead because it is slow
    async with start_scheduler("a", **long) as first, start_scheduler("b", **long) as second:
        name = await create(second, sweep_spec)
        await until(lambda: len(peers.training.created) == 2)
        assert first.scheduler.leads is not second.scheduler.leads
        leader, other = (first, second) if first.scheduler.leads else (second, first)
        await leader.scheduler.leader.stop()

        await until(lambda: other.scheduler.leads)
        peers.training.holds = lambda name: False
        jobs = map(peers.training.jobs.get, list(peers.training.created))
        await asyncio.gather(*map(peers.training.finish, jobs))
        sweep = await ended(other, name)
        ends = await other.scheduler.store.read(ends_of_trials)

    assert sweep.state == S.SWEEP_STATE_SUCCEEDED
    assert ends == {f"{name}/trials/{number}": 1 for number in range(1, 5)}


async def test_bayesian_search_learns_from_the_trials_of_the_sweep(
    client: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    sweep_spec.space["trainer.learning_rate"].interval.CopyFrom(
        S.Interval(minimum=1e-5, maximum=1e-1, logarithmic=True)
    )
    sweep_spec.search.bayesian.CopyFrom(S.BayesianSearch(trials=20, startup_trials=4))
    sweep_spec.max_parallel_trials = 1  # of several, what each can learn from depends on which of them ends first

    sweep = await ended(client, await create(client, sweep_spec))

    found = await trials(client, sweep.name)
    assert len(found) == 20
    late = [trial.score.mean for trial in found[10:]]
    early = [trial.score.mean for trial in found[:4]]
    assert sum(late) / len(late) > sum(early) / len(early)


async def test_parameters_land_in_the_trainer_the_policy_and_the_training_missions_alone(
    client: Any, peers: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    sweep_spec.training.policy_class.class_path = "my_module.MyPolicy"
    sweep_spec.training.policy_class.code.sha256 = "0" * 64
    sweep_spec.training.policy_class.code.owner = "deployment"
    sweep_spec.training.trainer["lr"].CopyFrom(to_value(0.5))  # another name of what is searched
    del sweep_spec.space["trainer.learning_rate"].choices.values[1:]
    sweep_spec.space["policy.hidden_size"].choices.values.extend([to_value(64)])
    sweep_spec.space["env.cogs"].choices.values.extend([to_value(2)])
    sweep_spec.space["env.max_steps"].choices.values.extend([to_value(50)])
    sweep_spec.space["env.difficulty"].choices.values.extend([to_value("easy")])

    sweep = await ended(client, await create(client, sweep_spec))

    (trial,) = await trials(client, sweep.name)
    trained = peers.training.jobs.get(trial.training_job).spec
    assert dict(trained.trainer) == {"learning_rate": to_value(0.0001)}
    assert trained.policy_class.arguments["hidden_size"].integer == 64
    assert (trained.missions[0].cogs, trained.missions[0].max_steps, trained.missions[0].difficulty) == (2, 50, "easy")
    assert trained.seed == 42
    scored = peers.evaluation.evaluations.get(trial.evaluation).spec
    assert scored.missions == sweep_spec.training.missions
    assert scored.policies[0].checkpoint.policy_class == trained.policy_class
