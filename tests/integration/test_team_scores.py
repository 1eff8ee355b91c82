"""Value over replacement, weighted scores and cross-play on the whole stack with stand-in compute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daf.client import Client
from daf.comparison import daf_compare_with_vor
from daf.config import DAFEvaluationConfig
from daf.cross_play import CrossPlayReport, daf_cross_play, daf_get_cross_play
from daf.evaluations import create_evaluation
from daf.follow_runs import follow_evaluation
from daf.scoring_analysis import daf_compute_vor, daf_compute_weighted_score
from daf.vor import VorReport
from daf_common.errors import InvalidArgument, NotFound
from daf_protos.evaluation.v1.evaluation_pb2 import EVALUATION_STATE_CANCELLED
from daf_protos.evaluation.v1.evaluation_service_pb2 import CancelEvaluationRequest
from tests.requests import MISSION

PLAYED = [{"mission": MISSION.name, "cogs": 3}]


@pytest.fixture(scope="module")
def vor(client: Client) -> VorReport:
    return daf_compare_with_vor("starter", ["random", "noop"], PLAYED, 4, client=client)


@pytest.fixture(scope="module")
def pairs(client: Client) -> CrossPlayReport:
    return daf_cross_play(["starter", "random", "noop"], PLAYED, 4, client=client)


def daf(address: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `daf compare`."""
    command = [str(Path(sys.executable).parent / "daf"), "compare", *arguments]
    environment = {**os.environ, "DAF_ADDRESS": address, "DAF_HOME": str(directory / "home"), "COLUMNS": "200"}
    return subprocess.run(
        command, check=False, env=environment, cwd=directory, capture_output=True, text=True, timeout=120
    )


def test_a_candidate_is_played_in_every_number_of_seats(vor: VorReport) -> None:
    (mission,) = vor.missions
    assert (vor.candidate, vor.pool) == ("starter", ["random", "noop"])
    assert [(one.candidate_seats, dict(one.pool_seats), one.episodes) for one in mission.scenarios] == [
        (3, {}, 4),
        (2, {"random": 1}, 4),
        (1, {"random": 1, "noop": 1}, 4),
    ]
    assert not mission.pinned
    assert vor.overall == mission.overall
    assert mission.overall is not None


def test_an_evaluation_is_scored_again_by_its_name(client: Client, vor: VorReport) -> None:
    again = daf_compute_vor(evaluation=vor.evaluation, client=client)
    by_id = daf_compute_vor(evaluation=vor.evaluation.partition("/")[2], confidence=0.5, client=client)
    other = daf_compute_vor(evaluation=vor.evaluation, candidate=2, client=client)

    assert again == vor
    assert (by_id.overall, by_id.confidence) == (vor.overall, 0.5)
    assert other.candidate == "noop"


def test_the_value_of_an_evaluation_is_that_of_its_numbers(vor: VorReport) -> None:
    (mission,) = vor.missions
    assert mission.replacement_mean is not None

    means = {one.candidate_seats: one.candidate_mean or 0.0 for one in mission.scenarios}

    assert daf_compute_vor(means, mission.replacement_mean) == pytest.approx(vor.overall)


def test_weighted_scores_of_an_evaluation_have_intervals(client: Client, vor: VorReport) -> None:
    scores = daf_compute_weighted_score(evaluation=vor.evaluation, client=client)

    assert scores == vor.weighted_scores
    assert list(scores) == ["starter", "random", "noop"]
    assert scores["starter"].episodes == 12
    assert scores["starter"].mean_share == pytest.approx((1 + 2 / 3 + 1 / 3) / 3)
    for score in scores.values():
        assert score.score is not None


def test_cross_play_has_every_pair_and_a_ranking(client: Client, pairs: CrossPlayReport) -> None:
    (mission,) = pairs.missions
    assert len(mission.cells) == 6
    assert mission.cell("noop", "starter") is mission.cell("starter", "noop")
    assert mission.cell("noop", "starter").episodes == 8
    assert {rank.policy for rank in mission.ranking} == {"starter", "random", "noop"}
    assert all(1 <= rank.best_rank <= rank.worst_rank <= 3 for rank in mission.ranking)
    assert daf_get_cross_play(pairs.evaluation, client=client) == pairs
    with pytest.raises(KeyError, match="idle"):
        mission.cell("noop", "idle")


def test_reports_are_saved_and_printed(
    vor: VorReport, pairs: CrossPlayReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vor.save_json(tmp_path / "out" / "vor.json")
    pairs.save_json(tmp_path / "out" / "pairs.json")
    vor.print_summary()
    pairs.print_summary()

    assert json.loads((tmp_path / "out" / "vor.json").read_text())["missions"][0]["overall"] == vor.overall
    assert len(json.loads((tmp_path / "out" / "pairs.json").read_text())["missions"][0]["cells"]) == 6
    shown = capsys.readouterr().out
    assert "Overall VOR" in shown
    assert "starter + noop" in shown


def test_a_comparison_document_is_played_by_teams(address: str, tmp_path: Path) -> None:
    (tmp_path / "comparison.yaml").write_text(
        f"policies: [starter, noop]\nmissions: [{{mission: {MISSION.name}, cogs: 2}}]\nepisodes_per_mission: 3\n"
        "alpha: 0.2\n"
    )

    done = daf(address, tmp_path, "comparison.yaml", "--vor", "--json", "--episodes", "2", "--name", "document")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["vor"]
    assert (report["evaluation"], report["confidence"]) == ("evaluations/document", 0.8)
    assert [one["episodes"] for one in report["missions"][0]["scenarios"]] == [2, 2]


def test_what_was_played_of_a_cancelled_evaluation_is_scored_with_a_warning(
    address: str, client: Client, tmp_path: Path
) -> None:
    config = DAFEvaluationConfig(policies=["starter", "noop"], missions=PLAYED, episodes=50_000, team="pickup")
    name = create_evaluation(client, config, "cancelled").name
    for evaluation in follow_evaluation(client, name):
        if evaluation.done_episodes:
            client.evaluation.CancelEvaluation(CancelEvaluationRequest(name=name))

    done = daf(address, tmp_path, "--vor", name, "--json")

    assert evaluation.state == EVALUATION_STATE_CANCELLED
    played, of, *_ = json.loads(done.stdout)["vor"]["warnings"][0].split()
    assert of == "of"
    assert 0 < int(played) < 200_000
    assert done.returncode == 1  # the pool alone comes last
    assert "No episode without the candidate counts, so there is no baseline." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--vor", "-p", "starter", "-m", MISSION.name], 2, "at least 2"),
        (["--vor", "-p", "starter", "-p", "noop", "-m", MISSION.name, "--vor-mode", "both"], 2, "sampled, cogames"),
        (["--vor", "-p", "starter", "-p", "noop", "-m", MISSION.name, "--metric", "heart"], 2, "'heart' is not known"),
        (["--vor", "-p", "starter", "-p", "noop", "-m", MISSION.name, "--margin", "1"], 2, "--margin: has no meaning"),
        (["--vor", "--cross-play", "evaluations/e"], 2, "--cross-play: has no meaning beside --vor"),
        (["--vor", "evaluations/none"], 4, "evaluations/none"),
        (["--cross-play", "evaluations/none", "-p", "noop"], 2, "--policy: has no meaning beside evaluations/none"),
        (["evaluations/none"], 2, "is an evaluation, which --vor or --cross-play can score"),
    ],
)
def test_wrong_commands_say_what_is_wrong(
    address: str, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = daf(address, tmp_path, *arguments)

    assert (done.returncode, message in done.stderr) == (code, True), done.stderr


def test_wrong_calls_say_what_is_wrong(client: Client, vor: VorReport) -> None:
    with pytest.raises(InvalidArgument, match="at least 2 policies"):
        daf_compare_with_vor("starter", [], PLAYED, client=client)
    with pytest.raises(InvalidArgument, match="mode"):
        daf_compare_with_vor("starter", ["noop"], PLAYED, mode="other", client=client)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="7 has no seat"):
        daf_compute_vor(evaluation=vor.evaluation, candidate=7, client=client)
    with pytest.raises(NotFound):
        daf_compute_weighted_score(evaluation="none", client=client)
