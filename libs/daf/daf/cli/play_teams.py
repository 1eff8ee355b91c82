"""The episodes of teams that `daf compare --vor` and `--cross-play` score: played, or of an evaluation that was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daf.cli.evaluate import follow
from daf.cli.options import document_with
from daf.client import Client
from daf.comparisons import evaluation_config
from daf.config import DAFComparisonConfig, DAFEvaluationConfig
from daf.follow_runs import EVALUATION_ENDED
from daf.team_evaluations import find_evaluation, start_teams, succeeded
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation


@dataclass(frozen=True)
class TeamRequest:
    """What scores are asked for, and how they are printed."""

    source: str | DAFComparisonConfig
    """What to play, or the resource name of an evaluation, which is waited for."""
    metric: str
    alpha: float
    name: str
    """Id of what is played; otherwise one is made."""
    json: bool
    csv: bool

    @property
    def confidence(self) -> float:
        """Level of the intervals."""
        return 1 - self.alpha


def team_request(file: str, options: Mapping[str, Any], name: str, json: bool, csv: bool) -> TeamRequest:
    """What a command asks for.

    Args:
        file: an evaluation's resource name, a document's path, or neither.
        options: what is in place of the document's values, by key.
        name: see `TeamRequest`.
        json: see `TeamRequest`.
        csv: see `TeamRequest`.

    Raises:
        DocumentError: the file cannot be used.
        InvalidArgument: something is missing or wrong in the options.
    """
    if not file.startswith("evaluations/"):
        config = document_with(DAFComparisonConfig, Path(file) if file else None, options)
        return TeamRequest(config, config.metric, config.alpha, name, json, csv)
    alpha = DAFComparisonConfig.model_fields["alpha"].default if options["alpha"] is None else options["alpha"]
    return TeamRequest(file, options["metric"] or "reward", alpha, name, json, csv)


def episodes_of(
    client: Client, asked: TeamRequest, with_teams: Callable[[DAFEvaluationConfig], DAFEvaluationConfig]
) -> Evaluation:
    """An evaluation that has ended; one that is named may have been cancelled, and is scored by what was played.

    Args:
        client: where.
        asked: what is asked for.
        with_teams: makes the evaluation of a comparison, in which each policy plays alone, that of the teams.

    Raises:
        ComparisonFailed: the episodes could not be played.
        DafError: it is not there, or refused.
    """
    quiet = asked.json or asked.csv
    if isinstance(asked.source, str):
        evaluation = find_evaluation(client, asked.source)
        return evaluation if evaluation.state in EVALUATION_ENDED else follow(client, evaluation.name, quiet)
    created = start_teams(client, with_teams(evaluation_config(asked.source)), asked.name)
    return succeeded(follow(client, created.name, quiet))
