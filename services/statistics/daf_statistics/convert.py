"""Requests of the statistics service to rows, checked, and what it found to responses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from daf_common import names
from daf_common.errors import InvalidArgument, Violation
from daf_protos.statistics.v1 import metric_pb2
from daf_protos.statistics.v1.episode_pb2 import Episode, PolicyLatency
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_protos.statistics.v1.statistics_service_pb2 import (
    Latency,
    PolicySummary,
    RecordEpisodesRequest,
    ScenarioSummary,
)
from daf_statistics import outcomes
from daf_statistics.aggregation import Aggregation
from daf_statistics.episodes import LARGEST
from daf_statistics.latencies import MAX_BUCKETS, Histogram
from daf_statistics.samples import UnknownMetricError
from daf_statistics.summary import Summary

MAX_NAME = 200
"""Characters of a metric's name, and of a picture's title."""

AGGREGATIONS = {
    metric_pb2.AGGREGATION_UNSPECIFIED: Aggregation.MEAN,
    metric_pb2.AGGREGATION_MEAN: Aggregation.MEAN,
    metric_pb2.AGGREGATION_SUM: Aggregation.SUM,
    metric_pb2.AGGREGATION_MINIMUM: Aggregation.MINIMUM,
    metric_pb2.AGGREGATION_MAXIMUM: Aggregation.MAXIMUM,
}

_SOURCES = (names.TRAINING_JOB, names.EVALUATION, names.SWEEP, names.TRIAL, names.DEPLOYMENT, names.PIPELINE)
_SEED_LIMIT = 2**32
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_KNOWN_SHOWN = 200


def source_name(name: str, field: str) -> str:
    """The checked resource name of something that has numbers.

    Raises:
        InvalidArgument: it is none; names the field.
    """
    for kind in _SOURCES:
        try:
            kind.parse(name)
            return name
        except InvalidArgument:
            continue
    shown = name if len(name) <= 80 else name[:77] + "..."
    raise InvalidArgument.field(field, f"{shown!r} is not a resource name like {names.TRAINING_JOB.pattern}")


def evaluation_name(name: str, field: str) -> str:
    """The checked resource name of an evaluation.

    Raises:
        InvalidArgument: it is none; names the field.
    """
    names.EVALUATION.parse(name, field)
    return name


def metric_name(metric: Metric) -> str:
    """The checked name of the metric in a request. Raises as `metric_of`."""
    return metric_of(metric)[0]


def metric_of(metric: Metric) -> tuple[str, Aggregation]:
    """The checked metric in a request: its name, and how the values of several seats become one.

    Raises:
        InvalidArgument: it cannot be one; names the field.
    """
    violations = []
    if problem := name_problem(metric.name):
        violations.append(Violation("metric.name", problem))
    if metric.aggregation not in AGGREGATIONS:
        violations.append(Violation("metric.aggregation", f"{metric.aggregation} is not known"))
    if violations:
        raise InvalidArgument.of(violations)
    return metric.name, AGGREGATIONS[metric.aggregation]


def name_problem(name: str) -> str:
    """Why a text cannot be the name of a metric, or a title; empty if it can."""
    if not name:
        return "is empty"
    if len(name) > MAX_NAME:
        return f"has {len(name)} characters, more than {MAX_NAME}"
    return "" if name.isprintable() else "has characters that cannot be printed"


def unknown_metric(error: UnknownMetricError, field: str) -> InvalidArgument:
    """The error for a metric that no episode can have, with the names that there are."""
    return InvalidArgument.field(field, unknown_name(error.name, error.known))


def unknown_name(name: str, known: Sequence[str]) -> str:
    """What is said of a metric's name that nothing has, with the names that there are."""
    near = get_close_matches(name, known, n=3)
    hint = f" (did you mean {', '.join(near)}?)" if near else ""
    shown = ", ".join(known[:_KNOWN_SHOWN]) + (", ..." if len(known) > _KNOWN_SHOWN else "")
    return f"{name!r} is not known{hint}; known are: {shown}"


def episode_rows(request: RecordEpisodesRequest) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of all episodes in a request, and those of their outcomes, in the order of their keys.

    Raises:
        InvalidArgument: names all fields that are wrong.
    """
    violations: list[Violation] = []
    for number, episode in enumerate(request.episodes):
        violations += _episode_violations(episode, f"episodes[{number}]")
        if episode.evaluation != request.episodes[0].evaluation:
            violations.append(
                Violation(f"episodes[{number}].evaluation", "all episodes of a request are of one evaluation")
            )
    if violations:
        raise InvalidArgument.of(violations)
    episodes = sorted(request.episodes, key=lambda episode: (episode.scenario, episode.index))
    rows = [
        {
            "evaluation": episode.evaluation,
            "scenario": episode.scenario,
            "episode": episode.index,
            "digest": episode.digest,
            "message": episode.SerializeToString(),
        }
        for episode in episodes
    ]
    return rows, [outcomes.row(episode.evaluation, outcomes.outcome(episode)) for episode in episodes]


def summary_message(
    policy: int, summary: Summary, forfeits: int, histogram: Histogram | None, scenarios: Mapping[int, Summary]
) -> PolicySummary:
    """A policy's score for the wire, over all and by scenario."""
    message = PolicySummary(
        policy=policy,
        episodes=len(summary.values),
        forfeits=forfeits,
        mean=summary.mean,
        standard_error=summary.standard_error,
        values=summary.values,
        copies=summary.copies,
        latency=None if histogram is None else _latency_message(histogram),
        scenarios=[_scenario_message(*item) for item in scenarios.items()],
    )
    if summary.interval:
        message.interval_low, message.interval_high = summary.interval
    return message


def _scenario_message(scenario: int, summary: Summary) -> ScenarioSummary:
    message = ScenarioSummary(
        scenario=scenario,
        episodes=len(summary.values),
        copies=summary.copies,
        mean=summary.mean,
        standard_error=summary.standard_error,
    )
    if summary.interval:
        message.interval_low, message.interval_high = summary.interval
    return message


def _latency_message(histogram: Histogram) -> Latency:
    return Latency(
        steps=histogram.steps,
        mean_seconds=histogram.total_seconds / histogram.steps,
        median_seconds=histogram.percentile(0.5),
        p95_seconds=histogram.percentile(0.95),
        p99_seconds=histogram.percentile(0.99),
        longest_seconds=histogram.longest_seconds,
    )


def _episode_violations(episode: Episode, field: str) -> list[Violation]:
    found: list[tuple[str, str]] = []
    try:
        evaluation_name(episode.evaluation, f"{field}.evaluation")
    except InvalidArgument as error:
        found.append(("evaluation", error.violations[0].message))
    found += [
        (name, f"{value} is negative")
        for name in ("scenario", "index", "steps", "max_steps")
        if (value := getattr(episode, name)) < 0
    ]
    if not 0 <= episode.seed < _SEED_LIMIT:
        found.append(("seed", f"{episode.seed} is not between 0 and 2^32 - 1"))
    if not episode.seats or min(episode.seats) < 0:
        found.append(("seats", "name a policy, numbered from 0, for every seat"))
    if len(episode.rewards) != len(episode.seats):
        found.append(("rewards", f"there are {len(episode.rewards)} for {len(episode.seats)} seats"))
    for name in ("action_timeouts", "agent_statistics"):
        if len(getattr(episode, name)) not in (0, len(episode.seats)):
            found.append((name, f"there are {len(getattr(episode, name))} for {len(episode.seats)} seats"))
    for number, forfeit in enumerate(episode.forfeits):
        if not (forfeit.subject.isascii() and forfeit.subject.isdecimal() and len(forfeit.subject) < 10):
            found.append((f"forfeits[{number}].subject", f"{forfeit.subject[:40]!r} is not the number of a policy"))
    if "\0" in episode.mission:
        found.append(("mission", "has a NUL character"))
    for number, latency in enumerate(episode.latencies):
        if problem := _latency_problem(latency):
            found.append((f"latencies[{number}]", problem))
    if not _SHA256.fullmatch(episode.digest):
        found.append(("digest", "use 64 lower-case hexadecimal digits"))
    return [Violation(f"{field}.{name}", message) for name, message in found]


def _latency_problem(latency: PolicyLatency) -> str:
    if min(latency.policy, latency.steps, *latency.buckets) < 0:
        return "has negative numbers"
    if not (0 <= latency.total_seconds <= LARGEST and 0 <= latency.longest_seconds <= LARGEST):
        return "has times that cannot be"
    if len(latency.buckets) > MAX_BUCKETS:
        return f"has {len(latency.buckets)} buckets, more than {MAX_BUCKETS}"
    if sum(latency.buckets) != latency.steps:
        return f"has {sum(latency.buckets)} steps in its buckets, not {latency.steps}"
    return ""
