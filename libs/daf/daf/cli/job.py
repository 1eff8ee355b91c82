"""`daf job`: training jobs."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer
from rich.table import Column
from rich.text import Text

from daf.cli import export, job_checkpoints, job_metrics, job_params, logs, plot
from daf.cli.job_display import finish, follow_to_end
from daf.cli.session import JsonFlag, confirm_deletion, open_client, print_json, print_json_line, resource_name
from daf.client import all_pages
from daf.follow_runs import JOB_ENDED, follow_job
from daf.render import duration, number, scalar_text, state_text, training_progress
from daf.render_training import best_metric, job_line, job_state, workers_text
from daf.tables import print_table, table
from daf.training_jobs import list_attempts, read_training_job, resume_training_job
from daf_common.values import scalars
from daf_protos.training.v1.training_job_pb2 import TrainingAttempt, TrainingJob
from daf_protos.training.v1.training_service_pb2 import (
    CancelTrainingJobRequest,
    DeleteTrainingJobRequest,
    ListTrainingJobsRequest,
)

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False, help="Look after training jobs.")

Name = Annotated[str, typer.Argument(help="The job, by its id or its name trainingJobs/ID.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest.")] = 20,
    json: JsonFlag = False,
) -> None:
    """List training jobs, newest first."""

    def read(token: str) -> tuple[list[TrainingJob], str]:
        request = ListTrainingJobsRequest(page_token=token, page_size=min(limit, 100))
        answer = client.training.ListTrainingJobs(request)
        return list(answer.training_jobs), answer.next_page_token

    with open_client() as client:
        jobs = list(itertools.islice(all_pages(read), limit))
    if json:
        print_json({"training_jobs": jobs})
        return
    if not jobs:
        print("There are no training jobs yet: start one with `daf train`.")
        return
    rows = table("job", "state", Column("policy", overflow="fold"), "done", "reward", "attempt", "created (UTC)")
    for job in jobs:
        created = job.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
        reward = number(job.progress.reward, 3) if job.progress.HasField("reward") else "-"
        policy = job.spec.policy_class.class_path.rpartition(".")[2]
        identifier = job.name.partition("/")[2]
        done = training_progress(job).partition(" ")[0] if job.progress.agent_steps else "-"
        state = state_text(job_state(job))
        rows.add_row(identifier, state, policy, done, reward, number(job.attempt), created)
    print_table(rows)


@app.command()
def get(name: Name, json: JsonFlag = False) -> None:
    """Show a training job."""
    with open_client() as client:
        job = read_training_job(client, resource_name("trainingJobs", name))
    if json:
        print_json({"training_job": job})
        return
    print(job_line(job))
    if job.failure.message:
        print(f"{job.failure.reason}: {job.failure.message}")
    if job.spec.HasField("min_workers"):
        print(f"makes do with {workers_text(job.spec.min_workers)} where it cannot have all")
    for parameter, value in sorted(scalars(job.effective_trainer).items()):
        print(f"  {parameter:<28}{scalar_text(value)}")
    if job.HasField("checkpoint"):
        print(f"checkpoint {job.checkpoint.name} (sha256 {job.checkpoint.weights.sha256})")
    if job.HasField("best_checkpoint"):
        best = number(job.best_checkpoint.metrics.get(best_metric(job)))
        print(f"best       {job.best_checkpoint.name} ({best_metric(job)} {best})")


@app.command()
def watch(name: Name, json: JsonFlag = False) -> None:
    """Follow a training job to its end."""
    full = resource_name("trainingJobs", name)
    with open_client() as client:
        if not json:
            finish(follow_to_end(client, full, quiet=False), json=False)
            return
        revision = -1
        try:
            for job in follow_job(client, full):
                if job.revision != revision:
                    print_json_line({"training_job": job})
                revision = job.revision
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


@app.command()
def cancel(name: Name, json: JsonFlag = False) -> None:
    """Ask a training job to stop; it saves what it has."""
    with open_client() as client:
        request = CancelTrainingJobRequest(name=resource_name("trainingJobs", name))
        job = client.training.CancelTrainingJob(request).training_job
    if json:
        print_json({"training_job": job})
    else:
        ended = f"has ended: {job_state(job)}" if job.state in JOB_ENDED else "is being cancelled"
        print(f"{job.name} {ended}")


@app.command()
def resume(
    name: Name,
    workers: Annotated[int | None, typer.Option(min=1, help="Go on with this many workers.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Length of the whole run in agent steps; one that succeeded needs more.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as it goes on.")] = False,
    json: JsonFlag = False,
) -> None:
    """Go on with a training job that has ended, from its newest checkpoint, and follow it to its end."""
    full = resource_name("trainingJobs", name)
    with open_client() as client:
        job = resume_training_job(client, full, workers, steps)
        if not detach:
            finish(follow_to_end(client, full, quiet=json), json)
            return
    if json:
        print_json({"training_job": job})
    else:
        where = f"from update {job.checkpoint.update}" if job.HasField("checkpoint") else "from its beginning"
        print(f"{full} goes on {where}: `daf job watch {full.partition('/')[2]}` follows it.")


@app.command()
def attempts(name: Name, json: JsonFlag = False) -> None:
    """List the attempts of a training job, newest first, each with why it ended."""
    with open_client() as client:
        found = list(list_attempts(client, resource_name("trainingJobs", name)))
    if json:
        print_json({"attempts": found})
        return
    if not found:
        print("It has not been started yet.")
        return
    rows = table("attempt", "workers", "from update", "agent steps", "started (UTC)", "took", Column("ended"))
    for attempt in found:
        rows.add_row(
            number(attempt.number),
            number(attempt.workers),
            attempt.resumed_from.rpartition("/")[2] or "-",
            f"{attempt.agent_steps:,}",
            attempt.start_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S"),
            _took(attempt),
            _ending(attempt),
        )
    print_table(rows)


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonFlag = False,
) -> None:
    """Delete a training job that has ended, with its checkpoints, numbers and logs."""
    full = resource_name("trainingJobs", name)
    with open_client() as client:
        if not yes:
            confirm_deletion(full, "checkpoints, numbers and logs", read_training_job, client)
        client.training.DeleteTrainingJob(DeleteTrainingJobRequest(name=full))
    if json:
        print_json({"deleted": full})
    else:
        print(f"{full} is deleted")


app.command("logs")(logs.job_logs)
app.command("metrics")(job_metrics.metrics)
app.command("plot")(plot.plot)
app.command("export")(export.export)
app.command("params")(job_params.params)
app.add_typer(job_checkpoints.app, name="checkpoints")


def _took(attempt: TrainingAttempt) -> str:
    if not attempt.HasField("end_time"):
        return "-"
    return duration((attempt.end_time.ToDatetime() - attempt.start_time.ToDatetime()).total_seconds())


def _ending(attempt: TrainingAttempt) -> Text:
    if attempt.failure.reason:
        return Text(f"{attempt.failure.reason}: {attempt.failure.message}", style="red")
    return Text("well" if attempt.HasField("end_time") else "it runs")
