"""Training jobs as people read them: while they run and when they have ended."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from daf.checkpoints import DEFAULT_BEST_METRIC
from daf.follow_training import JobView
from daf.render import duration, number, size, speed, state_text, training_progress
from daf.tables import table
from daf_protos.training.v1 import training_job_pb2
from daf_protos.training.v1.training_job_pb2 import Checkpoint, TrainingAttempt, TrainingJob, TrainingWorker

_BAR_WIDTH = 40
_FIRST_LOSSES = ("policy_loss", "value_loss", "entropy")  # what a narrow terminal shows of all losses
_MAX_RESTARTS = 3


def job_state(job: TrainingJob) -> str:
    """A training job's state as one word."""
    return training_job_pb2.TrainingJobState.Name(job.state).removeprefix("TRAINING_JOB_STATE_").lower()


def job_line(job: TrainingJob) -> str:
    """One line about a training job."""
    at, state = job.progress, job_state(job)
    parts = [f"{job.name} {state}"]
    if job.attempt > 1:
        parts.append(f"attempt {job.attempt}")
    if waiting := _waiting(job):
        parts.append(waiting)
    elif at.agent_steps:
        parts += [training_progress(job), f"{speed(at.steps_per_second)} steps/s"]
        parts.append(f"learning rate {number(at.learning_rate, 3)}")
        if at.HasField("reward"):
            parts.append(f"reward {number(at.reward, 3)}")
    return ", ".join(parts)


def live_job(view: JobView, width: int, height: int) -> RenderableType:
    """A training job that runs: how far it is, how it learns, and what its workers use, as much as a terminal holds."""
    job = view.job
    lines: list[RenderableType] = [headline(view)]
    if waiting := _waiting(job):
        lines.append(Text(waiting, style="yellow"))
    at = job.progress
    if at.agent_steps:
        lines += [_bar(view, width), _learning(view)]
        if at.losses:
            names = sorted(at.losses, key=lambda name: (name not in _FIRST_LOSSES, name))
            losses = [f"{name.removesuffix('_loss')} {number(at.losses[name], 3)}" for name in names]
            lines.append(Text(f"losses: {', '.join(losses)}", overflow="ellipsis", no_wrap=True))
    if job_state(job) == "running" and at.workers:
        lines.append(_workers(at.workers, room=max(2, height - len(lines) - _MAX_RESTARTS - 6)))
    lines += [Text(line, style="yellow") for line in restarts(view.attempts)[-_MAX_RESTARTS:]]
    return Group(*lines)


def headline(view: JobView) -> Text:
    """One line about a job: its state, its attempt, its age, and whose it is where that is known."""
    job = view.job
    parts = []
    if job.attempt > 1:
        parts.append(f"attempt {job.attempt}")
    if job.cancel_requested and not job.HasField("end_time"):
        parts.append("being cancelled")
    if job.HasField("create_time"):
        end = job.end_time.seconds if job.HasField("end_time") else time.time()
        parts.append(duration(max(0.0, end - job.create_time.seconds)))
    if job.creator:
        parts.append(f"by {job.creator}")
    line = Text.assemble((job.name, "bold"), "  ", state_text(job_state(job)), "  ", ", ".join(parts))
    return line.append(f"  ({view.trouble})", style="yellow") if view.trouble else line


def restarts(attempts: Iterable[TrainingAttempt]) -> list[str]:
    """One line for each attempt that another one followed, oldest first."""
    ordered = sorted(attempts, key=lambda attempt: attempt.number)
    return [f"{_ending(lost)}; {_beginning(following, lost)}" for lost, following in itertools.pairwise(ordered)]


def workers_text(count: int) -> str:
    """A number of workers."""
    return f"{count} worker{'' if count == 1 else 's'}"


def best_metric(job: TrainingJob) -> str:
    """The metric by which one checkpoint of a job is the best."""
    return job.spec.best_metric or DEFAULT_BEST_METRIC


def checkpoint_marks(job: TrainingJob, checkpoint: Checkpoint) -> str:
    """`best`, `latest`, both or nothing."""
    marks = [("best", job.best_checkpoint), ("latest", job.checkpoint)]
    return ", ".join(mark for mark, marked in marks if marked.name == checkpoint.name)


def _waiting(job: TrainingJob) -> str:
    match job_state(job):
        case "pending":
            return f"waits for {job.waiting_for}" if job.waiting_for else "waits for compute"
        case "starting":
            return f"its workers start: {job.waiting_for}" if job.waiting_for else "its workers start"
    return ""


def _bar(view: JobView, width: int) -> Table:
    at = view.job.progress
    total = at.total_agent_steps or view.job.spec.agent_steps
    share = min(at.agent_steps / total, 1) if total else 0
    left = view.seconds_left() if job_state(view.job) == "running" else None
    row = Table.grid(padding=(0, 2))
    texts = [f"{share:.0%}", f"{at.agent_steps:,} of {total:,} agent steps"]
    if left is not None:
        texts.append(f"about {duration(left)} left")
    room = width - sum(len(text) + 2 for text in texts)
    row.add_row(ProgressBar(total=total, completed=at.agent_steps, width=max(8, min(room, _BAR_WIDTH))), *texts)
    return row


def _learning(view: JobView) -> Text:
    job, at = view.job, view.job.progress
    reward = f"reward per agent {number(view.reward, 3)}" if view.reward is not None else "no episode has ended yet"
    parts = [f"{speed(at.steps_per_second)} steps/s", f"update {at.update:,}", reward]
    parts.append(f"learning rate {number(at.learning_rate, 3)}")
    if job.HasField("checkpoint"):
        parts.append(f"checkpoint {job.checkpoint.update:,}")
    if job.HasField("best_checkpoint"):
        value = job.best_checkpoint.metrics.get(best_metric(job))
        parts.append(f"best {job.best_checkpoint.update:,}" + (f" ({number(value, 3)})" if value is not None else ""))
    return Text(", ".join(parts))


def _workers(workers: Iterable[TrainingWorker], room: int) -> Table:
    ordered = sorted(workers, key=lambda worker: worker.rank)
    with_gpu = any(worker.HasField("gpu_utilization") for worker in ordered)
    rows = table("worker", "steps/s", "CPU cores", "memory", *(("GPU", "GPU memory") if with_gpu else ()))
    for column in rows.columns[1:]:
        column.justify = "right"
    shown = ordered if len(ordered) < room else ordered[: room - 1]
    for worker in shown:
        gpu = (f"{worker.gpu_utilization:.0%}", size(worker.gpu_memory_bytes)) if with_gpu else ()
        rows.add_row(
            str(worker.rank),
            speed(worker.steps_per_second),
            f"{worker.cpu_cores:.1f}",
            size(worker.memory_bytes),
            *gpu,
        )
    if hidden := len(ordered) - len(shown):
        rows.add_row(f"{hidden} more", style="dim")
    if len(ordered) > 1:
        rows.add_row(
            "all",
            speed(sum(worker.steps_per_second for worker in ordered)),
            f"{sum(worker.cpu_cores for worker in ordered):.1f}",
            size(sum(worker.memory_bytes for worker in ordered)),
            *(("", size(sum(worker.gpu_memory_bytes for worker in ordered))) if with_gpu else ()),
            style="bold",
        )
    return rows


def _ending(attempt: TrainingAttempt) -> str:
    why = f" ({attempt.failure.reason}): {attempt.failure.message}" if attempt.failure.reason else ""
    return f"attempt {attempt.number} ended at {attempt.agent_steps:,} steps{why}"


def _beginning(attempt: TrainingAttempt, before: TrainingAttempt) -> str:
    changed = f" with {workers_text(attempt.workers)}" if attempt.workers != before.workers else ""
    if attempt.resumed_from:
        return f"attempt {attempt.number} goes on from update {attempt.resumed_from.rpartition('/')[2]}{changed}"
    return f"attempt {attempt.number} follows{changed}"  # from where, its workers say when they have read a checkpoint
