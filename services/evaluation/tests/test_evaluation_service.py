"""Evaluations over gRPC, on SQLite and on PostgreSQL, with the real statistics service."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from daf_common.artifacts import ArtifactStore
from daf_common.channel import raising, streaming
from daf_common.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from daf_common.workloads import Observation, State, Workload
from daf_evaluation.logs import KEPT_BYTES
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.evaluation.v1 import evaluation_service_pb2 as pb
from daf_protos.evaluation.v1 import worker_service_pb2 as worker_pb
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation, EvaluationSpec, EvaluationState, Team
from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_protos.statistics.v1.statistics_service_pb2 import ListEpisodesRequest

if TYPE_CHECKING:
    from .conftest import Stack

SUCCEEDED, FAILED, CANCELLED, RUNNING = (
    EvaluationState.Value(f"EVALUATION_STATE_{name}") for name in ("SUCCEEDED", "FAILED", "CANCELLED", "RUNNING")
)
LEASE_SECONDS = 15.0


def spec(**changes: Any) -> EvaluationSpec:
    fields: dict[str, Any] = {
        "policies": [policy("starter")],
        "missions": [Mission(name="cogsguard_arena.basic", cogs=4, max_steps=20)],
        "episodes": 8,
        "seed": 100,
    }
    return EvaluationSpec(**{**fields, **changes})


def policy(class_path: str) -> Policy:
    return Policy(policy_class=PolicyClass(class_path=class_path))


async def create(stack: Stack, id: str = "e", **changes: Any) -> Evaluation:
    request = pb.CreateEvaluationRequest(evaluation_id=id, spec=spec(**changes))
    return (await raising(stack.evaluations.CreateEvaluation(request))).evaluation


async def until(stack: Stack, id: str, *states: int) -> Evaluation:
    """Watches an evaluation until it is in one of these states."""
    request = pb.WatchEvaluationsRequest(name=f"evaluations/{id}")
    async with asyncio.timeout(60):
        async for response in stack.evaluations.WatchEvaluations(request):
            for evaluation in response.evaluations:
                if evaluation.state in states:
                    return evaluation
    raise AssertionError("the watch ended")


async def workload_started(stack: Stack, name: str) -> None:
    async with asyncio.timeout(60):
        while name not in stack.backend.started:
            await asyncio.sleep(0.01)


class Worker:
    """A worker that plays by hand."""

    def __init__(self, stack: Stack, name: str, id: str = "e", token: str | None = None) -> None:
        self._stack = stack
        token = stack.environment(id)["DAF_TOKEN"] if token is None else token
        self.identity = worker_pb.Worker(evaluation=f"evaluations/{id}", worker=name, token=token)

    async def lease(self, first: bool = False) -> worker_pb.LeaseShardResponse:
        return await raising(
            self._stack.workers.LeaseShard(worker_pb.LeaseShardRequest(worker=self.identity, first=first))
        )

    async def report(
        self, lease: worker_pb.ShardLease, episodes: list[Episode], **fields: Any
    ) -> worker_pb.ReportShardResponse:
        request = worker_pb.ReportShardRequest(
            worker=self.identity, shard=lease.shard, fence=lease.fence, episodes=episodes, **fields
        )
        return await raising(self._stack.workers.ReportShard(request))

    def play(self, lease: worker_pb.ShardLease) -> list[Episode]:
        return [
            Episode(
                evaluation=self.identity.evaluation,
                scenario=lease.scenario,
                index=planned.index,
                seed=planned.seed,
                seats=planned.seats,
                rewards=[float(planned.seed % 7)] * len(planned.seats),
                digest=hashlib.sha256(f"{lease.scenario} {planned.index}".encode()).hexdigest(),
            )
            for planned in lease.episodes
        ]

    async def play_all(self) -> None:
        response = await self.lease()
        while response.HasField("lease"):
            response = (await self.report(response.lease, self.play(response.lease), done=True)).next
        assert response.finished


@pytest.fixture
async def running(stack: Stack) -> Stack:
    """A stack with an evaluation `e` of 8 episodes in 8 shards, whose workers have been started."""
    await create(stack)
    await workload_started(stack, "e-w1")
    return stack


async def episodes_of(stack: Stack, id: str = "e") -> list[Episode]:
    request = ListEpisodesRequest(evaluation=f"evaluations/{id}", page_size=1000)
    return list((await raising(stack.statistics.ListEpisodes(request))).episodes)


async def test_an_evaluation_is_played_to_its_end_and_carries_the_digest_of_its_episodes(running: Stack) -> None:
    await Worker(running, "w").play_all()
    ended = await until(running, "e", SUCCEEDED)
    assert ended.done_episodes == ended.total_episodes == 8
    assert len(ended.digest) == 64
    assert ended.start_time.ToDatetime() <= ended.end_time.ToDatetime()
    assert [(e.scenario, e.index, e.seed) for e in await episodes_of(running)] == [(0, i, 100 + i) for i in range(8)]


async def test_workers_get_address_name_and_token_and_the_number_of_processes_that_can_be_used(stack: Stack) -> None:
    await create(stack, "one", episodes=1)
    await create(stack, "two")
    await workload_started(stack, "one-w1")
    await workload_started(stack, "two-w1")
    assert stack.environment("one") == {
        "DAF_WORKER_ADDRESS": stack.context.settings.listen,
        "DAF_EVALUATION": "evaluations/one",
        "DAF_ATTEMPT": "1",
        "DAF_TOKEN": stack.environment("one")["DAF_TOKEN"],
    }
    assert [stack.backend.started[f"{id}-w1"].replicas for id in ("one", "two")] == [1, 2]


async def test_evaluations_wait_in_order_for_slots(stack: Stack) -> None:
    for id in ("a", "b", "c", "d"):  # of the three slots, a gets two and b one
        await create(stack, id)
    await workload_started(stack, "b-w1")
    assert list(stack.backend.started) == ["a-w1", "b-w1"]
    assert stack.backend.started["b-w1"].replicas == 1
    await Worker(stack, "w", "a").play_all()
    await until(stack, "a", SUCCEEDED)
    await workload_started(stack, "c-w1")
    assert list(stack.backend.started) == ["a-w1", "b-w1", "c-w1"]
    assert stack.backend.started["c-w1"].replicas == 2


async def test_the_first_lease_carries_the_spec_with_resolved_names(running: Stack) -> None:
    response = await Worker(running, "w").lease(first=True)
    assert "." in response.spec.policies[0].policy_class.class_path
    assert [list(episode.seats) for episode in response.lease.episodes] == [[0, 0, 0, 0]]
    assert 0 < response.lease.heartbeat_seconds < LEASE_SECONDS


async def test_each_shard_is_one_workers(running: Stack) -> None:
    shards = [(await Worker(running, f"w{n}").lease()).lease.shard for n in range(8)]
    assert sorted(shards) == list(range(8))
    response = await Worker(running, "late").lease()
    assert not response.HasField("lease")
    assert not response.finished
    assert response.retry_seconds > 0


async def test_a_lease_whose_answer_was_lost_is_given_again(running: Stack) -> None:
    worker = Worker(running, "w")
    assert (await worker.lease()).lease == (await worker.lease()).lease


async def test_a_report_that_is_repeated_counts_once(running: Stack) -> None:
    worker = Worker(running, "w")
    lease = (await worker.lease()).lease
    first = await worker.report(lease, worker.play(lease), done=True)
    again = await worker.report(lease, worker.play(lease), done=True)
    assert first.next.lease == again.next.lease
    assert (await until(running, "e", RUNNING)).done_episodes == 1
    assert len(await episodes_of(running)) == 1


async def test_a_silent_workers_shard_is_taken_over_and_its_late_report_refused(running: Stack) -> None:
    silent, others = Worker(running, "silent"), [Worker(running, f"w{n}") for n in range(7)]
    lost = (await silent.lease()).lease
    for other in others:
        await other.lease()
    seeker = Worker(running, "seeker")
    assert not (await seeker.lease()).HasField("lease")

    running.context.clock.advance(LEASE_SECONDS)  # type: ignore[attr-defined]
    taken = (await seeker.lease()).lease
    assert taken.shard == lost.shard
    assert taken.fence > lost.fence
    with pytest.raises(Aborted, match="taken over"):
        await silent.report(lost, silent.play(lost), done=True)
    assert await episodes_of(running) == []
    await seeker.report(taken, seeker.play(taken), done=True)
    assert len(await episodes_of(running)) == 1


async def test_a_worker_that_reports_keeps_its_shard(running: Stack) -> None:
    workers = [Worker(running, f"w{n}") for n in range(8)]
    leases = [(await worker.lease()).lease for worker in workers]
    seeker = Worker(running, "seeker")
    for _ in range(4):
        assert not (await seeker.lease()).HasField("lease")
        running.context.clock.advance(LEASE_SECONDS / 2)  # type: ignore[attr-defined]
        for worker, lease in zip(workers, leases, strict=True):
            await worker.report(lease, [])


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_jumps_by_an_hour_steals_no_lease(running: Stack, hours: int) -> None:
    workers = [Worker(running, f"w{n}") for n in range(8)]
    leases = [(await worker.lease()).lease for worker in workers]
    seeker = Worker(running, "seeker")
    assert not (await seeker.lease()).HasField("lease")
    running.context.clock.jump(hours * 3600)  # type: ignore[attr-defined]
    assert not (await seeker.lease()).HasField("lease")
    for worker, lease in zip(workers, leases, strict=True):
        await worker.report(lease, worker.play(lease), done=True)
    assert (await until(running, "e", SUCCEEDED)).done_episodes == 8


async def test_episodes_that_are_recorded_are_left_out_of_the_next_lease(stack: Stack) -> None:
    await create(stack, episodes=24)  # 24 / (4 * 2): three a shard
    await workload_started(stack, "e-w1")
    first, second = Worker(stack, "first"), Worker(stack, "second")
    lease = (await first.lease()).lease
    assert len(lease.episodes) == 3
    await first.report(lease, first.play(lease)[:2])

    stack.backend.end("e-w1", Observation(State.FAILED, "it was killed"))
    stack.service._enqueue("e")
    await workload_started(stack, "e-w2")
    taken = (await second.lease()).lease
    assert taken.shard == lease.shard
    assert [episode.index for episode in taken.episodes] == [2]


async def test_workers_that_all_end_too_early_are_started_again_until_it_is_enough(running: Stack) -> None:
    running.backend.end("e-w1", Observation(State.FAILED, "it was killed"))
    running.service._enqueue("e")
    await workload_started(running, "e-w2")
    running.backend.printed["e-w2", 0] = b"one\ntwo\nMemoryError: no more\n"
    running.backend.end("e-w2", Observation(State.FAILED, "exit code 1"))
    running.service._enqueue("e")
    failed = await until(running, "e", FAILED)
    assert failed.failure.reason == "WORKER_LOST"
    assert "exit code 1" in failed.failure.message
    assert "MemoryError: no more" in failed.failure.message


async def test_a_start_that_failed_half_way_is_made_up_for(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []
    started, note = asyncio.Event(), stack.backend.start

    async def start(workload: Workload) -> None:
        attempts.append(workload.name)
        await note(workload)  # from now on it is seen to run
        if len(attempts) == 1:
            raise Unavailable("no second process")
        started.set()

    monkeypatch.setattr(stack.backend, "start", start)
    await create(stack)
    async with asyncio.timeout(60):
        await started.wait()
    assert attempts == ["e-w1", "e-w1"]


async def test_a_backend_that_cannot_be_reached_fails_nothing(running: Stack) -> None:
    running.backend.reachable = False
    running.backend.states.clear()
    running.service._enqueue("e")
    await Worker(running, "w").play_all()
    running.backend.reachable = True
    await until(running, "e", SUCCEEDED)


async def test_who_asks_again_for_what_is_there_gets_it_though_nothing_could_be_started(stack: Stack) -> None:
    request = pb.CreateEvaluationRequest(request_id="r", evaluation_id="e", spec=spec())
    await raising(stack.evaluations.CreateEvaluation(request))
    stack.backend.missing = "create the namespace"
    assert (await raising(stack.evaluations.CreateEvaluation(request))).evaluation.name == "evaluations/e"
    with pytest.raises(FailedPrecondition, match="create the namespace"):
        await create(stack, "f")
    with pytest.raises(NotFound):
        await raising(stack.evaluations.GetEvaluation(pb.GetEvaluationRequest(name="evaluations/f")))


async def test_what_is_left_of_an_evaluation_is_cleared_away_once_the_backend_lacks_nothing(running: Stack) -> None:
    running.backend.missing = "no permission to list jobs"
    await Worker(running, "w").play_all()
    await until(running, "e", SUCCEEDED)
    looks = running.backend.looks
    async with asyncio.timeout(60):
        while running.backend.looks < looks + 2:
            await asyncio.sleep(0.01)
        running.backend.missing = ""
        while running.backend.states:
            await asyncio.sleep(0.01)


async def test_a_failure_that_a_worker_reports_ends_the_evaluation(running: Stack) -> None:
    worker, other = Worker(running, "w"), Worker(running, "other")
    lease, other_lease = (await worker.lease()).lease, (await other.lease()).lease
    failure = Failure(reason="MISSION_INVALID", message="the map is too small", subject="cogsguard_arena.basic")
    assert (await worker.report(lease, [], failure=failure)).stop
    failed = await until(running, "e", FAILED)
    assert failed.failure == failure
    assert (await other.report(other_lease, other.play(other_lease))).stop
    assert (await other.lease()).finished
    assert await episodes_of(running) == []


async def test_a_cancelled_evaluation_stops_its_workers(running: Stack) -> None:
    worker = Worker(running, "w")
    lease = (await worker.lease()).lease
    await raising(running.evaluations.CancelEvaluation(pb.CancelEvaluationRequest(name="evaluations/e")))
    cancelled = await until(running, "e", CANCELLED)
    assert cancelled.cancel_requested
    assert (await worker.report(lease, worker.play(lease), done=True)).stop
    assert (await worker.lease()).finished
    async with asyncio.timeout(60):
        while running.backend.states:
            await asyncio.sleep(0.01)
    assert running.backend.stopped == ["e-w1"]
    again = await raising(running.evaluations.CancelEvaluation(pb.CancelEvaluationRequest(name="evaluations/e")))
    assert again.evaluation.state == CANCELLED


async def test_logs_outlive_the_workload_and_end_with_the_evaluation(running: Stack) -> None:
    request = pb.ReadLogsRequest(name="evaluations/e")
    running.backend.printed["e-w1", 1] = "zwölf\n".encode()
    read = [(r.worker, r.text) async for r in streaming(running.evaluations.ReadLogs(request))]
    assert read == [("w1-1", "zwölf\n")]
    await Worker(running, "w").play_all()
    await until(running, "e", SUCCEEDED)
    followed = streaming(running.evaluations.ReadLogs(pb.ReadLogsRequest(name="evaluations/e", follow=True)))
    assert [(r.worker, r.text) async for r in followed] == [("w1-1", "zwölf\n")]
    assert running.backend.states == {}

    name = "evaluations/e"
    await raising(running.evaluations.DeleteEvaluation(pb.DeleteEvaluationRequest(name=name)))
    with pytest.raises(NotFound):
        await raising(running.evaluations.GetEvaluation(pb.GetEvaluationRequest(name=name)))
    assert await episodes_of(running) == []


async def test_who_follows_a_long_log_gets_its_end_too_though_only_that_is_kept(running: Stack) -> None:
    begun, rest = b"a" * KEPT_BYTES + b"b" * 1000, b"c" * 1000
    running.backend.printed["e-w1", 0] = begun
    request = pb.ReadLogsRequest(name="evaluations/e", follow=True)
    followed = streaming(running.evaluations.ReadLogs(request))
    read = ""
    while len(read) < len(begun):
        read += (await anext(followed)).text

    running.backend.printed["e-w1", 0] = begun + rest
    await Worker(running, "w").play_all()
    async for response in followed:
        read += response.text

    assert read.encode() == begun + rest
    late = "".join([response.text async for response in streaming(running.evaluations.ReadLogs(request))])
    assert late.encode() == b"\n... 2000 bytes were not kept ...\n" + (begun + rest)[2000:]


async def test_an_evaluation_that_has_not_ended_is_not_deleted(running: Stack) -> None:
    with pytest.raises(FailedPrecondition, match="cancel it first"):
        await raising(running.evaluations.DeleteEvaluation(pb.DeleteEvaluationRequest(name="evaluations/e")))


async def test_the_same_request_many_times_at_once_creates_one_evaluation(stack: Stack) -> None:
    request = pb.CreateEvaluationRequest(request_id="r", spec=spec())
    answers = await asyncio.gather(*(raising(stack.evaluations.CreateEvaluation(request)) for _ in range(30)))
    assert len({answer.evaluation.name for answer in answers}) == 1
    listed = await raising(stack.evaluations.ListEvaluations(pb.ListEvaluationsRequest()))
    assert len(listed.evaluations) == 1
    request.spec.episodes += 1
    with pytest.raises(AlreadyExists, match="request_id"):
        await raising(stack.evaluations.CreateEvaluation(request))


async def test_an_id_is_taken_once(stack: Stack) -> None:
    await create(stack)
    with pytest.raises(AlreadyExists, match="evaluation_id"):
        await create(stack)


async def test_validation_alone_creates_nothing(stack: Stack) -> None:
    request = pb.CreateEvaluationRequest(spec=spec(team=Team.TEAM_SOLO, policies=[policy("starter")] * 2))
    request.validate_only = True
    answer = await raising(stack.evaluations.CreateEvaluation(request))
    assert answer.evaluation.total_episodes == 16
    assert [list(scenario.policies) for scenario in answer.evaluation.scenarios] == [[0], [1]]
    assert not (await raising(stack.evaluations.ListEvaluations(pb.ListEvaluationsRequest()))).evaluations


async def test_pages_list_all_newest_first(stack: Stack) -> None:
    for number in range(5):
        await create(stack, f"e{number}")
    names: list[str] = []
    token = ""
    while not names or token:
        request = pb.ListEvaluationsRequest(page_size=2, page_token=token)
        page = await raising(stack.evaluations.ListEvaluations(request))
        names += [evaluation.name for evaluation in page.evaluations]
        token = page.next_page_token
    assert names == [f"evaluations/e{number}" for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_page_holds_no_more_than_a_message_can(stack: Stack) -> None:
    code = await ArtifactStore(stack.context.settings.artifacts(), "deployment").put(b"an archive", "application/zip")
    arguments = {f"a{number}": Value(text="x" * 10_000) for number in range(10)}
    own = Policy(policy_class=PolicyClass(class_path="my.Policy", code=code, arguments=arguments))
    for number in range(5):
        await create(stack, f"e{number}", policies=[own] * 15)
    pages: list[list[str]] = []
    token = ""
    while not pages or token:
        answer = await raising(stack.evaluations.ListEvaluations(pb.ListEvaluationsRequest(page_token=token)))
        pages.append([evaluation.name for evaluation in answer.evaluations])
        token = answer.next_page_token
    assert pages == [
        ["evaluations/e4", "evaluations/e3"],
        ["evaluations/e2", "evaluations/e1"],
        ["evaluations/e0"],
    ]


async def test_a_big_pickup_is_leased_in_the_order_of_its_plan(stack: Stack) -> None:
    policies = [policy("starter"), policy("noop"), policy("random")]
    missions = [Mission(name="cogsguard_machina_1.basic", cogs=8, max_steps=20)]
    created = await create(stack, policies=policies, missions=missions, episodes=11_112, team=Team.TEAM_PICKUP)
    assert created.total_episodes == 100_008
    assert [list(scenario.seats) for scenario in created.scenarios[:3]] == [[8], [7, 1], [6, 1, 1]]
    await workload_started(stack, "e-w1")
    lease = (await Worker(stack, "w").lease()).lease
    assert [episode.index for episode in lease.episodes] == list(range(100))
    assert {tuple(episode.seats) for episode in lease.episodes} == {(0,) * 8}


async def test_a_watch_of_all_resumes_at_its_cursor_and_tells_of_deletions(running: Stack) -> None:
    stream = running.evaluations.WatchEvaluations(pb.WatchEvaluationsRequest())
    cursor = (await anext(aiter(stream))).cursor
    stream.cancel()
    await Worker(running, "w").play_all()
    await until(running, "e", SUCCEEDED)
    async for _ in streaming(running.evaluations.ReadLogs(pb.ReadLogsRequest(name="evaluations/e", follow=True))):
        pass  # until it is cleaned up
    await raising(running.evaluations.DeleteEvaluation(pb.DeleteEvaluationRequest(name="evaluations/e")))
    resumed = running.evaluations.WatchEvaluations(pb.WatchEvaluationsRequest(cursor=cursor))
    response = await anext(aiter(resumed))
    resumed.cancel()
    assert list(response.deleted) == ["evaluations/e"]


async def test_a_wrong_token_is_refused(running: Stack) -> None:
    with pytest.raises(PermissionDenied):
        await Worker(running, "w", token="wrong").lease()
    worker = Worker(running, "w")
    lease = (await worker.lease()).lease
    with pytest.raises(PermissionDenied):
        await Worker(running, "w", token="").report(lease, [])


async def test_reports_of_other_episodes_than_those_leased_are_refused(running: Stack) -> None:
    worker = Worker(running, "w")
    lease = (await worker.lease()).lease
    (played,) = worker.play(lease)
    for field, value in [("evaluation", "evaluations/x"), ("scenario", 3), ("seed", 1), ("index", 5)]:
        wrong = Episode()
        wrong.CopyFrom(played)
        setattr(wrong, field, value)
        with pytest.raises(InvalidArgument, match="episodes"):
            await worker.report(lease, [wrong])
    with pytest.raises(InvalidArgument, match="done"):
        await worker.report(lease, [], done=True)
    assert await episodes_of(running) == []
