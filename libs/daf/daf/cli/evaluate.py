"""`daf evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from daf.cli.evaluation_display import evaluation_state, show_evaluation
from daf.cli.options import (
    Aggregation,
    Difficulty,
    Fast,
    Isolated,
    MapSeed,
    Metric,
    MissionNames,
    MissionSets,
    OwnFiles,
    TimeLimit,
    Workers,
    absolute,
    absolute_path,
    document_with,
    missions,
)
from daf.cli.results import (
    CsvFlag,
    Latency,
    bring_replays,
    check_formats,
    show_result,
)
from daf.cli.session import JsonFlag, notice, open_client, print_json
from daf.client import Client
from daf.config import DAFEvaluationConfig
from daf.convert.metrics import metric_message
from daf.evaluation_results import read_result
from daf.evaluations import create_evaluation
from daf.follow_runs import follow_evaluation
from daf.missions import check_set
from daf.references import proportion_of
from daf.run_ids import new_id
from daf.trained_maps import trained_maps_problems
from daf_common.errors import InvalidArgument
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation


def evaluate(
    file: Annotated[
        Path | None, typer.Argument(help="The evaluation, as YAML or JSON; options replace its values.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "-p",
            help="Policy; may be repeated. A short name, a class path, class=X,data=F,kw.k=v,proportion=N, the file of "
            "a bundle, job/NAME/checkpoints/best, sweeps/NAME/trials/NUMBER or policyPackages/NAME/versions/VERSION.",
        ),
    ] = None,
    mission: MissionNames = None,
    mission_set: MissionSets = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="Episodes for each mission and team: 5.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the first episode.")] = None,
    team: Annotated[
        str,
        typer.Option(
            help="mixed: one team of all policies; solo: each alone; pickup: the first in ever fewer seats, the others "
            "in the rest, as cogames pickup; pairs: each alone and every two by halves."
        ),
    ] = "",
    proportions: Annotated[str, typer.Option(help="Shares of the seats, for example 3,1.")] = "",
    cogs: Annotated[int | None, typer.Option(min=1, help="Number of agents.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Environment steps of an episode.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Variant of the missions; may be repeated.")] = None,
    difficulty: Difficulty = "",
    map_seed: MapSeed = None,
    workers: Workers = None,
    fast: Fast = False,
    isolated: Isolated = False,
    time_limit: TimeLimit = None,
    replays: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Keep replays and bring them here, one file an episode.")
    ] = None,
    metric: Metric = "",
    aggregation: Aggregation = "",
    latency: Latency = False,
    code: OwnFiles = None,
    requirements: Annotated[
        str, typer.Option(metavar="FILE", help="Packages that it needs, as requirements.txt lists them.")
    ] = "",
    name: Annotated[str, typer.Option(help="Id of the evaluation; one is made otherwise.")] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as it is started.")] = False,
    json: JsonFlag = False,
    csv: CsvFlag = False,
) -> None:
    """Let policies play the same episodes and summarize how they did."""
    check_formats(json, csv)
    policies, shares = _policies(policy)
    played = [*(mission or []), *map(check_set, mission_set or [])]
    changes = {
        "cogs": cogs,
        "max_steps": steps,
        "variants": variant,
        "difficulty": difficulty,
        "map_seed": map_seed,
    }
    config = document_with(
        DAFEvaluationConfig,
        file,
        {
            "policies": policies,
            "code": absolute(code),
            "requirements": absolute_path(requirements),
            "missions": missions(file, played, changes),
            "episodes": episodes,
            "seed": seed,
            "team": team,
            "proportions": _shares(proportions) or shares,
            "workers": workers,
            "fast": fast or None,
            "isolated": isolated or None,
            "time_limit_seconds": time_limit,
            "save_replays": replays is not None or None,
            "objective_metric": metric,
            "aggregation": aggregation,
        },
    )
    measured = metric_message(config.objective_metric, config.aggregation)
    with open_client() as client:
        evaluation = create_evaluation(client, config, name or new_id(config.name))
        for problem in trained_maps_problems(client, evaluation.spec):
            notice(problem)
        if detach:
            _say_started(evaluation, replays, json)
            return
        evaluation = follow(client, evaluation.name, quiet=json or csv)
        result = read_result(client, evaluation.name, measured)
        saved = bring_replays(client, evaluation, replays) if replays is not None else None
    show_result(result, saved, latency=latency, json=json, csv=csv)
    if evaluation.state in (evaluation_pb2.EVALUATION_STATE_FAILED, evaluation_pb2.EVALUATION_STATE_CANCELLED):
        notice(f"{evaluation.name} {evaluation_state(evaluation)}: {evaluation.failure.message or 'without a reason'}")
        raise typer.Exit(1)
    if any(not policy.episodes for policy in result.summary.policies):
        raise typer.Exit(1)  # there is no score to go by


def follow(client: Client, name: str, quiet: bool) -> Evaluation:
    """Follows an evaluation to its end, on the screen unless that is to be quiet; Ctrl-C leaves it running."""
    try:
        evaluations = follow_evaluation(client, name)
        return _last(evaluations) if quiet else show_evaluation(evaluations)
    except KeyboardInterrupt:
        notice(f"{name} goes on: `daf results show {name}` shows its scores, `daf results cancel {name}` stops it")
        raise typer.Exit(130) from None


def _last(evaluations: Iterator[Evaluation]) -> Evaluation:
    *_, evaluation = evaluations
    return evaluation


def _policies(texts: Sequence[str] | None) -> tuple[list[Any], list[float]]:
    """Policies and the shares that they name in CoGames' syntax: none, or one for each."""
    policies, shares = [], []
    for text in texts or []:
        try:
            kept, share = proportion_of(text)
        except ValueError:
            raise InvalidArgument.field("--policy/-p", f"the proportion in {text[:80]!r} is no number") from None
        policies.append(kept)
        shares.append(share)
    named = [1.0 if share is None else share for share in shares]
    return policies, named if any(share is not None for share in shares) else []


def _shares(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise InvalidArgument.field("--proportions", f"{text[:80]!r} is no list of numbers like 3,1") from None


def _say_started(evaluation: Evaluation, replays: Path | None, json: bool) -> None:
    if json:
        print_json({"evaluation": evaluation})
        return
    print(f"Started {evaluation.name}: `daf logs {evaluation.name} -f` shows what it prints.")
    print(f"Its result: `daf results show {evaluation.name}`.")
    if replays is not None:
        print(f"Its replays: `daf results replays {evaluation.name} {replays}`.")
