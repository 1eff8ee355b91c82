"""The databases of every release that was, opened by this version: all is there, and new work goes on beside it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from daf_common.channel import connect, raising
from daf_protos.evaluation.v1 import evaluation_service_pb2 as evaluation_pb
from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from daf_protos.scheduler.v1 import scheduler_service_pb2 as pb
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_protos.statistics.v1.statistics_service_pb2 import SummarizeEvaluationRequest
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1.training_service_pb2 import GetTrainingJobRequest
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceStub
from daf_standalone.settings import Home
from tests.requests import all_trials, finished_sweep, result_digest, sweep_request
from tests.standin_stack import standin_host

RELEASES = sorted((Path(__file__).parent / "databases").iterdir())


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
async def test_the_databases_of_a_release_are_opened(tmp_path: Path, release: Path) -> None:
    home = Home(tmp_path / "home")
    state = home.directory / "state"
    state.mkdir(parents=True)
    for dump in release.glob("*.sql"):
        connection = sqlite3.connect(state / f"{dump.stem}.db")
        connection.executescript(dump.read_text())
        connection.close()

    host = standin_host(home)
    await host.start()
    async with connect(f"unix:{home.socket()}") as channel:
        scheduler = SchedulerServiceStub(channel)
        sweep = (await raising(scheduler.GetSweep(pb.GetSweepRequest(name="sweeps/kept")))).sweep
        trials = await all_trials(scheduler, sweep.name)
        assert result_digest(sweep, trials) == (release / "digest").read_text().strip()

        for trial in trials:
            job = GetTrainingJobRequest(name=trial.training_job)
            assert (await raising(TrainingServiceStub(channel).GetTrainingJob(job))).training_job.HasField("checkpoint")
            found = evaluation_pb.GetEvaluationRequest(name=trial.evaluation)
            evaluation = (await raising(EvaluationServiceStub(channel).GetEvaluation(found))).evaluation
            asked = SummarizeEvaluationRequest(evaluation=trial.evaluation, metric=Metric(name="reward"))
            summary = await raising(StatisticsServiceStub(channel).SummarizeEvaluation(asked))
            assert (summary.digest, summary.episodes) == (evaluation.digest, evaluation.total_episodes)

        created = await raising(scheduler.CreateSweep(sweep_request("new", 2, parallel=2)))
        assert (await finished_sweep(scheduler, created.sweep.name)).trials.succeeded == 2
    await host.stop()
