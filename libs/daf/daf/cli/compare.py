"""`daf compare`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daf.cli.compare_cross_play import compare_cross_play
from daf.cli.compare_vor import compare_vor
from daf.cli.evaluate import follow
from daf.cli.evaluation_display import tell_forfeits
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
from daf.cli.play_teams import TeamRequest, team_request
from daf.cli.session import JsonFlag, notice, open_client, print_json
from daf.client import Client
from daf.comparison import ComparisonReport
from daf.comparison_results import race_lines
from daf.comparison_values import read_values
from daf.comparisons import (
    PolicyComparison,
    baseline_number,
    compare_values,
    make_design,
    plan_from_pilot,
    read_comparison,
)
from daf.config import DAFComparisonConfig
from daf.races import PolicyRace
from daf.render_comparison import print_comparison, print_plan, write_csv
from daf.vor import VOR_MODES
from daf_common.errors import InvalidArgument
from daf_protos.statistics.v1.comparison_pb2 import Comparison

RESULTS = Path("daf_output") / "comparisons"


def compare(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="The comparison, as YAML or JSON; options replace its values. Or comparisons/NAME: print it again. "
            "With --vor and --cross-play, evaluations/NAME: compute it again.",
        ),
    ] = "",
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", "-p", help="Policy, as for daf evaluate; at least two."),
    ] = None,
    mission: MissionNames = None,
    mission_set: MissionSets = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Compare values from elsewhere: columns policy, mission, seed, value."),
    ] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="Episodes of each mission for each policy: 20.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the first episode.")] = None,
    metric: Metric = "",
    aggregation: Aggregation = "",
    alpha: Annotated[
        float | None, typer.Option(help="Accepted probability of a wrong decision, over all pairs together: 0.05.")
    ] = None,
    margin: Annotated[float | None, typer.Option(help="Differences smaller than this do not matter.")] = None,
    family: Annotated[str, typer.Option(help="holm: for decisions; bh (Benjamini-Hochberg): for exploration.")] = "",
    baseline: Annotated[str, typer.Option(help="Compare every policy with this one; otherwise all pairs.")] = "",
    looks: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Look at the numbers so often while they come in: policies that are worse than another play no more, "
            "and it ends when one is left. Every look has its part of alpha.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse a design that cannot reach its alpha, or maps that were trained on."),
    ] = False,
    power: Annotated[
        float | None, typer.Option(metavar="DIFFERENCE", help="Say how many episodes find such a difference.")
    ] = None,
    probability: Annotated[float, typer.Option(help="With which probability --power is to find it.")] = 0.8,
    vor: Annotated[
        bool,
        typer.Option("--vor", help="Say what the first policy is worth in a team with the others: CoGames' pickup."),
    ] = False,
    vor_mode: Annotated[
        str, typer.Option(help="sampled: each episode has its map, values have intervals; cogames: one map, none have.")
    ] = "sampled",
    cross_play: Annotated[
        bool, typer.Option("--cross-play", help="Say how well every two policies do in one team.")
    ] = False,
    cogs: Annotated[int | None, typer.Option(min=1, help="Number of agents.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Environment steps of an episode.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Variant of the missions; may be repeated.")] = None,
    difficulty: Difficulty = "",
    map_seed: MapSeed = None,
    workers: Workers = None,
    fast: Fast = False,
    isolated: Isolated = False,
    time_limit: TimeLimit = None,
    code: OwnFiles = None,
    requirements: Annotated[
        str, typer.Option(metavar="FILE", help="Packages that it needs, as requirements.txt lists them.")
    ] = "",
    name: Annotated[str, typer.Option(help="Id of the evaluation and the comparison; one is made otherwise.")] = "",
    json: JsonFlag = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print one row a pair as CSV.")] = False,
) -> None:
    """Let policies play the same episodes, each alone, and say which is better: pairs, interval and verdict.

    With --vor they play in one team instead, with --cross-play in teams of two.
    """
    if json and csv:
        raise InvalidArgument.field("--csv", "and --json exclude each other")
    quiet = json or csv
    teams = vor or cross_play
    plays = {
        "--policy": policy,
        "--mission": mission,
        "--mission-set": mission_set,
        "--episodes": episodes,
        "--seed": seed,
        "--cogs": cogs,
        "--steps": steps,
        "--variant": variant,
        "--difficulty": difficulty,
        "--map-seed": map_seed,
        "--workers": workers,
        "--fast": fast,
        "--isolated": isolated,
        "--time-limit": time_limit,
        "--code": code,
        "--requirements": requirements,
    }
    decides = {
        "--aggregation": aggregation,
        "--margin": margin,
        "--family": family,
        "--baseline": baseline,
        "--looks": looks,
        "--strict": strict,
    }
    _check_file(file, teams, plays, {**decides, "--metric": metric, "--alpha": alpha, "--results": results})
    if results is not None:
        _refuse({"FILE": file, **plays, "--aggregation": aggregation, "--looks": looks}, "--results")
    document = Path(file) if file and not file.startswith(("comparisons/", "evaluations/")) else None
    played = [*(mission or []), *(mission_set or [])]
    changes = {"cogs": cogs, "max_steps": steps, "variants": variant, "difficulty": difficulty, "map_seed": map_seed}
    options = {
        "policies": policy,
        "code": absolute(code),
        "requirements": absolute_path(requirements),
        "missions": missions(document, played, changes),
        "episodes_per_mission": episodes,
        "seed": seed,
        "metric": metric,
        "aggregation": aggregation,
        "alpha": alpha,
        "margin": margin,
        "family": family,
        "baseline": baseline,
        "looks": looks,
        "strict": strict or None,
        "workers": workers,
        "fast": fast or None,
        "isolated": isolated or None,
        "time_limit_seconds": time_limit,
    }
    if teams:
        excluded = {**decides, "--results": results, "--power": power, "--cross-play": vor and cross_play}
        _refuse(excluded, "--vor" if vor else "--cross-play")
        _check_mode(vor_mode, vor)
        _score_teams(team_request(file, options, name, json, csv), vor_mode if vor else "")
        return
    _check_power(power, probability)
    stored = results is not None or file.startswith("comparisons/")
    config = None if stored else document_with(DAFComparisonConfig, document, options)
    with open_client() as client:
        if results is not None:
            made = _of_values(client, results, metric, alpha, margin, family, baseline, strict, name)
        elif config is None:
            made = read_comparison(client, file)
        else:
            made = _play(client, config, name, quiet)
            if document is not None and config.save_raw_results:
                path = RESULTS / f"{made.name.partition('/')[2]}.json"
                ComparisonReport.of(made).save_json(path)
                notice(f"wrote {path}")
        plan = plan_from_pilot(client, made, power, probability) if power is not None else None
    if csv:
        write_csv(made)
    elif json:
        print_json({"comparison": made} if plan is None else {"comparison": made, "plan": plan})
    else:
        print_comparison(made)
    if plan is not None and power is not None and not json:
        console = Console(stderr=csv)
        print_plan(plan, [policy.label for policy in made.policies], power, console)
    if any(not policy.values.episodes for policy in made.policies):
        raise typer.Exit(1)  # there is nothing to compare it by


def _score_teams(asked: TeamRequest, vor_mode: str) -> None:
    with open_client() as client:
        if vor_mode:
            compare_vor(client, asked, vor_mode)
        else:
            compare_cross_play(client, asked)


def _play(client: Client, config: DAFComparisonConfig, name: str, quiet: bool) -> Comparison:
    if config.looks > 1:
        return _race(PolicyRace(client, config, name), client, quiet)
    comparison = PolicyComparison(client, config, name)
    _check(comparison)
    evaluation = follow(client, comparison.start().name, quiet)
    made = comparison.compute(evaluation)
    tell_forfeits(evaluation.name, comparison.forfeits(evaluation, made))
    return made


def _check(comparison: PolicyComparison) -> None:
    for warning in comparison.plan().warnings:
        notice(warning)


def _race(race: PolicyRace, client: Client, quiet: bool) -> Comparison:
    _check(race.comparison)

    def tell(so_far: Comparison) -> None:
        for line in race_lines(so_far):
            notice(line)

    try:
        return race.run(lambda name: follow(client, name, quiet), tell)
    except typer.Exit:
        notice(f"the same command with --name {race.id} goes on with the race")
        raise


def _check_file(file: str, teams: bool, plays: Mapping[str, object], decides: Mapping[str, object]) -> None:
    """What was played is not played differently; how a comparison was to decide stays with it."""
    if file.startswith("evaluations/") and not teams:
        raise InvalidArgument.field(file, "is an evaluation, which --vor or --cross-play can score")
    if file.startswith(("comparisons/", "evaluations/")):
        _refuse(plays, file)
    if file.startswith("comparisons/"):
        _refuse(decides, file)


def _refuse(options: Mapping[str, object], beside: str) -> None:
    for option, given in options.items():
        if given is not None and given is not False and given != "":
            raise InvalidArgument.field(option, f"has no meaning beside {beside}")


def _check_mode(mode: str, vor: bool) -> None:
    if mode not in VOR_MODES:
        raise InvalidArgument.field("--vor-mode", f"{mode[:40]!r} is not one of {', '.join(VOR_MODES)}")
    _refuse({"--vor-mode": mode != VOR_MODES[0] and not vor}, "--cross-play")


def _check_power(difference: float | None, probability: float) -> None:
    """Refuses what the service would refuse, but only after everything has been played."""
    if difference is None:
        return
    if not math.isfinite(difference) or not difference:
        raise InvalidArgument.field("--power", f"{difference:g} is no difference that can be found")
    if not 0 < probability < 1:
        raise InvalidArgument.field("--probability", f"{probability:g} is not between 0 and 1")


def _of_values(
    client: Client,
    path: Path,
    metric: str,
    alpha: float | None,
    margin: float | None,
    family: str,
    baseline: str,
    strict: bool,
    name: str,
) -> Comparison:
    values = read_values(path)
    number = baseline_number(baseline, [policy.label for policy in values]) if baseline else None
    design = make_design(
        metric or "value", 0.05 if alpha is None else alpha, margin, family or "holm", number, strict=strict
    )
    return compare_values(client, values, design, name)
