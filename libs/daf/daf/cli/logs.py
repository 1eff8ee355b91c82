"""`daf logs`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from daf.cli.session import open_client, print_json_line
from daf.client import Client
from daf.references import policy_fields
from daf_common import names
from daf_common.errors import FailedPrecondition, InvalidArgument
from daf_protos.evaluation.v1 import evaluation_service_pb2
from daf_protos.scheduler.v1.scheduler_service_pb2 import GetTrialRequest
from daf_protos.training.v1 import training_service_pb2


def logs(
    name: Annotated[str, typer.Argument(help="A training job, evaluation or trial, for example sweeps/NAME/trials/1.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each piece.")] = False,
) -> None:
    """Print what a run printed. A trial's log is that of its training and then of its evaluation."""
    try:
        with open_client() as client:
            for piece in _pieces(client, name, follow):
                if json:
                    print_json_line(piece)
                else:
                    sys.stdout.write(piece.text)
                    sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


type Piece = training_service_pb2.ReadLogsResponse | evaluation_service_pb2.ReadLogsResponse


def _pieces(client: Client, name: str, follow: bool) -> Iterator[Piece]:
    match name.replace("job/", "trainingJobs/", 1).split("/"):
        case ["trainingJobs", job]:
            yield from _training(client, names.TRAINING_JOB.format(job), follow)
        case ["evaluations", _]:
            yield from _evaluation(client, name, follow)
        case [_, _, "trials", _]:
            trial_name = policy_fields(name).get("checkpoint", name)
            trial = client.scheduler.GetTrial(GetTrialRequest(name=trial_name)).trial
            if not trial.training_job:
                raise FailedPrecondition(f"{trial_name} has not started yet")
            yield from _training(client, trial.training_job, follow)
            if trial.evaluation:
                yield from _evaluation(client, trial.evaluation, follow)
        case _:
            raise InvalidArgument.field(
                "name", f"{name!r} is none of trainingJobs/NAME, evaluations/NAME and sweeps/NAME/trials/NUMBER"
            )


def _training(client: Client, name: str, follow: bool) -> Iterator[Piece]:
    return iter(client.training.ReadLogs(training_service_pb2.ReadLogsRequest(name=name, follow=follow)))


def _evaluation(client: Client, name: str, follow: bool) -> Iterator[Piece]:
    return iter(client.evaluation.ReadLogs(evaluation_service_pb2.ReadLogsRequest(name=name, follow=follow)))
