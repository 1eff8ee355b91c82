"""Attempts of a job: what their workloads are called, and who may report for them. Pure."""

from __future__ import annotations

import hmac

from daf_common.errors import Aborted, PermissionDenied
from daf_training.jobs import Job


def workload_name(job_id: str, attempt: int) -> str:
    """The name of an attempt's workload: a DNS-1123 label of at most 63 characters."""
    return f"{job_id}-a{attempt}"


def parse_workload_name(name: str) -> tuple[str, int] | None:
    """The job's id and the number of the attempt; None if it is no name of an attempt."""
    job_id, dash, number = name.rpartition("-a")
    if not dash or not job_id or not number.isascii() or not number.isdecimal():
        return None
    return job_id, int(number)


def admit(job: Job, attempt: int, token: str) -> None:
    """Lets a worker speak for a job's current attempt.

    Raises:
        Aborted: another attempt is the current one.
        PermissionDenied: it does not know the attempt's token.
    """
    if attempt != job.attempt:
        raise Aborted(
            f"attempt {attempt} of {job.id} is over: the current one is {job.attempt}", reason="STALE_ATTEMPT"
        )
    if not hmac.compare_digest(token.encode(), job.token.encode()):
        raise PermissionDenied(f"this is not the token of attempt {attempt} of {job.id}", reason="WRONG_TOKEN")


def check_not_ended(job: Job) -> None:
    """Refuses what comes after a job's end.

    Raises:
        Aborted: the job has ended.
    """
    if job.ended:
        raise Aborted(f"{job.id} has ended: {job.state.value}", reason="JOB_ENDED")
