"""A sweep on the screen while it runs: a table that stays in place on a terminal, otherwise a line for each event."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live

from daf.follow import SweepView
from daf.render import (
    headline,
    live,
    number,
    progress,
    scalar_text,
    short_names,
    sweep_state,
    trial_state,
)
from daf_common.values import scalars
from daf_protos.scheduler.v1.sweep_pb2 import Trial

_REFRESHES_PER_SECOND = 4
_REPORT_SECONDS = 15.0  # between lines about progress where there is no terminal


def show(views: Iterator[SweepView], console: Console | None = None) -> SweepView:
    """Shows a sweep until it has ended; returns how it ended."""
    console = console or Console()
    return _show_live(views, console) if console.is_terminal else _print_events(views)


def _show_live(views: Iterator[SweepView], console: Console) -> SweepView:
    view = next(views)
    drawn = 0.0
    with Live(live(view, console.height), console=console, auto_refresh=False, transient=True) as display:
        for view in views:
            if view.ended or time.monotonic() - drawn >= 1 / _REFRESHES_PER_SECOND:
                drawn = time.monotonic()
                display.update(live(view, console.height), refresh=True)
    console.print(headline(view))
    return view


def _print_events(views: Iterator[SweepView]) -> SweepView:
    said: dict[str, str] = {}
    reported = time.monotonic()
    for view in views:
        for _, trial in sorted(view.trials.items()):
            _say(trial.name, _event(trial), said)
        _say(view.sweep.name, f"{view.sweep.name} {sweep_state(view)}", said)
        if view.trouble:
            _say("trouble", view.trouble, said)
        if time.monotonic() - reported >= _REPORT_SECONDS and not view.ended:
            reported = time.monotonic()
            for trial in view.trials.values():
                if (done := progress(view, trial)) and done != "starting":
                    print(f"trial {trial.number} {trial_state(trial)}: {done}{_speed(view, trial)}", flush=True)
    print(headline(view).plain, flush=True)
    return view


def _say(about: str, line: str, said: dict[str, str]) -> None:
    """Prints what has not been said about a thing before."""
    if said.get(about) != line:
        said[about] = line
        print(line, file=sys.stdout, flush=True)


def _event(trial: Trial) -> str:
    values = scalars(trial.parameters)
    names = short_names(values)
    settings = ", ".join(f"{names[name]} {scalar_text(value)}" for name, value in sorted(values.items()))
    line = f"trial {trial.number} {trial_state(trial)} ({settings})"
    if trial.HasField("score"):
        error = trial.score.standard_error if trial.score.HasField("standard_error") else None
        line += f": {number(trial.score.mean)}" + (f" ± {number(error, 2)}" if error is not None else "")
    return line + (f": {trial.failure.message}" if trial.failure.message else "")


def _speed(view: SweepView, trial: Trial) -> str:
    job = view.jobs.get(trial.training_job)
    if trial_state(trial) != "training" or job is None:
        return ""
    reward = f", reward {number(job.progress.reward, 3)}" if job.progress.HasField("reward") else ""
    return f", {number(job.progress.steps_per_second, 3)} steps/s{reward}"
