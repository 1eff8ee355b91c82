"""An evaluation on the screen while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from daf.cli.session import notice
from daf.pace import Pace
from daf.render import duration, number
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation

_REPORT_SECONDS = 5.0  # between lines about progress where there is no terminal


def show_evaluation(evaluations: Iterator[Evaluation]) -> Evaluation:
    """Shows how far an evaluation is until it has ended; returns how it ended."""
    console = Console(stderr=True)
    evaluation = next(evaluations)
    pace = Pace()

    def see(now: float) -> None:
        if evaluation.done_episodes:  # until then workers start
            pace.see(evaluation.done_episodes, now)

    if console.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30))
        with Progress(*columns, console=console, transient=True) as display:
            task = display.add_task(_line(evaluation, pace), total=evaluation.total_episodes)
            for evaluation in evaluations:
                see(time.monotonic())
                display.update(task, completed=evaluation.done_episodes, description=_line(evaluation, pace))
    else:
        print(_line(evaluation, pace), flush=True)
        reported = time.monotonic()
        for evaluation in evaluations:
            see(now := time.monotonic())
            if now - reported >= _REPORT_SECONDS:
                reported = now
                print(_line(evaluation, pace), flush=True)
    return evaluation


def evaluation_state(evaluation: Evaluation) -> str:
    """An evaluation's state as one word."""
    return evaluation_pb2.EvaluationState.Name(evaluation.state).removeprefix("EVALUATION_STATE_").lower()


def tell_forfeits(evaluation: str, reasons: Sequence[str]) -> None:
    """Says why policies could not play, and where more of it is."""
    for reason in reasons:
        notice(f"forfeited: {reason}")
    if reasons:
        notice(f"`daf logs {evaluation}` has what the policies printed and raised")


def _line(evaluation: Evaluation, pace: Pace) -> str:
    state = evaluation_state(evaluation)
    done, total = evaluation.done_episodes, evaluation.total_episodes
    line = f"{evaluation.name} {state}, {done}/{total} episodes"
    if evaluation.waiting_for:
        line += f", waits for {evaluation.waiting_for}"
    if rate := pace.per_second():
        line += f", {number(rate, 3)} episodes/s"
        line += f", {duration((total - done) / rate)} left" if done < total else ""
    return line
