"""`daf logs` and `daf job logs`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from daf.cli.session import notice, open_client, print_json_line, resource_name
from daf.client import Client
from daf.references import policy_fields
from daf_common import names
from daf_common.errors import FailedPrecondition, InvalidArgument
from daf_protos.evaluation.v1 import evaluation_service_pb2
from daf_protos.scheduler.v1.scheduler_service_pb2 import GetTrialRequest
from daf_protos.training.v1 import training_service_pb2

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object for each piece.")]

type Piece = training_service_pb2.ReadLogsResponse | evaluation_service_pb2.ReadLogsResponse


def logs(
    name: Annotated[str, typer.Argument(help="A training job, evaluation or trial, for example sweeps/NAME/trials/1.")],
    follow: Follow = False,
    json: JsonLines = False,
) -> None:
    """Print what a run printed. A trial's log is that of its training and then of its evaluation."""
    with open_client() as client:
        _print(_pieces(client, name, follow), json)


def job_logs(
    name: Annotated[str, typer.Argument(help="The job, by its id or its name trainingJobs/ID.")],
    follow: Follow = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt alone.")] = None,
    json: JsonLines = False,
) -> None:
    """Print what the workers of a training job printed."""
    with open_client() as client:
        _print(_training(client, resource_name("trainingJobs", name), follow, attempt), json)


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


def _training(client: Client, name: str, follow: bool, attempt: int | None = None) -> Iterator[Piece]:
    request = training_service_pb2.ReadLogsRequest(name=name, follow=follow, attempt=attempt or 0)
    return iter(client.training.ReadLogs(request))


def _evaluation(client: Client, name: str, follow: bool) -> Iterator[Piece]:
    return iter(client.evaluation.ReadLogs(evaluation_service_pb2.ReadLogsRequest(name=name, follow=follow)))


def _print(pieces: Iterator[Piece], json: bool) -> None:
    """Prints as it comes. Says when another attempt begins; what a worker other than the first printed bears its
    number."""
    attempt = 0
    try:
        for piece in pieces:
            if json:
                print_json_line(piece)
                continue
            text = piece.text
            if isinstance(piece, training_service_pb2.ReadLogsResponse):
                if piece.attempt > max(attempt, 1):
                    sys.stdout.flush()
                    notice(f"attempt {piece.attempt}")
                attempt = piece.attempt
                if piece.worker:
                    text = "".join(f"[worker {piece.worker}] {line}" for line in text.splitlines(keepends=True))
            sys.stdout.write(text)
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
