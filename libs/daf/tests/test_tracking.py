"""Exports to real trackers, read back with their own readers; the numbers come from the real statistics service."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from wandb.proto import wandb_internal_pb2

import daf_statistics.main
from daf import follow_runs
from daf.client import Client
from daf.config import DAFTrainingConfig
from daf.tracking import Tracking, TrackingFailed, daf_export_training_job, export, exported_live
from daf_common.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from daf_common.service import Context, Host
from daf_common.settings import ServiceSettings
from daf_common.values import to_value
from daf_protos.statistics.v1.statistics_service_pb2 import DeleteNumbersRequest, MetricPoint, RecordMetricsRequest
from daf_protos.training.v1 import training_job_pb2
from daf_protos.training.v1.training_job_pb2 import TrainingJob

JOB = "trainingJobs/miner"
REWARD, LOSS = "env/reward_per_agent", "losses/policy_loss"
RUNNING, SUCCEEDED, FAILED = (
    training_job_pb2.TRAINING_JOB_STATE_RUNNING,
    training_job_pb2.TRAINING_JOB_STATE_SUCCEEDED,
    training_job_pb2.TRAINING_JOB_STATE_FAILED,
)


class Jobs:
    """A training service with one job, which lives on whenever it is read."""

    def __init__(self, *steps: Callable[[TrainingJob], None]) -> None:
        self._steps = list(steps)
        self.job = TrainingJob(name=JOB, state=RUNNING, attempt=1)
        self.job.create_time.FromSeconds(1000)
        self.job.spec.policy_class.class_path = "grid_policy.GridPolicy"
        self.job.spec.policy_class.arguments["hidden_size"].integer = 64
        self.job.spec.missions.add(name="cogsguard_machina_1.miner_tutorial")
        self.job.spec.seed = 7
        self.job.spec.agent_steps = 1000
        self.job.effective_trainer["learning_rate"].CopyFrom(to_value(0.002))

    def GetTrainingJob(self, request: Any) -> Any:
        if request.name != JOB:
            raise NotFound(f"{request.name} does not exist")
        if self._steps:
            self._steps.pop(0)(self.job)
        job = TrainingJob()
        job.CopyFrom(self.job)  # which goes on while the answer is read
        return type("Answer", (), {"training_job": job})


def succeed(job: TrainingJob) -> None:
    job.end_time.FromSeconds(2000)
    job.best_checkpoint.name = f"{JOB}/checkpoints/2"
    job.best_checkpoint.metrics[REWARD] = 2.5
    job.state = SUCCEEDED


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The statistics service."""
    directory = tmp_path_factory.mktemp("numbers")
    address = f"unix:{directory}/s"
    settings = ServiceSettings(home=directory, listen=address, statistics_address=address)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> Host:
        context = Context(settings)
        host = Host(context, [daf_statistics.main.build(context)])
        await host.start()
        return host

    host = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    with Client(address) as client:
        yield client
    asyncio.run_coroutine_threadsafe(host.stop(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def world(numbers: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client without a job's numbers, and trackers that stay on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setattr(export, "EXPORT_SECONDS", 0.0)
    monkeypatch.setattr(follow_runs, "POLL_SECONDS", 0.0)
    numbers.statistics.DeleteNumbers(DeleteNumbersRequest(name=JOB))
    yield numbers
    wandb.teardown()  # its process and its settings, which are those of the first run


@pytest.fixture(scope="module")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow without runs; to make one takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow_uri(empty_mlflow: Path, tmp_path: Path) -> str:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def with_jobs(client: Client, monkeypatch: pytest.MonkeyPatch, *steps: Callable[[TrainingJob], None]) -> Jobs:
    jobs = Jobs(*steps)
    monkeypatch.setattr(client, "training", jobs)
    return jobs


def record(
    client: Client, update: int, values: Mapping[str, float], *, second: int = 0, after: int | None = None
) -> None:
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    point = MetricPoint(
        step=update, agent_steps=100 * update, values=finite, non_finite=[n for n in values if n not in finite]
    )
    point.time.FromSeconds(1000 + (second or update))
    client.statistics.RecordMetrics(RecordMetricsRequest(source=JOB, points=[point], after_step=after))


def event_series(directory: Path, metric: str) -> list[tuple[int, float]]:
    reader = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(metric)]


def mlflow_series(uri: str, metric: str) -> tuple[Any, list[tuple[int, float]]]:
    from mlflow import MlflowClient  # takes seconds

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("daf")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.`daf.run` != ''")
    return run, [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]


def wandb_records(directory: Path) -> dict[str, list[Any]]:
    """What lies in an offline run directory, by kind. W&B's own process writes the last of it after `finish`."""
    (file,) = directory.glob("run-*.wandb")
    deadline = time.monotonic() + 120
    while True:
        found: dict[str, list[Any]] = {}
        for data in log_records(file.read_bytes()):
            read = wandb_internal_pb2.Record.FromString(data)
            kind = str(read.WhichOneof("record_type"))
            found.setdefault(kind, []).append(getattr(read, kind))
        if "exit" in found:
            return found
        assert time.monotonic() < deadline, f"the run was not written to its end: {list(found)}"
        time.sleep(0.01)


def log_records(content: bytes) -> Iterator[bytes]:
    """Records of a LevelDB log, which is what W&B writes after a header of 7 bytes: blocks of 32 KiB with fragments,
    each a checksum (4 bytes), a length (2), a kind (1: whole, 2: first, 3: middle, 4: last) and data."""
    assert content[:4] == b":W&B"[: len(content)]
    position, data = 7, b""
    while position + 7 <= len(content):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        if position + 7 + length > len(content):  # it is still being written
            return
        data += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield data
            data = b""


def wandb_series(directory: Path, metric: str) -> list[tuple[int, float]]:
    rows = []
    for history in wandb_records(directory)["history"]:
        row = {item.key or ".".join(item.nested_key): item.value_json for item in history.item}
        if metric in row:
            rows.append((history.step.num, float(row[metric])))
    return rows


def wandb_runs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "wandb").glob("offline-run-*"))


def test_tensorboard_gets_the_series_over_agent_steps_and_again_the_same(
    world: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for update in (1, 2, 3):
        record(world, update, {REWARD: update / 2, LOSS: math.nan if update == 2 else 0.25})
    with_jobs(world, monkeypatch, succeed)
    (tmp_path / "runs" / "miner").mkdir(parents=True)
    (tmp_path / "runs" / "miner" / "events.out.tfevents.1.theirs").write_bytes(b"")

    for _ in range(2):
        (place,) = daf_export_training_job(JOB, tensorboard="runs", client=world)

    assert place == "TensorBoard, runs"
    assert event_series(tmp_path / "runs" / "miner", REWARD) == [(100, 0.5), (200, 1.0), (300, 1.5)]
    losses = event_series(tmp_path / "runs" / "miner", LOSS)
    assert [step for step, _ in losses] == [100, 200, 300]
    assert math.isnan(losses[1][1])
    assert len(list((tmp_path / "runs" / "miner").iterdir())) == 2  # one of ours, and theirs
    reader = EventAccumulator(str(tmp_path / "runs" / "miner"))
    reader.Reload()
    assert reader.Scalars(REWARD)[0].wall_time == 1001
    started = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data
    parameters = HParamsPluginData.FromString(started.content).session_start_info.hparams
    assert parameters["learning_rate"].number_value == 0.002
    assert parameters["policy"].string_value == "grid_policy.GridPolicy"


def test_mlflow_gets_what_it_lacks_and_nothing_twice(
    world: Client, tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = with_jobs(world, monkeypatch)
    record(world, 1, {REWARD: 1.0, LOSS: math.nan})
    daf_export_training_job(JOB, mlflow=mlflow_uri, client=world)
    run, _ = mlflow_series(mlflow_uri, REWARD)
    assert run.info.status == "RUNNING"

    record(world, 2, {REWARD: 2.0})
    succeed(jobs.job)
    for _ in range(2):
        daf_export_training_job(JOB, mlflow=mlflow_uri, client=world)

    run, series = mlflow_series(mlflow_uri, REWARD)
    assert series == [(100, 1.0), (200, 2.0)]
    assert math.isnan(mlflow_series(mlflow_uri, LOSS)[1][0][1])
    assert run.info.status == "FINISHED"
    assert run.info.end_time == 2_000_000
    assert run.data.params["learning_rate"] == "0.002"
    assert run.data.params["policy.hidden_size"] == "64"
    assert run.data.params["missions"] == "cogsguard_machina_1.miner_tutorial"
    assert run.data.tags["daf.state"] == "succeeded"
    assert run.data.tags["daf.best_checkpoint"] == f"{JOB}/checkpoints/2"


def test_mlflow_leaves_a_run_with_points_that_the_job_took_back(
    world: Client, tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_jobs(world, monkeypatch, succeed)
    for update in (1, 2, 3):
        record(world, update, {REWARD: float(update)})
    daf_export_training_job(JOB, mlflow=mlflow_uri, client=world)

    record(world, 3, {REWARD: 30.0}, second=50, after=2)  # it went on from update 2
    daf_export_training_job(JOB, mlflow=mlflow_uri, client=world)

    assert mlflow_series(mlflow_uri, REWARD)[1] == [(100, 1.0), (200, 2.0), (300, 30.0)]


def test_mlflow_takes_its_old_directories_where_the_user_allows_them(
    world: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_jobs(world, monkeypatch, succeed)
    record(world, 1, {REWARD: 1.0})
    uri = (tmp_path / "mlruns").as_uri()

    with pytest.raises(TrackingFailed, match=r"MLflow, file://.*maintenance mode"):
        daf_export_training_job(JOB, mlflow=uri, client=world)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    daf_export_training_job(JOB, mlflow=uri, client=world)

    assert mlflow_series(uri, REWARD)[1] == [(100, 1.0)]


def test_wandb_writes_an_offline_run_and_again_the_same(
    world: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_jobs(world, monkeypatch, succeed)
    for update in (1, 2):
        record(world, update, {REWARD: float(update)})

    for _ in range(2):
        daf_export_training_job(JOB, wandb="team/miners", client=world)

    (directory,) = wandb_runs(tmp_path)
    assert wandb_series(directory, REWARD) == [(100, 1.0), (200, 2.0)]
    found = wandb_records(directory)
    (run,) = found["run"]
    assert (run.entity, run.project, run.display_name) == ("team", "miners", "miner")
    config = {item.key: item.value_json for update in [run.config, *found["config"]] for item in update.update}
    assert (config["learning_rate"], config["seed"]) == ("0.002", "7")
    summary = {item.key or ".".join(item.nested_key): item.value_json for s in found["summary"] for item in s.update}
    assert summary[f"best/{REWARD}"] == "2.5"
    assert "output" not in found  # what this process prints is not the run's
    assert wandb_series(directory, "_timestamp") == [(100, 1001.0), (200, 1002.0)]


def test_a_job_that_is_followed_is_exported_to_its_end_through_a_resume(
    world: Client, tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    def first_attempt(job: TrainingJob) -> None:
        for update in (1, 2, 3):
            record(world, update, {REWARD: float(update)})

    def second_attempt(job: TrainingJob) -> None:
        job.attempt = 2
        record(world, 2, {REWARD: 20.0}, second=50, after=1)

    def later(job: TrainingJob) -> None:
        record(world, 3, {REWARD: 30.0}, second=51)

    with_jobs(world, monkeypatch, lambda job: None, first_attempt, second_attempt, later, succeed)
    daf_export_training_job(JOB, tensorboard="runs", mlflow=mlflow_uri, wandb="miners", follow=True, client=world)

    expected = [(100, 1.0), (200, 20.0), (300, 30.0)]
    assert event_series(tmp_path / "runs" / "miner", REWARD) == expected
    assert mlflow_series(mlflow_uri, REWARD)[1] == expected
    before, after = wandb_runs(tmp_path)
    assert wandb_series(before, REWARD) == [(100, 1.0), (200, 2.0), (300, 3.0)]
    assert wandb_series(after, REWARD) == expected
    assert {path.name.rpartition("-")[2] for path in (before, after)} == {"a1", "a2"}


def test_services_that_are_away_for_a_moment_end_no_export(
    world: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(job: TrainingJob) -> None:
        raise Unavailable("going away")

    record(world, 1, {REWARD: 1.0})
    with_jobs(world, monkeypatch, lambda job: None, lambda job: None, away, away, succeed)

    daf_export_training_job(JOB, tensorboard="runs", follow=True, client=world)

    assert event_series(tmp_path / "runs" / "miner", REWARD) == [(100, 1.0)]


def test_a_live_export_ends_with_the_job(world: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(world, 1, {REWARD: 1.0})
    jobs = with_jobs(world, monkeypatch)
    said: list[str] = []

    with exported_live(world, JOB, Tracking(tensorboard=tmp_path / "runs").destinations(), said.append):
        record(world, 2, {REWARD: 2.0})
        succeed(jobs.job)

    assert event_series(tmp_path / "runs" / "miner", REWARD) == [(100, 1.0), (200, 2.0)]
    assert not said


def test_daf_train_exports_while_it_follows_and_daf_job_export_does_it_again(
    daf: Callable[..., Any], with_services: Any, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(
        "missions: [cogsguard_machina_1.miner_tutorial]\npolicy: lstm\ntracking: {tensorboard: runs}\n"
    )

    trained = daf("train", str(tmp_path / "run.yaml"), "--name", "first", "--json")
    exported = daf("job", "export", "first", "--tensorboard", str(tmp_path / "again"), "--json")
    detached = daf("train", str(tmp_path / "run.yaml"), "--name", "second", "--detach")

    assert trained.json()["training_job"]["state"] == "TRAINING_JOB_STATE_SUCCEEDED"
    assert event_series(tmp_path / "runs" / "first", REWARD) == [(200, 1.5)]
    assert event_series(tmp_path / "again" / "first", REWARD) == [(200, 1.5)]
    assert exported.json()["exported_to"] == [f"TensorBoard, {tmp_path / 'again'}"]
    assert "`daf job export second --follow` does it" in detached.err


def test_trouble_with_a_tracker_is_told_and_no_trouble_for_the_run(
    world: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(world, 1, {REWARD: 1.0})
    with_jobs(world, monkeypatch, succeed)
    (tmp_path / "runs").write_text("a file, not a directory")
    said: list[str] = []

    with exported_live(world, JOB, Tracking(tensorboard=tmp_path / "runs").destinations(), said.append):
        pass

    assert "TensorBoard" in said[0]
    assert "`daf job export miner` sends what is missing" in said[0]


def test_whoever_no_longer_waits_ends_the_export(
    world: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(world, 1, {REWARD: 1.0})
    with_jobs(world, monkeypatch)  # it runs for ever

    with (
        pytest.raises(KeyboardInterrupt),
        exported_live(world, JOB, Tracking(tensorboard=tmp_path / "r").destinations()),
    ):
        raise KeyboardInterrupt


def test_a_client_that_is_not_installed_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(FailedPrecondition, match=r"pip install 'daf\[wandb\]'"):
        Tracking(wandb="miners").destinations()


def test_an_export_without_a_tracker_or_a_job_is_refused(
    world: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_jobs(world, monkeypatch)

    with pytest.raises(InvalidArgument, match="name a tracker"):
        daf_export_training_job(JOB, client=world)
    with pytest.raises(NotFound):
        daf_export_training_job("trainingJobs/other", tensorboard="runs", client=world)
    assert not (tmp_path / "runs").exists()


def test_passwords_in_a_tracking_uri_are_not_shown() -> None:
    (destination,) = Tracking(mlflow="http://me:secret@tracker.example:5000/x").destinations()

    assert destination.name == "MLflow, http://tracker.example:5000/x"


def test_a_document_names_trackers_and_a_directory_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "missions: [cogsguard_machina_1.miner_tutorial]\npolicy: lstm\n"
        "tracking: {tensorboard: runs, mlflow: 'sqlite:///m.db', wandb: miners}\n"
    )

    chosen = Tracking.of(DAFTrainingConfig.from_yaml(tmp_path / "run.yaml"))

    assert chosen == Tracking(tmp_path / "runs", "sqlite:///m.db", "miners")
    assert not Tracking.of(DAFTrainingConfig(missions=["m"], policy="lstm"))
