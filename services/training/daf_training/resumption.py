"""Going on with a job that has ended, as a user asks for it. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from daf_common.errors import FailedPrecondition, InvalidArgument, Violation
from daf_protos.training.v1.training_job_pb2 import Checkpoint, TrainingSpec
from daf_protos.training.v1.training_service_pb2 import ResumeTrainingJobRequest
from daf_training.admission import Capacity
from daf_training.jobs import Job, JobState, resume
from daf_training.profiles import MAX_WORKERS, with_fewer
from daf_training.specs import MAX_AGENT_STEPS, check_fits


def check_resumption(request: ResumeTrainingJobRequest) -> None:
    """Checks a request as far as it can be checked without its job.

    Raises:
        InvalidArgument: names everything that is wrong.
    """
    wished = (
        ("workers", request.workers if request.HasField("workers") else None, MAX_WORKERS),
        ("agent_steps", request.agent_steps if request.HasField("agent_steps") else None, MAX_AGENT_STEPS),
    )
    violations = [
        Violation(name, f"must be between 1 and {high}, not {value}")
        for name, value, high in wished
        if value is not None and not 1 <= value <= high
    ]
    if violations:
        raise InvalidArgument.of(violations)


def resumed(
    job: Job, request: ResumeTrainingJobRequest, newest: Checkpoint | None, capacity: Capacity, now: datetime
) -> Job:
    """The job on its way again, with what the request changes of it.

    Args:
        job: as it is.
        request: checked by `check_resumption`.
        newest: the newest of its checkpoints from which training can go on; None if there is none.
        capacity: what the installation has.
        now: the time of the call.

    Raises:
        FailedPrecondition: it cannot go on, or not so; says what to do.
    """
    spec = TrainingSpec.FromString(job.spec)
    if not job.ended:
        raise FailedPrecondition(f"{job.id} has not ended, so it cannot be resumed")
    if job.state is JobState.SUCCEEDED and request.agent_steps <= spec.agent_steps:
        raise FailedPrecondition(
            f"{job.id} has succeeded after its {spec.agent_steps} agent steps: to go on, ask for more (`agent_steps`)"
        )
    if newest is None and job.checkpoint:
        raise FailedPrecondition(
            f"none of the checkpoints of {job.id} holds what resuming needs: create a new job that starts from one"
        )
    if newest is not None and request.HasField("agent_steps") and request.agent_steps < newest.agent_steps:
        raise FailedPrecondition(
            f"{job.id} has done {newest.agent_steps} agent steps already, more than the {request.agent_steps} asked for"
        )
    compute = job.compute
    if request.HasField("workers"):
        spec.workers = request.workers
        compute = replace(compute, workers=request.workers)
        if spec.HasField("min_workers"):
            spec.min_workers = min(spec.min_workers, request.workers)
    if request.HasField("agent_steps"):
        spec.agent_steps = request.agent_steps
    check_fits(with_fewer(compute, spec.min_workers), capacity)
    return resume(replace(job, min_workers=spec.min_workers), spec.SerializeToString(deterministic=True), compute, now)
