"""A sweep's life: which state follows from what is seen, and what is to be done. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from daf_scheduler import slots
from daf_scheduler.children import Child, ChildState, Reason
from daf_scheduler.trials import RUNNING, Trial, TrialState


class SweepState(Enum):
    """As `daf.scheduler.v1.SweepState`."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    FINALIZING = "FINALIZING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


_S = SweepState
TRANSITIONS: Mapping[SweepState, frozenset[SweepState]] = {
    _S.PENDING: frozenset({_S.RUNNING, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.FINALIZING, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED}),
    _S.FINALIZING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
"""All transitions there are."""

TERMINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)


@dataclass(frozen=True)
class Counts:
    """How many trials of a sweep are in each kind of state, as `daf.scheduler.v1.TrialCounts`."""

    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    """Infeasible ones too."""
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All trials so far."""
        return self.pending + self.running + self.succeeded + self.failed + self.cancelled

    @property
    def live(self) -> int:
        """Trials that have not ended."""
        return self.pending + self.running


def kind(state: TrialState) -> str:
    """The field of `Counts` that a trial in this state counts in."""
    if state in RUNNING:
        return "running"
    return "failed" if state is TrialState.INFEASIBLE else state.value.lower()


@dataclass(frozen=True)
class Sweep:
    """A sweep as it is stored."""

    id: str
    spec: bytes
    """Frozen: a serialized `SweepSpec`."""
    state: SweepState
    planned: int
    """How many trials there will be at most."""
    create_time: datetime
    slots: int = 1
    """Trials that may run at a time."""
    max_failed: int | None = None
    """Failed trials after which the sweep fails."""
    maximize: bool = True
    """Whether more of the objective is better."""
    learns: bool = False
    """Whether the search learns from trials that have ended."""
    has_held_out: bool = False
    cancel_requested: bool = False
    searched: bool = False
    """Whether the search has no more trials to offer."""
    counts: Counts = field(default_factory=Counts)
    best_number: int | None = None
    best_objective: float | None = None
    reason: Reason | None = None
    held_out: bytes = b""
    """A serialized `HeldOutResult`: a snapshot that never changes."""
    end_time: datetime | None = None
    creator: str = ""
    """Who asked for it; empty where nobody is asked who they are."""
    revision: int = 0

    @property
    def evaluation_id(self) -> str:
        """The id of its evaluation on the held-out episodes."""
        return f"{self.id}-held-out"

    @property
    def terminal(self) -> bool:
        """Whether it has ended."""
        return self.state in TERMINAL

    @property
    def stopping(self) -> bool:
        """Whether it wants no more trials, and those that run to end."""
        return self.terminal or self.cancel_requested or self.failed_too_often

    @property
    def failed_too_often(self) -> bool:
        """Whether more trials have failed than it puts up with."""
        return self.max_failed is not None and self.counts.failed > self.max_failed

    def to(self, state: SweepState, now: datetime, reason: Reason | None = None) -> Sweep:
        """The sweep in another state.

        Raises:
            ValueError: there is no such transition.
        """
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"a sweep does not go from {self.state.value} to {state.value}")
        end = max(now, self.create_time) if state in TERMINAL else None
        return replace(self, state=state, reason=reason, end_time=end)


@dataclass(frozen=True)
class HeldOut:
    """What the statistics service says of the held-out episodes."""

    best_mean: float
    """NaN if it is not defined."""
    result: bytes
    """A serialized `HeldOutResult`."""


@dataclass(frozen=True)
class Seen:
    """What the world looks like for a sweep."""

    evaluation: Child | None = None
    held_out: HeldOut | None = None


@dataclass(frozen=True)
class Propose:
    """Ask the search for this many trials."""

    trials: int


@dataclass(frozen=True)
class CreateHeldOut:
    """Score the best trial and the baselines on the held-out episodes."""


@dataclass(frozen=True)
class CancelHeldOut:
    """Stop doing so."""


Action = Propose | CreateHeldOut | CancelHeldOut


def decide(sweep: Sweep, seen: Seen, now: datetime) -> tuple[Sweep, Sequence[Action]]:
    """The next state, or what to do in this one."""
    if sweep.terminal:
        return sweep, []
    if sweep.stopping:
        return _stop(sweep, seen, now)
    match sweep.state:
        case SweepState.PENDING:
            return sweep.to(_S.RUNNING, now), []
        case SweepState.RUNNING:
            return _run(sweep, now)
        case _:
            return _finalize(sweep, seen, now)


def _stop(sweep: Sweep, seen: Seen, now: datetime) -> tuple[Sweep, Sequence[Action]]:
    if sweep.counts.live:
        return sweep, []  # the trials see for themselves that the sweep stops
    if seen.evaluation and seen.evaluation.live:
        return sweep, [CancelHeldOut()]
    if sweep.cancel_requested:
        return sweep.to(_S.CANCELLED, now), []
    message = f"{sweep.counts.failed} trials failed, more than the {sweep.max_failed} allowed"
    return sweep.to(_S.FAILED, now, Reason("TOO_MANY_FAILED_TRIALS", message)), []


def _run(sweep: Sweep, now: datetime) -> tuple[Sweep, Sequence[Action]]:
    counts = sweep.counts
    if not sweep.searched:
        trials = slots.wanted(sweep.slots, counts.running, counts.pending, learns=sweep.learns)
        return sweep, [Propose(trials)] if trials else []
    if counts.live:
        return sweep, []
    if sweep.best_number is None:
        message = f"none of {counts.total} trials succeeded: see the trials' failures"
        return sweep.to(_S.FAILED, now, Reason("NO_TRIAL_SUCCEEDED", message)), []
    return sweep.to(_S.FINALIZING if sweep.has_held_out else _S.SUCCEEDED, now), []


def _finalize(sweep: Sweep, seen: Seen, now: datetime) -> tuple[Sweep, Sequence[Action]]:
    evaluation = seen.evaluation
    if evaluation is None:
        return sweep, [CreateHeldOut()]
    match evaluation.state:
        case ChildState.LIVE:
            return sweep, []
        case ChildState.SUCCEEDED if seen.held_out is None:
            return sweep, []
        case ChildState.SUCCEEDED if seen.held_out is not None:
            if not math.isfinite(seen.held_out.best_mean):
                message = f"the objective of the best trial is not defined in {evaluation.name}"
                return sweep.to(_S.FAILED, now, Reason("OBJECTIVE_UNDEFINED", message)), []
            return replace(sweep.to(_S.SUCCEEDED, now), held_out=seen.held_out.result), []
    reason = evaluation.reason_or("HELD_OUT_FAILED", f"{evaluation.name} was {evaluation.state.value}")
    return sweep.to(_S.FAILED, now, reason), []


def better(sweep: Sweep, trial: Trial) -> bool:
    """Whether a trial that succeeded takes the place of the best so far; of equals, the lower number is the best."""
    if trial.objective is None or not math.isfinite(trial.objective):
        return False
    if sweep.best_number is None or sweep.best_objective is None:
        return True
    if trial.objective == sweep.best_objective:
        return trial.number < sweep.best_number
    return (trial.objective > sweep.best_objective) is sweep.maximize
