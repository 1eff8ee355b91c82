"""A trial's life: which state follows from what is seen, and what is to be done. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from daf_scheduler.children import Child, ChildState, Reason


class TrialState(Enum):
    """As `daf.scheduler.v1.TrialState`; PAUSED and PRUNED come with the strategies that stop trials early."""

    PENDING = "PENDING"
    TRAINING = "TRAINING"
    EVALUATING = "EVALUATING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    INFEASIBLE = "INFEASIBLE"
    CANCELLED = "CANCELLED"


_S = TrialState
TRANSITIONS: Mapping[TrialState, frozenset[TrialState]] = {
    _S.PENDING: frozenset({_S.TRAINING, _S.CANCELLED}),
    _S.TRAINING: frozenset({_S.EVALUATING, _S.FAILED, _S.INFEASIBLE, _S.CANCELLED}),
    _S.EVALUATING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.INFEASIBLE: frozenset(),
    _S.CANCELLED: frozenset(),
}
"""All transitions there are."""

TERMINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)
RUNNING = frozenset({_S.TRAINING, _S.EVALUATING})
"""States in which a trial holds a slot."""


@dataclass(frozen=True)
class Trial:
    """A trial as it is stored."""

    id: str
    """`{sweep}-t{number}`."""
    sweep: str
    number: int
    parameters: bytes
    """Frozen: a serialized `Trial` message that has `parameters` alone."""
    state: TrialState
    create_time: datetime
    reason: Reason | None = None
    rung: int = 0
    checkpoint: bytes = b""
    """The policy that it trained: a serialized `PolicyCheckpoint`."""
    score: bytes = b""
    """A serialized `Score`: a snapshot that never changes."""
    objective: float | None = None
    """The mean in `score`: what strategies learn from."""
    start_time: datetime | None = None
    end_time: datetime | None = None
    revision: int = 0

    @property
    def child_id(self) -> str:
        """The id of its training job and of its evaluation at its rung, so that creating one twice is once."""
        return f"{self.id}-r{self.rung}"

    @property
    def terminal(self) -> bool:
        """Whether it has ended."""
        return self.state in TERMINAL

    def to(self, state: TrialState, now: datetime, reason: Reason | None = None) -> Trial:
        """The trial in another state.

        Raises:
            ValueError: there is no such transition.
        """
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"a trial does not go from {self.state.value} to {state.value}")
        start = self.start_time or (now if state in RUNNING else None)
        end = None
        if state in TERMINAL:
            end = max(now, start or self.create_time)  # a clock that was set back makes no negative duration
        return replace(self, state=state, reason=reason, start_time=start, end_time=end)


def trial_id(sweep: str, number: int) -> str:
    """The id of a trial."""
    return f"{sweep}-t{number}"


@dataclass(frozen=True)
class Measured:
    """The objective as the statistics service gave it; NaN stands for one that is not defined."""

    value: float
    score: bytes = b""
    """A serialized `Score`."""
    message: str = ""
    """Why it is not defined, if more is known."""


@dataclass(frozen=True)
class Seen:
    """What the world looks like for a trial."""

    stopping: bool = False
    """Whether the sweep wants no more trials."""
    slot: bool = False
    """Whether it may start."""
    job: Child | None = None
    evaluation: Child | None = None
    objective: Measured | None = None


class Action(Enum):
    """What can be done for a trial."""

    CREATE_JOB = "create job"
    CREATE_EVALUATION = "create evaluation"
    CANCEL_JOB = "cancel job"
    CANCEL_EVALUATION = "cancel evaluation"


def decide(trial: Trial, seen: Seen, now: datetime) -> tuple[Trial, Sequence[Action]]:
    """The next state, or what to do in this one."""
    if trial.terminal:
        return trial, []
    if seen.stopping:
        return _stop(trial, seen, now)
    match trial.state:
        case TrialState.PENDING:
            return (trial.to(_S.TRAINING, now) if seen.slot else trial), []
        case TrialState.TRAINING:
            return _train(trial, seen.job, now)
        case _:
            return _evaluate(trial, seen, now)


def _stop(trial: Trial, seen: Seen, now: datetime) -> tuple[Trial, Sequence[Action]]:
    cancels = []
    if seen.job and seen.job.live:
        cancels.append(Action.CANCEL_JOB)
    if seen.evaluation and seen.evaluation.live:
        cancels.append(Action.CANCEL_EVALUATION)
    if cancels:
        return trial, cancels
    return trial.to(_S.CANCELLED, now, Reason("SWEEP_STOPPED", "the sweep was stopped")), []


def _train(trial: Trial, job: Child | None, now: datetime) -> tuple[Trial, Sequence[Action]]:
    if job is None:
        return trial, [Action.CREATE_JOB]
    match job.state:
        case ChildState.LIVE:
            return trial, []
        case ChildState.SUCCEEDED if job.checkpoint:
            return replace(trial.to(_S.EVALUATING, now), checkpoint=job.checkpoint), []
        case ChildState.SUCCEEDED:
            state, reason = _S.FAILED, Reason("NO_CHECKPOINT", f"{job.name} ended without a checkpoint")
        case ChildState.INFEASIBLE:
            state, reason = _S.INFEASIBLE, job.reason_or("INVALID_ARGUMENT", "training was refused")
        case ChildState.CANCELLED:
            state, reason = _S.CANCELLED, Reason("JOB_CANCELLED", f"{job.name} was cancelled")
        case ChildState.FAILED:
            state, reason = _S.FAILED, job.reason_or("JOB_FAILED", f"{job.name} failed")
    return trial.to(state, now, reason), []


def _evaluate(trial: Trial, seen: Seen, now: datetime) -> tuple[Trial, Sequence[Action]]:
    evaluation = seen.evaluation
    if evaluation is None:
        return trial, [Action.CREATE_EVALUATION]
    match evaluation.state:
        case ChildState.LIVE:
            return trial, []
        case ChildState.SUCCEEDED:
            return _score(trial, evaluation, seen.objective, now), []
        case ChildState.CANCELLED:
            reason = Reason("EVALUATION_CANCELLED", f"{evaluation.name} was cancelled")
            return trial.to(_S.CANCELLED, now, reason), []
        case ChildState.FAILED | ChildState.INFEASIBLE:
            return trial.to(_S.FAILED, now, evaluation.reason_or("EVALUATION_FAILED", f"{evaluation.name} failed")), []


def _score(trial: Trial, evaluation: Child, objective: Measured | None, now: datetime) -> Trial:
    if objective is None:
        return trial
    if not math.isfinite(objective.value):
        message = objective.message or f"the objective is not a finite number in {evaluation.name}"
        return trial.to(_S.FAILED, now, Reason("OBJECTIVE_UNDEFINED", message))
    return replace(trial.to(_S.SUCCEEDED, now), score=objective.score, objective=objective.value)
