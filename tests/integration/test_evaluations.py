"""`daf evaluate` and `daf results` on the whole stack with stand-in compute: refused or played, shown, exported."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from daf.cli.main import main
from daf.client import Client
from daf.config import DAFEvaluationConfig
from daf.episode_export import daf_export_evaluation
from daf.evaluations import create_evaluation, list_episodes
from daf.follow_runs import follow_evaluation
from daf_common.errors import InvalidArgument, NotFound
from daf_protos.evaluation.v1.evaluation_service_pb2 import ListEvaluationsRequest
from tests.requests import MISSION

EXAMPLE = Path(__file__).parents[2] / "examples" / "evaluation_config.yaml"
ARENA = "cogsguard_arena.basic"
TWO = ["-p", "starter", "-p", "noop", "-m", MISSION.name, "-m", ARENA, "--cogs", "3", "--steps", "10"]


@dataclass
class Outcome:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


type Daf = Callable[..., Outcome]


@pytest.fixture
def daf(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Daf:
    """Runs a command of `daf` in a directory of its own."""
    for name, value in {"DAF_ADDRESS": address, "DAF_HOME": str(tmp_path / "home"), "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["daf", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return Outcome(int(caught.value.code or 0), *capfd.readouterr())

    return run


def evaluations(client: Client) -> list[str]:
    return [one.name for one in client.evaluation.ListEvaluations(ListEvaluationsRequest(page_size=1000)).evaluations]


@pytest.fixture(scope="module")
def played(client: Client) -> str:
    """An evaluation of more episodes than fit into a page, by two policies in one team."""
    config = DAFEvaluationConfig.model_validate(
        {
            "policies": ["starter", "noop"],
            "missions": [{"mission": MISSION.name, "cogs": 3, "max_steps": 10}],
            "episodes": 1100,
            "proportions": [2.0, 1.0],
        }
    )
    *_, evaluation = follow_evaluation(client, create_evaluation(client, config, "played").name)
    assert evaluation.done_episodes == 1100
    return evaluation.name


def test_a_result_is_shown_again_as_it_was(daf: Daf) -> None:
    first = json.loads(daf("evaluate", *TWO, "--team", "solo", "--name", "again", "--json").stdout)
    again = json.loads(daf("results", "show", "again", "--json").stdout)
    for document in (first, again):
        del document["evaluation"]["revision"]
    assert first == again
    assert first["summary"]["digest"] == first["evaluation"]["digest"]
    assert {(part["label"], part["mission"]) for part in first["missions"]} == {
        (policy, mission) for policy in ("starter", "noop") for mission in (MISSION.name, ARENA)
    }
    rows = list(csv.DictReader(daf("results", "show", "evaluations/again", "--csv").stdout.splitlines()))
    assert [(row["policy"], row["mission"], float(row["mean"])) for row in rows[2:]] == [
        (part["label"], part["mission"], part["mean"]) for part in first["missions"]
    ]


@pytest.mark.parametrize(
    ("team", "teams"),
    [
        ("pickup", {"3 starter", "2 starter, 1 noop", "1 starter, 2 noop", "3 noop"}),
        ("pairs", {"3 starter", "2 starter, 1 noop", "1 starter, 2 noop", "3 noop"}),
    ],
)
def test_teams_are_played_and_shown_one_by_one(daf: Daf, team: str, teams: set[str]) -> None:
    document = json.loads(daf("evaluate", *TWO, "--team", team, "--episodes", "2", "--json").stdout)
    assert {part["team"] for part in document["teams"]} == teams
    assert document["evaluation"]["total_episodes"] == 2 * 2 * 4
    assert {scenario["mission"] for scenario in document["evaluation"]["scenarios"]} == {0, 1}


def test_sums_over_seats_are_three_times_the_mean(daf: Daf, played: str) -> None:
    mean, total = (
        json.loads(daf("results", "show", played, "--aggregation", aggregation, "--json").stdout)
        for aggregation in ("mean", "sum")
    )
    assert total["summary"]["policies"][0]["mean"] == pytest.approx(2 * mean["summary"]["policies"][0]["mean"])


def test_an_unknown_metric_is_refused_before_anything_is_played(daf: Daf, client: Client) -> None:
    before = evaluations(client)
    done = daf("evaluate", *TWO, "--metric", "heart.gaind")
    assert done.returncode == 2
    assert "heart.gained" in done.stderr
    assert evaluations(client) == before


def test_a_metric_that_only_ones_own_mission_may_have_is_said_to_be_unknown(
    daf: Daf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "own.yaml").write_text("game: {}\n")
    done = daf("evaluate", "-p", "starter", "-m", "own.yaml", "--metric", "gold.found", "--name", "own", "--detach")
    assert done.returncode == 0
    assert "no mission of CoGames has a statistic 'gold.found'" in caplog.text
    assert daf("results", "cancel", "own").returncode == 0


@pytest.mark.parametrize("team", ["pickup", "pairs"])
def test_teams_that_are_planned_by_seats_need_missions_whose_seats_are_known(
    daf: Daf, tmp_path: Path, team: str
) -> None:
    (tmp_path / "own.yaml").write_text("game: {}\n")
    done = daf("evaluate", "-p", "starter", "-p", "noop", "-m", "own.yaml", "--team", team)
    assert done.returncode == 2
    assert "number of seats is known only once it is played" in done.stderr


def test_episodes_on_maps_of_the_training_are_warned_of(daf: Daf) -> None:
    arguments = ["-m", MISSION.name, "--cogs", "4", "--max-steps", "10"]
    assert daf("train", "-p", "lstm", *arguments, "--steps", "100", "--seed", "42", "--name", "trained").returncode == 0
    play = ["evaluate", "-p", "job/trained/checkpoints/latest", "-m", MISSION.name, "--cogs", "4", "--episodes", "2"]

    warned = daf(*play, "--seed", "41")

    assert warned.returncode == 0
    assert "may have been trained on these maps: seed 42 is one of trainingJobs/trained" in warned.stderr
    assert "trained on these maps" not in daf(*play).stderr


def test_what_is_detached_says_how_its_result_is_found(daf: Daf) -> None:
    done = daf("evaluate", *TWO, "--name", "left", "--detach", "--replays", "here")
    assert done.returncode == 0
    assert "`daf results show evaluations/left`" in done.stdout
    assert "`daf results replays evaluations/left here`" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["evaluate", *TWO, "--json", "--csv"], 2, "exclude each other"),
        (["evaluate", *TWO, "--aggregation", "median"], 2, "aggregation"),
        (["evaluate", *TWO, "--time-limit", "0"], 2, "--time-limit"),
        (["evaluate", *TWO, "--time-limit", "nan"], 2, "--time-limit"),
        (["evaluate", *TWO, "--team", "trios"], 2, "team"),
        (["evaluate", *TWO, "--team", "pairs", "--proportions", "1,2"], 2, "proportions are for team mixed"),
        (["evaluate", "-p", "starter", "-m", ARENA, "--team", "pickup"], 2, "at least two policies"),
        (["evaluate", *TWO, "--episodes", "501", "--replays", "here", "--team", "solo"], 2, "at most 1000"),
        (["results", "show", "nothing"], 4, "evaluations/nothing"),
        (["results", "show", "played", "--aggregation", "median"], 2, "mean, sum, min, max"),
        (["results", "show", "played", "--metric", "heart.gaind"], 2, "heart.gained"),
        (["results", "export", "played"], 2, "--parquet FILE"),
        (["results", "export", "played", "--csv", "x.csv", "--by", "team"], 2, "episode, seat"),
        (["results", "export", "nothing", "--csv", "x.csv"], 4, "evaluations/nothing"),
    ],
)
def test_wrong_commands_say_what_is_wrong(
    daf: Daf, played: str, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = daf(*arguments)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert not list(tmp_path.glob("*.csv*"))


def test_evaluations_are_listed_cancelled_and_deleted(daf: Daf, client: Client) -> None:
    daf("evaluate", *TWO, "--name", "short")
    listed = daf("results", "list", "--limit", "1").stdout
    assert " ".join(listed.split()[-9:]) == f"short succeeded 10 of 10 starter, noop {MISSION.name}, {ARENA}"
    assert json.loads(daf("results", "list", "--limit", "2", "--json").stdout)["evaluations"][0]["done_episodes"] == 10
    assert daf("results", "cancel", "short").stdout == "evaluations/short has ended: succeeded\n"
    while (done := daf("results", "delete", "short")).returncode:
        assert "still being stopped" in done.stderr
    assert done.stdout == "evaluations/short is deleted\n"
    assert "evaluations/short" not in evaluations(client)
    assert daf("results", "delete", "short", "--yes").returncode == 4


def test_an_evaluation_without_replays_says_so(daf: Daf, played: str, tmp_path: Path) -> None:
    done = daf("results", "replays", played, "here")
    assert "name no replays" in done.stderr
    assert not (tmp_path / "here").exists()


def test_every_episode_is_exported_alike_to_every_kind_of_file(client: Client, played: str, tmp_path: Path) -> None:
    files = {kind: tmp_path / "out" / f"episodes.{kind}" for kind in ("csv", "parquet", "jsonl")}

    rows = daf_export_evaluation(
        played, csv=files["csv"], parquet=files["parquet"], jsonl=files["jsonl"], client=client
    )

    parquet = pd.read_parquet(files["parquet"])
    lines = pd.DataFrame([json.loads(line) for line in files["jsonl"].read_text().splitlines()])
    with files["csv"].open(newline="") as file:
        texts = pd.DataFrame(csv.DictReader(file))
    recorded = list(list_episodes(client, played))
    assert rows == len(recorded) == len(parquet) == len(lines) == len(texts) == 1100
    assert list(parquet["episode"]) == list(range(1100))
    assert list(parquet["digest"]) == list(lines["digest"]) == list(texts["digest"]) == [e.digest for e in recorded]
    assert [list(seats) for seats in parquet["seats"]] == [json.loads(seats) for seats in texts["seats"]]
    assert [list(rewards) for rewards in parquet["rewards"]] == [list(episode.rewards) for episode in recorded]
    for column in ("reward[starter]", "reward[noop]", "agent.reward[starter]"):
        assert list(parquet[column]) == list(lines[column]) == list(map(float, texts[column]))
    assert list(texts.columns) == list(parquet.columns)
    assert not list(files["csv"].parent.glob("*.part"))


def test_seats_are_exported_with_who_sits_there(daf: Daf, client: Client, played: str, tmp_path: Path) -> None:
    done = daf("results", "export", played, "--by", "seat", "--parquet", "seats.parquet")
    assert done.stdout == "Wrote 3,300 rows to seats.parquet.\n"
    seats = pd.read_parquet(tmp_path / "seats.parquet")
    assert dict(seats["policy"].value_counts()) == {"starter": 2200, "noop": 1100}
    first = next(list_episodes(client, played))
    assert list(seats["policy_number"][:3]) == list(first.seats)
    assert list(seats["reward"][:3]) == list(first.rewards)


def test_an_export_that_fails_leaves_the_file_that_was_there(client: Client, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("before")
    with pytest.raises(NotFound):
        daf_export_evaluation("evaluations/nothing", csv=tmp_path / "e.csv", client=client)
    with pytest.raises(InvalidArgument, match="name a file"):
        daf_export_evaluation("evaluations/nothing", client=client)
    assert (tmp_path / "e.csv").read_text() == "before"


def test_the_example_is_played(daf: Daf) -> None:
    document = json.loads(daf("evaluate", str(EXAMPLE), "--steps", "10", "--episodes", "1", "--json").stdout)
    assert document["evaluation"]["total_episodes"] == 3 + 3
    assert {part["team"] for part in document["teams"]} >= {"4 starter", "2 starter, 2 random", "2 random, 2 idle"}
