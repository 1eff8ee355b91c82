from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from daf.client import Client
from daf.config import DAFConfig, DAFTrainingConfig
from daf.distributed_training import (
    DistributedTrainingResult,
    TrainingFailed,
    daf_aggregate_training_stats,
    daf_collect_training_results,
    daf_create_training_cluster,
    daf_get_training_status,
    daf_launch_distributed_training,
    daf_monitor_training_job,
)
from daf.resources import Resources
from daf_common.archives import pack
from daf_common.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, Unimplemented

MISSION = "cogsguard_machina_1.miner_tutorial"
EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def launch(client: Client, **arguments: Any) -> DistributedTrainingResult:
    given = {"policy_class_path": "lstm", "missions": [MISSION], "num_steps": 1000, **arguments}
    return daf_launch_distributed_training(client=client, **given)


def test_a_run_ends_with_a_checkpoint_that_is_here(client: Client, services: Any, tmp_path: Path) -> None:
    seen: list[int] = []

    result = launch(client, num_workers=2, on_change=lambda job: seen.append(job.progress.agent_steps))

    assert (result.status, result.training_steps, result.num_workers, result.attempts) == ("succeeded", 1000, 2, 1)
    assert (result.wall_time_seconds, result.training_rate()) == (4.0, 250.0)
    assert result.final_checkpoint == tmp_path / "train_dir" / f"{result.name.partition('/')[2]}:v10"
    assert (result.final_checkpoint / "weights.pt").read_bytes() == b"weights"
    assert (result.checkpoint, result.best_checkpoint) == (
        f"{result.name}/checkpoints/10",
        f"{result.name}/checkpoints/4",
    )
    assert result.hyperparameters["learning_rate"] == 0.0005
    assert seen[-1] == 1000
    assert services.training.requests[0].spec.workers == 2


def test_a_run_can_be_waited_for_later(client: Client, tmp_path: Path) -> None:
    job = launch(client, num_machines=1, wait=False)
    assert job.status == "pending"
    assert job.final_checkpoint is None

    checkpoint = job.wait_for_completion()

    assert checkpoint == job.final_checkpoint == job.wait_for_completion()
    assert job.status == "succeeded"


def test_waiting_has_a_limit(client: Client, services: Any) -> None:
    job = launch(client, wait=False)

    with pytest.raises(DeadlineExceeded, match="has not ended within 0 s: it goes on"):
        job.wait_for_completion(timeout_seconds=0)

    assert daf_monitor_training_job(job).status == "succeeded"


def test_a_failed_run_raises_with_what_there_is_of_it(client: Client, services: Any) -> None:
    services.training.fails = True

    with pytest.raises(RuntimeError, match="failed: the weights became NaN") as caught:
        launch(client)

    assert isinstance(caught.value, TrainingFailed)
    assert caught.value.result.training_steps == 1000
    assert caught.value.result.checkpoint.endswith("/checkpoints/10")
    assert caught.value.result.final_checkpoint is None


def test_arguments_replace_what_a_document_says(client: Client, services: Any) -> None:
    config = DAFTrainingConfig.from_yaml(EXAMPLES / "training_config.yaml")
    before = config.model_dump()

    daf_launch_distributed_training(
        config=config,
        num_steps=2000,
        seed=7,
        hyperparameters={"lr": 0.5, "policy.hidden_size": 8},
        checkpoints_path=None,
        client=client,
    )

    spec = services.training.requests[0].spec
    assert (spec.agent_steps, spec.seed, spec.trainer["learning_rate"].real) == (2000, 7, 0.5)
    assert spec.trainer["gamma"].real == 0.98
    assert spec.policy_class.arguments["hidden_size"].integer == 8
    assert spec.policy_class.code.sha256 in services.artifacts.stored
    assert config.model_dump() == before


def test_a_document_is_read_from_its_file(client: Client, services: Any) -> None:
    daf_launch_distributed_training(config=EXAMPLES / "training_config.yaml", checkpoints_path=None, client=client)

    assert services.training.requests[0].spec.policy_class.class_path == "grid_policy.GridPolicy"


def test_missions_weights_and_settings_are_taken(client: Client, services: Any, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"mine")

    launch(
        client,
        missions=[{"mission": MISSION, "cogs": 4}],
        initial_weights_path="w.pt",
        settings=DAFConfig(max_checkpoints_to_keep=2),
        checkpoints_path=None,
    )

    spec = services.training.requests[0].spec
    assert (spec.missions[0].cogs, spec.max_checkpoints) == (4, 2)
    assert services.artifacts.stored[spec.start.weights.sha256] == b"mine"


def test_a_config_object_travels_pickled(client: Client, services: Any, home: Path) -> None:
    for arguments in ({"missions": [], "env_cfg": MettaGridConfig()}, {"missions": [("mine", MettaGridConfig())]}):
        launch(client, checkpoints_path=None, **arguments)

    first, second = (request.spec.missions[0] for request in services.training.requests)
    assert (first.name, second.name) == ("config", "mine")
    with zipfile.ZipFile(io.BytesIO(services.artifacts.stored[second.file.sha256])) as archive:
        assert pickle.loads(archive.read("mine.pickle")) == MettaGridConfig()


class MettaGridConfig:
    """Pickled like the real one, which only workers can import."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MettaGridConfig)

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(("device", "profile"), [("cuda:0", "gpu-1"), ("cpu", ""), (None, ""), ("auto", "")])
def test_a_gpu_is_asked_for_by_the_profile(client: Client, services: Any, device: str | None, profile: str) -> None:
    launch(client, device=device, checkpoints_path=None)

    assert services.training.requests[0].spec.profile == profile


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"missions": []}, "missions: is missing: give it, or a config"),
        ({"policy_class_path": ""}, "policy_class_path: is missing"),
        ({"missions": [], "env_cfg": object()}, "env_cfg: is a object and no MettaGridConfig"),
        ({"missions": [("name", object())]}, "env_cfg: is a object and no MettaGridConfig"),
        ({"missions": [3]}, r"missions\[0\]: is neither a name"),
        ({"env_cfg": object()}, "env_cfg: and missions exclude each other"),
        ({"device": "mps"}, "device: 'mps' is not one of auto, cpu, cuda"),
        ({"num_workers": 0}, "num_workers: must be at least 1"),
        ({"num_workers": 2, "num_machines": 3}, "num_workers: is said twice"),
        ({"num_steps": 0}, "agent_steps"),
        ({"initial_weights_path": "none.pt"}, "cannot read the weights"),
        ({"hyperparameters": {"lerning_rate": 1}}, "did you mean 'learning_rate'"),
        ({"code": ["none.py"]}, "none.py"),
    ],
)
def test_a_wrong_argument_is_named_and_starts_nothing(
    client: Client, services: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        launch(client, **arguments)

    assert not services.training.requests


def test_a_cluster_is_what_the_installation_can_run(client: Client, services: Any) -> None:
    cluster = daf_create_training_cluster(num_nodes=2, workers_per_node=3, client=client)

    assert cluster.num_workers == 6
    assert not services.training.jobs
    daf_launch_distributed_training(
        policy_class_path="lstm", missions=[MISSION], cluster=cluster, checkpoints_path=None, num_steps=1000
    )
    assert services.training.requests[0].spec.workers == 6
    with pytest.raises(FailedPrecondition, match="there are 64"):
        daf_create_training_cluster(13, 5, client=client)


def test_clusters_that_cannot_be_are_refused(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="workers_per_node: must be at least 1"):
        daf_create_training_cluster(1, 0, client=client)
    with pytest.raises(Unimplemented, match="there is no backend 'ray': use torch"):
        daf_create_training_cluster(backend="ray", client=client)


def test_statistics_of_workers_are_aggregated(client: Client) -> None:
    workers = [{"rank": 0, "loss": 1.0, "steps": 10}, {"rank": 1, "loss": 3.0, "steps": 30, "gpu": 0.5}]

    assert daf_aggregate_training_stats(workers) == {"gpu": 0.5, "loss": 2.0, "steps": 20.0}
    assert daf_aggregate_training_stats({"a": workers[0], "b": workers[1]}, "sum")["steps"] == 40.0
    assert daf_aggregate_training_stats(workers, "max")["loss"] == 3.0
    assert daf_aggregate_training_stats([]) == {}
    assert math.isnan(daf_aggregate_training_stats([*workers, {"loss": math.nan}], "min")["loss"])
    with pytest.raises(InvalidArgument, match="aggregation_method: 'avg' is not one of mean, median, min, max, sum"):
        daf_aggregate_training_stats(workers, "avg")


def test_what_workers_use_can_be_aggregated(client: Client) -> None:
    result = launch(client, num_workers=2)

    total = daf_aggregate_training_stats(result, "sum")

    assert total == {"steps_per_second": 250.0, "cpu_cores": 2.0, "memory_bytes": 1.2e9}


def test_the_status_of_a_run_comes_from_its_name_or_from_its_checkpoint(client: Client, tmp_path: Path) -> None:
    result = launch(client)

    by_name = daf_get_training_status(result.name, client=client)
    by_directory = daf_get_training_status(tmp_path / "train_dir", client=client)

    assert by_name["latest_checkpoint"] == result.checkpoint
    assert by_directory == {**by_name, "latest_checkpoint": str(result.final_checkpoint)}
    assert (by_name["status"], by_name["agent_steps"], by_name["update"]) == ("succeeded", 1000, 10)
    with pytest.raises(NotFound):
        daf_get_training_status("job/none", client=client)


def test_a_checkpoint_whose_job_is_gone_still_tells_what_it_knows(
    client: Client, services: Any, tmp_path: Path
) -> None:
    result = launch(client)
    services.training.jobs.clear()

    status = daf_get_training_status(tmp_path / "train_dir", client=client)

    assert (status["name"], status["status"], status["agent_steps"]) == (result.name, "unknown", 1000)


def test_checkpoints_of_plain_cogames_are_found(tmp_path: Path) -> None:
    (tmp_path / "train_dir/run").mkdir(parents=True)
    for update in (200, 400):
        (tmp_path / f"train_dir/run/model_{update:06d}.pt").touch()

    status = daf_get_training_status(tmp_path / "train_dir")

    assert (status["update"], status["status"], status["name"]) == (400, "unknown", None)
    assert status["latest_checkpoint"] == str(tmp_path / "train_dir/run/model_000400.pt")
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        daf_get_training_status(tmp_path / "nothing")


def test_results_are_collected_at_any_time(client: Client, services: Any, tmp_path: Path) -> None:
    job = launch(client, wait=False)
    early = daf_collect_training_results(job.name, client=client)
    launch_end = daf_monitor_training_job(job.name, client=client)

    late = daf_collect_training_results(job.name, tmp_path / "results", client=client)

    assert early.status == "pending"
    assert launch_end.status == late.status == "succeeded"
    assert late.metrics["env/reward_per_agent"] == [(200, 1.5)]
    assert late.final_checkpoint is not None
    assert late.final_checkpoint.parent == tmp_path / "results"


def test_the_same_checkpoint_is_brought_once(client: Client, services: Any) -> None:
    result = launch(client)
    assert result.final_checkpoint is not None
    services.artifacts.stored.clear()

    again = daf_collect_training_results(result.name, "train_dir", client=client)

    assert again.final_checkpoint == result.final_checkpoint


def test_a_broken_checkpoint_leaves_nothing_behind(client: Client, services: Any, tmp_path: Path) -> None:
    services.artifacts.stored = {digest: b"other" for digest in services.artifacts.stored}

    with pytest.raises(Exception, match="came with the digest"):
        launch(client)

    assert not list((tmp_path / "train_dir").iterdir())


def test_the_directory_of_a_checkpoint_has_all_that_cogames_needs(client: Client, services: Any) -> None:
    code = EXAMPLES / "policies/grid_policy.py"
    result = launch(
        client, policy_class_path="grid_policy.GridPolicy", code=[code], hyperparameters={"policy.hidden_size": 8}
    )

    directory = result.final_checkpoint
    assert directory is not None
    spec = json.loads((directory / "policy_spec.json").read_text())
    lineage = json.loads((directory / "checkpoint.json").read_text())
    assert spec == {
        "class_path": "grid_policy.GridPolicy",
        "data_path": "weights.pt",
        "init_kwargs": {"hidden_size": 8},
    }
    assert (directory / "grid_policy.py").read_text() == code.read_text()
    assert (directory / "policy_spec.json").stat().st_mode & 0o044
    assert directory.stat().st_mode & 0o055
    assert (lineage["training_job"], lineage["update"], lineage["attempt"]) == (result.name, 10, 1)
    assert lineage["metrics"]["env/reward_per_agent"] == 1.5


def test_the_packages_that_a_policy_requires_come_along(client: Client, services: Any, tmp_path: Path) -> None:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    archive = pack([wheel])
    job = services.training.jobs[launch(client, checkpoints_path=None).name]
    job.spec.policy_class.requirements.sha256 = hashlib.sha256(archive).hexdigest()
    services.artifacts.stored[job.spec.policy_class.requirements.sha256] = archive

    directory = daf_collect_training_results(job.name, "train_dir", client=client).final_checkpoint

    assert directory is not None
    assert (directory / "wheels" / wheel.name).read_bytes() == b"a wheel"


def test_a_short_name_is_written_as_the_class_that_it_means(client: Client) -> None:
    directory = launch(client).final_checkpoint

    assert directory is not None
    spec = json.loads((directory / "policy_spec.json").read_text())
    assert spec["class_path"] == "cogames.policy.lstm.LSTMPolicy"


def test_code_with_a_file_of_a_name_that_cogames_needs_is_refused(client: Client, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/module.py").write_text("class Policy: ...\n")
    (tmp_path / "mine/policy_spec.json").write_text("{}")

    with pytest.raises(FailedPrecondition, match=r"has policy_spec\.json, a name"):
        launch(client, policy_class_path="module.Policy", code=["mine"])


def test_checkpoints_are_named_by_a_word_or_their_update(client: Client) -> None:
    job = launch(client, wait=False)
    resources = Resources(client)
    with pytest.raises(FailedPrecondition, match="has saved no checkpoint yet"):
        resources.checkpoint(f"{job.name}/checkpoints/latest")
    job.wait_for_completion()

    best = resources.checkpoint(f"{job.name}/checkpoints/best")
    latest = resources.checkpoint(f"{job.name}/checkpoints/latest")
    exact = resources.checkpoint(f"{job.name}/checkpoints/10")

    assert latest == exact
    assert (best.checkpoint, latest.checkpoint) == (job.best_checkpoint, job.checkpoint)
    with pytest.raises(NotFound, match=r"no checkpoint of update 8 \(it has: 10, 4\)"):
        resources.checkpoint(f"{job.name}/checkpoints/8")
    with pytest.raises(InvalidArgument, match="'newest' is no checkpoint: write job/NAME/checkpoints/best"):
        resources.checkpoint(f"{job.name}/checkpoints/newest")


def test_a_best_checkpoint_needs_its_metric(client: Client, services: Any) -> None:
    job = launch(client, checkpoints_path=None)
    services.training.jobs[job.name].ClearField("best_checkpoint")

    with pytest.raises(FailedPrecondition, match=r"no checkpoint of .* has env/reward_per_agent"):
        Resources(client).checkpoint(f"{job.name}/checkpoints/best")
