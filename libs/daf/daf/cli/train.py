"""`daf train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daf.cli.job_display import finish, follow_to_end
from daf.cli.options import (
    MissionNames,
    MissionSets,
    OwnFiles,
    absolute,
    absolute_path,
    document_with,
    missions,
    settings,
)
from daf.cli.session import JsonFlag, notice, open_client, print_json
from daf.config import DAFTrainingConfig, TrainingSettings
from daf.missions import check_set
from daf.references import is_weights_file
from daf.tracking import Tracking, exported_live
from daf.training_jobs import create_training_job


def train(
    file: Annotated[Path | None, typer.Argument(help="The run, as YAML or JSON; options replace what it says.")] = None,
    mission: MissionNames = None,
    mission_set: MissionSets = None,
    policy: Annotated[str, typer.Option("--policy", "-p", help="Short name or class path of the policy.")] = "",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Length of the run in agent steps, of all workers together.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Hyperparameter as NAME=VALUE, for example trainer.learning_rate=3e-4."),
    ] = None,
    code: OwnFiles = None,
    requirements: Annotated[
        str, typer.Option(metavar="FILE", help="Packages that it needs, as requirements.txt lists them.")
    ] = "",
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the run.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Data-parallel workers.")] = None,
    min_workers: Annotated[
        int | None, typer.Option(min=1, help="Makes do with so many workers where it cannot have all.")
    ] = None,
    num_envs: Annotated[int | None, typer.Option(min=1, help="Environments per worker.")] = None,
    profile: Annotated[str, typer.Option(help="Compute profile, for example cpu-small or gpu-1.")] = "",
    cogs: Annotated[int | None, typer.Option(min=1, help="Number of agents.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Environment steps of an episode.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Variant of the missions; may be repeated.")] = None,
    difficulty: Annotated[str, typer.Option(help="Difficulty of missions that have one.")] = "",
    map_seed: Annotated[int | None, typer.Option(min=0, help="Train on the map of this seed alone.")] = None,
    start: Annotated[
        str,
        typer.Option(
            "--from", help="Start from these weights: a file, or job/NAME/checkpoints/best (or latest, or UPDATE)."
        ),
    ] = "",
    checkpoint_steps: Annotated[
        int | None, typer.Option(min=1, help="Agent steps between checkpoints; otherwise only the last is saved.")
    ] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="How many of the newest checkpoints are kept beside the best: 5.")
    ] = None,
    best_metric: Annotated[
        str, typer.Option(help="Metric by which one checkpoint is the best: env/reward_per_agent.")
    ] = "",
    minimize: Annotated[
        bool, typer.Option("--minimize", help="Of that metric, the smallest value is the best.")
    ] = False,
    max_restarts: Annotated[
        int | None, typer.Option(min=0, help="How often the run may go on after a worker was lost: 0.")
    ] = None,
    name: Annotated[str, typer.Option(help="Id of the job; one is made otherwise.")] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as it is started.")] = False,
    json: JsonFlag = False,
) -> None:
    """Train a policy and follow it to its end."""
    chosen = settings(set_)
    changes = {
        "cogs": cogs,
        "max_steps": max_steps,
        "variants": variant,
        "difficulty": difficulty,
        "map_seed": map_seed,
    }
    document = document_with(
        DAFTrainingConfig,
        file,
        {
            "missions": missions(file, [*(mission or []), *map(check_set, mission_set or [])], changes),
            "policy": policy,
            "policy_arguments": chosen["policy"],
            "code": absolute(code),
            "requirements": absolute_path(requirements),
            "seed": seed,
            "training": {
                "agent_steps": steps,
                "num_envs": num_envs,
                "workers": workers,
                "min_workers": min_workers,
                "profile": profile,
                "checkpoint_agent_steps": checkpoint_steps,
                "max_checkpoints": keep,
                "best_metric": best_metric,
                "best_direction": "minimize" if minimize else None,
                "max_restarts": max_restarts,
                "start": _start(start),
            },
        },
    )
    document.training.trainer = {**document.training.trainer, **TrainingSettings(trainer=chosen["trainer"]).trainer}
    destinations = Tracking.of(document).destinations()
    with open_client() as client:
        job = create_training_job(client, document, name)
        if not detach:
            with exported_live(client, job.name, destinations, notice):
                job = follow_to_end(client, job.name, quiet=json)
        elif destinations:
            notice(f"a detached run is not exported: `daf job export {job.name.partition('/')[2]} --follow` does it")
    if not detach:
        finish(job, json)
    elif json:
        print_json({"training_job": job})
    else:
        identifier = job.name.partition("/")[2]
        print(
            f"Started {job.name}: `daf job watch {identifier}` follows it, `daf job logs {identifier} -f` its output."
        )


def _start(text: str) -> str:
    """Where to start from; a file is meant relative to where the user is and not to a document."""
    return absolute_path(text) if text and is_weights_file(text) else text
