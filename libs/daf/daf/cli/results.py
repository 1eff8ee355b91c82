"""`daf results`: evaluations and what they came to."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from rich.table import Column

from daf import document_config
from daf.cli.evaluation_display import evaluation_state, tell_forfeits
from daf.cli.options import Aggregation, Metric
from daf.cli.session import JsonFlag, confirm_deletion, notice, open_client, print_json, resource_name
from daf.client import Client, all_pages
from daf.convert.metrics import metric_message
from daf.episode_export import FORMATS, daf_export_evaluation
from daf.episode_rows import Shape
from daf.evaluation_results import EvaluationResult, mission_names, read_result
from daf.evaluations import read_evaluation
from daf.follow_runs import EVALUATION_ENDED
from daf.render import state_text
from daf.render_evaluation import print_evaluation, write_csv
from daf.replays import save_replays
from daf.tables import print_table, table
from daf_common.errors import InvalidArgument
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.evaluation.v1.evaluation_service_pb2 import (
    CancelEvaluationRequest,
    DeleteEvaluationRequest,
    ListEvaluationsRequest,
)

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="List evaluations, show and export what they came to.",
)

Name = Annotated[str, typer.Argument(help="The evaluation, by its id or its name evaluations/ID.")]
Latency = Annotated[bool, typer.Option("--latency", help="Show how long the policies' steps took.")]
CsvFlag = Annotated[bool, typer.Option("--csv", help="Print one row a policy, and mission, as CSV.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest.")] = 20,
    json: JsonFlag = False,
) -> None:
    """List evaluations, newest first."""

    def read(token: str) -> tuple[list[Evaluation], str]:
        request = ListEvaluationsRequest(page_token=token, page_size=min(limit, 100))
        answer = client.evaluation.ListEvaluations(request)
        return list(answer.evaluations), answer.next_page_token

    with open_client() as client:
        found = list(islice(all_pages(read), limit))
    if json:
        print_json({"evaluations": found})
        return
    if not found:
        print("There are no evaluations yet: start one with `daf evaluate`.")
        return
    rows = table("evaluation", "state", "episodes", Column("policies"), Column("missions"))
    for evaluation in found:
        rows.add_row(
            evaluation.name.partition("/")[2],
            state_text(evaluation_state(evaluation)),
            f"{evaluation.done_episodes:,} of {evaluation.total_episodes:,}",
            ", ".join(policy.label for policy in evaluation.spec.policies),
            ", ".join(mission_names(evaluation.spec)),
        )
    print_table(rows)


@app.command()
def show(
    name: Name,
    metric: Metric = "reward",
    aggregation: Aggregation = "mean",
    latency: Latency = False,
    json: JsonFlag = False,
    csv: CsvFlag = False,
) -> None:
    """Print the scores of an evaluation again, or in another metric."""
    check_formats(json, csv)
    if aggregation not in get_args(document_config.Aggregation):
        known = ", ".join(get_args(document_config.Aggregation))
        raise InvalidArgument.field("--aggregation", f"{aggregation[:40]!r} is not one of {known}")
    measured = metric_message(metric, cast(document_config.Aggregation, aggregation))
    with open_client() as client:
        result = read_result(client, resource_name("evaluations", name), measured)
    show_result(result, latency=latency, json=json, csv=csv)


@app.command()
def export(
    name: Name,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write CSV.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write Parquet.")] = None,
    jsonl: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a JSON object a line.")] = None,
    by: Annotated[str, typer.Option(help="What a row is: episode or seat.")] = "episode",
    json: JsonFlag = False,
) -> None:
    """Write every episode of an evaluation to a file: seeds, seats, rewards, all statistics, times and versions."""
    if by not in get_args(Shape.__value__):
        raise InvalidArgument.field("--by", f"{by[:40]!r} is not one of {', '.join(get_args(Shape.__value__))}")
    files = {kind: path for kind, path in zip(FORMATS, (csv, parquet, jsonl), strict=True) if path is not None}
    if not files:
        raise InvalidArgument(f"give a file: {', '.join(f'--{kind} FILE' for kind in FORMATS)}")
    full = resource_name("evaluations", name)
    with open_client() as client:
        rows = daf_export_evaluation(full, csv=csv, parquet=parquet, jsonl=jsonl, by=cast(Shape, by), client=client)
    if json:
        print_json({"evaluation": full, "rows": rows, "files": {kind: str(path) for kind, path in files.items()}})
    else:
        for path in files.values():
            print(f"Wrote {rows:,} rows to {path}.")


@app.command()
def replays(
    name: Name,
    directory: Annotated[Path, typer.Argument(help="Where to write them; what is there already is not read again.")],
    json: JsonFlag = False,
) -> None:
    """Bring the replays of an evaluation here, for CoGames' own player."""
    with open_client() as client:
        evaluation = read_evaluation(client, resource_name("evaluations", name))
        saved = bring_replays(client, evaluation, directory)
    if json:
        print_json({"evaluation": evaluation.name, "replays": saved})
    else:
        _print_replays(saved)
    if not saved:
        raise typer.Exit(1)


@app.command()
def cancel(name: Name, json: JsonFlag = False) -> None:
    """Ask an evaluation to stop; the episodes that were played stay."""
    with open_client() as client:
        request = CancelEvaluationRequest(name=resource_name("evaluations", name))
        evaluation = client.evaluation.CancelEvaluation(request).evaluation
    if json:
        print_json({"evaluation": evaluation})
    else:
        over = evaluation.state in EVALUATION_ENDED
        print(f"{evaluation.name} " + (f"has ended: {evaluation_state(evaluation)}" if over else "is being cancelled"))


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonFlag = False,
) -> None:
    """Delete an evaluation that has ended, with its episodes, replays and logs."""
    full = resource_name("evaluations", name)
    with open_client() as client:
        if not yes:
            confirm_deletion(full, "episodes, replays and logs", read_evaluation, client)
        client.evaluation.DeleteEvaluation(DeleteEvaluationRequest(name=full))
    if json:
        print_json({"deleted": full})
    else:
        print(f"{full} is deleted")


def bring_replays(client: Client, evaluation: Evaluation, directory: Path) -> list[str]:
    """Brings all replays of an evaluation; says so where it has none."""
    saved = [str(path) for path in save_replays(client, evaluation, directory)]
    if not saved:
        notice(f"the episodes of {evaluation.name} name no replays: --replays of `daf evaluate` keeps them")
    return saved


def show_result(
    result: EvaluationResult, replays: list[str] | None = None, *, latency: bool, json: bool, csv: bool
) -> None:
    """Prints a result as it was asked for."""
    if json:
        print_json(_document(result, replays))
    elif csv:
        write_csv(result)
    else:
        print_evaluation(result, latency=latency)
        _print_replays(replays or [])
    tell_forfeits(result.evaluation.name, result.forfeits)


def check_formats(json: bool, csv: bool) -> None:
    """Raises InvalidArgument where two ways to print are asked for."""
    if json and csv:
        raise InvalidArgument.field("--csv", "and --json exclude each other")


def _document(result: EvaluationResult, replays: list[str] | None) -> dict[str, Any]:
    parts = [{**asdict(part), **asdict(part.score), "label": result.labels[part.policy]} for part in result.parts]
    for part in parts:
        del part["score"]
    document: dict[str, Any] = {
        "evaluation": result.evaluation,
        "metric": result.metric,
        "summary": result.summary,
        "missions": [part for part in parts if not part["team"]],
        "teams": [part for part in parts if part["team"]],
        "forfeits": result.forfeits,
    }
    return document if replays is None else {**document, "replays": replays}


def _print_replays(paths: list[str]) -> None:
    if paths:
        print(f"{len(paths)} replays; look at one with CoGames: cogames replay {paths[0]}")
