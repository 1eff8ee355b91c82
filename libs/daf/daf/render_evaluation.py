"""Evaluations as people and spreadsheets read them."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from daf.comparison_results import given
from daf.evaluation_results import EvaluationResult, has_teams
from daf.render import interval, number, plus_minus
from daf.results import ScoreResult
from daf.tables import print_table, table
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.statistics.v1 import metric_pb2
from daf_protos.statistics.v1.statistics_service_pb2 import PolicySummary

CSV_COLUMNS = (
    "policy",
    "mission",
    "team",
    "metric",
    "aggregation",
    "episodes",
    "forfeits",
    "copies",
    "mean",
    "standard_error",
    "interval_low",
    "interval_high",
    "median_step_ms",
    "p99_step_ms",
)


def print_evaluation(result: EvaluationResult, *, latency: bool = False, console: Console | None = None) -> None:
    """Prints the scores: over all episodes, then by mission and by team where there are several."""
    console = console or Console()
    summaries = result.summary.policies
    forfeited, copied = any(one.forfeits for one in summaries), any(one.copies for one in summaries)
    columns = ["policy", metric_name(result), "95 % interval", "episodes"]
    columns += ["copies"] * copied + ["forfeited"] * forfeited + ["median ms", "p99 ms"] * latency
    rows = table(*columns)
    for policy in summaries:
        score = policy_score(policy)
        cells = [plus_minus(score), interval(score)] if policy.HasField("mean") else ["-", "-"]
        cells += [str(policy.episodes), *[str(policy.copies)] * copied, *[str(policy.forfeits)] * forfeited]
        rows.add_row(result.labels[policy.policy], *cells, *(_latency(policy) if latency else []))
    print_table(rows, console)
    played = {policy.policy for policy in summaries}
    for seatless in [label for policy, label in enumerate(result.labels) if summaries and policy not in played]:
        console.print(Text(f"Note: {seatless} has no seat, so it did not play.", style="yellow"), soft_wrap=True)
    _print_parts(result, console)
    evaluation = result.evaluation
    if result.summary.approximate:
        note = "Note: played fast, so not exactly the episodes that CoGames plays: compare only with the like."
        console.print(Text(note, style="yellow"), soft_wrap=True)
    if has_teams(evaluation):
        note = "Note: the teams play the same seeds, which the intervals over all do not know of."
        console.print(Text(note, style="yellow"), soft_wrap=True)
    digest = evaluation.digest or result.summary.digest
    so_far = ""
    if evaluation.state != evaluation_pb2.EVALUATION_STATE_SUCCEEDED:
        so_far = f", {evaluation.done_episodes:,} of {evaluation.total_episodes:,} episodes"
    console.print(f"{evaluation.name}{so_far}, digest {digest}", style="dim", soft_wrap=True)


def write_csv(result: EvaluationResult, file: TextIO | None = None) -> None:
    """Writes one row a policy over all missions, with an empty mission, then those by mission and team; to standard
    output if no file is given."""
    writer = csv.writer(file or sys.stdout, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(_csv_rows(result))


def metric_name(result: EvaluationResult) -> str:
    """The metric as a heading, for example `reward` or `max heart.gained`."""
    aggregation = _aggregation(result)
    return result.metric.name if aggregation == "mean" else f"{aggregation} {result.metric.name}"


def policy_score(policy: PolicySummary) -> ScoreResult:
    """A policy's score over all of its episodes."""
    return ScoreResult(
        mean=policy.mean,
        standard_error=given(policy, "standard_error"),
        interval_low=given(policy, "interval_low"),
        interval_high=given(policy, "interval_high"),
        episodes=policy.episodes,
    )


def _print_parts(result: EvaluationResult, console: Console) -> None:
    if not result.parts:
        return
    teams = any(part.team for part in result.parts)
    rows = table("mission", *(["team"] if teams else []), "policy", metric_name(result), "95 % interval", "episodes")
    order = {name: place for place, name in enumerate(dict.fromkeys(part.mission for part in result.parts))}
    for part in sorted(result.parts, key=lambda part: order[part.mission]):
        who = [*([part.team] if teams else []), result.labels[part.policy]]
        rows.add_row(part.mission, *who, plus_minus(part.score), interval(part.score), str(part.score.episodes))
    console.print()
    print_table(rows, console)


def _latency(policy: PolicySummary) -> list[str]:
    if not policy.HasField("latency"):
        return ["-", "-"]
    return [number(1000 * seconds, 3) for seconds in (policy.latency.median_seconds, policy.latency.p99_seconds)]


def _csv_rows(result: EvaluationResult) -> Iterator[Sequence[object]]:
    metric, aggregation = result.metric.name, _aggregation(result)
    for policy in result.summary.policies:
        scores = [given(policy, name) for name in ("mean", "standard_error", "interval_low", "interval_high")]
        latency: list[float | None] = [None, None]
        if policy.HasField("latency"):
            latency = [1000 * policy.latency.median_seconds, 1000 * policy.latency.p99_seconds]
        counts = [policy.episodes, policy.forfeits, policy.copies]
        numbers = [_cell(value) for value in (*scores, *latency)]
        yield [result.labels[policy.policy], "", "", metric, aggregation, *counts, *numbers]
    for part in result.parts:
        score = part.score
        scores = [score.mean, score.standard_error, score.interval_low, score.interval_high]
        named = [result.labels[part.policy], part.mission, part.team, metric, aggregation]
        yield [*named, score.episodes, "", part.copies, *map(_cell, scores), "", ""]


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)


def _aggregation(result: EvaluationResult) -> str:
    match result.metric.aggregation:
        case metric_pb2.AGGREGATION_SUM:
            return "sum"
        case metric_pb2.AGGREGATION_MINIMUM:
            return "min"
        case metric_pb2.AGGREGATION_MAXIMUM:
            return "max"
        case _:
            return "mean"
