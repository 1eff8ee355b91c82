"""The life of an evaluation: what is stored of it, and what is to be done next. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from daf_common.failures import Failure
from daf_common.workloads import Observation
from daf_common.workloads import State as WorkloadState

WAITING_FOR_SLOTS = "workers: those that there may be at once are at work for evaluations before it"

_WORKLOAD = re.compile(r"(.+)-w(\d+)", re.ASCII)


class State(Enum):
    """How far an evaluation is."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Whether it stays so for ever."""
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
"""All changes of state that there are."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation as it is stored."""

    number: int
    """Rises from evaluation to evaluation: their order."""
    id: str
    spec: bytes
    """The serialized `EvaluationSpec`, as it was submitted."""
    agents: tuple[int, ...]
    """The number of seats of each mission; 0 of a user's own until a worker has told it."""
    total: int
    """Episodes in all."""
    workers: int
    """Worker processes at most."""
    token: str = field(repr=False)
    """The secret of its workers."""
    creator: str
    create_time: datetime
    state: State = State.PENDING
    cancel_requested: bool = False
    failure: Failure | None = None
    """What a worker reported, or what ended the evaluation."""
    done: int = 0
    """Episodes recorded."""
    attempt: int = 0
    """Number of the newest workload; 0 before the first."""
    replicas: int = 0
    """Processes of that workload, hence slots held; 0 once it has ended."""
    digest: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None
    cleaned: bool = False
    """Whether it has ended and nothing is left of its workloads but their logs."""
    waiting_for: str = ""
    """What it, or some of its workers, wait for, in words."""
    revision: int = 0

    @property
    def workload(self) -> str:
        """The name of the newest workload."""
        return workload_name(self.id, self.attempt)

    @property
    def idle(self) -> bool:
        """Whether workers have nothing left to do."""
        return self.state.ended or self.cancel_requested or self.failure is not None or self.done == self.total

    def to(self, state: State, now: datetime, *, failure: Failure | None = None, digest: str = "") -> Evaluation:
        """The evaluation in another state."""
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"an evaluation never goes from {self.state.value} to {state.value}")
        moved = replace(self, state=state, failure=failure or self.failure, digest=digest)
        if state is State.RUNNING:
            return replace(moved, start_time=now)
        # Slots are free at once: what is left of the workers has nothing to play.
        return replace(moved, end_time=now, replicas=0, waiting_for="")


@dataclass(frozen=True)
class Seen:
    """What the world looks like for an evaluation."""

    workloads: Mapping[str, Observation] = field(default_factory=dict)
    """Its workloads that have not been removed, by name."""
    complete: bool = False
    """Whether its newest workload is known to have been started with all its processes."""
    refused: str = ""
    """Why its newest workload could not be started when that was last tried."""
    slots: int = 0
    """Slots that are granted to it now."""
    last_words: str = ""
    """The end of its newest workload's log; where that has ended too early."""
    recorded: int = 0
    """Episodes that the statistics service holds; once all are played."""
    digest: str = ""
    """Their digest."""


@dataclass(frozen=True)
class Start:
    """Start the newest workload, or what is missing of it."""


@dataclass(frozen=True)
class Stop:
    """Stop a workload."""

    workload: str


@dataclass(frozen=True)
class Archive:
    """Keep the logs of a workload that has ended, and remove it."""

    workload: str


Action = Start | Stop | Archive


def workload_name(id: str, attempt: int) -> str:
    """The name of an evaluation's nth workload."""
    return f"{id}-w{attempt}"


def parse_workload_name(workload: str) -> tuple[str, int] | None:
    """The evaluation and the attempt that a workload is of; None if it is of something else."""
    match = _WORKLOAD.fullmatch(workload)
    return (match[1], int(match[2])) if match else None


def decide(evaluation: Evaluation, seen: Seen, now: datetime, max_attempts: int) -> tuple[Evaluation, Sequence[Action]]:
    """The evaluation as it should be stored, or what to do about it.

    Args:
        evaluation: as it is stored.
        seen: what the world looks like.
        now: the time.
        max_attempts: how many workloads may be started for it.
    """
    if evaluation.state.ended:
        return _clean_up(evaluation, seen)
    if evaluation.cancel_requested:
        return evaluation.to(State.CANCELLED, now), []
    if evaluation.failure is not None:
        return evaluation.to(State.FAILED, now), []
    if evaluation.done == evaluation.total:
        return _finish(evaluation, seen, now), []
    return _keep_playing(evaluation, seen, now, max_attempts)


def _clean_up(evaluation: Evaluation, seen: Seen) -> tuple[Evaluation, Sequence[Action]]:
    if not seen.workloads:
        return replace(evaluation, cleaned=True), []
    return evaluation, [
        Stop(name) if workload.state is WorkloadState.RUNNING else Archive(name)
        for name, workload in seen.workloads.items()
    ]


def _finish(evaluation: Evaluation, seen: Seen, now: datetime) -> Evaluation:
    if seen.recorded == evaluation.total:
        return evaluation.to(State.SUCCEEDED, now, digest=seen.digest)
    message = (
        f"{evaluation.total} episodes were recorded, but the statistics service holds {seen.recorded}: run it again"
    )
    return evaluation.to(State.FAILED, now, failure=Failure("EPISODES_LOST", message))


def _keep_playing(
    evaluation: Evaluation, seen: Seen, now: datetime, max_attempts: int
) -> tuple[Evaluation, Sequence[Action]]:
    if evaluation.replicas:
        return _look_after(evaluation, seen, now, max_attempts)
    if seen.slots:
        return replace(evaluation, attempt=evaluation.attempt + 1, replicas=seen.slots, waiting_for=""), []
    return replace(evaluation, waiting_for=WAITING_FOR_SLOTS), []


def _look_after(
    evaluation: Evaluation, seen: Seen, now: datetime, max_attempts: int
) -> tuple[Evaluation, Sequence[Action]]:
    """What to do about a workload that has been granted its slots."""
    workload = seen.workloads.get(evaluation.workload)
    waiting = workload.waiting if workload is not None else seen.refused
    if (workload is None or workload.state is WorkloadState.RUNNING) and evaluation.waiting_for != waiting:
        return replace(evaluation, waiting_for=waiting), []
    if workload is None or (workload.state is WorkloadState.RUNNING and not seen.complete):
        return evaluation, [Start()]
    if workload.state is WorkloadState.RUNNING:
        return evaluation, []
    if evaluation.attempt < max_attempts:
        return replace(evaluation, replicas=0, waiting_for=""), []
    left = evaluation.total - evaluation.done
    message = f"all workers of {max_attempts} attempts ended before the last {left} episodes were played"
    details = "; ".join(filter(None, [workload.message, seen.last_words]))
    failure = Failure("WORKER_LOST", f"{message}: {details}" if details else message)
    return evaluation.to(State.FAILED, now, failure=failure), []
