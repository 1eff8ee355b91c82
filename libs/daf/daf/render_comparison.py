"""Comparisons as people read them: numbers of episodes, intervals and verdicts before any p-value."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from daf.comparison_results import given, mission_labels, race_lines, verdict_name
from daf.render import number
from daf.tables import print_table, table
from daf_protos.statistics.v1.comparison_pb2 import Comparison, PairComparison
from daf_protos.statistics.v1.comparison_service_pb2 import PlanComparisonResponse

CSV_COLUMNS = (
    "pairs",
    "first_mean",
    "second_mean",
    "difference",
    "interval_low",
    "interval_high",
    "verdict",
    "cohens_d",
    "cohens_d_paired",
    "hedges_g",
    "probability_of_improvement",
    "correlation",
    "p_value",
    "adjusted_p_value",
    "equivalence_p_value",
    "adjusted_equivalence_p_value",
)
"""After `mission`, `first` and `second`: names of the fields of `PairComparison`."""

_STYLES = {"first_better": "green", "second_better": "green", "equivalent": "cyan", "invalid": "red"}


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Prints a comparison."""
    console = console or Console()
    labels, called = [policy.label for policy in comparison.policies], mission_labels(comparison)
    level = f"{100 * (1 - comparison.design.alpha):g} % interval"
    policies = table("policy", "episodes", comparison.design.metric, "std", "IQM", f"{level} of IQM")
    for policy in comparison.policies:
        values = policy.values
        policies.add_row(
            policy.label,
            str(values.episodes),
            number(given(values, "mean")),
            number(given(values, "standard_deviation"), 3),
            number(given(values, "interquartile_mean")),
            _ends(given(values, "interquartile_mean_low"), given(values, "interquartile_mean_high")),
        )
    print_table(policies, console)
    console.print()
    _print_pairs(comparison.pairs, labels, level, console)
    for mission in comparison.missions:
        console.print()
        console.print(Text(called[mission.mission], style="italic"))
        _print_pairs(mission.pairs, labels, level, console)
    console.print()
    for pair in comparison.pairs:
        console.print(Text(pair.sentence), soft_wrap=True)
    for line in race_lines(comparison):
        console.print(Text(line), soft_wrap=True)
    for warning in comparison.warnings:
        console.print(Text(f"Note: {warning}", style="yellow"), soft_wrap=True)
    console.print(
        Text(f"{comparison.name}: `daf compare {comparison.name}` prints it again", style="dim"), soft_wrap=True
    )


def print_plan(plan: PlanComparisonResponse, labels: Sequence[str], difference: float, console: Console) -> None:
    """Prints how many episodes a difference needs."""
    rows = table("pair", "std of differences", "correlation", "episodes of each mission", "pairs", "power as planned")
    for pair in plan.pairs:
        rows.add_row(
            f"{labels[pair.first]} - {labels[pair.second]}",
            number(pair.difference_standard_deviation),
            number(given(pair, "correlation"), 3),
            f"{pair.episodes:,}" if pair.HasField("episodes") else "more than can be played",
            f"{pair.pairs:,}" if pair.HasField("pairs") else "-",
            number(given(pair, "planned_power"), 3),
        )
    console.print()
    console.print(Text(f"To find a difference of {difference:g}", style="italic"))
    print_table(rows, console)


def write_csv(comparison: Comparison, file: TextIO = sys.stdout) -> None:
    """Writes one row a pair: those over all missions, with an empty mission, then those by mission."""
    labels = [policy.label for policy in comparison.policies]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["mission", "first", "second", *CSV_COLUMNS])
    called = mission_labels(comparison)
    for mission, pairs in [("", comparison.pairs), *((called[one.mission], one.pairs) for one in comparison.missions)]:
        for pair in pairs:
            writer.writerow([mission, labels[pair.first], labels[pair.second], *_cells(pair)])


def _cells(pair: PairComparison) -> Iterable[object]:
    for column in CSV_COLUMNS:
        match column:
            case "verdict":
                yield verdict_name(pair)
            case "pairs":
                yield pair.pairs
            case _:
                value = given(pair, column)
                yield "" if value is None else repr(value)


def _print_pairs(pairs: Iterable[PairComparison], labels: Sequence[str], level: str, console: Console) -> None:
    rows = table("pair", "n", "difference", level, "verdict", "d", "g", "P(higher)", "correlation", "p", "adjusted p")
    for pair in pairs:
        verdict = verdict_name(pair)
        shown = {"first_better": f"{labels[pair.first]} is better", "second_better": f"{labels[pair.second]} is better"}
        rows.add_row(
            f"{labels[pair.first]} - {labels[pair.second]}",
            str(pair.pairs),
            number(given(pair, "difference")),
            _ends(given(pair, "interval_low"), given(pair, "interval_high")),
            Text(shown.get(verdict, verdict), style=_STYLES.get(verdict, "")),
            number(given(pair, "cohens_d"), 3),
            number(given(pair, "hedges_g"), 3),
            number(given(pair, "probability_of_improvement"), 3),
            number(given(pair, "correlation"), 3),
            number(given(pair, "p_value"), 3),
            number(given(pair, "adjusted_p_value"), 3),
        )
    print_table(rows, console)


def _ends(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{number(low)}, {number(high)}]"
