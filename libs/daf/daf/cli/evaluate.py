"""`daf evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from daf.cli.evaluation_display import evaluation_state, show_evaluation
from daf.cli.options import MissionNames, MissionSets, OwnFiles, absolute, absolute_path, document_with, missions
from daf.cli.session import JsonFlag, notice, open_client, print_json
from daf.client import Client
from daf.config import DAFEvaluationConfig
from daf.evaluations import create_evaluation, forfeit_reasons, summarize
from daf.follow_runs import follow_evaluation
from daf.missions import check_set
from daf.references import proportion_of
from daf.render import interval, plus_minus
from daf.results import ScoreResult
from daf.run_ids import new_id
from daf.tables import print_table, table
from daf_common.errors import InvalidArgument
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.statistics.v1.statistics_service_pb2 import PolicySummary, SummarizeEvaluationResponse


def evaluate(
    file: Annotated[
        Path | None, typer.Argument(help="The evaluation, as YAML or JSON; options replace its values.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "-p",
            help="Policy; may be repeated. A short name, a class path, class=X,data=F,kw.k=v, "
            "job/NAME/checkpoints/latest or sweeps/NAME/trials/NUMBER.",
        ),
    ] = None,
    mission: MissionNames = None,
    mission_set: MissionSets = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="Episodes for each mission and team: 5.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the first episode.")] = None,
    team: Annotated[str, typer.Option(help="mixed: one team of all policies; solo: each alone.")] = "",
    proportions: Annotated[str, typer.Option(help="Shares of the seats, for example 3,1.")] = "",
    cogs: Annotated[int | None, typer.Option(min=1, help="Number of agents.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Environment steps of an episode.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Variant of the missions; may be repeated.")] = None,
    metric: Annotated[str, typer.Option(help="reward, or a statistic of the agents or the game.")] = "",
    code: OwnFiles = None,
    requirements: Annotated[
        str, typer.Option(metavar="FILE", help="Packages that it needs, as requirements.txt lists them.")
    ] = "",
    name: Annotated[str, typer.Option(help="Id of the evaluation; one is made otherwise.")] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as it is started.")] = False,
    json: JsonFlag = False,
) -> None:
    """Let policies play the same episodes and summarize how they did."""
    policies, shares = _policies(policy)
    played = [*(mission or []), *map(check_set, mission_set or [])]
    config = document_with(
        DAFEvaluationConfig,
        file,
        {
            "policies": policies,
            "code": absolute(code),
            "requirements": absolute_path(requirements),
            "missions": missions(file, played, {"cogs": cogs, "max_steps": steps, "variants": variant}),
            "episodes": episodes,
            "seed": seed,
            "team": team,
            "proportions": _shares(proportions) or shares,
            "objective_metric": metric,
        },
    )
    with open_client() as client:
        evaluation = create_evaluation(client, config, name or new_id(config.name))
        summary, forfeits = SummarizeEvaluationResponse(), list[str]()
        if not detach:
            evaluation = follow(client, evaluation.name, quiet=json)
            if evaluation.done_episodes:
                summary = summarize(client, evaluation.name, config.objective_metric)
            if any(policy.forfeits for policy in summary.policies):
                forfeits = forfeit_reasons(client, evaluation)
    if json:
        print_json({"evaluation": evaluation} if detach else {"evaluation": evaluation, "summary": summary})
    elif detach:
        print(f"Started {evaluation.name}: `daf logs {evaluation.name} -f` shows what it prints.")
    else:
        _print(evaluation, summary, config.objective_metric)
    for reason in forfeits:
        notice(f"forfeited: {reason}")
    if evaluation.state in (evaluation_pb2.EVALUATION_STATE_FAILED, evaluation_pb2.EVALUATION_STATE_CANCELLED):
        notice(f"{evaluation.name} {evaluation_state(evaluation)}: {evaluation.failure.message or 'without a reason'}")
        raise typer.Exit(1)
    if any(not policy.episodes for policy in summary.policies):
        raise typer.Exit(1)  # there is no score to go by


def follow(client: Client, name: str, quiet: bool) -> Evaluation:
    """Follows an evaluation to its end, on the screen unless that is to be quiet; Ctrl-C leaves it running."""
    try:
        evaluations = follow_evaluation(client, name)
        return _last(evaluations) if quiet else show_evaluation(evaluations)
    except KeyboardInterrupt:
        notice(f"{name} goes on: `daf logs {name} -f` follows it")
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


def _print(evaluation: Evaluation, summary: SummarizeEvaluationResponse, metric: str) -> None:
    labels = [policy.label for policy in evaluation.spec.policies]
    forfeited = any(policy.forfeits for policy in summary.policies)
    columns = ["policy", metric, "95 % interval", "episodes", *(["forfeited"] if forfeited else [])]
    rows = table(*columns)
    for policy in summary.policies:
        score = _score(policy)
        values = (plus_minus(score), interval(score)) if policy.HasField("mean") else ("-", "-")
        forfeits = [str(policy.forfeits)] if forfeited else []
        rows.add_row(labels[policy.policy], *values, str(policy.episodes), *forfeits)
    console = Console()
    print_table(rows, console)
    console.print(f"{evaluation.name}, digest {evaluation.digest or summary.digest}", style="dim", soft_wrap=True)


def _score(policy: PolicySummary) -> ScoreResult:
    return ScoreResult(
        mean=policy.mean,
        standard_error=policy.standard_error if policy.HasField("standard_error") else None,
        interval_low=policy.interval_low if policy.HasField("interval_low") else None,
        interval_high=policy.interval_high if policy.HasField("interval_high") else None,
        episodes=policy.episodes,
    )
