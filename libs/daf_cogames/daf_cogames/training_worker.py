"""The worker of a training job: gets its assignment, trains, reports."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import shutil
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from google.protobuf.timestamp_pb2 import Timestamp

from daf_cogames.catalog import agent_count
from daf_cogames.checkpoints import WeightsError
from daf_cogames.code import on_path, unpack_code
from daf_cogames.log_capture import captured
from daf_cogames.messages import mission_of, policy_of
from daf_cogames.missions import MissionError
from daf_cogames.params import DEFAULT_BPTT_HORIZON
from daf_cogames.policies import PolicyError, last_line
from daf_cogames.reports import GaveUp, Superseded, persist
from daf_cogames.train import Ending, Outcome, PlanError, TrainingPlan, train
from daf_cogames.trainer import EffectiveConfiguration, Progress, StopReason
from daf_cogames.training_reporter import Reporter, reward_of
from daf_cogames.transfer import download
from daf_common.archives import ArchiveError
from daf_common.channel import connect_blocking
from daf_common.errors import DataLoss, NotFound
from daf_common.values import Scalar, scalars
from daf_protos.common.v1.artifact_pb2 import Artifact, ArtifactLocation
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.training.v1 import worker_service_pb2 as pb
from daf_protos.training.v1.training_job_pb2 import TrainingProgress, TrainingSpec
from daf_protos.training.v1.worker_service_pb2_grpc import TrainingWorkerServiceStub

logger = logging.getLogger(__name__)

NEVER = 2**31 - 1
"""Updates between checkpoints where only the last one is wanted."""

DOWNLOAD_PATIENCE_SECONDS = 600.0

_OUT_OF_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


def run(environment: Mapping[str, str], terminating: threading.Event) -> int:
    """Trains what the service says; returns the exit code of `daf-runner`.

    Args:
        environment: where the service is, and which attempt this is; see `daf_cogames.runner`.
        terminating: set when the process is asked to end; training then ends after the update under way.
    """
    attempt = pb.Attempt(
        training_job=environment["DAF_TRAINING_JOB"],
        attempt=int(environment["DAF_ATTEMPT"]),
        rank=0,
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
            return _work(stub, attempt, assignment, Path(environment["DAF_CACHE"]), terminating)
        except Superseded as reason:
            logger.warning("this attempt is over: %s", reason)
            return 0
        except GaveUp as reason:
            logger.error("%s", reason)
            return 1


def _work(
    stub: TrainingWorkerServiceStub,
    attempt: pb.Attempt,
    assignment: pb.GetAssignmentResponse,
    cache: Path,
    terminating: threading.Event,
) -> int:
    reporter = Reporter(stub, attempt, assignment.report_interval_seconds)
    directory = Path.cwd() / "training"
    try:
        with captured(reporter.outbox.add_log):
            reporter.start()
            outcome = _outcome(reporter, assignment, cache, directory, terminating)
        reporter.finish(outcome)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 1 if outcome.HasField("failure") else 0


def _outcome(
    reporter: Reporter,
    assignment: pb.GetAssignmentResponse,
    cache: Path,
    directory: Path,
    terminating: threading.Event,
) -> pb.TrainingOutcome:
    try:
        with _plan(assignment, cache, directory) as plan:
            outcome = _train(plan, reporter, terminating)
    except (Superseded, GaveUp):
        raise
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


@contextlib.contextmanager
def _plan(assignment: pb.GetAssignmentResponse, cache: Path, directory: Path) -> Iterator[TrainingPlan]:
    """What to train, with its files in place and the user's code importable."""
    spec = assignment.spec
    locations = {location.artifact.sha256: location for location in assignment.downloads}

    def fetch(artifact: Artifact) -> Path:
        location = locations[artifact.sha256]
        return persist(lambda: _download(location, cache), "a download", patience_seconds=DOWNLOAD_PATIENCE_SECONDS)

    policy = spec.policy_class
    code = None
    if policy.HasField("code"):
        code = unpack_code(fetch(policy.code), policy.code.sha256, cache / "code")
    weights = fetch(spec.start.weights) if spec.HasField("start") else None
    with on_path(*([code] if code else [])):
        yield TrainingPlan(
            missions=tuple(mission_of(mission) for mission in spec.missions),
            policy=policy_of(policy, weights, code),
            agent_steps=spec.agent_steps,
            num_envs=spec.environments,
            seed=spec.seed,
            directory=directory,
            trainer=scalars(spec.trainer),
            checkpoint_interval_updates=checkpoint_interval(spec),
        )


def _download(location: ArtifactLocation, cache: Path) -> Path:
    try:
        return download(location, cache / "artifacts")
    except NotFound as error:  # the artifact is gone, not this worker's attempt
        raise DataLoss(error.message) from error


def _train(plan: TrainingPlan, reporter: Reporter, terminating: threading.Event) -> Outcome:
    logger.info("training %s for %d agent steps", plan.policy.class_path, plan.agent_steps)

    def on_start(configuration: EffectiveConfiguration) -> None:
        for note in configuration.notes:
            logger.warning("%s", note)
        reporter.outbox.add_start(configuration.agent_steps, effective_values(configuration))
        reporter.report_now()

    def on_progress(progress: Progress) -> None:
        reporter.outbox.add_progress(_progress_message(progress), _sample(progress))

    def stop() -> StopReason | None:
        if reporter.told_to_stop():
            return StopReason.CANCELLED
        return StopReason.PREEMPTED if terminating.is_set() else None

    outcome = train(
        plan, on_start=on_start, on_progress=on_progress, on_checkpoint=reporter.outbox.add_checkpoint, stop=stop
    )
    logger.info("training %s at update %d, agent step %d", outcome.ending.value, outcome.update, outcome.agent_steps)
    return outcome


def checkpoint_interval(spec: TrainingSpec) -> int:
    """Updates between two checkpoints. A batch has as many agent steps as all agents take in one segment."""
    if not spec.HasField("checkpoint_agent_steps"):
        return NEVER
    mission = mission_of(spec.missions[0])
    agents = agent_count(mission.name, mission.variants, mission.cogs)
    horizon = int(scalars(spec.trainer).get("bptt_horizon", DEFAULT_BPTT_HORIZON))
    return math.ceil(spec.checkpoint_agent_steps / (spec.environments * agents * horizon))


def effective_values(configuration: EffectiveConfiguration) -> dict[str, Scalar]:
    """What the live trainer was found to train with: PuffeRL's parameters by their short names, the optimizer's own."""
    return {
        **{name.removeprefix("trainer."): value for name, value in configuration.trainer.items()},
        **{f"optimizer.{name}": value for name, value in configuration.optimizer.items()},
        "recurrent": configuration.recurrent,
        "agents": configuration.agents,
        "batch_size": configuration.batch_size,
        "gradient_steps_per_update": configuration.gradient_steps_per_update,
        "policy_parameters": configuration.policy_parameters,
    }


def failure_of(error: BaseException) -> Failure:
    """Why training failed, for a program and for a person."""
    reason, subject = "CRASHED", ""
    match error:
        case PolicyError():
            reason, subject = "POLICY_INVALID", error.field
        case MissionError():
            reason, subject = "MISSION_INVALID", error.field
        case PlanError():
            reason, subject = "SPEC_INVALID", error.problems[0].name
        case WeightsError():
            reason = "WEIGHTS_INVALID"
        case ArchiveError() | ImportError():
            reason, subject = "POLICY_INVALID", "code"
        case DataLoss():
            reason = "ARTIFACT_LOST"
        case OSError(errno=errno.ENOSPC):
            reason = "DISK_FULL"
        case MemoryError() | torch.OutOfMemoryError():
            reason = "OUT_OF_MEMORY"
        case RuntimeError() if any(sign in str(error).lower() for sign in _OUT_OF_MEMORY_SIGNS):
            reason = "OUT_OF_MEMORY"
    return Failure(reason=reason, message=last_line(error), subject=subject)


def _progress_message(progress: Progress) -> TrainingProgress:
    return TrainingProgress(
        agent_steps=progress.agent_steps,
        total_agent_steps=progress.configuration.agent_steps,
        update=progress.update,
        steps_per_second=progress.agent_steps_per_second,
        learning_rate=progress.learning_rate,
        reward=reward_of(progress.metrics),
    )


def _sample(progress: Progress) -> pb.MetricSample:
    time = Timestamp()
    time.GetCurrentTime()
    values = {
        **progress.metrics,
        "learning_rate": progress.learning_rate,
        "agent_steps_per_second": progress.agent_steps_per_second,
    }
    return pb.MetricSample(
        update=progress.update,
        agent_steps=progress.agent_steps,
        time=time,
        values=values,
        non_finite=progress.nonfinite,
    )
