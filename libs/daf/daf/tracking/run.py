"""What a tracker is told of a training job."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from daf.client import Client
from daf.render_training import best_metric, job_state
from daf_common.values import Scalar, scalars
from daf_protos.statistics.v1.statistics_service_pb2 import ListMetricsRequest, MetricSeries, ReadMetricsRequest
from daf_protos.training.v1.training_job_pb2 import TrainingJob


@dataclass(frozen=True)
class Point:
    """The metrics of one update."""

    update: int
    agent_steps: int
    time_ms: int
    """Milliseconds since 1970, by the clock of the worker."""
    values: Mapping[str, float]
    """By metric name; NaN where a value was not finite."""


@dataclass(frozen=True)
class TrackedRun:
    """A training job, in the words of trackers."""

    job: str
    """Id of the job."""
    identity: str
    """The same for the same job, and another for a later job of the same name."""
    attempt: int
    state: str
    """As `daf job get` says it, for example `running`."""
    started_ms: int
    ended_ms: int | None
    """Milliseconds since 1970; None while it runs."""
    parameters: Mapping[str, Scalar]
    """Hyperparameters by name: what was in effect where that is known, else what was asked for."""
    tags: Mapping[str, str]
    """Policy, missions, checkpoints and state."""
    best_metric: str
    best_value: float | None
    """Of the best checkpoint; None before the first."""


def tracked_run(job: TrainingJob) -> TrackedRun:
    """What trackers are told of a job as it is now."""
    spec, identifier = job.spec, job.name.partition("/")[2]
    created = job.create_time.ToMicroseconds()
    metric = best_metric(job)
    best = job.best_checkpoint.metrics.get(metric) if job.HasField("best_checkpoint") else None
    parameters: dict[str, Scalar] = {
        "policy": spec.policy_class.class_path,
        "missions": ", ".join(mission.name for mission in spec.missions),
        "agent_steps": spec.agent_steps,
        "seed": spec.seed,
        **{f"policy.{name}": value for name, value in scalars(spec.policy_class.arguments).items()},
        **scalars(spec.trainer),
        **scalars(job.effective_trainer),
    }
    tags = {
        "daf.job": job.name,
        "daf.state": job_state(job),
        "daf.attempt": str(job.attempt),
        "daf.creator": job.creator,
        "daf.code_sha256": spec.policy_class.code.sha256,
        "daf.start_checkpoint": spec.start.checkpoint,
        "daf.checkpoint": job.checkpoint.name,
        "daf.checkpoint_sha256": job.checkpoint.weights.sha256,
        "daf.best_checkpoint": job.best_checkpoint.name,
        "daf.failure": job.failure.reason,
    }
    return TrackedRun(
        job=identifier,
        identity=f"{identifier}-{hashlib.sha256(f'{job.name} {created}'.encode()).hexdigest()[:8]}",
        attempt=max(1, job.attempt),
        state=job_state(job),
        started_ms=job.create_time.ToMilliseconds(),
        ended_ms=job.end_time.ToMilliseconds() if job.HasField("end_time") else None,
        parameters=parameters,
        tags={name: text for name, text in tags.items() if text},
        best_metric=metric,
        best_value=best,
    )


def read_points(client: Client, job_name: str, after_update: int | None = None) -> list[Point]:
    """The metrics of a job, in the order of updates.

    Args:
        client: where.
        job_name: the job.
        after_update: only of later updates; None reads all, metric by metric, as a long run has more than a message
            holds.
    """
    if after_update is not None:
        request = ReadMetricsRequest(source=job_name, after_step=after_update)
        return _points(client.statistics.ReadMetrics(request).series)
    names = client.statistics.ListMetrics(ListMetricsRequest(source=job_name)).metrics
    requests = (ReadMetricsRequest(source=job_name, metrics=[name]) for name in names)
    return _points(series for request in requests for series in client.statistics.ReadMetrics(request).series)


def _points(series: Iterable[MetricSeries]) -> list[Point]:
    agent_steps: dict[int, tuple[int, int]] = {}
    values: dict[int, dict[str, float]] = {}
    for one in series:
        for update, steps, time, value in zip(one.steps, one.agent_steps, one.times, one.values, strict=True):
            agent_steps.setdefault(update, (steps, time.ToMilliseconds()))
            values.setdefault(update, {})[one.metric] = value
    return [Point(update, *agent_steps[update], values[update]) for update in sorted(values)]
