"""Services in memory: as much of them as the client's screens and calls need, behind a real gRPC server."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from daf.client import Client
from daf_cogames.params import ENVIRONMENT_PARAMETERS, TRAINER_PARAMETERS
from daf_common.errors import DafError, InvalidArgument, NotFound
from daf_common.status import to_status
from daf_common.values import to_value
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
from daf_protos.training.v1.training_job_pb2 import Checkpoint, TrainingJob, TrainingProgress

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
    """A job has run when it was asked for twice."""

    def __init__(self) -> None:
        self.requests: list[training_api.CreateTrainingJobRequest] = []
        self.jobs: dict[str, TrainingJob] = {}

    def CreateTrainingJob(self, request, context):
        self.requests.append(request)
        job = TrainingJob(
            name=f"trainingJobs/{request.job_id}", spec=request.spec, state=training_job_pb2.TRAINING_JOB_STATE_RUNNING
        )
        self.jobs[job.name] = job
        return training_api.CreateTrainingJobResponse(training_job=job)

    def GetTrainingJob(self, request, context):
        job = self.jobs.get(request.name) or TrainingJob(name=request.name)
        if job.progress.agent_steps:
            job.state = training_job_pb2.TRAINING_JOB_STATE_SUCCEEDED
            job.effective_trainer["learning_rate"].real = 0.0005
            name = f"{job.name}/checkpoints/9"
            job.checkpoint.CopyFrom(Checkpoint(name=name, update=9, weights={"sha256": "ab" * 32}))
        job.progress.CopyFrom(
            TrainingProgress(agent_steps=500, total_agent_steps=1000, update=9, steps_per_second=250.0, reward=1.5)
        )
        return training_api.GetTrainingJobResponse(training_job=job)

    def ListTrainingJobs(self, request, context):
        return training_api.ListTrainingJobsResponse(training_jobs=self.jobs.values())

    def ListCheckpoints(self, request, context):
        return training_api.ListCheckpointsResponse(checkpoints=[self.jobs[request.parent].checkpoint])

    def CancelTrainingJob(self, request, context):
        job = self.jobs[request.name]
        job.cancel_requested = True
        return training_api.CancelTrainingJobResponse(training_job=job)

    def ReadLogs(self, request, context):
        for line in ("first\n", "second\n"):
            yield training_api.ReadLogsResponse(attempt=1, text=f"{request.name} {line}")


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
        self.stored: dict[str, bytes] = {}
        self.uploads = 0

    def UploadArtifact(self, request_iterator, context):
        header, content = next(request_iterator).artifact, b"".join(part.chunk for part in request_iterator)
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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own for what DAF keeps on a machine, and no context in the environment."""
    directory = tmp_path / "home"
    monkeypatch.setenv("DAF_HOME", str(directory))
    monkeypatch.delenv("DAF_ADDRESS", raising=False)
    monkeypatch.delenv("DAF_CONTEXT", raising=False)
    return directory
