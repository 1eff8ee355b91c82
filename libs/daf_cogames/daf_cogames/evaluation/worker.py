"""The worker of an evaluation: leases shards, has their episodes played, reports each as soon as it is played.

A worker that dies loses the episode that it was playing and no other. One that lives on while its service is away
keeps what it has played until the service is back. What plays is another process, so that a worker survives any
policy; see `daf_cogames.evaluation.supervision`.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from daf_cogames.artifact_files import ArtifactFiles
from daf_cogames.evaluation.mother import Mother
from daf_cogames.evaluation.setting import fetch_setting
from daf_cogames.evaluation.supervision import SupervisedTable
from daf_cogames.evaluation.table import Unplayable
from daf_cogames.reports import GaveUp, Superseded, persist
from daf_cogames.seating import EpisodePlan
from daf_cogames.transfer import upload
from daf_common.archives import digest_of
from daf_common.channel import blocking_errors, connect_blocking
from daf_common.errors import DafError
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.evaluation.v1.worker_service_pb2 import (
    LeaseShardRequest,
    LeaseShardResponse,
    PrepareUploadRequest,
    ReportShardRequest,
    ReportShardResponse,
    ShardLease,
    Worker,
)
from daf_protos.evaluation.v1.worker_service_pb2_grpc import EvaluationWorkerServiceStub
from daf_protos.statistics.v1.episode_pb2 import Episode

logger = logging.getLogger(__name__)

WORK_DONE, NOT_DONE = 0, 1

REPLAY_TYPE = "application/x-mettagrid-replay"


def run(environment: Mapping[str, str], terminating: threading.Event, mother: Mother) -> int:
    """Works for one evaluation until nothing is left to do; returns the exit code.

    Args:
        environment: address, evaluation, token and cache, as `daf_cogames.runner` requires them.
        terminating: when set, the worker ends after the episode that it plays.
        mother: of the processes that play.
    """
    identity = Worker(
        evaluation=environment["DAF_EVALUATION"],
        # A process that is started again under the same number is another worker.
        worker=f"w{environment.get('DAF_ATTEMPT', '1')}-{environment.get('DAF_REPLICA', '0')}-{uuid.uuid4().hex[:8]}",
        token=environment["DAF_TOKEN"],
    )
    with connect_blocking(environment["DAF_WORKER_ADDRESS"]) as channel:
        stub = EvaluationWorkerServiceStub(channel)
        worker = EvaluationWorker(stub, identity, Path(environment["DAF_CACHE"]), terminating, mother)
        try:
            worker.work()
        except Superseded as news:
            logger.info("nothing is left to do here: %s", news)
        except GaveUp as news:
            logger.warning("%s", news)
            return NOT_DONE
    return NOT_DONE if terminating.is_set() else WORK_DONE


class EvaluationWorker:
    """One worker of one evaluation."""

    def __init__(
        self,
        stub: EvaluationWorkerServiceStub,
        identity: Worker,
        cache: Path,
        terminating: threading.Event,
        mother: Mother,
    ) -> None:
        self._stub, self._identity, self._cache, self._terminating = stub, identity, cache, terminating
        self._mother = mother

    def work(self) -> None:
        """Plays shards until none is left.

        Raises:
            Superseded: the evaluation is gone.
            GaveUp: the service stays away, or the worker is to end.
        """
        response = self._lease(first=True)
        if response.finished:
            return
        files = ArtifactFiles(response.downloads, self._cache, wait=self._terminating.wait)
        try:
            setting = fetch_setting(response.spec, files)
            if setting.replays:
                setting.replays.mkdir(exist_ok=True)
            with SupervisedTable(self._mother, setting) as table:
                while not response.finished and not self._terminating.is_set():
                    response = self._go_on(table, response)
        except Unplayable as error:
            self._fail(response, error.failure)

    def _go_on(self, table: SupervisedTable, response: LeaseShardResponse) -> LeaseShardResponse:
        if not response.HasField("lease"):
            self._terminating.wait(response.retry_seconds)
            return self._lease()
        try:
            following = self._play(table, response.lease)
        except Superseded as news:
            logger.warning("shard %s is dropped: %s", response.lease.shard, news)
            following = None
        return following or self._lease()

    def _play(self, table: SupervisedTable, lease: ShardLease) -> LeaseShardResponse | None:
        """Plays a shard; returns what comes next, if the service has said it."""
        answer = ReportShardResponse()
        with self._heartbeats(lease) as dropped:
            if lease.episodes and not lease.episodes[0].seats:
                answer = self._report(lease, seats=table.seats(lease.mission))
                return answer.next if answer.HasField("next") else None
            plans = [EpisodePlan(planned.index, planned.seed, tuple(planned.seats)) for planned in lease.episodes]
            with closing(table.play_all(lease.mission, plans)) as episodes:
                for episode in episodes:
                    if dropped():
                        return None
                    self._complete(episode, lease)
                    if replay := table.setting.replay(episode.index):
                        episode.replay.CopyFrom(self._keep(replay))
                    answer = self._report(lease, [episode], done=episode.index == plans[-1].index)
                    if answer.stop or self._terminating.is_set():
                        return None
        return answer.next if answer.HasField("next") else None

    def _complete(self, episode: Episode, lease: ShardLease) -> None:
        """Adds what only the worker knows."""
        episode.evaluation = self._identity.evaluation
        episode.scenario = lease.scenario
        episode.worker = self._identity.worker

    def _keep(self, replay: Path) -> Artifact:
        """Uploads a replay, and deletes its file."""
        wanted = Artifact(sha256=digest_of(replay), size_bytes=replay.stat().st_size, media_type=REPLAY_TYPE)
        request = PrepareUploadRequest(worker=self._identity, artifact=wanted)

        def try_it() -> Artifact:
            location = self._stub.PrepareUpload(request).location
            upload(replay, location)
            return location.artifact

        kept = persist(try_it, "the upload of a replay", wait=self._terminating.wait)
        replay.unlink()
        return kept

    @contextmanager
    def _heartbeats(self, lease: ShardLease) -> Iterator[Callable[[], bool]]:
        """Tells the service from a thread that this worker lives; yields whether the shard is no longer its own."""
        ended, dropped = threading.Event(), threading.Event()

        def beat() -> None:
            while not ended.wait(lease.heartbeat_seconds):
                try:
                    with blocking_errors():
                        answer = self._stub.ReportShard(self._request(lease), timeout=lease.heartbeat_seconds)
                except DafError as error:
                    # Whether the shard is lost shows with the next report, which is tried until it is answered.
                    logger.info("a heartbeat of shard %s failed: %s", lease.shard, error)
                else:
                    if answer.stop:
                        dropped.set()

        thread = threading.Thread(target=beat, name="heartbeats", daemon=True)
        thread.start()
        try:
            yield dropped.is_set
        finally:
            ended.set()
            thread.join()

    def _lease(self, first: bool = False) -> LeaseShardResponse:
        request = LeaseShardRequest(worker=self._identity, first=first)
        return persist(lambda: self._stub.LeaseShard(request), "leasing a shard", wait=self._terminating.wait)

    def _report(
        self,
        lease: ShardLease,
        episodes: Sequence[Episode] = (),
        *,
        done: bool = False,
        failure: Failure | None = None,
        seats: int | None = None,
    ) -> ReportShardResponse:
        request = self._request(lease)
        request.episodes.extend(episodes)
        request.done = done
        if seats is not None:
            request.seats = seats
        if failure is not None:
            request.failure.CopyFrom(failure)
        return persist(lambda: self._stub.ReportShard(request), "a report", wait=self._terminating.wait)

    def _fail(self, response: LeaseShardResponse, failure: Failure) -> None:
        """Reports what no worker can play, on the shard at hand or on the next that is free."""
        while not response.finished and not self._terminating.is_set():
            if response.HasField("lease"):
                failure.subject = failure.subject or f"scenarios[{response.lease.scenario}]"
                self._report(response.lease, failure=failure)
                return
            self._terminating.wait(response.retry_seconds)
            response = self._lease()

    def _request(self, lease: ShardLease) -> ReportShardRequest:
        return ReportShardRequest(worker=self._identity, shard=lease.shard, fence=lease.fence)
