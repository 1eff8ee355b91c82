"""`daf job checkpoints`: what training jobs have saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from daf.checkpoints import (
    DEFAULT_BEST_METRIC,
    WHEELS,
    default_directory,
    find_checkpoint,
    list_checkpoints,
    save_checkpoint,
)
from daf.cli.job_display import mission_options
from daf.cli.session import JsonFlag, open_client, print_json, resource_name
from daf.render import number, size
from daf.render_training import best_metric, checkpoint_marks
from daf.tables import print_table, table
from daf.training_jobs import read_training_job


class _ListByDefault(TyperGroup):
    """`checkpoints NAME` is `checkpoints list NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["list", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_ListByDefault,
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="List what training jobs have saved (checkpoints NAME), or get one of them.",
)

Name = Annotated[str, typer.Argument(help="The job, by its id or its name trainingJobs/ID.")]


@app.command("list")
def list_(name: Name, json: JsonFlag = False) -> None:
    """List the checkpoints of a job, newest first."""
    full = resource_name("trainingJobs", name)
    with open_client() as client:
        job = read_training_job(client, full)
        checkpoints = list(list_checkpoints(client, full))
    if json:
        print_json({"checkpoints": checkpoints})
        return
    if not checkpoints:
        print(f"{full} has saved no checkpoint yet.")
        return
    metric = best_metric(job)
    own_metric = () if metric == DEFAULT_BEST_METRIC else (metric,)
    rows = table("update", "agent steps", "reward", *own_metric, "attempt", "size", "sha256", "")
    for checkpoint in checkpoints:
        rows.add_row(
            str(checkpoint.update),
            f"{checkpoint.agent_steps:,}",
            number(checkpoint.reward if checkpoint.HasField("reward") else None),
            *(number(checkpoint.metrics.get(name)) for name in own_metric),
            number(checkpoint.attempt),
            size(checkpoint.weights.size_bytes),
            checkpoint.weights.sha256[:12],
            Text(checkpoint_marks(job, checkpoint), style="green"),
        )
    print_table(rows)


@app.command()
def get(
    name: Name,
    which: Annotated[str, typer.Argument(help="best, latest, or the number of an update.")] = "latest",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The directory to make; NAME:vUPDATE if not given.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Bring a checkpoint here, as a directory that plain CoGames loads."""
    with open_client() as client:
        job = read_training_job(client, resource_name("trainingJobs", name))
        checkpoint = find_checkpoint(client, job, which)
        directory = output or Path(default_directory(job, checkpoint))
        saved = save_checkpoint(client, job, checkpoint, directory)
    if json:
        print_json({"checkpoint": checkpoint, "directory": str(saved)})
        return
    where = str(directory) if directory.is_absolute() else f"./{directory}"
    print(f"{checkpoint.name} is in {saved}")
    if job.spec.policy_class.HasField("requirements"):
        print(f"install what it requires: uv pip install {where}/{WHEELS}/*.whl")
    print(f"play it with plain CoGames: cogames run {mission_options(job.spec.missions[0])} -p {where}")
