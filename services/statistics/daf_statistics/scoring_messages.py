"""Requests for scores of teams, checked; and the scores for the wire."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from daf_common.errors import InvalidArgument, Violation
from daf_protos.statistics.v1 import scoring_service_pb2 as pb
from daf_statistics import convert
from daf_statistics.aggregation import Aggregation
from daf_statistics.cross_play import CrossPlayCell, MissionCrossPlay
from daf_statistics.design import MAX_ALPHA, MIN_ALPHA
from daf_statistics.episodes import Source
from daf_statistics.teams import Interval
from daf_statistics.vor import MissionVor, VorScenario
from daf_statistics.weighted_scores import WeightedScore

DEFAULT_CONFIDENCE = 0.95

type Request = pb.ComputeVorRequest | pb.ComputeWeightedScoresRequest | pb.ComputeCrossPlayRequest


def metric_of(request: Request) -> tuple[str, Aggregation]:
    """What counts, of a request that is checked whole.

    Raises:
        InvalidArgument: names all fields that are wrong.
    """
    violations: list[Violation] = []
    try:
        convert.evaluation_name(request.evaluation, "evaluation")
    except InvalidArgument as error:
        violations += error.violations
    metric = Source.REWARD.value, Aggregation.MEAN
    if request.HasField("metric"):
        try:
            metric = convert.metric_of(request.metric)
        except InvalidArgument as error:
            violations += error.violations
    if request.confidence and not 1 - MAX_ALPHA <= request.confidence <= 1 - MIN_ALPHA:  # also true of NaN
        message = f"{request.confidence:g} is not between {1 - MAX_ALPHA:g} and {1 - MIN_ALPHA:g}"
        violations.append(Violation("confidence", message))
    if isinstance(request, pb.ComputeVorRequest):
        if request.candidate < 0:
            violations.append(Violation("candidate", f"{request.candidate} is negative: policies are numbered from 0"))
        if metric[1] is not Aggregation.MEAN:
            message = "different numbers of seats are compared, of which only the mean can be"
            violations.append(Violation("metric.aggregation", message))
    if violations:
        raise InvalidArgument.of(violations)
    return metric


def vor_response(missions: Iterable[MissionVor], warnings: Sequence[str]) -> pb.ComputeVorResponse:
    """The value over replacement for the wire."""
    return pb.ComputeVorResponse(missions=[_vor_message(vor) for vor in missions], warnings=warnings)


def weighted_response(scores: Iterable[WeightedScore]) -> pb.ComputeWeightedScoresResponse:
    """Weighted scores for the wire."""
    return pb.ComputeWeightedScoresResponse(scores=[_score_message(score) for score in scores])


def cross_play_response(missions: Iterable[MissionCrossPlay], warnings: Sequence[str]) -> pb.ComputeCrossPlayResponse:
    """Cross-play for the wire."""
    return pb.ComputeCrossPlayResponse(
        missions=[_cross_play_message(mission) for mission in missions], warnings=warnings
    )


def _vor_message(vor: MissionVor) -> pb.MissionVor:
    replacement_low, replacement_high = _ends(vor.replacement_interval)
    overall_low, overall_high = _ends(vor.overall_interval)
    return pb.MissionVor(
        mission=vor.mission,
        pinned=vor.pinned,
        replacement_mean=vor.replacement_mean,
        replacement_low=replacement_low,
        replacement_high=replacement_high,
        scenarios=[_scenario_message(scenario) for scenario in vor.scenarios],
        overall=vor.overall,
        overall_low=overall_low,
        overall_high=overall_high,
        seeds=vor.seeds,
    )


def _scenario_message(scenario: VorScenario) -> pb.VorScenario:
    low, high = _ends(scenario.interval)
    return pb.VorScenario(
        candidate_seats=scenario.candidate_seats,
        pool_seats=scenario.pool_seats,
        candidate_mean=scenario.candidate_mean,
        value_over_replacement=scenario.value_over_replacement,
        low=low,
        high=high,
        episodes=scenario.episodes,
        copies=scenario.copies,
    )


def _score_message(score: WeightedScore) -> pb.WeightedScore:
    low, high = _ends(score.interval)
    return pb.WeightedScore(
        policy=score.policy,
        score=score.score,
        low=low,
        high=high,
        episodes=score.episodes,
        mean_share=score.mean_share,
    )


def _cross_play_message(found: MissionCrossPlay) -> pb.MissionCrossPlay:
    message = pb.MissionCrossPlay(mission=found.mission, cells=[_cell_message(cell) for cell in found.cells])
    for rank in found.ranking:
        low, high = _ends(rank.interval)
        message.ranking.add(
            policy=rank.policy,
            mean=rank.mean,
            low=low,
            high=high,
            best_rank=rank.best_rank,
            worst_rank=rank.worst_rank,
        )
    return message


def _cell_message(cell: CrossPlayCell) -> pb.CrossPlayCell:
    team_low, team_high = _ends(cell.team_interval)
    gain_low, gain_high = _ends(cell.gain_interval)
    return pb.CrossPlayCell(
        first=cell.first,
        second=cell.second,
        team_mean=cell.team_mean,
        team_low=team_low,
        team_high=team_high,
        first_mean=cell.first_mean,
        second_mean=cell.second_mean,
        cross_play_gain=cell.gain,
        gain_low=gain_low,
        gain_high=gain_high,
        episodes=cell.episodes,
        copies=cell.copies,
    )


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return interval or (None, None)
