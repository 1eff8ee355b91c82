"""A training job or an evaluation on the screen while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from daf.render import number, training_progress
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.training.v1 import training_job_pb2
from daf_protos.training.v1.training_job_pb2 import TrainingJob

_REPORT_SECONDS = 5.0  # between lines about progress where there is no terminal


def show_run[T](runs: Iterator[T], line: Callable[[T], str], console: Console | None = None) -> T:
    """Shows one line about a run until it has ended; returns how it ended."""
    console = console or Console(stderr=True)
    run = next(runs)
    if console.is_terminal:
        with Live(Text(line(run)), console=console, transient=True) as display:
            for run in runs:
                display.update(Text(line(run)))
    else:
        print(line(run), flush=True)
        reported = time.monotonic()
        for run in runs:
            if time.monotonic() - reported >= _REPORT_SECONDS:
                reported = time.monotonic()
                print(line(run), flush=True)
    return run


def job_state(job: TrainingJob) -> str:
    """A training job's state as one word."""
    return training_job_pb2.TrainingJobState.Name(job.state).removeprefix("TRAINING_JOB_STATE_").lower()


def evaluation_state(evaluation: Evaluation) -> str:
    """An evaluation's state as one word."""
    return evaluation_pb2.EvaluationState.Name(evaluation.state).removeprefix("EVALUATION_STATE_").lower()


def job_line(job: TrainingJob) -> str:
    """One line about a training job."""
    at = job.progress
    parts = [f"{job.name} {job_state(job)}"]
    if at.agent_steps:
        parts += [training_progress(job), f"{number(at.steps_per_second, 3)} steps/s"]
        parts.append(f"learning rate {number(at.learning_rate, 3)}")
    if at.HasField("reward"):
        parts.append(f"reward {number(at.reward, 3)}")
    return ", ".join(parts)


def evaluation_line(evaluation: Evaluation) -> str:
    """One line about an evaluation."""
    state = evaluation_state(evaluation)
    return f"{evaluation.name} {state}, {evaluation.done_episodes}/{evaluation.total_episodes} episodes"
