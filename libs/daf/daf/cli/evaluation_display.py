"""An evaluation on the screen while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from daf.render import duration, number
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation

_REPORT_SECONDS = 5.0  # between lines about progress where there is no terminal


class Pace:
    """How fast episodes come in, from the first moment at which some were there."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._first: tuple[float, int] | None = None
        self._last = (0.0, 0)

    def note(self, done: int, now: float) -> None:
        """Says how many are done at a time in seconds."""
        if self._first is None and done:
            self._first = (now, done)
        self._last = (now, done)

    @property
    def per_second(self) -> float | None:
        """Episodes per second; None before that can be told."""
        if self._first is None or self._last[1] == self._first[1] or self._last[0] <= self._first[0]:
            return None
        return (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all are done, at this pace; None before that can be told."""
        return None if self.per_second is None else (self._total - self._last[1]) / self.per_second

    def __str__(self) -> str:
        if self.per_second is None or self.seconds_left is None:
            return ""
        left = f", {duration(self.seconds_left)} left" if self._last[1] < self._total else ""
        return f", {number(self.per_second, 3)} episodes/s{left}"


def show_evaluation(evaluations: Iterator[Evaluation]) -> Evaluation:
    """Shows how far an evaluation is until it has ended; returns how it ended."""
    console = Console(stderr=True)
    evaluation = next(evaluations)
    pace = Pace(evaluation.total_episodes)
    if console.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30))
        with Progress(*columns, console=console, transient=True) as display:
            task = display.add_task(_line(evaluation, pace), total=evaluation.total_episodes)
            for evaluation in evaluations:
                pace.note(evaluation.done_episodes, time.monotonic())
                display.update(task, completed=evaluation.done_episodes, description=_line(evaluation, pace))
    else:
        print(_line(evaluation, pace), flush=True)
        reported = time.monotonic()
        for evaluation in evaluations:
            pace.note(evaluation.done_episodes, now := time.monotonic())
            if now - reported >= _REPORT_SECONDS:
                reported = now
                print(_line(evaluation, pace), flush=True)
    return evaluation


def evaluation_state(evaluation: Evaluation) -> str:
    """An evaluation's state as one word."""
    return evaluation_pb2.EvaluationState.Name(evaluation.state).removeprefix("EVALUATION_STATE_").lower()


def _line(evaluation: Evaluation, pace: Pace) -> str:
    state = evaluation_state(evaluation)
    return f"{evaluation.name} {state}, {evaluation.done_episodes}/{evaluation.total_episodes} episodes{pace}"
