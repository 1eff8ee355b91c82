"""`daf job export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daf.cli.session import JsonFlag, notice, open_client, print_json, resource_name
from daf.tracking import daf_export_training_job


def export(
    name: Annotated[str, typer.Argument(help="The job, by its id or its name trainingJobs/ID.")],
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Write TensorBoard files to a directory of the job in it.")
    ] = None,
    mlflow: Annotated[
        str, typer.Option(metavar="URI", help="Send to MLflow, for example sqlite:///mlflow.db or http://HOST:5000.")
    ] = "",
    wandb: Annotated[
        str, typer.Option(metavar="PROJECT", help="Send to Weights & Biases; WANDB_MODE=offline writes files.")
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    json: JsonFlag = False,
) -> None:
    """Send the metrics, hyperparameters and results of a training job to experiment trackers.

    Again sends only what is missing. API keys are read from the environment by the trackers' own clients.
    """
    full = resource_name("trainingJobs", name)
    with open_client() as client:
        try:
            places = daf_export_training_job(
                full, tensorboard=tensorboard, mlflow=mlflow, wandb=wandb, follow=follow, client=client
            )
        except KeyboardInterrupt:
            notice(f"{full} goes on; what was exported so far stays")
            raise typer.Exit(130) from None
    if json:
        print_json({"training_job": full, "exported_to": places})
    else:
        for place in places:
            print(f"Exported {full} to {place}.")
