"""Replays: where workers write them, what episodes may name, and when they go."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import obstore.store
import pytest

from daf_common.channel import raising, streaming
from daf_common.errors import (
    Aborted,
    DafError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.evaluation.v1 import evaluation_service_pb2 as pb
from daf_protos.evaluation.v1 import worker_service_pb2 as worker_pb

from .test_evaluation_service import CANCELLED, SUCCEEDED, Worker, create, episodes_of, until, workload_started

if TYPE_CHECKING:
    from .conftest import Stack

CONTENT = b"a replay"


def replay(content: bytes = CONTENT, **changes: Any) -> Artifact:
    fields = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "media_type": "application/x-mettagrid-replay",
    }
    return Artifact(**{**fields, **changes})


@pytest.fixture
async def running(stack: Stack) -> Stack:
    """A stack with an evaluation `e` of one episode, of which a replay is kept."""
    await create(stack, episodes=1, save_replays=True)
    await workload_started(stack, "e-w1")
    return stack


async def prepare(worker: Worker, stack: Stack, artifact: Artifact) -> worker_pb.PrepareUploadResponse:
    request = worker_pb.PrepareUploadRequest(worker=worker.identity, artifact=artifact)
    return await raising(stack.workers.PrepareUpload(request))


async def write(worker: Worker, stack: Stack, content: bytes = CONTENT) -> tuple[Artifact, Path]:
    location = (await prepare(worker, stack, replay(content))).location
    path = Path(unquote(urlsplit(location.url).path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return location.artifact, path


async def play_with_replay(stack: Stack, id: str = "e") -> Path:
    worker = Worker(stack, "w", id)
    lease = (await worker.lease()).lease
    (episode,) = worker.play(lease)
    if (location := (await prepare(worker, stack, replay())).location).url:
        artifact, path = await write(worker, stack)
    else:
        artifact, path = location.artifact, Path()
    episode.replay.CopyFrom(artifact)
    await worker.report(lease, [episode], done=True)
    await until(stack, id, SUCCEEDED)
    return path


async def delete(stack: Stack, id: str = "e") -> None:
    name = f"evaluations/{id}"
    async for _ in streaming(stack.evaluations.ReadLogs(pb.ReadLogsRequest(name=name, follow=True))):
        pass  # until it is cleaned up
    await raising(stack.evaluations.DeleteEvaluation(pb.DeleteEvaluationRequest(name=name)))


async def test_a_replay_is_the_evaluation_services_whoever_is_named_as_its_owner(running: Stack) -> None:
    location = (await prepare(Worker(running, "w"), running, replay(owner="training"))).location
    assert location.artifact == replay(owner="evaluation")
    assert location.url


async def test_what_is_there_already_need_not_be_written_again(running: Stack) -> None:
    worker = Worker(running, "w")
    artifact, _ = await write(worker, running)
    location = (await prepare(worker, running, replay())).location
    assert location.artifact == artifact
    assert not location.url


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("artifact.sha256", Artifact()),
        ("artifact.sha256", replay(sha256="AB" * 32)),
        ("artifact.sha256", replay(sha256="../../etc/passwd")),
        ("artifact.size_bytes", replay(size_bytes=-1)),
        ("artifact.size_bytes", replay(size_bytes=1 << 40)),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_no_replay_is_refused(running: Stack, field: str, wrong: Artifact) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await prepare(Worker(running, "w"), running, wrong)
    assert [violation.field for violation in raised.value.violations] == [field]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_only_workers_of_a_live_evaluation_with_replays_may_write(running: Stack) -> None:
    async def refused(kind: type[DafError], worker: Worker) -> None:
        with pytest.raises(kind):
            await prepare(worker, running, replay())

    await refused(PermissionDenied, Worker(running, "w", token="wrong"))
    await refused(NotFound, Worker(running, "w", "other", token="x"))
    await create(running, "plain")
    await workload_started(running, "plain-w1")
    await refused(FailedPrecondition, Worker(running, "w", "plain"))
    worker = Worker(running, "w")
    await raising(running.evaluations.CancelEvaluation(pb.CancelEvaluationRequest(name="evaluations/e")))
    await until(running, "e", CANCELLED)
    await refused(Aborted, worker)


async def test_episodes_name_replays_that_were_prepared_and_written(running: Stack) -> None:
    worker = Worker(running, "w")
    lease = (await worker.lease()).lease
    (episode,) = worker.play(lease)
    episode.replay.CopyFrom(replay(owner="evaluation"))
    with pytest.raises(InvalidArgument, match=r"episodes\[0\].replay"):
        await worker.report(lease, [episode], done=True)
    location = (await prepare(worker, running, replay())).location
    with pytest.raises(FailedPrecondition, match="not in the store"):
        await worker.report(lease, [episode], done=True)
    assert await episodes_of(running) == []
    await write(worker, running)
    for strange in (replay(owner="training"), replay(sha256="x", owner="evaluation")):
        episode.replay.CopyFrom(strange)
        with pytest.raises(InvalidArgument, match=r"episodes\[0\].replay"):
            await worker.report(lease, [episode], done=True)
    episode.replay.CopyFrom(location.artifact)
    await worker.report(lease, [episode], done=True)
    assert [found.replay for found in await episodes_of(running)] == [replay(owner="evaluation")]


async def test_a_replay_goes_with_the_last_evaluation_that_keeps_it(running: Stack) -> None:
    path = await play_with_replay(running)
    await create(running, "again", episodes=1, save_replays=True)
    await workload_started(running, "again-w1")
    await play_with_replay(running, "again")
    await delete(running)
    assert path.read_bytes() == CONTENT
    await delete(running, "again")
    assert not path.exists()


async def test_a_replay_that_was_written_but_never_reported_goes_with_its_evaluation(running: Stack) -> None:
    worker = Worker(running, "w")
    _, path = await write(worker, running, b"of a worker that was killed")
    await worker.play_all()
    await until(running, "e", SUCCEEDED)
    await delete(running)
    assert not path.exists()


async def test_what_could_not_be_deleted_is_deleted_before_it_is_written_again(
    running: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await play_with_replay(running)
    with monkeypatch.context() as away:

        async def fail(*_: object) -> None:
            raise OSError("the disk is away")

        away.setattr(obstore, "delete_async", fail)
        await delete(running)
    assert path.exists()
    await create(running, "again", episodes=1, save_replays=True)
    await workload_started(running, "again-w1")
    location = (await prepare(Worker(running, "w", "again"), running, replay())).location
    assert location.url
    assert not path.exists()
