"""Requests of the statistics service to rows, checked, and what it found to responses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from daf_common import names
from daf_common.errors import InvalidArgument, Violation
from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_protos.statistics.v1.statistics_service_pb2 import (
    PolicySummary,
    RecordEpisodesRequest,
)
from daf_statistics.samples import UnknownMetricError
from daf_statistics.summary import Summary

MAX_NAME = 200
"""Characters of a metric's name, and of a picture's title."""

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
    """The checked name of the metric in a request.

    Raises:
        InvalidArgument: it cannot be one; names the field.
    """
    if problem := name_problem(metric.name):
        raise InvalidArgument.field("metric.name", problem)
    return metric.name


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
    shown = ", ".join(known[:_KNOWN_SHOWN]) + (", ..." if len(known) > _KNOWN_SHOWN else "")
    return f"{name!r} is not known; known are: {shown}"


def episode_rows(request: RecordEpisodesRequest) -> list[dict[str, Any]]:
    """The rows of all episodes in a request, in the order of their keys.

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
    rows = [
        {
            "evaluation": episode.evaluation,
            "scenario": episode.scenario,
            "episode": episode.index,
            "digest": episode.digest,
            "message": episode.SerializeToString(),
        }
        for episode in request.episodes
    ]
    return sorted(rows, key=lambda row: (row["scenario"], row["episode"]))


def summary_message(policy: int, summary: Summary, forfeits: int) -> PolicySummary:
    """A policy's score for the wire."""
    message = PolicySummary(
        policy=policy,
        episodes=len(summary.values),
        forfeits=forfeits,
        mean=summary.mean,
        standard_error=summary.standard_error,
        values=summary.values,
        copies=summary.copies,
    )
    if summary.interval:
        message.interval_low, message.interval_high = summary.interval
    return message


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
    if not _SHA256.fullmatch(episode.digest):
        found.append(("digest", "use 64 lower-case hexadecimal digits"))
    return [Violation(f"{field}.{name}", message) for name, message in found]
