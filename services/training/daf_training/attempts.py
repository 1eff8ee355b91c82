"""Attempts of a job: what is kept of them, what their workloads are, and who may speak for them. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from daf_common.errors import Aborted, InvalidArgument, PermissionDenied
from daf_common.failures import Failure
from daf_training.jobs import OCCUPYING, Job
from daf_training.profiles import MAX_WORKERS


@dataclass(frozen=True)
class Attempt:
    """A row: one try to run a job to its end."""

    job: str
    number: int
    workers: int
    start_time: datetime
    resumed_from: str = ""
    """Resource name of the checkpoint that it went on from; empty if it started afresh."""
    resumed_sha256: str = ""
    """Of that checkpoint's weights."""
    agent_steps: int = 0
    """Of the job at the attempt's end; 0 while it lives."""
    failure: Failure | None = None
    end_time: datetime | None = None


def workload_name(job_id: str, attempt: int) -> str:
    """The name of an attempt's workload: a DNS-1123 label of at most 63 characters."""
    return f"{job_id}-a{attempt}"


def parse_workload_name(name: str) -> tuple[str, int] | None:
    """The job's id and the number of the attempt; None if it is no name of an attempt."""
    job_id, dash, number = name.rpartition("-a")
    if not dash or not job_id or not number.isascii() or not number.isdecimal():
        return None
    return job_id, int(number)


def gpu_environment(job: Job, visible_gpus: Sequence[str] | None, counted_gpus: bool) -> Mapping[str, str]:
    """The GPUs that an attempt's ranks may see.

    Args:
        job: the job, with its current attempt.
        visible_gpus: the GPUs of the installation, if they have other names than their numbers.
        counted_gpus: whether jobs get GPUs by number; otherwise the machine itself says which there are.
    """
    if not counted_gpus:
        return {}
    names = dict(enumerate(visible_gpus or ()))
    devices = [names.get(gpu, str(gpu)) for gpu in job.gpus]
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices)}


def admit(job: Job, attempt: int, token: str, rank: int) -> None:
    """Lets a worker speak for a job's current attempt.

    Raises:
        Aborted: another attempt is the current one.
        InvalidArgument: the attempt has no such rank.
        PermissionDenied: it does not know the attempt's token.
    """
    if attempt != job.attempt:
        raise Aborted(
            f"attempt {attempt} of {job.id} is over: the current one is {job.attempt}", reason="STALE_ATTEMPT"
        )
    # A job that has not started yet has none.
    if not job.token or not hmac.compare_digest(token.encode(), job.token.encode()):
        raise PermissionDenied(f"this is not the token of attempt {attempt} of {job.id}", reason="WRONG_TOKEN")
    # Of an attempt that is over, the row does not say any more how many it had.
    workers = job.granted.workers if job.state in OCCUPYING else MAX_WORKERS
    if not 0 <= rank < workers:
        raise InvalidArgument.field("attempt.rank", f"must be between 0 and {workers - 1}, not {rank}")


def check_new(job: Job, rank: int) -> None:
    """Refuses a second process of a rank that has begun to report: what took the place of a lost pod would begin anew,
    while the other ranks and the reports go on from the first.

    Raises:
        Aborted: the attempt is over with its first process.
    """
    if job.reports.get(rank):
        raise Aborted(
            f"rank {rank} of attempt {job.attempt} of {job.id} has been at work already: the next attempt goes on",
            reason="RANK_REPLACED",
        )


def check_alive(job: Job) -> None:
    """Refuses what comes after the end of the current attempt.

    Raises:
        Aborted: the attempt has ended.
    """
    if job.state not in OCCUPYING:
        raise Aborted(f"attempt {job.attempt} of {job.id} has ended: the job is {job.state.value}", reason="JOB_ENDED")
