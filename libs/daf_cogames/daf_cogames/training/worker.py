"""The worker of a training job, one rank of it: gets its assignment, trains, reports."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from daf_cogames.artifact_files import ArtifactFiles
from daf_cogames.reports import GaveUp, Superseded, persist
from daf_cogames.training.assignment import Preparation, prepared
from daf_cogames.training.failures import failure_of
from daf_cogames.training.log_capture import captured
from daf_cogames.training.messages import effective_values, progress_message, sample
from daf_cogames.training.progress import EffectiveConfiguration, Progress, StopReason
from daf_cogames.training.reporter import Reporter
from daf_cogames.training.train import Ending, Outcome, train
from daf_cogames.training.watchdog import Watchdog
from daf_cogames.training.world import PeerLost, World
from daf_common.channel import connect_blocking
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.training.v1 import worker_service_pb2 as pb
from daf_protos.training.v1.worker_service_pb2_grpc import TrainingWorkerServiceStub

logger = logging.getLogger(__name__)

WORK_DONE, FAILED, PEER_LOST = 0, 1, 75
"""Exit codes; the last is EX_TEMPFAIL: this rank has done nothing wrong, and another attempt may succeed."""

PEER_PAUSE_SECONDS = 1.0
"""What a rank waits after it lost another, so that whoever watches both sees first who was first."""

DOWNLOAD_PATIENCE_SECONDS = 600.0
"""What a training worker takes at most to fetch a file."""

FAREWELL_SECONDS = 10.0
"""What a stalled worker takes at most to say so."""


def run(environment: Mapping[str, str], terminating: threading.Event) -> int:
    """Trains what the service says; returns the exit code of `daf-runner`.

    Args:
        environment: where the service is, which attempt this is (see `daf_cogames.runner`), and which rank of it.
        terminating: set when the process is asked to end; training then ends after the update under way.
    """
    world = World.from_environment(environment)
    attempt = pb.Attempt(
        training_job=environment["DAF_TRAINING_JOB"],
        attempt=int(environment["DAF_ATTEMPT"]),
        rank=world.rank,
        token=environment["DAF_TOKEN"],
    )
    with connect_blocking(environment["DAF_WORKER_ADDRESS"]) as channel:
        stub = TrainingWorkerServiceStub(channel)
        try:
            assignment = persist(
                lambda: stub.GetAssignment(pb.GetAssignmentRequest(attempt=attempt)),
                "the assignment",
                wait=terminating.wait,
            )
            worker = _Worker(stub, attempt, assignment, world, terminating)
            return worker.work(Path(environment["DAF_CACHE"]))
        except Superseded as reason:
            logger.warning("this attempt is over: %s", reason)
            return WORK_DONE
        except GaveUp as reason:
            logger.error("%s", reason)
            return FAILED


class _Worker:
    """One rank of one attempt."""

    def __init__(
        self,
        stub: TrainingWorkerServiceStub,
        attempt: pb.Attempt,
        assignment: pb.GetAssignmentResponse,
        world: World,
        terminating: threading.Event,
    ) -> None:
        self._attempt, self._assignment, self._world, self._terminating = attempt, assignment, world, terminating
        self._reporter = Reporter(stub, attempt, assignment.report_interval_seconds)
        self._watchdog = Watchdog(assignment.stall_seconds, self._end_stalled)

    def work(self, cache: Path) -> int:
        """Trains and reports; returns the exit code.

        Raises:
            Superseded, GaveUp: nobody takes the reports any more.
        """
        directory = Path.cwd() / f"rank-{self._world.rank}"
        reporter = self._reporter
        try:
            with captured(reporter.outbox.add_log):
                reporter.start()
                self._watchdog.start()
                try:
                    outcome = self._outcome(cache, directory)
                finally:
                    self._watchdog.stop()
            reporter.finish(outcome)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        if outcome is None:
            time.sleep(PEER_PAUSE_SECONDS)
            return PEER_LOST
        return FAILED if outcome.HasField("failure") else WORK_DONE

    def _outcome(self, cache: Path, directory: Path) -> pb.TrainingOutcome | None:
        """How training ended, as far as this rank can say: None where it only knows that another has gone."""
        try:
            files = ArtifactFiles(self._assignment.downloads, cache, patience_seconds=DOWNLOAD_PATIENCE_SECONDS)
            with prepared(self._assignment, files, directory, self._world, self._attempt.attempt) as preparation:
                outcome = self._train(preparation)
        except (Superseded, GaveUp):
            raise
        except PeerLost as error:
            logger.error("%s", error)
            return None
        except (Exception, SystemExit) as error:  # SystemExit, too: a user's code does not decide how a job ends
            traceback.print_exc()
            return pb.TrainingOutcome(failure=failure_of(error))
        if outcome.ending is Ending.DIVERGED:
            message = (
                f"the weights stopped being finite in update {outcome.update}, at agent step {outcome.agent_steps}: "
                "try a smaller learning rate"
            )
            return pb.TrainingOutcome(failure=Failure(reason="DIVERGED", message=message))
        return pb.TrainingOutcome(stopped=outcome.ending is Ending.STOPPED)

    def _train(self, preparation: Preparation) -> Outcome:
        plan, reporter = preparation.plan, self._reporter
        logger.info("training %s for %d agent steps", plan.policy.class_path, plan.agent_steps)

        def on_start(configuration: EffectiveConfiguration) -> None:
            if self._world.rank != 0:
                return
            for note in configuration.notes:
                logger.warning("%s", note)
            resumed = preparation.resumed
            reporter.outbox.add_start(configuration.agent_steps, effective_values(configuration), resumed)
            reporter.report_now()

        def on_progress(progress: Progress) -> None:
            reporter.outbox.add_progress(progress_message(progress), sample(progress))

        outcome = train(
            plan,
            on_start=on_start,
            on_progress=on_progress,
            on_checkpoint=reporter.outbox.add_checkpoint,
            on_activity=self._watchdog.touch,
            stop=self._stop,
        )
        ending, update, steps = outcome.ending.value, outcome.update, outcome.agent_steps
        logger.info("training %s at update %d, agent step %d", ending, update, steps)
        return outcome

    def _stop(self) -> StopReason | None:
        if self._reporter.told_to_stop():
            return StopReason.CANCELLED
        return StopReason.PREEMPTED if self._terminating.is_set() else None

    def _end_stalled(self, stacks: str) -> None:
        """Ends the process, whose training hangs, after having said so."""
        seconds = self._assignment.stall_seconds
        message = f"nothing was done for {seconds:g} seconds: the stacks of all threads are in the log"
        print(f"rank {self._world.rank}: {message}\n{stacks}", file=sys.stderr, flush=True)
        outcome = pb.TrainingOutcome(failure=Failure(reason="STALLED", message=message))
        farewell = threading.Thread(target=self._reporter.finish, args=(outcome,), daemon=True)
        farewell.start()
        farewell.join(FAREWELL_SECONDS)
        os._exit(FAILED)
