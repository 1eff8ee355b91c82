"""Value over replacement: what a policy's seats score above what a pool scores that plays without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daf.client import Client
from daf.comparison_results import given, labels_of_missions
from daf.config import DAFEvaluationConfig
from daf.connection import given_or_connected
from daf.sections import EVALUATION_SEED
from daf.team_evaluations import SCORING_SECONDS, evaluation_warnings, labels_of, play_teams, team_config
from daf.weighted_scores import WeightedScoreResult, weighted_scores
from daf_common.errors import InvalidArgument
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_protos.statistics.v1.scoring_service_pb2 import ComputeVorRequest, ComputeVorResponse, MissionVor

if TYPE_CHECKING:
    from rich.console import Console

type VorMode = Literal["sampled", "cogames"]

VOR_MODES: tuple[VorMode, ...] = ("sampled", "cogames")


@dataclass(frozen=True)
class VorScenarioResult:
    """The candidate in so many seats, the pool in the others. None where something cannot be computed."""

    candidate_seats: int
    pool_seats: Mapping[str, int]
    """Seats of each policy of the pool, by its label."""
    candidate_mean: float | None
    value_over_replacement: float | None
    interval: tuple[float, float] | None
    episodes: int
    """Those that count."""
    copies: int
    """How many of them are copies of others."""


@dataclass(frozen=True)
class MissionVorResult:
    """What the candidate is worth on one mission. None where something cannot be computed."""

    mission: str
    pinned: bool
    """Whether all episodes were played on one map: then nothing has an interval."""
    replacement_mean: float | None
    replacement_interval: tuple[float, float] | None
    scenarios: Sequence[VorScenarioResult]
    """By the number of the candidate's seats, falling, without 0."""
    overall: float | None
    overall_interval: tuple[float, float] | None
    seeds: int
    """Seeds that all teams have played, copies of others left out."""


@dataclass(frozen=True)
class VorReport:
    """The value over replacement of one policy of an evaluation."""

    evaluation: str
    """Resource name, by which the report can be made again."""
    candidate: str
    pool: Sequence[str]
    metric: str
    confidence: float
    """Level of all intervals."""
    missions: Sequence[MissionVorResult]
    weighted_scores: Mapping[str, WeightedScoreResult]
    """Of all policies, by label: means over all teams, weighted by the share of the seats."""
    warnings: Sequence[str]
    """What a reader must know: copies, forfeits, missing teams."""

    @property
    def overall(self) -> float | None:
        """The overall value on the only mission.

        Raises:
            ValueError: there are several: look at `missions`.
        """
        if len(self.missions) != 1:
            raise ValueError(f"there are {len(self.missions)} missions, each with a value of its own")
        return self.missions[0].overall

    def print_summary(self, console: Console | None = None) -> None:
        """Prints scenarios, baseline and values with number of episodes and intervals."""
        from daf.render_scoring import print_vor

        print_vor(self, console)

    def save_json(self, path: str | Path) -> None:
        """Writes everything to a JSON file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def daf_compare_with_vor(
    candidate: Any,
    pool: Sequence[Any],
    missions: Sequence[Any],
    episodes_per_mission: int = 20,
    *,
    mode: VorMode = "sampled",
    seed: int = EVALUATION_SEED,
    metric: str = "reward",
    confidence: float = 0.95,
    code: Sequence[str | Path] = (),
    client: Client | None = None,
    on_change: Callable[[Evaluation], None] = lambda _: None,
) -> VorReport:
    """Plays CoGames' pickup and says what a policy is worth to a pool.

    Args:
        candidate: short name, class path, checkpoint (`job/NAME/checkpoints/best`), mapping, or CoGames' `PolicySpec`.
        pool: policies that it may replace, given alike.
        missions: names, or mappings such as `{"mission": ..., "cogs": 4}`; not the user's own, of which the number of
            seats is not known before they are played.
        episodes_per_mission: of each team; there is a team for every number of the candidate's seats, and one without.
        mode: `sampled` plays every episode on a map of its own, and values have intervals; `cogames` plays all on one,
            as `cogames pickup` does, and gives its values without intervals.
        seed: of the first episode; the others follow, the same for all teams.
        metric: `reward`, or an agent's or the game's statistic; higher is better.
        confidence: level of the intervals.
        code: files and folders of the user's own code.
        client: where to play; otherwise where the context in use says, else on the embedded stack, which is started
            if it does not run.
        on_change: told twice a second how far the episodes are.

    Raises:
        ComparisonFailed: the episodes could not be played; a RuntimeError.
        DafError: something in it is not known or refused.
        ValueError: an argument cannot be used.
    """
    config = pickup_config(
        team_config(
            "vor", [candidate, *pool], missions, episodes=episodes_per_mission, seed=seed, metric=metric, code=code
        ),
        mode,
    )
    with given_or_connected(client) as connected:
        return compute_vor(connected, play_teams(connected, config, on_change), 0, metric, confidence)


def pickup_config(config: DAFEvaluationConfig, mode: str) -> DAFEvaluationConfig:
    """An evaluation, played by pickup teams instead, on the maps of a mode: `cogames` pins those that are not pinned to
    the seed of the first episode, as `cogames.pickup.pickup` does.

    Raises:
        InvalidArgument: there is no such mode.
    """
    if mode not in VOR_MODES:
        raise InvalidArgument.field("mode", f"{mode[:40]!r} is not one of {', '.join(VOR_MODES)}")
    missions = config.missions
    if mode == "cogames":
        missions = [
            mission if mission.map_seed is not None else mission.model_copy(update={"map_seed": config.seed})
            for mission in missions
        ]
    return config.model_copy(update={"team": "pickup", "missions": missions})


def compute_vor(client: Client, evaluation: Evaluation, candidate: int, metric: str, confidence: float) -> VorReport:
    """The value over replacement of a policy of an evaluation that was played.

    Raises:
        InvalidArgument: there is no such metric or policy; lists those that there are.
    """
    request = ComputeVorRequest(
        evaluation=evaluation.name, candidate=candidate, metric=Metric(name=metric), confidence=confidence
    )
    response: ComputeVorResponse = client.scoring.ComputeVor(request, timeout=SCORING_SECONDS)
    labels = labels_of(evaluation)
    called = labels_of_missions([vor.mission for vor in response.missions])
    return VorReport(
        evaluation.name,
        labels[candidate],
        [label for number, label in enumerate(labels) if number != candidate],
        metric,
        confidence,
        [_mission_result(vor, called[vor.mission], labels) for vor in response.missions],
        weighted_scores(client, evaluation, metric, confidence),
        [*evaluation_warnings(client, evaluation), *response.warnings],
    )


def _mission_result(vor: MissionVor, called: str, labels: Sequence[str]) -> MissionVorResult:
    return MissionVorResult(
        called,
        vor.pinned,
        given(vor, "replacement_mean"),
        (vor.replacement_low, vor.replacement_high) if vor.HasField("replacement_low") else None,
        [
            VorScenarioResult(
                one.candidate_seats,
                {label: one.pool_seats[number] for number, label in enumerate(labels) if number in one.pool_seats},
                given(one, "candidate_mean"),
                given(one, "value_over_replacement"),
                (one.low, one.high) if one.HasField("low") else None,
                one.episodes,
                one.copies,
            )
            for one in vor.scenarios
        ],
        given(vor, "overall"),
        (vor.overall_low, vor.overall_high) if vor.HasField("overall_low") else None,
        vor.seeds,
    )
