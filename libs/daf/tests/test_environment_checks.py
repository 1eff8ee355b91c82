"""Checks before an experiment, on this machine and its runner as they are."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from daf import environment_checks
from daf.checks import device, disk, memory, missions, planned_run, sign_in
from daf.checks.planned_run import PlannedRun
from daf.checks.services import check_planned_run
from daf.client import Client
from daf.config import DAFSweepConfig, DAFTrainingConfig
from daf.environment_checks import (
    Check,
    EnvironmentCheckResult,
    daf_check_auth,
    daf_check_cuda,
    daf_check_cuda_availability,
    daf_check_dependencies,
    daf_check_disk_space,
    daf_check_environment,
    daf_check_memory,
    daf_check_mission_configs,
    daf_check_nccl,
    daf_get_recommended_device,
)
from daf_training.checkpoints import DEFAULT_KEPT
from daf_training.profiles import CPU_SMALL

EXAMPLES = Path(__file__).parents[3] / "examples"
MINER = "cogsguard_machina_1.miner_tutorial"
TOKEN = "tok-4711-secret"


def found(result: EnvironmentCheckResult, name: str) -> Check:
    return next(check for check in result.checks if check.name == name)


def training(**settings: Any) -> DAFTrainingConfig:
    return DAFTrainingConfig(policy="lstm", missions=[{"mission": MINER, "cogs": 4}], training=settings)


def install(directory: Path, package: str, version: str) -> None:
    information = directory / f"{package}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")


def test_the_packages_that_are_installed_are_those_that_were_asked_for() -> None:
    result = daf_check_dependencies()

    assert result.is_healthy(), result.summary()
    assert found(result, "cogames").message == "0.18.0"
    assert {"python", "daf", "grpcio", "mettagrid", "torch"} <= {check.name for check in result.checks}


def test_a_package_in_another_version_than_the_one_it_was_made_for_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "torch", "3.1.0")  # pinned by the runner
    install(tmp_path, "numpy", "0.5")  # needed by others only
    monkeypatch.syspath_prepend(str(tmp_path))

    result = daf_check_dependencies()

    assert found(result, "torch").message.startswith("3.1.0 is not what ")
    assert found(result, "numpy").message.startswith("0.5 is not what ")
    assert not result.is_healthy()


def test_free_space_is_asked_for_where_the_directory_will_be(tmp_path: Path) -> None:
    enough = daf_check_disk_space(tmp_path / "not" / "yet", min_available_gb=0.001)
    too_little = daf_check_disk_space(tmp_path, min_available_gb=1e9)

    assert enough.is_healthy()
    assert str(tmp_path) in found(enough, "disk").message
    assert "less than 1e+09 GB" in too_little.errors[0]
    assert not (tmp_path / "not").exists()


def test_the_checkpoints_of_a_run_have_to_fit_on_the_disk(tmp_path: Path) -> None:
    modest = training(agent_steps=1000, checkpoint_agent_steps=100, max_checkpoints=3)
    greedy = training(agent_steps=10**9, checkpoint_agent_steps=1, max_checkpoints=10**8)

    fits = daf_check_disk_space(tmp_path, run=PlannedRun(modest))
    bursts = daf_check_disk_space(tmp_path, run=PlannedRun(greedy))

    assert fits.is_healthy()
    assert "5 of " in found(fits, "disk").message  # three, the best, and one being written
    assert "is not enough" in found(bursts, "disk").message
    assert not bursts.is_healthy()


def test_where_the_size_of_a_checkpoint_cannot_be_known_there_is_a_warning_and_the_plain_rule(tmp_path: Path) -> None:
    run = training()
    run.policy = "no.such.Policy"

    result = daf_check_disk_space(tmp_path, min_available_gb=0.001, run=PlannedRun(run))

    assert "no.such.Policy" in found(result, "checkpoints").message
    assert [check.mark for check in result.checks] == ["note", "ok"]


def test_the_environments_of_a_run_have_to_fit_into_memory() -> None:
    modest = daf_check_memory(run=PlannedRun(training(num_envs=4)))
    greedy = daf_check_memory(run=PlannedRun(training(num_envs=4000, workers=1000)))

    assert modest.is_healthy()
    assert "1 worker at a time with 4 environments each" in modest.checks[0].message
    assert "are too few: the run takes about" in greedy.errors[0]


def test_memory_that_others_have_now_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"memory_bytes": 16 << 30, "available_bytes": 1 << 30}
    monkeypatch.setattr(memory, "ask", lambda subject: machine)

    result = daf_check_memory(run=PlannedRun(training(num_envs=100)))

    assert result.is_healthy()
    assert "only 1.0 GiB of 16.0 GiB are free: the run takes about 1.5 GiB" in result.warnings[0]


def test_the_environments_of_a_profile_that_only_the_installation_knows_are_not_guessed() -> None:
    result = daf_check_memory(run=PlannedRun(training(profile="gpu-8x2")))

    assert result.is_healthy()
    assert "'gpu-8x2' has is not known here" in result.warnings[0]


def test_what_is_reckoned_with_is_what_the_service_does_without_being_asked() -> None:
    assert (CPU_SMALL.name, CPU_SMALL.workers) == (planned_run.DEFAULT_PROFILE, planned_run.DEFAULT_WORKERS)
    assert CPU_SMALL.environments == planned_run.DEFAULT_ENVIRONMENTS
    assert planned_run.DEFAULT_KEPT == DEFAULT_KEPT


def test_a_sweep_is_reckoned_with_all_its_trials() -> None:
    grid = PlannedRun.of(EXAMPLES / "quick_sweep.yaml")
    drawn = PlannedRun(
        DAFSweepConfig(
            policy="lstm",
            missions=[MINER],
            strategy="random",
            num_trials=7,
            max_parallel_jobs=3,
            search_space={"hidden_size": [16, 512, 64], "lr": [0.1, 0.2]},
            training={"agent_steps": 100, "checkpoint_agent_steps": 30, "max_checkpoints": 2},
        )
    )

    assert (grid.jobs, grid.jobs_at_once, grid.checkpoints, grid.most_checkpoints) == (2, 2, 1, 4)
    assert (drawn.jobs, drawn.jobs_at_once, drawn.checkpoints, drawn.most_checkpoints) == (7, 3, 3, 24)


def test_a_sweep_over_the_size_of_a_users_own_policy_is_reckoned_with_the_largest() -> None:
    document = DAFSweepConfig.from_yaml(EXAMPLES / "quick_sweep.yaml")
    plain = PlannedRun(document).checkpoint_bytes()

    document.search_space = {"hidden_size": [16, 128], "learning_rate": [0.1]}

    assert PlannedRun(document).checkpoint_bytes() > 2 * plain


def test_the_device_is_the_one_that_cogames_chooses() -> None:
    program = (
        "from cogames.device import resolve_training_device; from rich.console import Console; import io;"
        "print(resolve_training_device(Console(file=io.StringIO()), 'auto').type)"
    )
    chosen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    printed = io.StringIO()

    result = daf_check_cuda_availability(Console(file=printed))

    assert daf_get_recommended_device() == chosen
    assert found(result, "device").message == f"{chosen} is recommended"
    assert (found(result, "cuda").mark == "ok") == (chosen == "cuda")
    assert "is recommended" in printed.getvalue()
    assert daf_check_cuda is daf_check_cuda_availability


GPU = {"name": "H100", "memory_bytes": 80 << 30, "free_bytes": 60 << 30}
ON_GPU = {"recommended": "cuda", "torch": "2.9.0", "cuda": "12.8", "nccl": "2.27.5", "gpus": [GPU]}


def test_gpus_are_shown_with_their_memory_and_nccl_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"device": ON_GPU, "nccl": {"works": True, "version": "2.27.5"}}
    monkeypatch.setattr(device, "ask", answers.__getitem__)

    cuda, nccl = daf_check_cuda(), daf_check_nccl()

    assert found(cuda, "cuda").message == "CUDA 12.8, torch 2.9.0: H100 (60.0 GiB of 80.0 GiB free)"
    assert found(nccl, "nccl") == Check("nccl", True, "2.27.5 works")


def test_gpus_without_nccl_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "ask", {"device": {**ON_GPU, "nccl": None}}.__getitem__)

    assert "cannot exchange gradients" in daf_check_cuda().errors[0]


def test_a_login_is_found_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".metta").mkdir()
    (tmp_path / ".metta" / "cogames.yaml").write_text(f"login_tokens:\n  https://softmax.com/api: {TOKEN}\n")
    monkeypatch.setenv("HOME", str(tmp_path))

    result = daf_check_environment(check_cuda=False)

    assert found(result, "sign-in").mark == "ok"
    assert TOKEN not in json.dumps(result.to_dict()) + "".join(capfd.readouterr())


def test_no_login_is_a_note_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert daf_check_auth().checks[0].mark == "note"
    assert not list(tmp_path.iterdir())


def test_missions_are_looked_up_in_the_catalogue_where_no_services_run(home: Path) -> None:
    result = daf_check_mission_configs([MINER, "training_facility_1", "miner_tutoral"])

    assert [check.mark for check in result.checks] == ["ok", "ok", "failed"]
    assert "unknown mission 'miner_tutoral'" in result.errors[0]
    assert not home.exists()


def test_missions_are_asked_of_the_services_where_they_run(client: Client) -> None:
    result = daf_check_mission_configs([MINER, "miner_tutoral"], client=client)

    assert [check.mark for check in result.checks] == ["ok", "failed"]
    assert "there is no mission 'miner_tutoral'" in result.errors[0]


def test_a_mission_of_the_users_own_is_built_here(tmp_path: Path, home: Path) -> None:
    (tmp_path / "three.py").write_text(
        "from cogames.cli.mission import get_mission\n"
        "def get_config():\n"
        "    return get_mission('cogsguard_arena.basic', cogs=3, steps=25)[1]\n"
    )
    (tmp_path / "run.yaml").write_text("missions: [three.py]\npolicy: lstm\n")

    result = daf_check_environment([str(tmp_path / "none.yaml")], check_cuda=False, run=tmp_path / "run.yaml")

    assert found(result, "mission three.py").message == "builds, with 3 agents"
    assert found(result, "mission none.yaml").mark == "failed"
    assert "weights and optimizer" in found(result, "disk").message


def test_without_a_runner_here_there_are_notes_and_no_errors(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (device, disk, memory, missions, sign_in):
        monkeypatch.setattr(module, "has_runner", lambda: False)

    result = daf_check_environment([MINER], run=training())

    assert result.is_healthy(), result.summary()
    assert {"cuda", "memory", "missions", "sign-in", "checkpoints"} <= {
        check.name for check in result.checks if check.warning and "no runner is installed here" in check.message
    }
    with pytest.raises(RuntimeError, match="no runner is installed here"):
        daf_get_recommended_device()


def test_a_check_that_breaks_is_an_error_and_stops_no_other(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> EnvironmentCheckResult:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(environment_checks, "daf_check_disk_space", broken)

    result = daf_check_environment(check_cuda=False)

    assert result.errors == ["disk: the disk is on fire"]
    assert result.checks[-1].name == "sign-in"


def test_the_services_are_asked_whether_they_accept_a_run(client: Client, services: Any) -> None:
    accepted = check_planned_run(client, PlannedRun.of(EXAMPLES / "quick_sweep.yaml"))
    refused = check_planned_run(client, PlannedRun(training(trainer={"lerning_rate": 0.1})))

    assert accepted.checks == [Check("run", True, "the services accept 'quick': 2 training jobs")]
    assert "did you mean 'learning_rate'?" in refused.errors[0]
    assert not services.scheduler.sweeps


def test_machines_that_will_not_run_anything_are_not_looked_at(home: Path) -> None:
    with Client("127.0.0.1:1") as away:
        result = daf_check_environment(client=away)

    assert "nothing answers at 127.0.0.1:1" in result.errors[0]
    assert found(result, "machine").message == "not looked at: experiments run at 127.0.0.1:1"
    assert not {"disk", "memory", "cuda"} & {check.name for check in result.checks}


def test_the_result_can_be_built_by_hand_as_its_users_do() -> None:
    result = EnvironmentCheckResult()
    result.add_check("one", True, info="fine")
    result.add_check("two", True, warning="but")
    assert result.is_healthy()

    result.add_check("three", False, warning="no")
    result.add_error("four", "never")

    assert not result.is_healthy()
    assert result.warnings == ["two: but", "three: no", "four: never"]
    assert result.errors == ["three: no", "four: never"]
    assert result.summary().splitlines() == [
        "ok      one: fine",
        "note    two: but",
        "failed  three: no",
        "failed  four: never",
    ]
