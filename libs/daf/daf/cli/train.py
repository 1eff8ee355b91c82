"""`daf train`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from daf.cli.options import absolute, document_with, missions, settings
from daf.cli.run_display import job_line, job_state, show_run
from daf.cli.session import JsonFlag, notice, open_client, print_json
from daf.client import Client
from daf.config import DAFTrainingConfig, TrainingSettings
from daf.convert import training_spec
from daf.follow_runs import follow_job
from daf.render import scalar_text
from daf.resources import Resources
from daf.run_ids import new_id
from daf_common.values import scalars
from daf_protos.training.v1 import training_job_pb2
from daf_protos.training.v1.training_job_pb2 import TrainingJob
from daf_protos.training.v1.training_service_pb2 import CreateTrainingJobRequest


def train(
    file: Annotated[Path | None, typer.Argument(help="The run, as YAML or JSON; options replace what it says.")] = None,
    mission: Annotated[list[str] | None, typer.Option("--mission", "-m", help="Mission; may be repeated.")] = None,
    policy: Annotated[str, typer.Option("--policy", "-p", help="Short name or class path of the policy.")] = "",
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the run in agent steps.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Hyperparameter as NAME=VALUE, for example trainer.learning_rate=3e-4."),
    ] = None,
    code: Annotated[list[str] | None, typer.Option(help="Your own file or folder; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the run.")] = None,
    num_envs: Annotated[int | None, typer.Option(min=1, help="Environments per worker.")] = None,
    cogs: Annotated[int | None, typer.Option(min=1, help="Number of agents.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Environment steps of an episode.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Variant of the missions; may be repeated.")] = None,
    name: Annotated[str, typer.Option(help="Id of the job; one is made otherwise.")] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as it is started.")] = False,
    json: JsonFlag = False,
) -> None:
    """Train a policy and follow it to its end."""
    chosen = settings(set_)
    document = document_with(
        DAFTrainingConfig,
        file,
        {
            "missions": missions(file, mission, {"cogs": cogs, "max_steps": max_steps, "variants": variant}),
            "policy": policy,
            "policy_arguments": chosen["policy"],
            "code": absolute(code),
            "seed": seed,
            "training": {"agent_steps": steps, "num_envs": num_envs},
        },
    )
    document.training.trainer = {**document.training.trainer, **TrainingSettings(trainer=chosen["trainer"]).trainer}
    with open_client() as client:
        request = CreateTrainingJobRequest(
            request_id=uuid.uuid4().hex,
            job_id=name or new_id(document.name),
            spec=training_spec(document, Resources(client)),
        )
        job = client.training.CreateTrainingJob(request).training_job
        if not detach:
            job = _follow(client, job.name, quiet=json)
    if json:
        print_json({"training_job": job})
    elif detach:
        print(f"Started {job.name}: `daf job get {_id(job)}` shows it, `daf logs {job.name} -f` what it prints.")
    else:
        _print_end(job)
    if job.state in (training_job_pb2.TRAINING_JOB_STATE_FAILED, training_job_pb2.TRAINING_JOB_STATE_CANCELLED):
        notice(f"{job.name} {job_state(job)}: {job.failure.message or 'without a reason'}")
        raise typer.Exit(1)


def _follow(client: Client, name: str, quiet: bool) -> TrainingJob:
    try:
        jobs = follow_job(client, name)
        return _last(jobs) if quiet else show_run(jobs, job_line)
    except KeyboardInterrupt:
        notice(f"{name} goes on: `daf job get {name}` shows it, `daf job cancel {name}` stops it")
        raise typer.Exit(130) from None


def _print_end(job: TrainingJob) -> None:
    print(job_line(job))
    effective = scalars(job.effective_trainer)
    if effective:
        print("trained with: " + ", ".join(f"{name} {scalar_text(value)}" for name, value in sorted(effective.items())))
    if job.HasField("checkpoint"):
        print(f"checkpoint:   {job.checkpoint.name} (sha256 {job.checkpoint.weights.sha256})")
        print(f"score it:     daf evaluate -p {job.name}/checkpoints/latest -m {job.spec.missions[0].name}")


def _last(jobs: Iterator[TrainingJob]) -> TrainingJob:
    *_, job = jobs
    return job


def _id(job: TrainingJob) -> str:
    return job.name.partition("/")[2]
