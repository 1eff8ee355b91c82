"""Cross-play: how well every two policies do in one team, and who is the best partner."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daf.client import Client
from daf.comparison_results import given, labels_of_missions
from daf.config import DAFEvaluationConfig
from daf.connection import given_or_connected
from daf.sections import EVALUATION_SEED
from daf.team_evaluations import (
    SCORING_SECONDS,
    evaluation_warnings,
    find_evaluation,
    labels_of,
    play_teams,
    team_config,
)
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_protos.statistics.v1.scoring_service_pb2 import (
    ComputeCrossPlayRequest,
    ComputeCrossPlayResponse,
    CrossPlayCell,
    CrossPlayRank,
)

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class CrossPlayCellResult:
    """Two policies in one team, half of the seats each; or one in all seats. None where nothing can be computed."""

    first: str
    second: str
    team_mean: float | None
    team_interval: tuple[float, float] | None
    first_mean: float | None
    second_mean: float | None
    gain: float | None
    """The team's mean minus the mean of the two policies' self-play on the same seeds."""
    gain_interval: tuple[float, float] | None
    episodes: int
    """Those that count and are no copies."""
    copies: int


@dataclass(frozen=True)
class CrossPlayRankResult:
    """A policy's place by the mean of the teams that it shares with each of the others."""

    policy: str
    mean: float | None
    interval: tuple[float, float] | None
    best_rank: int
    worst_rank: int


@dataclass(frozen=True)
class MissionCrossPlayResult:
    """Cross-play on one mission."""

    mission: str
    cells: Sequence[CrossPlayCellResult]
    """Every two policies, and each with itself."""
    ranking: Sequence[CrossPlayRankResult]
    """Best first."""

    def cell(self, first: str, second: str) -> CrossPlayCellResult:
        """Two policies, by their labels, in either order.

        Raises:
            KeyError: there is no such policy.
        """
        for cell in self.cells:
            if {cell.first, cell.second} == {first, second}:
                return cell
        raise KeyError(f"{first} and {second}")


@dataclass(frozen=True)
class CrossPlayReport:
    """Who can work with whom."""

    evaluation: str
    """Resource name, by which the report can be made again."""
    policies: Sequence[str]
    metric: str
    confidence: float
    """Level of all intervals and of the ranges of places."""
    missions: Sequence[MissionCrossPlayResult]
    warnings: Sequence[str]
    """What a reader must know: copies, forfeits, missing pairs."""

    def print_summary(self, console: Console | None = None) -> None:
        """Prints the matrix of teams, the gains and the ranking of each mission."""
        from daf.render_scoring import print_cross_play

        print_cross_play(self, console)

    def save_json(self, path: str | Path) -> None:
        """Writes everything to a JSON file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def daf_cross_play(
    policies: Sequence[Any],
    missions: Sequence[Any],
    episodes_per_mission: int = 20,
    *,
    seed: int = EVALUATION_SEED,
    metric: str = "reward",
    confidence: float = 0.95,
    code: Sequence[str | Path] = (),
    client: Client | None = None,
    on_change: Callable[[Evaluation], None] = lambda _: None,
) -> CrossPlayReport:
    """Lets each policy play alone and every two of them in one team, and says who works well with whom.

    Args:
        policies: as for `daf_compare_policies`.
        missions: as for `daf_compare_with_vor`.
        episodes_per_mission: of each team.
        seed: of the first episode; the others follow, the same for all teams.
        metric: `reward`, or an agent's or the game's statistic; higher is better.
        confidence: level of the intervals and of the ranges of places.
        code: files and folders of the user's own code.
        client: where to play; as for `daf_compare_policies`.
        on_change: told twice a second how far the episodes are.

    Raises:
        ComparisonFailed: the episodes could not be played; a RuntimeError.
        DafError: something in it is not known or refused.
        ValueError: an argument cannot be used.
    """
    config = pairs_config(
        team_config(
            "cross-play", policies, missions, episodes=episodes_per_mission, seed=seed, metric=metric, code=code
        )
    )
    with given_or_connected(client) as connected:
        return compute_cross_play(connected, play_teams(connected, config, on_change), metric, confidence)


def daf_get_cross_play(
    evaluation: str, *, metric: str = "reward", confidence: float = 0.95, client: Client | None = None
) -> CrossPlayReport:
    """Cross-play of an evaluation that was played before, by its name.

    Raises:
        NotFound: there is none.
        InvalidArgument: there is no such metric; lists those that there are.
    """
    with given_or_connected(client) as connected:
        return compute_cross_play(connected, find_evaluation(connected, evaluation), metric, confidence)


def pairs_config(config: DAFEvaluationConfig) -> DAFEvaluationConfig:
    """An evaluation, played by every two of its policies instead."""
    return config.model_copy(update={"team": "pairs"})


def compute_cross_play(client: Client, evaluation: Evaluation, metric: str, confidence: float) -> CrossPlayReport:
    """Cross-play of an evaluation that was played.

    Raises:
        InvalidArgument: there is no such metric; lists those that there are.
    """
    request = ComputeCrossPlayRequest(evaluation=evaluation.name, metric=Metric(name=metric), confidence=confidence)
    response: ComputeCrossPlayResponse = client.scoring.ComputeCrossPlay(request, timeout=SCORING_SECONDS)
    labels = labels_of(evaluation)
    called = labels_of_missions([found.mission for found in response.missions])
    return CrossPlayReport(
        evaluation.name,
        labels,
        metric,
        confidence,
        [
            MissionCrossPlayResult(
                called[found.mission],
                [_cell_result(cell, labels) for cell in found.cells],
                [_rank_result(rank, labels) for rank in found.ranking],
            )
            for found in response.missions
        ],
        [*evaluation_warnings(client, evaluation), *response.warnings],
    )


def _cell_result(cell: CrossPlayCell, labels: Sequence[str]) -> CrossPlayCellResult:
    return CrossPlayCellResult(
        labels[cell.first],
        labels[cell.second],
        given(cell, "team_mean"),
        (cell.team_low, cell.team_high) if cell.HasField("team_low") else None,
        given(cell, "first_mean"),
        given(cell, "second_mean"),
        given(cell, "cross_play_gain"),
        (cell.gain_low, cell.gain_high) if cell.HasField("gain_low") else None,
        cell.episodes,
        cell.copies,
    )


def _rank_result(rank: CrossPlayRank, labels: Sequence[str]) -> CrossPlayRankResult:
    return CrossPlayRankResult(
        labels[rank.policy],
        given(rank, "mean"),
        (rank.low, rank.high) if rank.HasField("low") else None,
        rank.best_rank,
        rank.worst_rank,
    )
