"""What clients ask of the scheduler: creation, reading, watching, cancelling, deleting, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from daf_common.channel import connect_blocking, raising
from daf_common.errors import (
    Aborted,
    AlreadyExists,
    DafError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unimplemented,
)
from daf_common.store import COMMON, Store
from daf_common.values import to_value
from daf_protos.common.v1.policy_pb2 import Policy
from daf_protos.evaluation.v1.evaluation_pb2 import EVALUATION_STATE_CANCELLED
from daf_protos.scheduler.v1 import scheduler_service_pb2 as pb
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_protos.training.v1.training_job_pb2 import TRAINING_JOB_STATE_CANCELLED
from daf_scheduler import trial_store
from daf_scheduler.main import MIGRATIONS
from daf_scheduler.tables import METADATA

S = sweep_pb2


async def create(client: Any, spec: S.SweepSpec, id: str = "lr", **fields: Any) -> S.Sweep:
    request = pb.CreateSweepRequest(sweep_id=id, spec=spec, **fields)
    answer: pb.CreateSweepResponse = await raising(client.stub.CreateSweep(request))
    return answer.sweep


async def refused(client: Any, spec: S.SweepSpec, id: str = "lr") -> DafError:
    with pytest.raises(DafError) as caught:
        await create(client, spec, id)
    with pytest.raises(NotFound):  # nothing was written
        await raising(client.stub.GetSweep(pb.GetSweepRequest(name="sweeps/lr")))
    return caught.value


# ---- Creation


async def test_a_bad_sweep_is_refused_and_nothing_is_written(client: Any, sweep_spec: S.SweepSpec) -> None:
    sweep_spec.space["trainer.learning_rat"].choices.values.append(to_value(0.1))
    error = await refused(client, sweep_spec)
    assert [violation.field for violation in error.violations] == ["spec.space[trainer.learning_rat]"]
    assert "did you mean 'trainer.learning_rate'" in error.message


async def test_the_same_request_from_many_threads_creates_one_sweep(client: Any, sweep_spec: S.SweepSpec) -> None:
    request = pb.CreateSweepRequest(request_id="once", spec=sweep_spec)
    address = client.address

    def call(_: int) -> str:
        with connect_blocking(address) as channel:
            return str(SchedulerServiceStub(channel).CreateSweep(request).sweep.name)

    def call_all() -> list[str]:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(call, range(100)))

    answers = await asyncio.to_thread(call_all)

    listed = await raising(client.stub.ListSweeps(pb.ListSweepsRequest()))
    assert len(set(answers)) == len(listed.sweeps) == 1


async def test_a_request_id_with_another_body_is_refused(client: Any, sweep_spec: S.SweepSpec) -> None:
    await create(client, sweep_spec, request_id="r")
    sweep_spec.seed += 1
    with pytest.raises(AlreadyExists, match="r"):
        await create(client, sweep_spec, request_id="r")


async def test_an_id_is_never_used_twice_not_even_after_deletion(
    client: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    sweep = await create(client, sweep_spec)
    with pytest.raises(AlreadyExists):
        await create(client, sweep_spec)
    await ended(client, sweep.name)
    await raising(client.stub.DeleteSweep(pb.DeleteSweepRequest(name=sweep.name)))
    with pytest.raises(AlreadyExists, match="was taken"):
        await create(client, sweep_spec)


async def test_validation_alone_plans_and_writes_nothing(client: Any, sweep_spec: S.SweepSpec) -> None:
    planned = await create(client, sweep_spec, validate_only=True)
    assert planned.planned_trials == 4
    with pytest.raises(NotFound):
        await raising(client.stub.GetSweep(pb.GetSweepRequest(name=planned.name)))


async def test_a_bad_id_is_refused(client: Any, sweep_spec: S.SweepSpec) -> None:
    for id in ("A", "-a", "a-", "a_b", "a\0b", "x" * 29, "x" * 1_000_000):
        error = await refused(client, sweep_spec, id)
        assert [violation.field for violation in error.violations] == ["sweep_id"], id


async def test_a_spec_that_is_too_large_is_refused(client: Any, sweep_spec: S.SweepSpec) -> None:
    sweep_spec.training.policy_class.arguments["text"].text = "x" * (300 << 10)
    assert isinstance(await refused(client, sweep_spec), ResourceExhausted)


async def test_strategies_that_are_not_built_say_so(client: Any, sweep_spec: S.SweepSpec) -> None:
    for strategy in ("successive_halving", "custom"):
        getattr(sweep_spec.search, strategy).SetInParent()
        assert isinstance(await refused(client, sweep_spec), Unimplemented), strategy


async def test_baselines_that_cannot_be_played_yet_are_refused_before_anything_is_trained(
    client: Any, sweep_spec: S.SweepSpec
) -> None:
    sweep_spec.baselines.append(Policy(version="policyPackages/p/versions/1.0.0"))
    assert isinstance(await refused(client, sweep_spec), Unimplemented)


async def test_pipelines_say_that_they_are_not_built(client: Any) -> None:
    with pytest.raises(Unimplemented, match="not built yet"):
        await raising(client.stub.CreatePipeline(pb.CreatePipelineRequest()))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in client.stub.WatchPipelines(pb.WatchPipelinesRequest()):
            pass
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# ---- Reading


async def test_pages_show_every_sweep_once_newest_first(client: Any, sweep_spec: S.SweepSpec) -> None:
    for number in range(5):
        await create(client, sweep_spec, f"s{number}")
    found: list[str] = []
    request = pb.ListSweepsRequest(page_size=2)
    while True:
        page = await raising(client.stub.ListSweeps(request))
        found += [sweep.name for sweep in page.sweeps]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert found == [f"sweeps/s{number}" for number in (4, 3, 2, 1, 0)]


async def test_pages_show_every_trial_once_by_number(client: Any, sweep_spec: S.SweepSpec, ended: Any) -> None:
    await ended(client, (await create(client, sweep_spec)).name)
    first = await raising(client.stub.ListTrials(pb.ListTrialsRequest(parent="sweeps/lr", page_size=3)))
    second = await raising(
        client.stub.ListTrials(pb.ListTrialsRequest(parent="sweeps/lr", page_token=first.next_page_token))
    )
    assert [trial.number for trial in [*first.trials, *second.trials]] == [1, 2, 3, 4]
    assert second.next_page_token == ""
    got = await raising(client.stub.GetTrial(pb.GetTrialRequest(name="sweeps/lr/trials/4")))
    assert got.trial == second.trials[0]


BAD_CALLS: list[tuple[str, Any, type[DafError]]] = [
    ("GetSweep", pb.GetSweepRequest(name="sweeps/none"), NotFound),
    ("GetSweep", pb.GetSweepRequest(name="sweeps/../x"), InvalidArgument),
    ("GetSweep", pb.GetSweepRequest(), InvalidArgument),
    ("GetTrial", pb.GetTrialRequest(name="sweeps/none/trials/1"), NotFound),
    ("GetTrial", pb.GetTrialRequest(name="sweeps/none/trials/999999999999999"), NotFound),
    ("GetTrial", pb.GetTrialRequest(name="sweeps/none/trials/-1"), InvalidArgument),
    ("ListTrials", pb.ListTrialsRequest(parent="sweeps/none"), NotFound),
    ("ListTrials", pb.ListTrialsRequest(parent="sweeps/none", page_size=-1), InvalidArgument),
    ("ListSweeps", pb.ListSweepsRequest(page_size=-1), InvalidArgument),
    ("ListSweeps", pb.ListSweepsRequest(page_token="stale"), InvalidArgument),
    ("CancelSweep", pb.CancelSweepRequest(name="sweeps/none"), NotFound),
    ("DeleteSweep", pb.DeleteSweepRequest(name="sweeps/none"), NotFound),
    ("DeleteSweep", pb.DeleteSweepRequest(name="a\0b"), InvalidArgument),
]


async def test_bad_names_and_pages_are_refused(client: Any) -> None:
    for method, request, kind in BAD_CALLS:
        with pytest.raises(kind):
            await raising(getattr(client.stub, method)(request))


async def test_a_watch_shows_a_sweep_and_its_trials_to_their_end_and_resumes(
    client: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    sweep = await create(client, sweep_spec)
    await create(client, sweep_spec, "other")
    last: dict[str, Any] = {}
    async with asyncio.timeout(60):
        async for change in client.stub.WatchSweeps(pb.WatchSweepsRequest(name=sweep.name)):
            last |= {resource.name: resource for resource in [*change.sweeps, *change.trials]}
            if last[sweep.name].state == S.SWEEP_STATE_SUCCEEDED:
                break
    assert sorted(last) == [sweep.name, *(f"{sweep.name}/trials/{number}" for number in range(1, 5))]
    trials = [resource for resource in last.values() if isinstance(resource, S.Trial)]
    assert {trial.state for trial in trials} == {S.TRIAL_STATE_SUCCEEDED}

    await raising(client.stub.DeleteSweep(pb.DeleteSweepRequest(name=sweep.name)))
    resumed = client.stub.WatchSweeps(pb.WatchSweepsRequest(name=sweep.name, cursor=change.cursor))
    async with asyncio.timeout(60):
        gone = await anext(aiter(resumed))
    assert (list(gone.deleted), list(gone.sweeps)) == ([sweep.name], [])


async def test_a_watch_of_a_large_sweep_comes_in_parts(
    client: Any, peers: Any, sweep_spec: S.SweepSpec, monkeypatch: pytest.MonkeyPatch, ended: Any
) -> None:
    monkeypatch.setattr("daf_scheduler.servicer.MAX_RESPONSE_BYTES", 1000)
    sweep = await create(client, sweep_spec)
    found: set[str] = set()
    cursors = []
    await ended(client, sweep.name)
    async with asyncio.timeout(60):
        async for change in client.stub.WatchSweeps(pb.WatchSweepsRequest(name=sweep.name)):
            found.update(trial.name for trial in change.trials)
            cursors.append(change.cursor)
            if change.cursor:
                break
    assert len(found) == 4
    assert len(cursors) > 1
    assert cursors[:-1] == [""] * (len(cursors) - 1)


# ---- Ending


@pytest.mark.parametrize("held", ["training", "evaluation"])
async def test_cancelling_ends_the_children_first_and_then_the_sweep(
    held: str, client: Any, peers: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    peer = getattr(peers, held)
    peer.holds = lambda name: True
    sweep = await create(client, sweep_spec)
    async with asyncio.timeout(60):
        while len(peer.created) < 2:
            await asyncio.sleep(0.01)
    with pytest.raises(FailedPrecondition):
        await raising(client.stub.DeleteSweep(pb.DeleteSweepRequest(name=sweep.name)))

    answer = await raising(client.stub.CancelSweep(pb.CancelSweepRequest(name=sweep.name)))
    assert answer.sweep.cancel_requested
    done = await ended(client, sweep.name)

    assert (done.state, done.trials.cancelled, done.trials.running) == (S.SWEEP_STATE_CANCELLED, 4, 0)
    resources = peers.training.jobs if held == "training" else peers.evaluation.evaluations
    cancelled = TRAINING_JOB_STATE_CANCELLED if held == "training" else EVALUATION_STATE_CANCELLED
    assert [resources.by_name[name].state for name in peer.created] == [cancelled] * 2


async def test_a_sweep_cancelled_during_its_held_out_evaluation_cancels_that(
    client: Any, peers: Any, sweep_spec: S.SweepSpec, ended: Any
) -> None:
    peers.evaluation.holds = lambda name: name.endswith("held-out")
    sweep = await create(client, sweep_spec)
    async with asyncio.timeout(60):
        while "evaluations/lr-held-out" not in peers.evaluation.created:
            await asyncio.sleep(0.01)

    await raising(client.stub.CancelSweep(pb.CancelSweepRequest(name=sweep.name)))
    done = await ended(client, sweep.name)

    assert (done.state, done.trials.succeeded) == (S.SWEEP_STATE_CANCELLED, 4)
    assert peers.evaluation.evaluations.get("evaluations/lr-held-out").state == EVALUATION_STATE_CANCELLED
    again = await raising(client.stub.CancelSweep(pb.CancelSweepRequest(name=sweep.name)))
    assert again.sweep == done  # one that has ended stays as it is


async def test_a_leader_that_was_overtaken_writes_nothing(client: Any, sweep_spec: S.SweepSpec, ended: Any) -> None:
    await ended(client, (await create(client, sweep_spec)).name)
    fence = await client.scheduler.leader.elected()
    with pytest.raises(Aborted, match="taken over"):
        await client.scheduler.store.run(trial_store.save_trials, [], fence - 1, datetime.now(UTC))


def test_the_migrated_database_has_the_tables_of_the_code(open_store: Callable[[str, Path], Store]) -> None:
    store = open_store("scheduler", MIGRATIONS)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, [COMMON, METADATA]) == []
