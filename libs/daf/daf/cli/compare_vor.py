"""`daf compare --vor`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from daf.cli.evaluation_display import tell_forfeits
from daf.cli.play_teams import TeamRequest, episodes_of
from daf.cli.session import print_json
from daf.client import Client
from daf.evaluations import forfeit_reasons
from daf.render_scoring import print_vor, write_vor_csv
from daf.vor import compute_vor, pickup_config


def compare_vor(client: Client, asked: TeamRequest, mode: str) -> None:
    """Prints what the first policy is worth in teams with the others.

    Args:
        client: where.
        asked: what is asked for.
        mode: on which maps it is played, if it is; see `daf.vor.VOR_MODES`.
    """
    evaluation = episodes_of(client, asked, lambda config: pickup_config(config, mode))
    report = compute_vor(client, evaluation, 0, asked.metric, asked.confidence)
    if asked.json:
        print_json({"vor": asdict(report)})
    elif asked.csv:
        write_vor_csv(report)
    else:
        print_vor(report)
    if report.warnings:
        tell_forfeits(evaluation.name, forfeit_reasons(client, evaluation))
    if any(vor.overall is None for vor in report.missions):
        raise typer.Exit(1)  # there is nothing to go by
