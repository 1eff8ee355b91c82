from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daf.cli.main import COMMANDS, main

EXAMPLES = Path(__file__).parents[3] / "examples"
QUICK = str(EXAMPLES / "quick_sweep.yaml")
MISSION = "cogsguard_machina_1.miner_tutorial"


type Daf = Callable[..., Any]


def test_the_help_names_every_command(daf: Daf) -> None:
    outcome = daf("--help")

    assert outcome.code == 0
    assert all(f"\n  {name} " in outcome.out for name in COMMANDS)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_a_help(daf: Daf, command: str) -> None:
    outcome = daf(command, "--help")

    assert outcome.code == 0
    assert f"Usage: daf {command}" in outcome.out


def test_a_wrong_command_is_a_usage_error_that_names_the_nearest(daf: Daf) -> None:
    outcome = daf("swep")

    assert outcome.code == 2
    assert "Did you mean 'sweep'?" in outcome.err


def test_a_sweep_runs_to_its_end(daf: Daf, with_services: Any) -> None:
    outcome = daf("sweep", "run", QUICK)

    assert outcome.code == 0
    for shown in (
        "trial 1 succeeded (learning_rate 0.001): -1 ± 0.12",
        "Best configuration (sweeps/quick-",
        "trainer.learning_rate: 0.001",
        "untrained   0.5 [0.25, 0.75]  30        2 [1.5, 2.25]",
        f"-m {MISSION}",
    ):
        assert shown in outcome.out


def test_a_sweep_as_json_is_one_document_of_resources(daf: Daf, with_services: Any, tmp_path: Path) -> None:
    outcome = daf("sweep", "run", QUICK, "--json", "--output", str(tmp_path / "results.json"))

    document = outcome.json()
    assert document["sweep"]["state"] == "SWEEP_STATE_SUCCEEDED"
    assert document["sweep"]["best_trial"] == document["trials"][0]["name"]
    assert document["trials"][1]["score"]["mean"] == -2.0
    assert json.loads((tmp_path / "results.json").read_text())["name"] == document["sweep"]["name"]


def test_a_sweep_that_fails_exits_with_one(daf: Daf, with_services: Any) -> None:
    with_services.scheduler.fail_every_trial = True

    outcome = daf("sweep", "run", QUICK)

    assert outcome.code == 1
    assert "the loss became NaN at update 3" in outcome.out
    assert "failed: no trial succeeded" in outcome.err


def test_a_dry_run_starts_nothing(daf: Daf, with_services: Any) -> None:
    outcome = daf("sweep", "run", QUICK, "--dry-run")

    assert outcome.out == "This sweep can be started: at most 2 trials.\n"
    assert not with_services.scheduler.sweeps


def test_sweeps_are_listed_shown_watched_and_cancelled(daf: Daf, with_services: Any) -> None:
    name = daf("sweep", "run", QUICK, "--detach", "--json").json()["sweep"]["name"]
    identifier = name.partition("/")[2]

    assert daf("sweep", "cancel", identifier).out == f"{name} is being cancelled\n"
    lines = [json.loads(line) for line in daf("sweep", "watch", name, "--json").out.splitlines()]
    assert lines[-1]["sweeps"][0]["state"] == "SWEEP_STATE_SUCCEEDED"
    assert identifier in daf("sweep", "list").out
    assert "Best configuration" in daf("sweep", "get", identifier).out
    assert daf("sweep", "cancel", identifier).out == f"{name} has ended already: succeeded\n"
    assert daf("sweep", "list", "--json").json()["sweeps"][0]["name"] == name


def test_the_document_of_a_sweep_starts_it_again(daf: Daf, with_services: Any, tmp_path: Path) -> None:
    name = daf("sweep", "run", QUICK, "--detach", "--json").json()["sweep"]["name"]
    (tmp_path / "again.yaml").write_text(daf("sweep", "get", name, "--yaml").out)

    daf("sweep", "run", str(tmp_path / "again.yaml"), "--detach")

    first, second = with_services.scheduler.requests
    assert first.spec == second.spec


def test_a_sweep_that_is_not_there_is_an_error_of_one_line(daf: Daf, with_services: Any) -> None:
    for command in ("get", "watch", "cancel"):
        outcome = daf("sweep", command, "none")
        assert (outcome.code, outcome.err) == (4, "daf: sweeps/none does not exist\n")


def test_ctrl_c_leaves_a_sweep_running_and_says_how_to_go_on(with_services: Any, home: Path) -> None:
    with_services.scheduler.hang = True
    process = subprocess.Popen(
        [sys.executable, "-c", "from daf.cli.main import main; main()", "sweep", "run", QUICK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert any("running" in line for line in process.stdout)

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    with_services.scheduler.hang = False

    (name,) = with_services.scheduler.sweeps
    assert process.returncode == 130
    assert f"daf: {name} goes on: `daf sweep watch {name.partition('/')[2]}` follows it" in err
    assert "Traceback" not in err
    assert not with_services.scheduler.sweeps[name].cancel_requested


def test_a_policy_is_trained(daf: Daf, with_services: Any) -> None:
    code = str(EXAMPLES / "policies/grid_policy.py")
    options = ["-m", MISSION, "--cogs", "4", "--steps", "1000", "--set", "lr=3e-4", "--set", "policy.hidden_size=16"]

    outcome = daf("train", "-p", "grid_policy.GridPolicy", "--code", code, *options)

    spec = with_services.training.requests[0].spec
    assert outcome.code == 0
    assert "learning_rate 0.0005" in outcome.out
    assert "checkpoints/10" in outcome.out
    assert (spec.missions[0].cogs, spec.agent_steps) == (4, 1000)
    assert spec.trainer["learning_rate"].real == 3e-4
    assert spec.policy_class.arguments["hidden_size"].integer == 16
    assert spec.policy_class.code.sha256 in with_services.artifacts.stored


def test_options_replace_what_a_training_document_says(daf: Daf, with_services: Any) -> None:
    daf("train", str(EXAMPLES / "training_config.yaml"), "--set", "lr=0.5", "--max-steps", "9", "--detach")

    spec = with_services.training.requests[0].spec
    assert spec.trainer["learning_rate"].real == 0.5
    assert spec.trainer["gamma"].real == 0.98
    assert (spec.missions[0].max_steps, spec.missions[0].cogs) == (9, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "lstm"], "give --mission/-m, or a FILE"),
        (["-m", MISSION], "give --policy/-p, or a FILE"),
        (["-p", "lstm", "-m", MISSION, "--set", "lr"], "'lr' is not NAME=VALUE"),
        (["-p", "lstm", "-m", MISSION, "--set", "env.cogs=3"], "see --cogs"),
        (["-p", "lstm", "-m", MISSION, "--set", "lerning_rate=1"], "did you mean 'learning_rate'?"),
        (["-p", "lstm", "-m", MISSION, "--set", "policy.hiden_size=1"], "did you mean 'hidden_size'?"),
        (["none.yaml"], "none.yaml: No such file or directory"),
    ],
)
def test_a_wrong_training_command_says_what_is_wrong(
    daf: Daf, with_services: Any, arguments: list[str], message: str
) -> None:
    outcome = daf("train", *arguments)

    assert outcome.code == 2
    assert message in outcome.err
    assert not with_services.training.requests


def test_policies_are_evaluated(daf: Daf, with_services: Any) -> None:
    own = "class=grid_policy.GridPolicy,kw.hidden_size=16,proportion=3"
    code = str(EXAMPLES / "policies/grid_policy.py")

    outcome = daf(
        "evaluate", "-p", own, "-p", "random", "-m", MISSION, "--code", code, "--episodes", "4", "--steps", "50"
    )

    spec = with_services.evaluation.requests[0].spec
    assert outcome.code == 0
    rows = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert "GridPolicy 1.25 ± 0.5 [0.25, 2.25] 20" in rows
    assert list(spec.proportions) == [3.0, 1.0]
    assert spec.policies[0].policy_class.code.sha256 in with_services.artifacts.stored
    assert not spec.policies[1].policy_class.HasField("code")
    assert (spec.missions[0].max_steps, spec.episodes) == (50, 4)


def test_a_trained_trial_is_evaluated_by_its_name(daf: Daf, with_services: Any) -> None:
    name = daf("sweep", "run", QUICK, "--json").json()["sweep"]["name"]

    document = daf("evaluate", "-p", f"{name}/trials/1", "-m", MISSION, "--team", "solo", "--json").json()

    spec = with_services.evaluation.requests[0].spec
    assert spec.policies[0].checkpoint.checkpoint.endswith("/checkpoints/7")
    assert document["summary"]["policies"][0]["mean"] == 1.25


def test_policies_that_forfeit_everything_have_no_score(daf: Daf, with_services: Any) -> None:
    with_services.statistics.forfeit = "no module named 'nothing'"

    outcome = daf("evaluate", "-p", "random", "-m", MISSION)

    assert outcome.code == 1
    forfeited, more = outcome.err.splitlines()
    assert forfeited == "daf: forfeited: random: no module named 'nothing'"
    assert more.startswith("daf: `daf logs evaluations/")


def test_jobs_are_listed_shown_and_cancelled(daf: Daf, with_services: Any) -> None:
    daf("train", "-p", "lstm", "-m", MISSION, "--name", "one", "--detach")

    assert daf("job", "cancel", "one").out == "trainingJobs/one is being cancelled\n"
    assert "trainingJobs/one pending" in daf("job", "get", "trainingJobs/one").out
    assert "one" in daf("job", "list").out
    assert daf("job", "list", "--json").json()["training_jobs"][0]["name"] == "trainingJobs/one"


def test_a_trials_log_is_that_of_its_training(daf: Daf, with_services: Any) -> None:
    name = daf("sweep", "run", QUICK, "--json").json()["sweep"]["name"]

    assert daf("logs", f"{name}/trials/2").out.endswith("-t2-r0 second\n")
    assert len(daf("logs", f"{name}/trials/2", "--json").out.splitlines()) == 2
    assert daf("logs", "nothing").code == 2


def test_the_catalogue_is_shown(daf: Daf, with_services: Any) -> None:
    assert "easy_hearts" not in daf("missions").out
    assert "does not build: no spawn for 8 agents" in daf("missions", "--all").out
    assert "1-4" in daf("missions", MISSION).out
    assert daf("missions", "--json").json()["missions"][0]["cogs"] == [1, 2, 3, 4]
    assert f"there is {MISSION}" in daf("missions", "miner_tutorial").err
    assert "pads otherwise" in daf("policies", "lstm").out
    assert any(
        parameter["name"] == "policy.hidden_size"
        for parameter in daf("policies", "lstm", "--json").json()["hyperparameters"]
    )


def test_the_environment_is_checked(daf: Daf, with_services: Any) -> None:
    good = daf("check", "-m", MISSION, "--json")
    bad = daf("check", "-m", "cogsguard_machina_1.miner_tutoral", "--json")

    assert (good.code, good.json()["healthy"]) == (0, True)
    assert (bad.code, bad.json()["healthy"]) == (6, False)
    assert "there is no mission 'cogsguard_machina_1.miner_tutoral'" in bad.out


def test_a_check_starts_nothing(daf: Daf, home: Path) -> None:
    outcome = daf("check", "-m", MISSION)

    assert "it starts when it is needed" in outcome.out
    assert not (home / "run").exists()


def test_contexts_are_kept(daf: Daf, services: Any) -> None:
    daf("context", "add", "here", services.address, "--use")

    assert "* here" in daf("context", "list").out
    assert daf("status", "--json").json() == {
        "context": "here",
        "state": "running",
        "address": services.address,
        "problem": "",
    }
    assert daf("--context", "embedded", "status", "--json").json()["state"] == "stopped"
    assert daf("--context", "none", "missions").code == 4
    assert daf("context", "remove", "here").code == 0
    assert daf("context", "list", "--json").json()["current"] == "embedded"


def test_an_address_where_nothing_answers_is_one_clear_line(
    daf: Daf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAF_ADDRESS", f"unix:{tmp_path}/none.sock")

    outcome = daf("missions")

    assert outcome.code == 13
    assert outcome.err.startswith(f"daf: nothing answers at unix:{tmp_path}/none.sock\n")
    assert daf("status").code == 13


@pytest.mark.parametrize("command", ["up", "missions", "status", "check"])
def test_a_home_that_cannot_be_used_is_named(
    daf: Daf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DAF_HOME", str(tmp_path / "file"))

    outcome = daf(command)

    assert outcome.code == 2
    assert "let DAF_HOME name another directory" in outcome.err


def test_stopping_what_never_ran_leaves_nothing_behind(daf: Daf, home: Path) -> None:
    assert daf("down").out == "The embedded stack was not running.\n"
    assert not (home / "run").exists()


def test_a_defect_is_shown_without_a_traceback_unless_it_is_asked_for(
    daf: Daf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daf.cli.version.print_json", lambda _: 1 / 0)

    outcome = daf("version", "--json")

    assert outcome.code == 70
    assert outcome.err.startswith("daf: ZeroDivisionError: division by zero\n")
    assert "Traceback" not in outcome.err
    monkeypatch.setenv("DAF_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["daf", "version", "--json"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_the_versions_are_printed(daf: Daf) -> None:
    assert daf("version", "--json").json()["versions"]["daf"] == "0.1.0"
