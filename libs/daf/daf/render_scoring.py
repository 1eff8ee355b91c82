"""Scores of teams as people read them: numbers of episodes and intervals beside every value."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from daf.cross_play import CrossPlayReport, MissionCrossPlayResult
from daf.render import number
from daf.tables import print_table, table
from daf.vor import MissionVorResult, VorReport

VOR_COLUMNS = (
    "mission",
    "candidate_seats",
    "pool_seats",
    "episodes",
    "copies",
    "score",
    "score_low",
    "score_high",
    "vor",
    "vor_low",
    "vor_high",
)
"""One row a scenario; `candidate_seats` is 0 for the pool alone, and `all` for the overall value."""

CROSS_PLAY_COLUMNS = (
    "mission",
    "first",
    "second",
    "episodes",
    "copies",
    "team_mean",
    "team_low",
    "team_high",
    "first_mean",
    "second_mean",
    "gain",
    "gain_low",
    "gain_high",
)
"""One row for every two policies; equal ones are self-play."""

type Interval = tuple[float, float] | None


def print_vor(report: VorReport, console: Console | None = None) -> None:
    """Prints a value over replacement."""
    console = console or Console()
    console.print(Text(f"Candidate: {report.candidate}. Pool: {', '.join(report.pool)}."), soft_wrap=True)
    for vor in report.missions:
        console.print()
        _print_mission_vor(report, vor, console)
    console.print()
    rows = table("policy", f"{report.metric} weighted by seats", _level(report.confidence), "n", "share where it sits")
    for label, score in report.weighted_scores.items():
        values = number(score.score), _ends(score.interval), str(score.episodes)
        rows.add_row(label, *values, f"{score.mean_share:.0%}")
    print_table(rows, console)
    _print_end(report.warnings, f"{report.evaluation}: `daf compare --vor {report.evaluation}`", console)


def write_vor_csv(report: VorReport, file: TextIO = sys.stdout) -> None:
    """Writes the rows of VOR_COLUMNS."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(VOR_COLUMNS)
    for vor in report.missions:
        for one in vor.scenarios:
            team = [one.candidate_seats, _mix(report, one.pool_seats), one.episodes, one.copies]
            values = [one.candidate_mean, None, None, one.value_over_replacement, *_two(one.interval)]
            writer.writerow([vor.mission, *team, *_cells(values)])
        values = [vor.replacement_mean, *_two(vor.replacement_interval), None, None, None]
        writer.writerow([vor.mission, 0, "", "", "", *_cells(values)])
        values = [None, None, None, vor.overall, *_two(vor.overall_interval)]
        writer.writerow([vor.mission, "all", "", "", "", *_cells(values)])


def print_cross_play(report: CrossPlayReport, console: Console | None = None) -> None:
    """Prints the matrix, the pairs and the ranking of each mission."""
    console = console or Console()
    for found in report.missions:
        _print_mission_cross_play(report, found, console)
        console.print()
    _print_end(report.warnings, f"{report.evaluation}: `daf compare --cross-play {report.evaluation}`", console)


def write_cross_play_csv(report: CrossPlayReport, file: TextIO = sys.stdout) -> None:
    """Writes the rows of CROSS_PLAY_COLUMNS."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CROSS_PLAY_COLUMNS)
    for found in report.missions:
        for cell in found.cells:
            values = [
                *(cell.team_mean, *_two(cell.team_interval), cell.first_mean, cell.second_mean),
                *(cell.gain, *_two(cell.gain_interval)),
            ]
            writer.writerow([found.mission, cell.first, cell.second, cell.episodes, cell.copies, *_cells(values)])


def _print_mission_vor(report: VorReport, vor: MissionVorResult, console: Console) -> None:
    level, short = _level(report.confidence), vor.mission.rpartition(".")[2]
    console.print(Text(vor.mission, style="italic"))
    rows = table("scenario", "candidate", "pool mix", "n", report.metric, "VOR", level)
    for one in vor.scenarios:
        rows.add_row(
            f"{short}-c{one.candidate_seats}-r{sum(one.pool_seats.values())}",
            str(one.candidate_seats),
            _mix(report, one.pool_seats),
            str(one.episodes),
            number(one.candidate_mean),
            number(one.value_over_replacement),
            _ends(one.interval),
        )
    print_table(rows, console)
    for what, value, interval in (
        ("Replacement baseline", vor.replacement_mean, vor.replacement_interval),
        ("Overall VOR", vor.overall, vor.overall_interval),
    ):
        seeds = f", {level} {_ends(interval)} over {vor.seeds} seeds" if interval else ""
        console.print(Text(f"{what} {number(value)}{seeds}"), soft_wrap=True)


def _print_mission_cross_play(report: CrossPlayReport, found: MissionCrossPlayResult, console: Console) -> None:
    level = _level(report.confidence)
    console.print(Text(f"{found.mission}: {report.metric} of teams", style="italic"))
    means = {(cell.first, cell.second): cell.team_mean for cell in found.cells}
    matrix = table("", *report.policies)
    for first in report.policies:
        matrix.add_row(
            first, *(number(means.get((first, second), means.get((second, first)))) for second in report.policies)
        )
    print_table(matrix, console)
    console.print()
    pairs = table("pair", "n", "team", level, "of the first", "of the second", "gain", f"{level} of gain")
    for cell in found.cells:
        pairs.add_row(
            cell.first if cell.first == cell.second else f"{cell.first} + {cell.second}",
            str(cell.episodes),
            number(cell.team_mean),
            _ends(cell.team_interval),
            number(cell.first_mean),
            number(cell.second_mean),
            number(cell.gain),
            _ends(cell.gain_interval),
        )
    print_table(pairs, console)
    console.print()
    ranking = table("place", "policy", "with the others", level)
    for rank in found.ranking:
        best, worst = rank.best_rank, rank.worst_rank
        ranking.add_row(
            str(best) if best == worst else f"{best} to {worst}", rank.policy, number(rank.mean), _ends(rank.interval)
        )
    print_table(ranking, console)


def _print_end(warnings: Iterable[str], again: str, console: Console) -> None:
    for warning in warnings:
        console.print(Text(f"Note: {warning}", style="yellow"), soft_wrap=True)
    console.print(Text(f"{again} computes it again", style="dim"), soft_wrap=True)


def _mix(report: VorReport, pool_seats: Mapping[str, int]) -> str:
    return "/".join(str(pool_seats.get(label, 0)) for label in report.pool)


def _level(confidence: float) -> str:
    return f"{100 * confidence:g} % interval"


def _ends(interval: Interval) -> str:
    return "-" if interval is None else f"[{number(interval[0])}, {number(interval[1])}]"


def _two(interval: Interval) -> tuple[float | None, float | None]:
    return interval or (None, None)


def _cells(values: Sequence[float | None]) -> list[str]:
    return ["" if value is None else repr(value) for value in values]
