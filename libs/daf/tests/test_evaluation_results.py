"""What an evaluation came to: by mission and team, as a table, as CSV, as rows of episodes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from daf.cli.evaluation_display import show_evaluation
from daf.convert.metrics import metric_message
from daf.episode_rows import rows_of
from daf.evaluation_results import EvaluationResult, PartScore, mission_names, part_scores
from daf.render_evaluation import CSV_COLUMNS, print_evaluation, write_csv
from daf.results import ScoreResult
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation, EvaluationSpec, Scenario, Team
from daf_protos.statistics.v1.episode_pb2 import Episode, PolicyLatency, Statistics
from daf_protos.statistics.v1.statistics_service_pb2 import (
    Latency,
    PolicySummary,
    ScenarioSummary,
    SummarizeEvaluationResponse,
)

ARENA = Mission(name="arena", cogs=2)


def evaluation(
    scenarios: list[Scenario], team: Team.ValueType = evaluation_pb2.TEAM_SOLO, missions: int = 1
) -> Evaluation:
    return Evaluation(
        name="evaluations/e",
        spec=EvaluationSpec(
            policies=[Policy(label="good"), Policy(label="bad")],
            missions=[ARENA, Mission(name="village")][:missions],
            episodes=2,
            team=team,
        ),
        state=evaluation_pb2.EVALUATION_STATE_SUCCEEDED,
        scenarios=scenarios,
        digest="ab" * 32,
    )


SOLO = [Scenario(mission=m, policies=[p], seats=[2]) for m in range(2) for p in range(2)]
PAIRS = [
    Scenario(policies=[0], seats=[2]),
    Scenario(policies=[1], seats=[2]),
    Scenario(policies=[0, 1], seats=[1, 1]),
]


def summary(policy: int, *values: list[float], scenarios: Sequence[int] = (), **fields: Any) -> PolicySummary:
    """With the values of each scenario."""
    everything = [value for part in values for value in part]
    parts = [
        ScenarioSummary(scenario=number, episodes=len(part), mean=math.fsum(part) / len(part), interval_high=9.5)
        for number, part in zip(scenarios, values, strict=False)
    ]
    mean = math.fsum(everything) / len(everything)
    return PolicySummary(
        policy=policy, episodes=len(everything), values=everything, mean=mean, scenarios=parts, **fields
    )


def result(of: Evaluation, policies: list[PolicySummary], **fields: Any) -> EvaluationResult:
    parts = part_scores(of, policies)
    answer = SummarizeEvaluationResponse(policies=policies, **fields)
    return EvaluationResult(of, metric_message("reward"), answer, parts)


def printed(of: EvaluationResult, **options: Any) -> list[str]:
    console = Console(width=200, file=io.StringIO(), record=True)
    print_evaluation(of, console=console, **options)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def test_scores_are_split_by_mission_where_there_are_several() -> None:
    policies = [summary(0, [1, 3], [10, 20], scenarios=[0, 2]), summary(1, [0, 0], [1, 1], scenarios=[1, 3])]
    assert result(evaluation(SOLO, missions=2), policies).parts == [
        PartScore(policy, mission, "", ScoreResult(mean, None, None, 9.5, 2), 0)
        for policy, mission, mean in [(0, "arena", 2), (0, "village", 15), (1, "arena", 0), (1, "village", 1)]
    ]


def test_scores_of_cross_play_are_split_by_team() -> None:
    policies = [summary(0, [1, 3], [5, 9], scenarios=[0, 2]), summary(1, [0, 2], [4, 4], scenarios=[1, 2])]
    policies[0].scenarios[1].standard_error = 2
    policies[0].scenarios[1].interval_low = 4.5
    found = result(evaluation(PAIRS, evaluation_pb2.TEAM_PAIRS), policies)
    assert [(part.team, part.policy, part.score.mean) for part in found.parts] == [
        ("2 good", 0, 2.0),
        ("1 good, 1 bad", 0, 7.0),
        ("2 bad", 1, 1.0),
        ("1 good, 1 bad", 1, 4.0),
    ]
    assert "arena 1 good, 1 bad good 7 ± 2 [4.5, 9.5] 2" in printed(found)


def test_one_mission_and_one_team_have_no_parts() -> None:
    assert result(evaluation(SOLO[:2]), [summary(0, [1, 3]), summary(1, [1, 3])]).parts == []


def test_missions_of_one_name_are_told_apart_by_what_changes_them() -> None:
    spec = EvaluationSpec(missions=[ARENA, Mission(name="arena", cogs=4), Mission(name="village"), ARENA])
    assert mission_names(spec) == ["arena, cogs 2", "arena, cogs 4", "village", "arena, cogs 2"]


def test_the_table_shows_copies_forfeits_and_latency_where_there_are_any() -> None:
    latency = Latency(steps=9, median_seconds=0.0012, p99_seconds=0.25)
    plain = result(evaluation(SOLO[:2]), [summary(0, [1, 3], interval_low=0.5, interval_high=3.5, standard_error=0.5)])
    full = result(evaluation(SOLO[:2]), [summary(0, [1, 3], copies=1, forfeits=2, latency=latency)], approximate=True)
    assert printed(plain)[:2] == ["policy reward 95 % interval episodes", "good 2 ± 0.5 [0.5, 3.5] 2"]
    assert printed(full, latency=True)[:2] == [
        "policy reward 95 % interval episodes copies forfeited median ms p99 ms",
        "good 2 - 2 1 2 1.2 250",
    ]
    assert any("played fast" in line for line in printed(full))
    assert not any("played fast" in line for line in printed(plain))


def test_a_policy_without_a_seat_is_said_to_have_none() -> None:
    lines = printed(result(evaluation(SOLO[:2]), [summary(0, [1, 3])]))
    assert "Note: bad has no seat, so it did not play." in lines
    everybody = result(evaluation(SOLO[:2]), [summary(0, [1, 3]), summary(1, [1, 3])])
    assert not any("no seat" in line for line in printed(everybody))


def test_what_is_not_all_played_says_how_much_is() -> None:
    running = evaluation(SOLO[:2])
    running.state, running.done_episodes, running.total_episodes = evaluation_pb2.EVALUATION_STATE_RUNNING, 1, 2000
    assert printed(result(running, [summary(0, [1])]))[-1].startswith("evaluations/e, 1 of 2,000 episodes, digest ab")
    assert "2,000" not in printed(result(evaluation(SOLO[:2]), [summary(0, [1, 3])]))[-1]


def test_csv_has_a_row_a_policy_and_mission() -> None:
    file = io.StringIO()
    policies = [summary(0, [0.1, 0.3], [1, 2], scenarios=[0, 2]), summary(1, [0, 0], [1, 1], scenarios=[1, 3])]
    write_csv(result(evaluation(SOLO, missions=2), policies), file)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [(row["policy"], row["mission"], row["episodes"]) for row in rows] == [
        ("good", "", "4"),
        ("bad", "", "4"),
        ("good", "arena", "2"),
        ("good", "village", "2"),
        ("bad", "arena", "2"),
        ("bad", "village", "2"),
    ]
    assert rows[2]["mean"] == repr(math.fsum([0.1, 0.3]) / 2)


EPISODE = Episode(
    evaluation="evaluations/e",
    scenario=2,
    index=1,
    seed=8,
    seats=[0, 1, 0],
    rewards=[1.0, 2.0, 4.0],
    action_timeouts=[0, 3, 0],
    steps=9,
    max_steps=10,
    agent_statistics=[Statistics(values={"heart": 2.0}), Statistics(), Statistics(values={"ore": 1.0})],
    game_statistics=Statistics(values={"token": 5.0}),
    forfeits=[Failure(subject="1", reason="POLICY_FAILED", message="it raised")],
    latencies=[PolicyLatency(policy=0, steps=4, total_seconds=0.002, longest_seconds=0.001)],
    versions={"cogames": "0.18.0"},
    digest="cd" * 32,
)


def test_a_row_of_an_episode_has_means_over_the_seats_of_each_policy() -> None:
    (row,) = rows_of(evaluation(PAIRS), EPISODE, "episode")
    assert (row["seats"], row["rewards"], row["action_timeouts"]) == ([0, 1, 0], [1.0, 2.0, 4.0], [0, 3, 0])
    assert (row["reward[good]"], row["reward[bad]"]) == (2.5, 2.0)
    assert (row["agent.heart[good]"], row["agent.ore[good]"]) == (1.0, 0.5)
    assert "agent.heart[bad]" not in row
    assert (row["step_ms[good]"], row["longest_step_ms[good]"]) == (0.5, 1.0)
    assert row["forfeits"] == ["bad: POLICY_FAILED: it raised"]
    assert (row["game.token"], row["version.cogames"], row["team"]) == (5.0, "0.18.0", "1 good, 1 bad")
    assert (row["cogs"], row["map_seed"], row["seed"]) == (3, None, 8)


def test_a_row_of_a_seat_is_that_of_its_agent() -> None:
    rows = list(rows_of(evaluation(PAIRS), EPISODE, "seat"))
    assert [(row["seat"], row["policy"], row["reward"], row["forfeited"]) for row in rows] == [
        (0, "good", 1.0, False),
        (1, "bad", 2.0, True),
        (2, "good", 4.0, False),
    ]
    assert [row.get("agent.heart") for row in rows] == [2.0, None, None]
    assert [row["action_timeout"] for row in rows] == [0, 3, 0]
    assert [row.get("step_ms") for row in rows] == [0.5, None, 0.5]


def test_progress_is_told_with_pace_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 1000, 10))
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr("daf.cli.evaluation_display.time", clock)
    seen = [Evaluation(name="evaluations/e", total_episodes=100, done_episodes=done) for done in (0, 0, 10, 30, 100)]
    assert show_evaluation(iter(seen)) is seen[-1]
    assert capsys.readouterr().out.splitlines() == [
        "evaluations/e unspecified, 0/100 episodes",
        "evaluations/e unspecified, 0/100 episodes",
        "evaluations/e unspecified, 10/100 episodes",
        "evaluations/e unspecified, 30/100 episodes, 2 episodes/s, 35 s left",
        "evaluations/e unspecified, 100/100 episodes, 4.5 episodes/s",
    ]
