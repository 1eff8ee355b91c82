"""A training job on the screen: a display that stays in place on a terminal, otherwise a line now and then."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import typer
from rich.console import Console, RenderableType
from rich.live import Live

from daf.cli.session import notice, print_json
from daf.client import Client
from daf.follow_runs import JOB_ENDED, follow_job
from daf.follow_training import JobView, follow_training
from daf.render import duration, number, scalar_text, speed
from daf.render_training import headline, job_line, job_state, live_job, restarts
from daf_common.values import scalars
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.training.v1 import training_job_pb2
from daf_protos.training.v1.training_job_pb2 import TrainingJob

_REFRESHES_PER_SECOND = 4
_REPORT_SECONDS = 5.0  # between lines about progress where there is no terminal


def follow_to_end(client: Client, name: str, quiet: bool) -> TrainingJob:
    """Shows a job until it has ended; returns how it ended. Ctrl-C leaves the job running."""
    try:
        if quiet:
            *_, job = follow_job(client, name)
            return job
        return _show(follow_training(client, name), Console())
    except KeyboardInterrupt:
        identifier = name.partition("/")[2]
        notice(f"{name} goes on: `daf job watch {identifier}` follows it, `daf job cancel {identifier}` stops it")
        raise typer.Exit(130) from None


def finish(job: TrainingJob, json: bool) -> None:
    """Prints how a job ended and what to do with it; ends the command with 1 if it did not end well."""
    if json:
        print_json({"training_job": job})
    else:
        _print_end(job)
    if job.state in JOB_ENDED and job.state != training_job_pb2.TRAINING_JOB_STATE_SUCCEEDED:
        reason = f"{job.failure.reason}: {job.failure.message}" if job.failure.reason else "on request"
        notice(f"{job.name} {job_state(job)}: {reason}")
        if job.HasField("checkpoint"):
            notice(f"`daf job resume {_id(job)}` goes on from update {job.checkpoint.update}")
        raise typer.Exit(1)


def mission_options(mission: Mission) -> str:
    """The options of `daf evaluate`, and of `cogames run`, that play a mission as it was trained on."""
    options = ["-m YOUR_MISSION_FILE" if mission.HasField("file") else f"-m {mission.name}"]
    if mission.HasField("cogs"):
        options.append(f"--cogs {mission.cogs}")
    if mission.HasField("max_steps"):
        options.append(f"--steps {mission.max_steps}")
    options += [f"--variant {variant}" for variant in mission.variants]
    return " ".join(options)


class _Screen:
    """What the display draws, as it is at the moment of drawing: times go on, and so does trouble."""

    def __init__(self, view: JobView, console: Console) -> None:
        self._view, self._console = view, console

    def __rich__(self) -> RenderableType:
        return live_job(self._view, self._console.width, self._console.height)


def _show(views: Iterator[JobView], console: Console) -> TrainingJob:
    if not console.is_terminal:
        return _print_lines(views)
    view = next(views)
    screen = _Screen(view, console)
    with Live(screen, console=console, refresh_per_second=_REFRESHES_PER_SECOND, transient=True):
        deque(views, maxlen=0)  # the same object is yielded each time
    console.print(headline(view))
    for line in restarts(view.attempts):
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    return view.job


def _print_lines(views: Iterator[JobView]) -> TrainingJob:
    reported, said = 0.0, ""
    for view in views:
        news = f"{job_state(view.job)} {view.job.attempt} {view.job.waiting_for}"
        if news != said or time.monotonic() - reported >= _REPORT_SECONDS:
            for line in restarts(view.attempts)[-1:] if view.job.attempt > 1 and news != said else ():
                print(line, flush=True)
            print(job_line(view.job), flush=True)
            reported, said = time.monotonic(), news
    return view.job


def _print_end(job: TrainingJob) -> None:
    identifier, at = _id(job), job.progress
    parts = [f"{at.agent_steps:,} agent steps"]
    seconds = job.end_time.seconds - job.start_time.seconds if job.HasField("start_time") else 0
    if seconds > 0 and job.attempt == 1:  # later attempts may have begun days after the first ended
        parts.append(f"{duration(seconds)} from the first step, {speed(at.agent_steps / seconds)} steps/s")
    print(f"{job.name} {job_state(job)}: {', '.join(parts)}")
    for line in _rounded(job):
        print(f"                 {line}")
    if chosen := _chosen(job):
        print(f"trained with:    {chosen} (`daf job get {identifier}` shows all)")
    if not job.HasField("checkpoint"):
        return
    print(f"checkpoint:      {job.checkpoint.name} (sha256 {job.checkpoint.weights.sha256[:12]})")
    which = "latest"
    if job.HasField("best_checkpoint"):
        which = "best"
        reward = job.best_checkpoint.reward if job.best_checkpoint.HasField("reward") else None
        print(f"best:            {job.best_checkpoint.name} (reward {number(reward, 3)} while training)")
    rows = {
        "all checkpoints": f"daf job checkpoints {identifier}",
        "take it along": f"daf job checkpoints get {identifier} {which} --output {identifier}",
        "score it": f"daf evaluate -p job/{identifier}/checkpoints/{which} {mission_options(job.spec.missions[0])}",
        "its curves": f"daf job plot {identifier} --output {identifier}.png",
    }
    for what, how in rows.items():
        print(f"{what + ':':<17}{how}")


def _rounded(job: TrainingJob) -> Iterator[str]:
    """Where a run differs from what was asked for, as it is made of whole updates."""
    asked, total = job.spec.agent_steps, job.progress.total_agent_steps
    if total > asked:
        yield f"({asked:,} steps were asked for: the run is made of whole updates)"
    asked = job.spec.checkpoint_agent_steps
    interval = scalars(job.effective_trainer).get("checkpoint_agent_steps", asked)
    if interval != asked:
        yield f"(checkpoints were asked for every {asked:,} steps: they were saved every {interval:,})"


def _chosen(job: TrainingJob) -> str:
    """The hyperparameters that were asked for, with the values that really were in effect."""
    effective = scalars(job.effective_trainer)
    return ", ".join(f"{name} {scalar_text(effective[name])}" for name in sorted(job.spec.trainer) if name in effective)


def _id(job: TrainingJob) -> str:
    return job.name.partition("/")[2]
