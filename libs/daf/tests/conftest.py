"""Services in memory: as much of them as the client's screens and calls need, behind a real gRPC server."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from daf import diagnosis
from daf.checks import services as services_check
from daf.checks.disk import daf_check_disk_space
from daf.cli import stack as stack_commands
from daf.cli.main import main
from daf.client import Client, is_serving
from daf_cogames.catalog import catalog
from daf_cogames.parameter_table import ENVIRONMENT_PARAMETERS, TRAINER_PARAMETERS
from daf_common.errors import DafError, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from daf_common.status import to_status
from daf_common.values import to_value
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.common.v1.policy_pb2 import PolicyCheckpoint
from daf_protos.deployment.v1 import artifact_service_pb2 as artifact_api
from daf_protos.deployment.v1 import artifact_service_pb2_grpc
from daf_protos.evaluation.v1 import evaluation_pb2, evaluation_service_pb2_grpc
from daf_protos.evaluation.v1 import evaluation_service_pb2 as evaluation_api
from daf_protos.scheduler.v1 import scheduler_service_pb2 as scheduler_api
from daf_protos.scheduler.v1 import scheduler_service_pb2_grpc, sweep_pb2
from daf_protos.scheduler.v1.sweep_pb2 import Score, Sweep, Trial
from daf_protos.statistics.v1 import statistics_service_pb2 as statistics_api
from daf_protos.statistics.v1 import statistics_service_pb2_grpc
from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_protos.training.v1 import catalog_service_pb2 as catalog_api
from daf_protos.training.v1 import catalog_service_pb2_grpc, training_job_pb2, training_service_pb2_grpc
from daf_protos.training.v1 import training_service_pb2 as training_api
from daf_protos.training.v1.training_job_pb2 import (
    Checkpoint,
    TrainingAttempt,
    TrainingJob,
    TrainingProgress,
    TrainingWorker,
)

MISSION = catalog_api.MissionInfo(
    name="cogsguard_machina_1.miner_tutorial", description="Mine", variants=["dark"], cogs=[1, 2, 3, 4], max_steps=1000
)
BROKEN = catalog_api.MissionInfo(name="training_facility.easy_hearts_training", problem="no spawn for 8 agents")
LSTM = catalog_api.PolicyInfo(
    name="lstm",
    class_path="cogames.policy.lstm.LSTMPolicy",
    trainable=True,
    recurrent=True,
    warnings=["pads otherwise"],
)
RANDOM = catalog_api.PolicyInfo(name="random", class_path="mettagrid.policy.random_agent.RandomMultiAgentPolicy")


SERIES = [
    statistics_api.MetricSeries(metric="env/reward_per_agent", steps=[2], agent_steps=[200], values=[1.5]),
    statistics_api.MetricSeries(
        metric="losses/entropy", steps=[1, 2], agent_steps=[100, 200], values=[1.25, float("nan")]
    ),
    statistics_api.MetricSeries(metric="env/agent/death", steps=[2], agent_steps=[200], values=[0.5]),
]
for _series in SERIES:
    _series.times.extend(Timestamp(seconds=1000 + step) for step in _series.steps)
WEIGHTS = b"weights"
WEIGHTS_ARTIFACT = Artifact(
    sha256=hashlib.sha256(WEIGHTS).hexdigest(), size_bytes=len(WEIGHTS), media_type="a", owner="training"
)


class Scheduler(scheduler_service_pb2_grpc.SchedulerServiceServicer):
    """Runs grids at once: a trial's score is minus its number, so that the first is best."""

    def __init__(self) -> None:
        self.requests: list[scheduler_api.CreateSweepRequest] = []
        self.sweeps: dict[str, Sweep] = {}
        self.trials: dict[str, list[Trial]] = {}
        self.fail_every_trial = False
        self.breaks_left = 0
        """How often a watch breaks off before it goes on."""
        self.hang = False
        """Whether sweeps never end."""

    def CreateSweep(self, request, context):
        self.requests.append(request)
        sweep = Sweep(name=f"sweeps/{request.sweep_id}", spec=request.spec, state=sweep_pb2.SWEEP_STATE_RUNNING)
        sweep.create_time.GetCurrentTime()
        points = list(itertools.product(*([(n, v) for v in d.choices.values] for n, d in request.spec.space.items())))
        sweep.planned_trials = len(points)
        if not request.validate_only:
            self.sweeps[sweep.name], self.trials[sweep.name] = sweep, []
            for number, point in enumerate(points, 1):
                trial = Trial(name=f"{sweep.name}/trials/{number}", number=number, parameters=dict(point))
                trial.training_job = f"trainingJobs/{request.sweep_id}-t{number}-r0"
                trial.state = sweep_pb2.TRIAL_STATE_TRAINING
                self.trials[sweep.name].append(trial)
        return scheduler_api.CreateSweepResponse(sweep=sweep)

    def GetSweep(self, request, context):
        return scheduler_api.GetSweepResponse(sweep=self._find(request.name, context))

    def ListSweeps(self, request, context):
        return scheduler_api.ListSweepsResponse(sweeps=self.sweeps.values())

    def GetTrial(self, request, context):
        found = [t for trials in self.trials.values() for t in trials if t.name == request.name]
        if not found:
            fail(context, NotFound(f"{request.name} does not exist"))
        return scheduler_api.GetTrialResponse(trial=found[0])

    def ListTrials(self, request, context):
        """One trial a page, so that pages are followed."""
        index = int(request.page_token or 0)
        trials = self.trials[request.parent]
        token = str(index + 1) if index + 1 < len(trials) else ""
        return scheduler_api.ListTrialsResponse(trials=trials[index : index + 1], next_page_token=token)

    def CancelSweep(self, request, context):
        sweep = self._find(request.name, context)
        sweep.cancel_requested = True
        return scheduler_api.CancelSweepResponse(sweep=sweep)

    def WatchSweeps(self, request, context):
        sweep = self._find(request.name, context)
        yield scheduler_api.WatchSweepsResponse(sweeps=[sweep], trials=self.trials[sweep.name], cursor="0")
        if self.breaks_left:
            self.breaks_left -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        while self.hang and context.is_active():
            context.add_callback(lambda: None)
            import time

            time.sleep(0.01)
        for trial in self.trials[sweep.name]:
            self._end(sweep, trial)
            yield scheduler_api.WatchSweepsResponse(sweeps=[sweep], trials=[trial], cursor=str(trial.number))
        self._finish(sweep)
        yield scheduler_api.WatchSweepsResponse(sweeps=[sweep], cursor="end")

    def _end(self, sweep: Sweep, trial: Trial) -> None:
        if self.fail_every_trial:
            trial.state = sweep_pb2.TRIAL_STATE_FAILED
            trial.failure.CopyFrom(Failure(reason="DIVERGED", message="the loss became NaN at update 3"))
            sweep.trials.failed += 1
            return
        trial.state = sweep_pb2.TRIAL_STATE_SUCCEEDED
        trial.checkpoint.CopyFrom(
            PolicyCheckpoint(
                policy_class=sweep.spec.training.policy_class, checkpoint=f"{trial.training_job}/checkpoints/7"
            )
        )
        mean = -float(trial.number)
        trial.score.CopyFrom(
            Score(mean=mean, standard_error=0.125, interval_low=mean - 0.5, interval_high=mean + 0.5, episodes=20)
        )
        sweep.trials.succeeded += 1
        sweep.best_trial = sweep.best_trial or trial.name

    def _finish(self, sweep: Sweep) -> None:
        sweep.end_time.GetCurrentTime()
        if self.fail_every_trial:
            sweep.state = sweep_pb2.SWEEP_STATE_FAILED
            sweep.failure.CopyFrom(Failure(reason="NO_TRIAL_SUCCEEDED", message="no trial succeeded"))
            return
        sweep.state = sweep_pb2.SWEEP_STATE_SUCCEEDED
        sweep.held_out.evaluation = f"evaluations/{sweep.name.partition('/')[2]}-held-out"
        sweep.held_out.best.CopyFrom(
            Score(mean=2.5, standard_error=0.25, interval_low=2.0, interval_high=3.0, episodes=30)
        )
        for baseline in sweep.spec.baselines:
            sweep.held_out.baselines.add(
                label=baseline.label,
                score=Score(mean=0.5, standard_error=0.125, interval_low=0.25, interval_high=0.75, episodes=30),
                difference=Score(mean=2.0, interval_low=1.5, interval_high=2.25, episodes=30),
            )

    def _find(self, name: str, context: grpc.ServicerContext) -> Sweep:
        if name not in self.sweeps:
            fail(context, NotFound(f"{name} does not exist"))
        return self.sweeps[name]


class Training(training_service_pb2_grpc.TrainingServiceServicer):
    """A job has run when it was asked for often enough; it may lose a worker or fail, and be resumed."""

    def __init__(self) -> None:
        self.requests: list[training_api.CreateTrainingJobRequest] = []
        self.resumed: list[training_api.ResumeTrainingJobRequest] = []
        self.jobs: dict[str, TrainingJob] = {}
        self.attempts: dict[str, list[TrainingAttempt]] = {}
        self.loses_a_worker = False
        self.fails = False
        self.waits_for = ""
        """What jobs wait for when they are asked for the first time."""
        self.unavailable = 0
        """How many reads fail before they succeed again."""
        self.stays: int | None = None
        """The state that jobs do not leave."""

    def CreateTrainingJob(self, request, context):
        if request.spec.workers > 64:
            fail(context, FailedPrecondition("spec.workers: 65 workers need 65 CPUs: there are 64"))
        job = TrainingJob(
            name=f"trainingJobs/{request.job_id}", spec=request.spec, state=training_job_pb2.TRAINING_JOB_STATE_PENDING
        )
        if not request.validate_only:
            self.requests.append(request)
            job.create_time.GetCurrentTime()
            job.waiting_for = self.waits_for
            self.jobs[job.name], self.attempts[job.name] = job, []
        return training_api.CreateTrainingJobResponse(training_job=job)

    def GetTrainingJob(self, request, context):
        if self.unavailable:
            self.unavailable -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        before = TrainingJob()
        before.CopyFrom(self._find(request.name, context))
        self._go_on(self.jobs[request.name])
        return training_api.GetTrainingJobResponse(training_job=before)

    def ListTrainingJobs(self, request, context):
        return training_api.ListTrainingJobsResponse(training_jobs=self.jobs.values())

    def ListCheckpoints(self, request, context):
        job = self._find(request.parent, context)
        saved = [job.checkpoint, job.best_checkpoint] if job.HasField("checkpoint") else []
        return training_api.ListCheckpointsResponse(checkpoints=saved)

    def ListAttempts(self, request, context):
        self._find(request.parent, context)
        return training_api.ListAttemptsResponse(attempts=reversed(self.attempts[request.parent]))

    def CancelTrainingJob(self, request, context):
        job = self._find(request.name, context)
        job.cancel_requested = True
        return training_api.CancelTrainingJobResponse(training_job=job)

    def ResumeTrainingJob(self, request, context):
        job = self._find(request.name, context)
        if job.state == training_job_pb2.TRAINING_JOB_STATE_SUCCEEDED and not request.agent_steps:
            fail(context, FailedPrecondition(f"{job.name} has succeeded: give more agent_steps to go on"))
        self.resumed.append(request)
        self.fails = False
        job.state = training_job_pb2.TRAINING_JOB_STATE_PENDING
        job.ClearField("failure")
        if request.HasField("workers"):
            job.spec.workers = request.workers
        return training_api.ResumeTrainingJobResponse(training_job=job)

    def DeleteTrainingJob(self, request, context):
        del self.jobs[self._find(request.name, context).name]
        return training_api.DeleteTrainingJobResponse()

    def ReadLogs(self, request, context):
        for worker, line in ((0, "first\n"), (1, "second\n")):
            text = f"{request.name} {line}"
            yield training_api.ReadLogsResponse(attempt=request.attempt or 1 + worker, worker=worker, text=text)

    def _find(self, name: str, context: grpc.ServicerContext) -> TrainingJob:
        if name not in self.jobs:
            fail(context, NotFound(f"{name} does not exist"))
        return self.jobs[name]

    def _go_on(self, job: TrainingJob) -> None:
        """A step in the life of a job."""
        if job.state == self.stays:
            return
        job.revision += 1
        match job.state:
            case training_job_pb2.TRAINING_JOB_STATE_PENDING:
                job.state = training_job_pb2.TRAINING_JOB_STATE_STARTING
                self._begin_attempt(job)
            case training_job_pb2.TRAINING_JOB_STATE_STARTING:
                job.state = training_job_pb2.TRAINING_JOB_STATE_RUNNING
                job.effective_trainer["learning_rate"].real = 0.0005
                if job.spec.checkpoint_agent_steps:
                    job.effective_trainer["checkpoint_agent_steps"].integer = 100
                self._report(job, 500)
            case training_job_pb2.TRAINING_JOB_STATE_RUNNING if self.loses_a_worker and job.attempt == 1:
                self._end_attempt(job, Failure(reason="WORKER_LOST", message="worker 1 was killed"))
                job.state = training_job_pb2.TRAINING_JOB_STATE_PENDING
            case training_job_pb2.TRAINING_JOB_STATE_RUNNING:
                self._report(job, 1000)
                failure = Failure(reason="DIVERGED", message="the weights became NaN") if self.fails else None
                self._end_attempt(job, failure)
                job.end_time.GetCurrentTime()
                job.state = training_job_pb2.TRAINING_JOB_STATE_SUCCEEDED
                if failure:
                    job.state = training_job_pb2.TRAINING_JOB_STATE_FAILED
                    job.failure.CopyFrom(failure)

    def _begin_attempt(self, job: TrainingJob) -> None:
        job.attempt += 1
        job.waiting_for = ""
        attempt = TrainingAttempt(number=job.attempt, workers=job.spec.workers or 1, resumed_from=job.checkpoint.name)
        attempt.start_time.FromSeconds(1000)
        self.attempts[job.name].append(attempt)

    def _end_attempt(self, job: TrainingJob, failure: Failure | None) -> None:
        attempt = self.attempts[job.name][-1]
        attempt.end_time.FromSeconds(1004)
        attempt.agent_steps = job.progress.agent_steps
        if failure:
            attempt.failure.CopyFrom(failure)

    def _report(self, job: TrainingJob, agent_steps: int) -> None:
        update = agent_steps // 100
        job.start_time.GetCurrentTime()
        job.progress.CopyFrom(
            TrainingProgress(
                agent_steps=agent_steps,
                total_agent_steps=1000,
                update=update,
                steps_per_second=250.0,
                reward=1.5,
                learning_rate=0.0005,
                losses={"clipfrac": 0.1, "policy_loss": 0.25, "entropy": 1.5},
                workers=[
                    TrainingWorker(rank=rank, steps_per_second=125.0, cpu_cores=0.5 + rank, memory_bytes=600_000_000)
                    for rank in range(job.spec.workers or 1)
                ],
            )
        )
        job.checkpoint.CopyFrom(self._checkpoint(job, update, 1.5))
        if not job.HasField("best_checkpoint"):
            job.best_checkpoint.CopyFrom(self._checkpoint(job, update - 1, 2.5))

    def _checkpoint(self, job: TrainingJob, update: int, reward: float) -> Checkpoint:
        return Checkpoint(
            name=f"{job.name}/checkpoints/{update}",
            update=update,
            agent_steps=update * 100,
            weights=WEIGHTS_ARTIFACT,
            reward=reward,
            metrics={"env/reward_per_agent": reward, "losses/entropy": 1.5},
            attempt=job.attempt,
        )


class Catalog(catalog_service_pb2_grpc.CatalogServiceServicer):
    """Two missions, two policies, and the parameters of the real trainer."""

    def ListMissions(self, request, context):
        return catalog_api.ListMissionsResponse(missions=[MISSION, BROKEN])

    def ListPolicies(self, request, context):
        return catalog_api.ListPoliciesResponse(policies=[LSTM, RANDOM])

    def ListHyperparameters(self, request, context):
        if request.policy not in ("", LSTM.name, LSTM.class_path):
            fail(context, NotFound(f"there is no policy {request.policy!r}"))
        known = [
            catalog_api.HyperparameterInfo(
                name=parameter.name,
                description=parameter.note,
                default_value=None if parameter.default is None else to_value(parameter.default),
            )
            for parameter in (*TRAINER_PARAMETERS, *ENVIRONMENT_PARAMETERS)
        ]
        if request.policy:
            known.append(catalog_api.HyperparameterInfo(name="policy.hidden_size", default_value=to_value(64)))
        return catalog_api.ListHyperparametersResponse(hyperparameters=known)

    def GetRunner(self, request, context):
        runner = catalog().runner
        return catalog_api.GetRunnerResponse(
            python_version=runner.python_version, packages=runner.packages, modules=runner.modules
        )


class Evaluations(evaluation_service_pb2_grpc.EvaluationServiceServicer):
    """All episodes are played at once."""

    def __init__(self) -> None:
        self.requests: list[evaluation_api.CreateEvaluationRequest] = []
        self.evaluations: dict[str, evaluation_pb2.Evaluation] = {}

    def CreateEvaluation(self, request, context):
        unknown = [mission.name for mission in request.spec.missions if mission.name != MISSION.name]
        if unknown:
            fail(context, InvalidArgument.field("spec.missions[0].name", f"there is no mission {unknown[0]!r}"))
        if request.validate_only:
            return evaluation_api.CreateEvaluationResponse()
        self.requests.append(request)
        total = request.spec.episodes * len(request.spec.missions)
        evaluation = evaluation_pb2.Evaluation(
            name=f"evaluations/{request.evaluation_id}",
            spec=request.spec,
            state=evaluation_pb2.EVALUATION_STATE_SUCCEEDED,
            total_episodes=total,
            done_episodes=total,
            digest="cd" * 32,
        )
        self.evaluations[evaluation.name] = evaluation
        return evaluation_api.CreateEvaluationResponse(evaluation=evaluation)

    def GetEvaluation(self, request, context):
        return evaluation_api.GetEvaluationResponse(evaluation=self.evaluations[request.name])

    def ReadLogs(self, request, context):
        yield evaluation_api.ReadLogsResponse(worker="w1", text="played\n")


class Statistics(statistics_service_pb2_grpc.StatisticsServiceServicer):
    """The same score for everyone, unless everyone forfeits."""

    def __init__(self) -> None:
        self.forfeit = ""

    def ListEpisodes(self, request, context):
        return statistics_api.ListEpisodesResponse(
            episodes=[Episode(forfeits=[Failure(subject="0", message=self.forfeit)]) for _ in range(3)]
        )

    def ListMetrics(self, request, context):
        return statistics_api.ListMetricsResponse(metrics=[one.metric for one in SERIES])

    def ReadMetrics(self, request, context):
        asked = [one for one in SERIES if not request.metrics or one.metric in request.metrics]
        return statistics_api.ReadMetricsResponse(series=asked)

    def SummarizeEvaluation(self, request, context):
        if self.forfeit:
            return statistics_api.SummarizeEvaluationResponse(policies=[statistics_api.PolicySummary(forfeits=3)])
        summary = statistics_api.PolicySummary(
            policy=0, episodes=20, mean=1.25, standard_error=0.5, interval_low=0.25, interval_high=2.25
        )
        return statistics_api.SummarizeEvaluationResponse(policies=[summary], digest="cd" * 32, episodes=20)


class Artifacts(artifact_service_pb2_grpc.ArtifactServiceServicer):
    """Keeps what is uploaded, after it has checked it."""

    def __init__(self) -> None:
        self.stored = {WEIGHTS_ARTIFACT.sha256: WEIGHTS}
        self.uploads = 0
        self.lost = 0
        """How many uploads do not get through before others do."""

    def UploadArtifact(self, request_iterator, context):
        header, content = next(request_iterator).artifact, b"".join(part.chunk for part in request_iterator)
        if self.lost:
            self.lost -= 1
            fail(context, Unavailable("the end of it is missing"))
        assert hashlib.sha256(content).hexdigest() == header.sha256
        assert len(content) == header.size_bytes
        self.uploads += 1
        self.stored[header.sha256] = content
        header.owner = "deployment"
        return artifact_api.UploadArtifactResponse(artifact=header)

    def DownloadArtifact(self, request, context):
        if request.artifact.sha256 not in self.stored:
            fail(context, NotFound("there is no such artifact"))
        yield artifact_api.DownloadArtifactResponse(chunk=self.stored[request.artifact.sha256])


def fail(context: grpc.ServicerContext, error: DafError) -> None:
    context.abort_with_status(rpc_status.to_status(to_status(error)))


@dataclass
class Services:
    """All of them."""

    address: str
    scheduler: Scheduler = field(default_factory=Scheduler)
    training: Training = field(default_factory=Training)
    evaluation: Evaluations = field(default_factory=Evaluations)
    statistics: Statistics = field(default_factory=Statistics)
    artifacts: Artifacts = field(default_factory=Artifacts)

    def serve(self) -> grpc.Server:
        server = grpc.server(futures.ThreadPoolExecutor(16))
        scheduler_service_pb2_grpc.add_SchedulerServiceServicer_to_server(self.scheduler, server)
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(self.training, server)
        catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(Catalog(), server)
        evaluation_service_pb2_grpc.add_EvaluationServiceServicer_to_server(self.evaluation, server)
        statistics_service_pb2_grpc.add_StatisticsServiceServicer_to_server(self.statistics, server)
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(self.artifacts, server)
        checks = health.HealthServicer()
        checks.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        server.add_insecure_port(self.address)
        server.start()
        return server


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services are not taken to be away because they answer late."""
    monkeypatch.setattr(is_serving, "__defaults__", (30.0,))
    for module in (services_check, stack_commands, diagnosis):
        monkeypatch.setattr(module, "_SECONDS", 30.0)


@pytest.fixture(autouse=True)
def _modest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine is not found wanting because its disk is small."""
    monkeypatch.setattr(daf_check_disk_space, "__defaults__", (0.001,))


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(f"unix:{tmp_path}/daf.sock")
    server = made.serve()
    yield made
    server.stop(None).wait()


@pytest.fixture
def client(services: Services) -> Iterator[Client]:
    with Client(services.address) as made:
        yield made


@dataclass
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def daf(home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command of `daf`."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("DAF_DEBUG", raising=False)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["daf", *arguments])
        with patch.dict(os.environ), pytest.raises(SystemExit) as caught:  # a command is a process of its own
            main()
        out, err = capfd.readouterr()
        return Outcome(int(caught.value.code or 0), out, err)

    return run


@pytest.fixture
def with_services(services: Services, monkeypatch: pytest.MonkeyPatch, daf: Any) -> Services:
    """The services, and commands that find them."""
    monkeypatch.setenv("DAF_ADDRESS", services.address)
    return services


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own for what DAF keeps on a machine, and no context in the environment."""
    directory = tmp_path / "home"
    monkeypatch.setenv("DAF_HOME", str(directory))
    monkeypatch.delenv("DAF_ADDRESS", raising=False)
    monkeypatch.delenv("DAF_CONTEXT", raising=False)
    return directory
