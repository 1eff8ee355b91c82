"""`daf compare --cross-play`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from daf.cli.evaluation_display import tell_forfeits
from daf.cli.play_teams import TeamRequest, episodes_of
from daf.cli.session import print_json
from daf.client import Client
from daf.cross_play import compute_cross_play, pairs_config
from daf.evaluations import forfeit_reasons
from daf.render_scoring import print_cross_play, write_cross_play_csv


def compare_cross_play(client: Client, asked: TeamRequest) -> None:
    """Prints how well every two policies do in one team, and a ranking."""
    evaluation = episodes_of(client, asked, pairs_config)
    report = compute_cross_play(client, evaluation, asked.metric, asked.confidence)
    if asked.json:
        print_json({"cross_play": asdict(report)})
    elif asked.csv:
        write_cross_play_csv(report)
    else:
        print_cross_play(report)
    if report.warnings:
        tell_forfeits(evaluation.name, forfeit_reasons(client, evaluation))
    if any(rank.mean is None for found in report.missions for rank in found.ranking):
        raise typer.Exit(1)  # a policy has no team to be ranked by
