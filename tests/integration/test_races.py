"""Races on the whole stack with stand-in compute: looks, copies, interruptions; and maps that were trained on."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from daf.client import Client
from daf.comparison import daf_compare_policies
from daf.comparisons import ComparisonFailed
from daf.config import DAFComparisonConfig
from daf.follow_runs import follow_job
from daf.races import MAX_ID, PolicyRace, look_spec, play_race
from daf_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.evaluation.v1.evaluation_pb2 import EVALUATION_STATE_FAILED, Evaluation
from daf_protos.evaluation.v1.evaluation_service_pb2 import (
    CreateEvaluationRequest,
    GetEvaluationRequest,
    ListEvaluationsRequest,
)
from daf_protos.statistics.v1 import comparison_pb2
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_protos.training.v1.training_service_pb2 import CreateTrainingJobRequest
from tests.requests import MISSION

SEED = 3_000_000_000


@pytest.fixture(scope="module")
def checkpoints(client: Client) -> dict[str, str]:
    """What was trained with three learning rates; with stand-in compute, 0.003 is the best by far."""
    found = {}
    for name, rate in (("best", 0.003), ("good", 0.001), ("bad", 0.1)):
        spec = TrainingSpec(
            policy_class=PolicyClass(class_path="lstm"), missions=[MISSION], agent_steps=1000, seed=1, workers=1
        )
        spec.trainer["learning_rate"].real = rate
        request = CreateTrainingJobRequest(request_id=name, job_id=f"race-{name}", spec=spec)
        client.training.CreateTrainingJob(request)
        *_, job = follow_job(client, f"trainingJobs/race-{name}")
        found[name] = f"job/race-{name}/checkpoints/{job.checkpoint.update}"
    return found


def config(policies: list[str], **fields: Any) -> DAFComparisonConfig:
    return DAFComparisonConfig.model_validate(
        {"name": "race", "policies": policies, "missions": [MISSION.name], "episodes_per_mission": 40, **fields}
    )


def evaluation(client: Client, name: str) -> Evaluation:
    return client.evaluation.GetEvaluation(GetEvaluationRequest(name=name)).evaluation


def test_a_race_ends_when_one_is_left_and_plays_fewer_episodes(client: Client, checkpoints: dict[str, str]) -> None:
    seen: list[comparison_pb2.Comparison] = []

    made = play_race(client, config(list(checkpoints.values()), looks=4), on_look=seen.append, id="clear")

    assert made.name == "comparisons/clear"
    assert (made.race.over, list(made.race.racing)) == (True, [0])
    assert {(one.better, one.worse) for one in made.race.decisions} >= {(0, 1), (0, 2)}
    assert made.race.looks < 4
    played = [evaluation(client, f"evaluations/clear-l{look}") for look in range(1, made.race.looks + 1)]
    assert [(one.spec.seed, one.spec.episodes) for one in played] == [
        (SEED + 10 * look, 10) for look in range(made.race.looks)
    ]
    assert sum(one.total_episodes for one in played) < 3 * 40
    assert len(seen) == made.race.looks - 1
    for pair in made.pairs:
        assert pair.adjusted_p_value >= pair.p_value
    first = made.pairs[0]
    assert (first.verdict, first.first, first.second) == (comparison_pb2.VERDICT_FIRST_BETTER, 0, 1)
    assert "of 4" in first.sentence


def test_a_race_goes_on_where_it_was_interrupted(client: Client, checkpoints: dict[str, str]) -> None:
    asked = config([checkpoints["best"], checkpoints["bad"]], looks=2, episodes_per_mission=4)

    class Interrupted(Exception):
        pass

    def interrupt(_: comparison_pb2.Comparison) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        play_race(client, asked, on_look=interrupt, id="again")
    before = evaluation(client, "evaluations/again-l1")
    made = play_race(client, asked, id="again")
    same = play_race(client, asked, id="again")

    after = evaluation(client, "evaluations/again-l1")
    assert (after.create_time, after.digest) == (before.create_time, before.digest)
    assert made == same
    assert (made.race.looks, made.race.over) == (2, True)
    assert made.pairs[0].pairs == 4
    with pytest.raises(AlreadyExists):
        play_race(client, config([checkpoints["best"], checkpoints["good"]], looks=2), id="again")


def test_a_race_is_found_again_when_its_requests_are_forgotten(client: Client) -> None:
    asked = config(["starter", "noop"], looks=2, episodes_per_mission=4)
    spec = look_spec(PolicyRace(client, asked, "later").comparison.spec, 1, 2, [0, 1])
    request = CreateEvaluationRequest(request_id="long ago", evaluation_id="later-l1", spec=spec)
    client.evaluation.CreateEvaluation(request)

    made = play_race(client, asked, id="later")

    assert [source.evaluation for source in made.policies[0].episodes.sources] == [
        "evaluations/later-l1",
        "evaluations/later-l2",
    ]
    assert (spec.seed, spec.episodes) == (SEED, 2)


def test_policies_that_do_not_differ_race_to_the_last_look_undecided(client: Client) -> None:
    report = daf_compare_policies(["starter", "noop"], [MISSION.name], 6, looks=3, client=client, name="even")

    assert report.comparison is not None
    race = report.comparison.race
    assert (race.looks, race.over, list(race.racing), list(race.decisions)) == (3, True, [0, 1], [])
    assert report.comparisons[0].verdict == "undecided"
    assert (report.episodes_played, report.episodes_saved) == (12, 0)
    again = report.compute_pairwise_comparisons(0.1)
    assert report.comparison.design.looks == 3
    assert [one.verdict for one in again] == ["undecided"]


def test_a_look_that_cannot_be_played_ends_the_race(client: Client, checkpoints: dict[str, str]) -> None:
    race = PolicyRace(client, config([checkpoints["best"], checkpoints["bad"]], looks=2), "failing")

    with pytest.raises(ComparisonFailed, match="failing-l1"):
        race.run(lambda name: Evaluation(name=name, state=EVALUATION_STATE_FAILED))


def test_wrong_races_are_refused_before_anything_is_played(client: Client) -> None:
    two = ["starter", "noop"]
    for fields, field in (
        ({"looks": 0}, "looks"),
        ({"looks": 51}, "looks"),
        ({"looks": 5, "episodes_per_mission": 4}, "looks"),
        ({"looks": 2, "baseline": "noop"}, "baseline"),
        ({"looks": 2, "family": "bh"}, "family"),
        ({"aggregation": "median"}, "aggregation"),
    ):
        with pytest.raises(ValueError, match=field):
            config(two, **fields)
    with pytest.raises(InvalidArgument, match="name"):
        play_race(client, config(two, looks=2), id="x" * (MAX_ID + 1))
    with pytest.raises(FailedPrecondition, match="in 2 looks"):
        play_race(client, config(two, looks=2, episodes_per_mission=4, strict=True), id="short")
    names = {one.name for one in client.evaluation.ListEvaluations(ListEvaluationsRequest()).evaluations}
    assert not any("short" in name or "xxx" in name for name in names)


def test_maps_that_were_trained_on_are_warned_of_and_refused_if_strict(
    client: Client, checkpoints: dict[str, str]
) -> None:
    policies = [checkpoints["best"], "noop"]

    with pytest.warns(
        UserWarning, match="may have been trained on these maps: seed 2 is one of trainingJobs/race-best"
    ):
        daf_compare_policies(policies, [MISSION.name], 6, seed=2, client=client)
    with pytest.raises(FailedPrecondition, match="2164260864") as refused:
        daf_compare_policies(policies, [MISSION.name], 6, seed=2, strict=True, client=client)
    assert refused.value.reason == "TRAINED_MAPS"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        daf_compare_policies(policies, [MISSION.name], 6, strict=True, client=client)
