from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from daf.client import Client, is_serving
from daf.config import DAFConfig, DAFSweepConfig
from daf.follow import follow_sweep
from daf.resources import Resources
from daf.results import Hyperparameters, SweepResult, SweepTrialResult
from daf.sweeps import (
    SweepFailed,
    create_sweep,
    daf_launch_sweep,
    daf_sweep_best_config,
    daf_sweep_status,
)
from daf.user_code import UserCode
from daf_common import ids
from daf_common.errors import NotFound, Unavailable
from daf_protos.scheduler.v1.scheduler_service_pb2 import GetSweepRequest

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def config() -> DAFSweepConfig:
    return DAFSweepConfig.from_yaml(EXAMPLES / "quick_sweep.yaml")


def test_a_sweep_is_launched_and_its_results_come_back(client: Client, services, config: DAFSweepConfig) -> None:
    views = []

    result = daf_launch_sweep(config, client=client, on_change=lambda view: views.append(len(view.trials)))

    best = daf_sweep_best_config(result)
    assert best["learning_rate"] == best.hyperparameters["lr"] == best["trainer.learning_rate"] == 0.001
    assert dict(best) == {"trainer.learning_rate": 0.001}
    assert [trial.primary_metric for trial in result.top_trials()] == [-1.0, -2.0]
    assert result.get_worst_trial() == result.trials[1]
    assert result.held_out is not None
    assert result.held_out.mean == 2.5
    assert [(b.label, b.difference.interval_low) for b in result.baselines] == [("untrained", 1.5), ("random", 1.5)]
    assert views[-1] == 2
    assert result.state == "succeeded"


def test_the_request_says_what_the_document_says(client: Client, services, config: DAFSweepConfig) -> None:
    daf_launch_sweep(config, client=client, wait=False)

    request = services.scheduler.requests[0]
    assert ids.is_valid(request.sweep_id)
    assert request.sweep_id.startswith("quick-")
    assert request.request_id
    assert request.spec.training.policy_class.class_path == "grid_policy.GridPolicy"
    assert request.spec.training.policy_class.arguments["hidden_size"].integer == 16
    assert request.spec.training.trainer["minibatch_size"].integer == 64
    assert request.spec.baselines[0].policy_class == request.spec.training.policy_class


def test_code_is_uploaded_once(client: Client, services, config: DAFSweepConfig) -> None:
    for _ in range(3):
        create_sweep(client, config)

    code = services.scheduler.requests[-1].spec.training.policy_class.code
    assert services.artifacts.uploads == 1
    assert services.artifacts.stored[code.sha256] == UserCode.of([EXAMPLES / "policies/grid_policy.py"]).archive


def test_code_is_found_from_where_the_document_is(client: Client, services, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "there")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    create_sweep(client, DAFSweepConfig.from_yaml("../there/quick_sweep.yaml"))

    assert services.artifacts.uploads == 1


def test_a_failed_sweep_raises_with_its_trials(client: Client, services, config: DAFSweepConfig) -> None:
    services.scheduler.fail_every_trial = True

    with pytest.raises(RuntimeError, match="no trial succeeded") as caught:
        daf_launch_sweep(config, client=client)

    assert isinstance(caught.value, SweepFailed)
    assert [trial.message for trial in caught.value.result.trials] == ["the loss became NaN at update 3"] * 2
    with pytest.raises(NotFound, match="has no trial with a score"):
        daf_sweep_best_config(caught.value.result)


def test_global_settings_limit_a_sweep_and_keep_its_results(
    client: Client, services, config: DAFSweepConfig, tmp_path: Path
) -> None:
    config.max_parallel_jobs = None

    result = daf_launch_sweep(config, client=client, settings=DAFConfig(output_dir=tmp_path, max_parallel_jobs=3))

    (written,) = tmp_path.glob("sweeps/*/*.json")
    assert services.scheduler.requests[0].spec.max_parallel_trials == 3
    assert services.scheduler.requests[0].spec.training.max_checkpoints == 5
    assert SweepResult.load_json(written) == result
    assert config.max_parallel_jobs is None


def test_a_watch_that_breaks_goes_on(client: Client, services, config: DAFSweepConfig) -> None:
    services.scheduler.breaks_left = 2
    name = create_sweep(client, config).name

    views = [(view.trouble, view.ended) for view in follow_sweep(client, name)]

    assert views[-1] == ("", True)
    assert any(trouble for trouble, _ in views)


def test_following_what_is_not_there_is_an_error(client: Client) -> None:
    with pytest.raises(NotFound, match="sweeps/none"):
        next(follow_sweep(client, "sweeps/none"))


def test_the_status_of_a_sweep_comes_from_a_file_or_from_the_service(
    client: Client, config: DAFSweepConfig, tmp_path: Path
) -> None:
    result = daf_launch_sweep(config, client=client)
    result.save_json(tmp_path / "results.json")

    from_file = daf_sweep_status(tmp_path / "results.json")

    assert from_file == daf_sweep_status(result.name, client=client)
    assert from_file["successful_trials"] == from_file["total_trials"] == 2
    assert from_file["best_hyperparameters"] == {"trainer.learning_rate": 0.001}


def test_results_can_be_collected_by_a_script() -> None:
    result = SweepResult("mine", optimize_direction="minimize")
    result.add_trial(SweepTrialResult("a", {"x": 1}, 3.0))
    result.add_trial(SweepTrialResult("b", {"x": 2}, 1.0))
    result.add_trial(SweepTrialResult("c", {"x": 3}, None, success=False, state="failed"))

    result.finalize()

    assert result.get_best_trial() == result.trials[1]
    assert [trial.trial_id for trial in result.top_trials(5)] == ["b", "a"]
    assert result.state == "succeeded"
    console = Console(record=True, width=100)
    result.print_summary(console)
    assert "x: 2" in console.export_text()


def test_a_file_that_holds_no_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")

    with pytest.raises(ValueError, match="is not a file of sweep results"):
        SweepResult.load_json(tmp_path / "x.json")


def test_hyperparameters_answer_to_short_names() -> None:
    settings = Hyperparameters({"trainer.learning_rate": 0.1, "policy.size": 3})

    assert (settings["lr"], settings["size"], settings.get("none")) == (0.1, 3, None)


def test_a_trained_policy_is_found_by_its_trial(client: Client, services, config: DAFSweepConfig) -> None:
    result = daf_launch_sweep(config, client=client)

    trained = Resources(client).checkpoint(f"{result.name}/trials/1")

    assert trained.policy_class.class_path == "grid_policy.GridPolicy"


def test_an_address_where_nothing_is_says_so(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/none.sock"

    assert not is_serving(address)
    with Client(address) as client, pytest.raises(Unavailable):
        client.scheduler.GetSweep(GetSweepRequest(name="sweeps/x"))


def test_the_services_say_that_they_serve(services) -> None:
    assert is_serving(services.address)
