"""`daf job metrics`: the numbers of a training run."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from daf.cli.session import JsonFlag, open_client, print_json, resource_name
from daf.client import Client
from daf.documents import nearest
from daf.render import number
from daf.tables import print_table, table
from daf.training_jobs import read_training_job
from daf_common.errors import InvalidArgument
from daf_protos.statistics.v1.statistics_service_pb2 import ListMetricsRequest, MetricSeries, ReadMetricsRequest

_ENVIRONMENT = ("env/agent/", "env/game/")


def metrics(
    name: Annotated[str, typer.Argument(help="The job, by its id or its name trainingJobs/ID.")],
    metric: Annotated[list[str] | None, typer.Option("--metric", help="This metric; may be repeated.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="With what is known of the environment.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: a row for each update.")] = False,
    json: JsonFlag = False,
) -> None:
    """Print the metrics of a training job: a line for each, or every value of those that are named."""
    if as_csv and json:
        raise InvalidArgument.field("--csv", "and --json exclude each other")
    full = resource_name("trainingJobs", name)
    with open_client() as client:
        read_training_job(client, full)  # one that is not there is an error, not an empty table
        series = _read(client, full, metric or [])
    if json:
        print_json({"series": series})
    elif as_csv:
        _print_csv(series)
    elif not series:
        print(f"{full} has reported no metrics yet.")
    elif metric:
        _print_values(series)
    else:
        _print_summary(series, all_)


def _read(client: Client, source: str, wanted: Sequence[str]) -> list[MetricSeries]:
    if wanted:
        known = list(client.statistics.ListMetrics(ListMetricsRequest(source=source)).metrics)
        for name in wanted:
            if name not in known:
                listed = f" (known: {', '.join(known) or 'none yet'})"
                raise InvalidArgument.field("--metric", f"there is no {name[:80]!r}{nearest(name, known) or listed}")
    return list(client.statistics.ReadMetrics(ReadMetricsRequest(source=source, metrics=wanted)).series)


def _print_summary(series: Sequence[MetricSeries], all_: bool) -> None:
    rows = table("metric", "points", "first", "last", "smallest", "largest")
    shown = [one for one in series if all_ or not one.metric.startswith(_ENVIRONMENT)]
    for one in shown:
        finite = [value for value in one.values if math.isfinite(value)]
        ends = (min(finite), max(finite)) if finite else (None, None)
        rows.add_row(one.metric, number(len(one.values)), *map(number, (one.values[0], one.values[-1], *ends)))
    print_table(rows)
    if hidden := len(series) - len(shown):
        print(f"{hidden} more are statistics of the environment: --all lists them.")


def _print_values(series: Sequence[MetricSeries]) -> None:
    rows = table("update", "agent steps", *(one.metric for one in series))
    for update, agent_steps, values in _by_update(series):
        rows.add_row(str(update), f"{agent_steps:,}", *map(number, values))
    print_table(rows)


def _print_csv(series: Sequence[MetricSeries]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["update", "agent_steps", *(one.metric for one in series)])
    for update, agent_steps, values in _by_update(series):
        writer.writerow([update, agent_steps, *("" if value is None else repr(value) for value in values)])


def _by_update(series: Sequence[MetricSeries]) -> Iterable[tuple[int, int, list[float | None]]]:
    """For each update its agent steps and the value of every metric, None where it was not measured."""
    agent_steps: dict[int, int] = {}
    values: dict[int, list[float | None]] = {}
    for column, one in enumerate(series):
        for update, steps, value in zip(one.steps, one.agent_steps, one.values, strict=True):
            agent_steps[update] = steps
            values.setdefault(update, [None] * len(series))[column] = value
    return ((update, agent_steps[update], values[update]) for update in sorted(values))
