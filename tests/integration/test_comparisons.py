"""`daf compare` and `daf_compare_policies` on the whole stack with stand-in compute: played, compared, read again."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mettagrid.policy.policy import PolicySpec

from daf.client import Client
from daf.comparison import ComparisonReport, DAFComparisonConfig, daf_compare_policies, daf_get_comparison
from daf.comparisons import PolicyComparison, play_and_compare
from daf_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from daf_protos.evaluation.v1.evaluation_service_pb2 import ListEvaluationsRequest
from tests.requests import MISSION

EXAMPLE = Path(__file__).parents[2] / "examples" / "comparison_config.yaml"
STARTER, RANDOM = "cogames.policy.starter_agent.StarterPolicy", "mettagrid.policy.random_agent.RandomMultiAgentPolicy"
VALUES = "policy,mission,seed,value\n" + "".join(
    f"{policy},{mission},{seed},{seed * 0.1 + bonus}\n"
    for policy, bonus in (("A", 1.0), ("B", 0.0))
    for mission in ("m1", "m2")
    for seed in range(5)
)


def daf(address: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `daf compare`."""
    command = [str(Path(sys.executable).parent / "daf"), "compare", *arguments]
    environment = {**os.environ, "DAF_ADDRESS": address, "DAF_HOME": str(directory / "home"), "COLUMNS": "200"}
    return subprocess.run(
        command, check=False, env=environment, cwd=directory, capture_output=True, text=True, timeout=120
    )


def test_policies_play_the_same_seeds_and_are_compared(client: Client) -> None:
    report = daf_compare_policies(
        policies=[STARTER, PolicySpec(class_path=RANDOM)],
        missions=[MISSION.name],
        episodes_per_mission=6,
        client=client,
    )

    (result,) = report.comparisons
    assert (result.policy_a_name, result.policy_b_name) == ("StarterPolicy", "RandomMultiAgentPolicy")
    assert result.episodes == 6
    assert set(report.summary_statistics) == {"StarterPolicy", "RandomMultiAgentPolicy"}
    assert report.summary_statistics["StarterPolicy"]["episodes"] == 6
    assert report.summary_statistics["StarterPolicy"]["avg_reward"] == result.avg_reward_a
    assert result.summary_string() == result.sentence
    again = daf_get_comparison(report.name, client=client)
    assert again.comparison == report.comparison


def test_an_unknown_metric_is_refused_before_anything_is_played(client: Client) -> None:
    before = len(client.evaluation.ListEvaluations(ListEvaluationsRequest()).evaluations)

    with pytest.raises(InvalidArgument, match=r"'heart\.gaind' is not known"):
        daf_compare_policies([STARTER, RANDOM], [MISSION.name], 6, metric="heart.gaind", client=client)

    assert len(client.evaluation.ListEvaluations(ListEvaluationsRequest()).evaluations) == before


def test_a_comparison_that_was_interrupted_goes_on_under_its_name(client: Client, tmp_path: Path) -> None:
    config = DAFComparisonConfig.model_validate(
        {"policies": [STARTER, RANDOM], "missions": [MISSION.name], "episodes_per_mission": 6}
    )
    started = PolicyComparison(client, config, "taken-up").start()

    made = play_and_compare(client, config, id="taken-up")
    again = play_and_compare(client, config, id="taken-up")

    assert made.name == "comparisons/taken-up"
    assert [source.evaluation for source in made.policies[0].episodes.sources] == [started.name]
    assert again == made
    config.episodes_per_mission = 7
    with pytest.raises(AlreadyExists, match="other policies, missions or episodes"):
        play_and_compare(client, config, id="taken-up")


def test_a_report_is_computed_again_with_another_alpha(client: Client) -> None:
    report = daf_compare_policies([STARTER, RANDOM, "noop"], [MISSION.name], 6, client=client)
    before = report.name

    results = report.compute_pairwise_comparisons(significance_level=0.2, baseline="noop")

    assert [(one.policy_a_name, one.policy_b_name) for one in results] == [
        ("StarterPolicy", "noop"),
        ("RandomMultiAgentPolicy", "noop"),
    ]
    assert report.name != before
    assert report.comparison is not None
    assert report.comparison.design.alpha == 0.2
    with pytest.raises(InvalidArgument, match="is made of episodes"):
        report.add_policy_results("mine", {"m": [1.0]})


def test_few_episodes_are_warned_of_and_refused_if_strict(client: Client) -> None:
    report = daf_compare_policies([STARTER, RANDOM], [MISSION.name], client=client)

    assert report.warnings == ["5 pairs cannot reach alpha 0.05: at least 6 that differ are needed."]
    assert not report.comparisons[0].is_significant
    with pytest.raises(FailedPrecondition, match="at least 6"):
        daf_compare_policies([STARTER, RANDOM], [MISSION.name], strict=True, client=client)


def test_a_report_is_filled_with_values_from_elsewhere(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = ComparisonReport(client=client)
    report.add_policy_results("mine", {"m1": [3.0, 4.0, 5.0, 6.5], "m2": [3.0, 4.0, 5.0, 7.0]})
    report.add_policy_results("theirs", {"m1": [1.0, 2.0, 4.0, 5.0], "m2": [1.5, 2.0, 3.0, 4.0]})

    (result,) = report.compute_pairwise_comparisons()

    assert (result.verdict, result.is_significant, result.episodes) == ("first_better", True, 8)
    assert result.p_value == pytest.approx(2 / 2**8)
    assert (result.avg_reward_a, result.avg_reward_b) == (pytest.approx(4.6875), pytest.approx(2.8125))
    assert list(report.mission_comparisons) == ["m1", "m2"]
    report.save_json(tmp_path / "out" / "report.json")
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["comparisons"][0]["p_value"] == result.p_value
    assert saved["summary_statistics"] == json.loads(json.dumps(report.summary_statistics))
    report.print_summary()
    shown = capsys.readouterr().out
    assert shown.index("mine is better") < shown.index("p = ")


def test_values_that_are_not_finite_are_refused(client: Client) -> None:
    report = ComparisonReport(client=client)
    report.add_policy_results("mine", {"m": [1.0, float("nan")]})
    report.add_policy_results("theirs", {"m": [1.0, 2.0]})

    with pytest.raises(InvalidArgument, match=r"policies\[0\].missions\[0\].values\[1\]: nan is not finite"):
        report.compute_pairwise_comparisons()


def test_the_command_prints_pairs_interval_and_verdict_before_any_p_value(address: str, tmp_path: Path) -> None:
    done = daf(
        address, tmp_path, "-p", "starter", "-p", "random", "-m", MISSION.name, "--episodes", "6", "--name", "one"
    )

    assert done.returncode == 0, done.stderr
    heading = next(line for line in done.stdout.splitlines() if line.startswith("pair"))
    assert heading.index(" n ") < heading.index("interval") < heading.index("verdict") < heading.index(" p ")
    assert "comparisons/one: `daf compare comparisons/one` prints it again" in done.stdout
    again = daf(address, tmp_path, "comparisons/one")
    assert done.stdout.endswith(again.stdout)
    planned = daf(address, tmp_path, "comparisons/one", "--power", "0.1", "--json")
    assert json.loads(planned.stdout)["plan"]["tests"] == 1


def test_the_example_runs_and_its_results_are_saved(address: str, tmp_path: Path) -> None:
    config = DAFComparisonConfig.from_yaml(EXAMPLE)
    config.missions = config.missions[:1]
    config.to_yaml(tmp_path / "comparison.yaml")

    done = daf(address, tmp_path, "comparison.yaml", "--episodes", "7", "--csv", "--name", "two")

    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["first"], row["second"], row["pairs"]) for row in rows] == [
        ("starter", "random", "7"),
        ("starter", "idle", "7"),
        ("random", "idle", "7"),
    ]
    saved = json.loads((tmp_path / "daf_output" / "comparisons" / "two.json").read_text())
    assert saved["name"] == "comparisons/two"
    assert saved["comparison"]["design"]["margin"] == 0.01


def test_values_from_a_file_are_compared_by_the_same_code(address: str, tmp_path: Path) -> None:
    (tmp_path / "values.csv").write_text(VALUES)

    done = daf(address, tmp_path, "--results", "values.csv", "--json", "--baseline", "B")

    comparison = json.loads(done.stdout)["comparison"]
    (pair,) = comparison["pairs"]
    assert (pair["verdict"], pair["pairs"], pair["difference"]) == ("VERDICT_FIRST_BETTER", 10, pytest.approx(1.0))
    assert pair["p_value"] == 2 / 2**10
    assert [mission["mission"] for mission in comparison["missions"]] == ["m1", "m2"]


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        ("policy,mission,value\nA,m,1\n", ["values.csv:1: there is no column seed"]),
        ("", ["values.csv:1: there is no column policy, mission, seed, value"]),
        (
            "policy,mission,seed,value\nA,m,1,nan\nA,m,x,1\nA,,1,1\nA,m,2,one\nA,m,3,1\nA,m,3,2\n",
            [
                "values.csv:2: value nan is not finite",
                "values.csv:3: seed 'x' is no whole number",
                "values.csv:4: mission is empty",
                "values.csv:5: value 'one' is no number",
                "values.csv:7: is the same policy, mission and seed as line 6",
            ],
        ),
        ("policy,mission,seed,value\nA,m,1,1\n", ["name 2 to 16 policies, not 1"]),
    ],
)
def test_wrong_files_of_values_are_refused_by_line(
    address: str, tmp_path: Path, content: str, problems: list[str]
) -> None:
    (tmp_path / "values.csv").write_text(content)

    done = daf(address, tmp_path, "--results", "values.csv")

    assert done.returncode == 2
    for problem in problems:
        assert problem in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-p", "random", "-m", MISSION.name], 2, "--policy/-p: give at least 2"),
        (
            ["-p", "random", "-p", "starter", "-m", MISSION.name, "--baseline", "noop"],
            2,
            "'noop' is not one of random, starter",
        ),
        (["-p", "random", "-p", "starter", "-m", MISSION.name, "--alpha", "2"], 2, "alpha"),
        (["-p", "random", "-p", "starter", "-m", MISSION.name, "--episodes", "3", "--strict"], 6, "at least 6"),
        (["comparisons/none"], 4, "comparisons/none"),
        (["-p", "random", "-p", "starter", "-m", MISSION.name, "--csv", "--json"], 2, "exclude each other"),
    ],
)
def test_wrong_commands_say_what_is_wrong(
    address: str, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = daf(address, tmp_path, *arguments)

    assert done.returncode == code
    assert message in done.stderr
