"""`daf job`: training jobs."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer
from rich.table import Column

from daf.cli.plot import plot
from daf.cli.run_display import job_line, job_state
from daf.cli.session import JsonFlag, open_client, print_json, resource_name
from daf.client import all_pages
from daf.follow_runs import JOB_ENDED
from daf.render import number, scalar_text, state_text, training_progress
from daf.tables import print_table, table
from daf_common.values import scalars
from daf_protos.training.v1.training_job_pb2 import TrainingJob
from daf_protos.training.v1.training_service_pb2 import (
    CancelTrainingJobRequest,
    GetTrainingJobRequest,
    ListTrainingJobsRequest,
)

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False, help="Look after training jobs.")
app.command()(plot)

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
    rows = table("job", "state", Column("policy", overflow="fold"), "done", "reward", "created (UTC)")
    for job in jobs:
        created = job.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
        reward = number(job.progress.reward, 3) if job.progress.HasField("reward") else "-"
        policy = job.spec.policy_class.class_path.rpartition(".")[2]
        identifier, done = job.name.partition("/")[2], training_progress(job).partition(" ")[0]
        rows.add_row(identifier, state_text(job_state(job)), policy, done, reward, created)
    print_table(rows)


@app.command()
def get(name: Name, json: JsonFlag = False) -> None:
    """Show a training job."""
    with open_client() as client:
        request = GetTrainingJobRequest(name=resource_name("trainingJobs", name))
        job = client.training.GetTrainingJob(request).training_job
    if json:
        print_json({"training_job": job})
        return
    print(job_line(job))
    if job.failure.message:
        print(f"{job.failure.reason}: {job.failure.message}")
    for parameter, value in sorted(scalars(job.effective_trainer).items()):
        print(f"  {parameter:<28}{scalar_text(value)}")
    if job.HasField("checkpoint"):
        print(f"checkpoint {job.checkpoint.name} (sha256 {job.checkpoint.weights.sha256})")


@app.command()
def cancel(name: Name, json: JsonFlag = False) -> None:
    """Ask a training job to stop; it saves what it has."""
    with open_client() as client:
        request = CancelTrainingJobRequest(name=resource_name("trainingJobs", name))
        job = client.training.CancelTrainingJob(request).training_job
    if json:
        print_json({"training_job": job})
    else:
        ended = f"has ended already: {job_state(job)}" if job.state in JOB_ENDED else "is being cancelled"
        print(f"{job.name} {ended}")
