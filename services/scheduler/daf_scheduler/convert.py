"""Between protobuf messages and what the scheduler stores."""

from __future__ import annotations

from datetime import datetime

from daf_common.names import EVALUATION, SWEEP, TRAINING_JOB, TRIAL
from daf_common.times import to_timestamp
from daf_common.values import to_value
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.common.v1.policy_pb2 import PolicyCheckpoint
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.statistics.v1 import statistics_service_pb2 as statistics
from daf_protos.statistics.v1.comparison_pb2 import PairComparison
from daf_protos.training.v1 import training_job_pb2
from daf_scheduler.children import Child, ChildState, Reason
from daf_scheduler.search.strategy import Strategy
from daf_scheduler.space import Parameters
from daf_scheduler.sweeps import Sweep, SweepState
from daf_scheduler.trials import Trial, TrialState, trial_id


def new_sweep(id: str, spec: sweep_pb2.SweepSpec, strategy: Strategy, now: datetime, creator: str = "") -> Sweep:
    """A sweep to be stored, of a valid spec."""
    return Sweep(
        id=id,
        spec=spec.SerializeToString(deterministic=True),
        state=SweepState.PENDING,
        planned=strategy.planned,
        create_time=now,
        slots=spec.max_parallel_trials or 1,
        max_failed=spec.max_failed_trials if spec.HasField("max_failed_trials") else None,
        maximize=spec.objective.direction != sweep_pb2.DIRECTION_MINIMIZE,
        learns=strategy.learns,
        has_held_out=spec.HasField("held_out"),
        creator=creator,
    )


def new_trial(sweep: str, number: int, parameters: Parameters, now: datetime) -> Trial:
    """A trial to be stored."""
    message = sweep_pb2.Trial(parameters={name: to_value(value) for name, value in parameters.items()})
    frozen = message.SerializeToString(deterministic=True)
    return Trial(trial_id(sweep, number), sweep, number, frozen, TrialState.PENDING, now)


def sweep_message(sweep: Sweep) -> sweep_pb2.Sweep:
    """A sweep as clients see it."""
    counts = sweep.counts
    message = sweep_pb2.Sweep(
        name=SWEEP.format(sweep.id),
        spec=sweep_pb2.SweepSpec.FromString(sweep.spec),
        state=sweep_pb2.SweepState.Value(f"SWEEP_STATE_{sweep.state.value}"),
        failure=_failure(sweep.reason),
        cancel_requested=sweep.cancel_requested,
        planned_trials=sweep.planned,
        trials=sweep_pb2.TrialCounts(
            pending=counts.pending,
            running=counts.running,
            succeeded=counts.succeeded,
            failed=counts.failed,
            cancelled=counts.cancelled,
        ),
        best_trial="" if sweep.best_number is None else TRIAL.format(sweep.id, sweep.best_number),
        creator=sweep.creator,
        create_time=to_timestamp(sweep.create_time),
        end_time=to_timestamp(sweep.end_time),
        revision=sweep.revision,
    )
    if sweep.held_out:
        message.held_out.ParseFromString(sweep.held_out)
    return message


def trial_message(trial: Trial) -> sweep_pb2.Trial:
    """A trial as clients see it."""
    message = sweep_pb2.Trial.FromString(trial.parameters)
    message.name = TRIAL.format(trial.sweep, trial.number)
    message.number = trial.number
    message.state = sweep_pb2.TrialState.Value(f"TRIAL_STATE_{trial.state.value}")
    message.rung = trial.rung
    message.revision = trial.revision
    if trial.state is not TrialState.PENDING and trial.start_time:
        message.training_job = TRAINING_JOB.format(trial.child_id)
    if trial.checkpoint:
        message.evaluation = EVALUATION.format(trial.child_id)
        message.checkpoint.ParseFromString(trial.checkpoint)
    if trial.score:
        message.score.ParseFromString(trial.score)
    for field, value in (
        ("failure", _failure(trial.reason)),
        ("create_time", to_timestamp(trial.create_time)),
        ("start_time", to_timestamp(trial.start_time)),
        ("end_time", to_timestamp(trial.end_time)),
    ):
        if value is not None:
            getattr(message, field).CopyFrom(value)
    return message


_JOB_STATES = {
    training_job_pb2.TRAINING_JOB_STATE_SUCCEEDED: ChildState.SUCCEEDED,
    training_job_pb2.TRAINING_JOB_STATE_FAILED: ChildState.FAILED,
    training_job_pb2.TRAINING_JOB_STATE_CANCELLED: ChildState.CANCELLED,
}
_EVALUATION_STATES = {
    evaluation_pb2.EVALUATION_STATE_SUCCEEDED: ChildState.SUCCEEDED,
    evaluation_pb2.EVALUATION_STATE_FAILED: ChildState.FAILED,
    evaluation_pb2.EVALUATION_STATE_CANCELLED: ChildState.CANCELLED,
}
# A state that is in neither table, one of a newer service too, has not ended.


def job_seen(job: training_job_pb2.TrainingJob) -> Child:
    """A training job as a trial sees it."""
    state = _JOB_STATES.get(job.state, ChildState.LIVE)
    checkpoint = b""
    if state is ChildState.SUCCEEDED and job.HasField("checkpoint"):
        checkpoint = PolicyCheckpoint(
            policy_class=job.spec.policy_class, weights=job.checkpoint.weights, checkpoint=job.checkpoint.name
        ).SerializeToString(deterministic=True)
    return Child(job.name, state, _reason(job, "JOB_FAILED"), checkpoint, job.revision)


def evaluation_seen(evaluation: evaluation_pb2.Evaluation) -> Child:
    """An evaluation as a trial or a sweep sees it."""
    state = _EVALUATION_STATES.get(evaluation.state, ChildState.LIVE)
    return Child(evaluation.name, state, _reason(evaluation, "EVALUATION_FAILED"), revision=evaluation.revision)


def score_of(summary: statistics.PolicySummary, digest: str) -> sweep_pb2.Score:
    """A policy's score from its summary, which has a mean."""
    score = sweep_pb2.Score(mean=summary.mean, episodes=summary.episodes, evaluation_digest=digest)
    for field in ("standard_error", "interval_low", "interval_high"):
        if summary.HasField(field):
            setattr(score, field, getattr(summary, field))
    return score


def difference_of(baseline: PairComparison, digest: str) -> sweep_pb2.Score:
    """By how much the best trial is better than a baseline, from that baseline's comparison with it."""
    score = sweep_pb2.Score(mean=-baseline.difference, episodes=baseline.pairs, evaluation_digest=digest)
    if baseline.HasField("interval_low"):
        score.interval_low, score.interval_high = -baseline.interval_high, -baseline.interval_low
    return score


def _reason(child: training_job_pb2.TrainingJob | evaluation_pb2.Evaluation, default: str) -> Reason | None:
    if not child.HasField("failure"):
        return None
    failure = child.failure
    return Reason(failure.reason or default, failure.message, failure.subject)


def _failure(reason: Reason | None) -> Failure | None:
    return Failure(reason=reason.reason, message=reason.message, subject=reason.subject) if reason else None
