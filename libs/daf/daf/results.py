"""What came out of a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daf.follow import SweepView
from daf.home import write_json
from daf.references import HYPERPARAMETER_ALIASES
from daf_common.errors import NotFound
from daf_common.values import Scalar, scalars
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.scheduler.v1.sweep_pb2 import BaselineResult, Score, Trial

if TYPE_CHECKING:
    from rich.console import Console


class Hyperparameters(Mapping[str, Scalar]):
    """Settings by full name (`trainer.learning_rate`), which answer to short names (`learning_rate`, `lr`) too."""

    def __init__(self, values: Mapping[str, Scalar]) -> None:
        self._values = dict(values)

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The settings themselves: a best configuration is used both as a mapping and by this attribute."""
        return self

    def __getitem__(self, name: str) -> Scalar:
        for full in (
            name,
            HYPERPARAMETER_ALIASES.get(name, name),
            *(known for known in self._values if known.endswith(f".{name}")),
        ):
            if full in self._values:
                return self._values[full]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


@dataclass
class ScoreResult:
    """A mean over episodes. None where it cannot be computed."""

    mean: float
    standard_error: float | None
    interval_low: float | None
    interval_high: float | None
    """Ends of the 95 % interval."""
    episodes: int


@dataclass
class SweepTrialResult:
    """What one trial came to."""

    trial_id: str
    """Its resource name."""
    hyperparameters: Mapping[str, Scalar]
    primary_metric: float | None
    """The objective: the mean over the episodes. None without a score."""
    all_metrics: dict[str, float] = field(default_factory=dict)
    """Values of metrics by name: the objective's."""
    success: bool = True
    state: str = "succeeded"
    message: str = ""
    """Why it failed."""
    score: ScoreResult | None = None
    """The objective with its uncertainty."""
    checkpoint: str = ""
    """Resource name of the checkpoint with its weights."""


@dataclass
class BaselineScore:
    """A baseline beside the best trial on the held-out episodes."""

    label: str
    score: ScoreResult
    difference: ScoreResult
    """Best trial minus baseline, paired by episode."""


@dataclass
class SweepResult:
    """What a sweep came to, or what a script collects by `add_trial`."""

    name: str
    objective_metric: str = "reward"
    optimize_direction: str = "maximize"
    trials: list[SweepTrialResult] = field(default_factory=list)
    state: str = "running"
    message: str = ""
    """Why it failed."""
    held_out: ScoreResult | None = None
    """The best trial's score on episodes that chose nothing: the one to report."""
    baselines: list[BaselineScore] = field(default_factory=list)
    start_time: datetime | None = None
    end_time: datetime | None = None

    def add_trial(self, trial: SweepTrialResult) -> None:
        """Adds a trial."""
        self.trials.append(trial)

    def top_trials(self, n: int = 5) -> list[SweepTrialResult]:
        """The best trials with a score, best first; of equals, the one that was added first."""
        scored = [trial for trial in self.trials if trial.success and trial.primary_metric is not None]
        sign = -1 if self.optimize_direction == "maximize" else 1
        return sorted(scored, key=lambda trial: sign * (trial.primary_metric or 0.0))[:n]

    def get_best_trial(self) -> SweepTrialResult | None:
        """The best trial; None if none has a score."""
        return next(iter(self.top_trials(1)), None)

    def get_worst_trial(self) -> SweepTrialResult | None:
        """The worst trial with a score; None if none has one."""
        return next(reversed(self.top_trials(len(self.trials))), None)

    def finalize(self) -> None:
        """Marks a sweep that a script collected as complete."""
        self.end_time = datetime.now(UTC)
        self.state = "succeeded" if self.get_best_trial() else "failed"

    def save_json(self, path: str | Path) -> None:
        """Writes everything to a JSON file that `load_json` and `daf_sweep_status` read."""
        data = asdict(self, dict_factory=_plain)
        write_json(Path(path), data)

    @classmethod
    def load_json(cls, path: str | Path) -> SweepResult:
        """Reads what `save_json` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not such a file.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            trials = [_read_trial(trial) for trial in data.pop("trials")]
            held_out = data.pop("held_out")
            baselines = [
                BaselineScore(b["label"], ScoreResult(**b["score"]), ScoreResult(**b["difference"]))
                for b in data.pop("baselines")
            ]
            start_time, end_time = _time(data.pop("start_time")), _time(data.pop("end_time"))
            return cls(
                **data,
                start_time=start_time,
                end_time=end_time,
                trials=trials,
                held_out=ScoreResult(**held_out) if held_out else None,
                baselines=baselines,
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a file of sweep results: {error}") from error

    def print_summary(self, console: Console | None = None) -> None:
        """Prints the trials, best first, and the scores on the held-out episodes."""
        from daf.render import print_result

        print_result(self, console)


def sweep_result(view: SweepView) -> SweepResult:
    """What a sweep has come to so far."""
    sweep = view.sweep
    minimize = sweep.spec.objective.direction == sweep_pb2.DIRECTION_MINIMIZE
    metric = sweep.spec.objective.metric
    held_out = sweep.held_out
    return SweepResult(
        name=sweep.name,
        objective_metric=metric,
        optimize_direction="minimize" if minimize else "maximize",
        trials=[_trial_result(trial, metric) for _, trial in sorted(view.trials.items())],
        state=sweep_pb2.SweepState.Name(sweep.state).removeprefix("SWEEP_STATE_").lower(),
        message=sweep.failure.message,
        held_out=_score(held_out.best) if held_out.HasField("best") else None,
        baselines=[_baseline(baseline) for baseline in held_out.baselines],
        start_time=sweep.create_time.ToDatetime(UTC) if sweep.HasField("create_time") else None,
        end_time=sweep.end_time.ToDatetime(UTC) if sweep.HasField("end_time") else None,
    )


def best_hyperparameters(result: SweepResult) -> Hyperparameters:
    """The settings of the best trial.

    Raises:
        NotFound: no trial has a score.
    """
    best = result.get_best_trial()
    if best is None:
        raise NotFound(f"{result.name} has no trial with a score{': ' + result.message if result.message else ''}")
    return Hyperparameters(best.hyperparameters)


def _trial_result(trial: Trial, metric: str) -> SweepTrialResult:
    score = _score(trial.score) if trial.HasField("score") else None
    return SweepTrialResult(
        trial_id=trial.name,
        hyperparameters=Hyperparameters(scalars(trial.parameters)),
        primary_metric=score.mean if score else None,
        all_metrics={metric: score.mean} if score else {},
        success=trial.state == sweep_pb2.TRIAL_STATE_SUCCEEDED,
        state=sweep_pb2.TrialState.Name(trial.state).removeprefix("TRIAL_STATE_").lower(),
        message=trial.failure.message,
        score=score,
        checkpoint=trial.checkpoint.checkpoint,
    )


def _score(score: Score) -> ScoreResult:
    return ScoreResult(
        mean=score.mean,
        standard_error=score.standard_error if score.HasField("standard_error") else None,
        interval_low=score.interval_low if score.HasField("interval_low") else None,
        interval_high=score.interval_high if score.HasField("interval_high") else None,
        episodes=score.episodes,
    )


def _baseline(baseline: BaselineResult) -> BaselineScore:
    return BaselineScore(baseline.label, _score(baseline.score), _score(baseline.difference))


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value.isoformat() if isinstance(value, datetime) else _plain_value(value) for key, value in items}


def _plain_value(value: Any) -> Any:
    return dict(value) if isinstance(value, Hyperparameters) else value


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _read_trial(data: dict[str, Any]) -> SweepTrialResult:
    parameters, score = Hyperparameters(data.pop("hyperparameters")), data.pop("score")
    return SweepTrialResult(hyperparameters=parameters, score=ScoreResult(**score) if score else None, **data)
