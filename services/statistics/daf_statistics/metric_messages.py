"""Requests about metric series, checked, as rows; and series for the wire."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from daf_common.errors import InvalidArgument, Violation
from daf_protos.statistics.v1.statistics_service_pb2 import (
    MetricPoint,
    MetricSeries,
    PlotMetricsRequest,
    ReadMetricsRequest,
    RecordMetricsRequest,
)
from daf_statistics.convert import name_problem, source_name
from daf_statistics.metrics import Point, thinned

MAX_PANELS = 24
MAX_LINES = 16
"""What a picture can hold and a reader can tell apart."""

_YEAR_10000_SECONDS = 253_402_300_800


def metric_rows(request: RecordMetricsRequest) -> list[dict[str, Any]]:
    """The rows of all values in a request, in the order of their keys.

    Raises:
        InvalidArgument: names all fields that are wrong.
    """
    source_name(request.source, "source")
    violations: list[Violation] = []
    if request.after_step < 0:
        violations.append(Violation("after_step", f"{request.after_step} is negative"))
    if request.attempt < 0:
        violations.append(Violation("attempt", f"{request.attempt} is negative: use 0 for none"))
    rows = []
    for number, point in enumerate(request.points):
        field = f"points[{number}]"
        violations += _point_violations(point, field)
        if violations:
            continue
        time_us = point.time.ToMicroseconds()
        values = {**point.values, **dict.fromkeys(point.non_finite, math.nan)}
        rows += [
            {
                "source": request.source,
                "metric": name,
                "step": point.step,
                "agent_steps": point.agent_steps,
                "time_us": time_us,
                "value": value if math.isfinite(value) else None,
            }
            for name, value in values.items()
        ]
    if violations:
        raise InvalidArgument.of(violations)
    # In one order everywhere, so that two writers of the same rows do not lock each other out.
    return sorted(rows, key=lambda row: (row["metric"], row["step"]))


def check_read_metrics(request: ReadMetricsRequest) -> None:
    """Checks a request for series.

    Raises:
        InvalidArgument: names all fields that are wrong.
    """
    source_name(request.source, "source")
    violations = [
        Violation(f"metrics[{number}]", problem)
        for number, name in enumerate(request.metrics)
        if (problem := name_problem(name))
    ]
    if request.max_points < 0:
        violations.append(Violation("max_points", f"{request.max_points} is negative: use 0 for all"))
    if violations:
        raise InvalidArgument.of(violations)


def check_plot_metrics(request: PlotMetricsRequest) -> None:
    """Checks a request for a picture.

    Raises:
        InvalidArgument: names all fields that are wrong.
    """
    for number, name in enumerate(request.sources[: MAX_LINES + 1]):
        source_name(name, f"sources[{number}]")
    violations = [
        Violation(f"metrics[{number}]", problem)
        for number, name in enumerate(request.metrics[: MAX_PANELS + 1])
        if (problem := name_problem(name))
    ]
    if not 1 <= len(request.sources) <= MAX_LINES:
        violations.append(Violation("sources", f"name 1 to {MAX_LINES}, not {len(request.sources)}"))
    if len(request.metrics) > MAX_PANELS:
        violations.append(Violation("metrics", f"name at most {MAX_PANELS}, not {len(request.metrics)}"))
    if request.title and (problem := name_problem(request.title)):
        violations.append(Violation("title", problem))
    if violations:
        raise InvalidArgument.of(violations)


def series_message(metric: str, points: Sequence[Point], max_points: int) -> MetricSeries:
    """One series for the wire."""
    shown = thinned(points, max_points)
    series = MetricSeries(
        metric=metric,
        steps=[point.step for point in shown],
        agent_steps=[point.agent_steps for point in shown],
        values=[math.nan if point.value is None else point.value for point in shown],
    )
    for point in shown:
        series.times.add().FromMicroseconds(point.time_us)
    return series


def _point_violations(point: MetricPoint, field: str) -> list[Violation]:
    violations = [
        Violation(f"{field}.{name}", f"{value} is negative")
        for name, value in (("step", point.step), ("agent_steps", point.agent_steps))
        if value < 0
    ]
    if not 0 <= point.time.seconds < _YEAR_10000_SECONDS or not 0 <= point.time.nanos < 10**9:
        violations.append(Violation(f"{field}.time", "is not between 1970 and 9999"))
    for name in (*point.values, *point.non_finite):
        if problem := name_problem(name):
            violations.append(Violation(f"{field}.values", f"the metric name {name[:40]!r} {problem}"))
    return violations
